"""Computing a part of a network again in the backward pass instead of keeping its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(owner: nn.Module, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept for the backward pass.

    The backward pass runs `function` again. Batch norms in training mode gather their running
    statistics in the first run only, so that these are the same as without.

    Args:
        owner: Module that has every batch norm that `function` runs.
        function: Computes a tensor; the random draws of both runs are the same.
        inputs: Its arguments.
    """
    if torch.compiler.is_compiling():
        # The compiled graph writes the statistics once, and takes no such contexts.
        return checkpoint(function, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
    return checkpoint(  # type: ignore[no-any-return]
        function, *inputs, use_reentrant=False, context_fn=partial(_contexts, owner)
    )


def _contexts(
    owner: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Those of the first and of the second run."""
    return nullcontext(), _without_statistics(owner)


@contextmanager
def _without_statistics(owner: nn.Module) -> Iterator[None]:
    norms = [module for module in owner.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # The new batch has no weight in the average, and is not counted. Without the statistics
        # the norm would keep other tensors than in the first run.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
