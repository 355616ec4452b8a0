"""Activation checkpointing that leaves the statistics of batch norms right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(owner: nn.Module, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, keeping only the inputs for the backward pass.

    The backward pass runs `function` again, with the same random numbers. Batch norms in training
    mode update their running statistics in the first run only, as without checkpointing; `owner`
    contains them all.
    """
    if torch.compiler.is_compiling():
        # The compiled graph updates the statistics once, and doesn't support context_fn.
        return checkpoint(function, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
    return checkpoint(  # type: ignore[no-any-return]
        function,
        *inputs,
        use_reentrant=False,
        # The context managers of the first and of the second run.
        context_fn=lambda: (nullcontext(), _without_statistics(owner)),
    )


@contextmanager
def _without_statistics(owner: nn.Module) -> Iterator[None]:
    norms = [module for module in owner.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # The batch gets no weight in the average and isn't counted. Taking the statistics away
        # would make the norm save other tensors than in the first run.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
