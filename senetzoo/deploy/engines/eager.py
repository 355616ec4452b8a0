"""Eager torch: one kernel after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from senetzoo.deploy.engines.common import LAYOUTS, Engine, Request, Runner, emulated


def _start(request: Request) -> Runner:
    module = request.prepared()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(request.placed(images))
        # Outside of inference mode, so that the result is a normal tensor.
        return logits.to(torch.float32, copy=True)

    return run


EAGER = Engine(
    "eager",
    dtypes=("fp32", "bf16"),
    layouts=LAYOUTS,
    devices=("cpu", "cuda", "mps"),
    start=_start,
    caveat=emulated,
    operators=True,
    fixed_size=False,
)
