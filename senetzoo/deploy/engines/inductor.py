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
    # On a GPU all threads share the memory of a CUDA graph's output.
    running = nullcontext() if on_cpu else threading.Lock()

    def run(images: Tensor) -> Tensor:
        number = len(images)
        with torch.inference_mode(False):
            # Dynamo would recompile for a tensor created in inference mode; this shares memory.
            images = from_dlpack(images) if images.is_inference() else images
            placed = request.placed(images)
        if number not in by_number:
            # Inductor's settings and its count of compilations are global to the process.
            with torch.inference_mode(), PROCESS:
                if number not in by_number:
                    by_number[number] = _compiled(module, placed, on_cpu=on_cpu)
        # A copy, because CUDA graphs write each batch's logits to the same memory; outside of
        # inference mode, so that it is a normal tensor.
        with running:
            with torch.inference_mode():
                logits = by_number[number](placed)
            return logits.to(torch.float32, copy=True)

    return run


def _compiled(module: nn.Module, images: Tensor, *, on_cpu: bool) -> Callable[[Tensor], Tensor]:
    """Compile the module for this batch size, by running it once.

    Raises:
        ConfigError: Inductor can't compile it.
    """
    from torch._inductor import config

    def forward(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits

    # Dynamo counts compilations per code object, and after eight silently runs the rest eagerly.
    # So each network and batch size gets its own code object, and fullgraph=True turns any such
    # case that is left into an error.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    mode = None if on_cpu else "max-autotune"
    compiled: Callable[[Tensor], Tensor] = torch.compile(
        own, dynamic=False, fullgraph=True, mode=mode
    )
    # With frozen weights it folds batch norms and packs convolutions. As an option of
    # torch.compile, freezing is silently ignored (torch 2.13).
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
