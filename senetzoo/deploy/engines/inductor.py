"""torch.compile's inductor: frozen weights on the CPU, CUDA graphs on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from senetzoo._utils.environment import PROCESS, compiler_missing
from senetzoo.deploy.engines.common import LAYOUTS, Engine, Request, Runner, emulated, refusing


def _start(request: Request) -> Runner:
    module, on_cpu = request.prepared(), request.sample.device.type == "cpu"
    by_number: dict[int, Callable[[Tensor], Tensor]] = {}
    # On a GPU that place is of all threads.
    running = nullcontext() if on_cpu else threading.Lock()

    def run(images: Tensor) -> Tensor:
        number = len(images)
        with torch.inference_mode(False):
            # Dynamo would compile again for a tensor made in inference mode; this shares memory.
            images = from_dlpack(images) if images.is_inference() else images
            placed = request.placed(images)
        if number not in by_number:
            # Inductor's settings and its count of compilations are of the process.
            with torch.inference_mode(), PROCESS:
                if number not in by_number:
                    by_number[number] = _compiled(module, placed, on_cpu=on_cpu)
        # A copy: CUDA graphs write each batch's logits to the same place. And out of inference
        # mode, so that it is a tensor like any other.
        with running:
            with torch.inference_mode():
                logits = by_number[number](placed)
            return logits.to(torch.float32, copy=True)

    return run


def _compiled(module: nn.Module, images: Tensor, *, on_cpu: bool) -> Callable[[Tensor], Tensor]:
    """The module for this number of images; it has run once, which compiles it.

    Raises:
        ConfigError: Inductor can't compile it.
    """
    from torch._inductor import config

    def forward(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits

    # Dynamo counts what it compiled by code object, and past eight of one runs the rest eagerly
    # without a word. Each network and number of images gets a code object of its own, and
    # fullgraph=True makes what is left of such cases an error.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    mode = None if on_cpu else "max-autotune"
    compiled: Callable[[Tensor], Tensor] = torch.compile(
        own, dynamic=False, fullgraph=True, mode=mode
    )
    # Frozen weights: it folds batch norms and packs convolutions. As an option of torch.compile,
    # freezing is taken without a word and not heeded (torch 2.13).
    with refusing("inductor"), config.patch(freezing=on_cpu):
        compiled(images)
    return compiled


INDUCTOR = Engine(
    "inductor",
    dtypes=("fp32", "bf16"),
    layouts=LAYOUTS,
    devices=("cpu", "cuda"),
    start=_start,
    lacks=compiler_missing,
    caveat=emulated,
    operators=True,
)
