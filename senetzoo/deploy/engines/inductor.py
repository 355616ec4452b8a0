"""torch.compile's inductor: frozen weights on the CPU, CUDA graphs on a GPU."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from senetzoo.deploy.engines.common import LAYOUTS, Engine, Request, Runner, emulated, refused
from senetzoo.errors import SenetzooError


def _start(request: Request) -> Runner:
    module = request.prepared()
    by_number: dict[int, Callable[[Tensor], Tensor]] = {}

    def run(images: Tensor) -> Tensor:
        number = len(images)
        with torch.inference_mode(False):
            # Dynamo would compile again for a tensor made in inference mode; this shares memory.
            images = from_dlpack(images) if images.is_inference() else images
            placed = request.placed(images)
        with torch.inference_mode():
            if number in by_number:
                logits = by_number[number](placed)
            else:
                compiled = _compiled(module, request.sample.device)
                try:
                    with _frozen(request.sample.device):
                        logits = compiled(placed)
                except SenetzooError:
                    raise
                except Exception as error:
                    raise refused("inductor", error) from error
                by_number[number] = compiled
        # A copy: CUDA graphs write each batch's logits to the same place. And out of inference
        # mode, so that it is a tensor like any other.
        return logits.to(torch.float32, copy=True)

    return run


def _compiled(module: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits

    # Dynamo counts what it compiled by code object, and past eight of one runs the rest eagerly
    # without a word. Each network and number of images gets a code object of its own, and
    # fullgraph=True makes what is left of such cases an error.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    if device.type == "cpu":
        compiled: Callable[[Tensor], Tensor] = torch.compile(own, dynamic=False, fullgraph=True)
    else:
        compiled = torch.compile(own, dynamic=False, fullgraph=True, mode="max-autotune")
    return compiled


def _frozen(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """While it compiles: frozen weights, of which it folds batch norms and packs convolutions.

    As an option of torch.compile, freezing is taken without a word and not heeded (torch 2.13).
    """
    from torch._inductor import config

    frozen: contextlib.AbstractContextManager[object] = config.patch(freezing=device.type == "cpu")
    return frozen


def _lacks(device: torch.device) -> tuple[str, str]:
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception:
            return (
                "It compiles C++, and there is no C++ compiler.",
                "Install g++ or clang, or name it in the variable CXX",
            )
    elif not _has_triton():
        return "It compiles with Triton, which is not installed.", "Type: pip install triton"
    return "", ""


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


INDUCTOR = Engine(
    "inductor",
    dtypes=("fp32", "bf16"),
    layouts=LAYOUTS,
    devices=("cpu", "cuda"),
    start=_start,
    lacks=_lacks,
    caveat=emulated,
)
