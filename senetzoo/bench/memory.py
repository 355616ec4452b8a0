"""The most memory that a network holds at once for a batch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from senetzoo.bench.device import synchronize
from senetzoo.deploy.engines.common import TORCH_DTYPES

if TYPE_CHECKING:
    from senetzoo.bench.timing import Form
    from senetzoo.deploy.engines import Runner

MEASURED = (
    "parameters, buffers and images, plus the most that torch's allocator held at once for one "
    "forward pass; - where memory is not allocated through it"
)
# Where activations are torch's tensors, made and freed in each forward pass.
_WITH_TORCH = (("eager", "cpu"), ("eager", "cuda"), ("inductor", "cpu"))


def peak_bytes(module: nn.Module, run: Runner, images: Tensor, form: Form) -> int | None:
    """Bytes of the parameters and buffers, of the images, and of what one forward pass takes.

    What libraries allocate by themselves (oneDNN's scratchpads and packed weights, the CUDA
    context) is not in it. The growth of the process would tell of these, but not whose they are:
    all subjects share one process.

    Args:
        module: What `run` was loaded from.
        run: Computes its logits.
        images: A batch.
        form: How it runs.

    Returns:
        None where it can't be told: on MPS, whose allocator keeps no peak; of inductor on a GPU,
        whose CUDA graphs hold on to their memory; of engines with an allocator of their own.
    """
    if (form.engine, images.device.type) not in _WITH_TORCH:
        return None
    # An engine's copy has all floating point tensors in the form's dtype.
    itemsize = TORCH_DTYPES[form.dtype].itemsize
    stored = sum(
        tensor.numel() * (itemsize if tensor.is_floating_point() else tensor.itemsize)
        for tensor in (*module.parameters(), *module.buffers())
    )
    return stored + images.nbytes + _forward_peak(run, images)


def _forward_peak(run: Runner, images: Tensor) -> int:
    """Measure the most bytes that one forward pass holds at once, beyond weights and images."""
    device = images.device
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run(images)
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    # Some builds of torch print kineto's trace points on stderr, into the table.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run(images)
    result = recorded.profiler and recorded.profiler.kineto_results
    if not result:
        raise RuntimeError("torch's profiler recorded nothing")
    held = peak = 0
    events = [event for event in result.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
