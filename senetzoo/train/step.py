"""One optimizer step and its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo.nn.classifier import Classifier
from senetzoo.train.batches import Batch
from senetzoo.train.recipe import Recipe


def depths(model: Classifier) -> dict[str, list[int]]:
    """The learnable parameters by depth, as indices into ``model.parameters()``.

    Returns:
        ``stem``, ``stage 1`` ..., ``head``, without empty ones. Parameters between two stages
        belong to the earlier one; those after the last stage belong to the head.
    """
    stages = model.stages()
    parameters = list(model.named_parameters())
    of = {
        id(parameter): stage
        for stage, blocks in enumerate(stages, 1)
        for block in blocks
        for parameter in block.parameters()
    }
    trunk = [(index, p) for index, (name, p) in enumerate(parameters) if "slots" not in name]
    if stages and not any(id(parameter) in of for _, parameter in trunk):
        # LeNet, AlexNet, VGG: blocks only hold slots, and the network holds the convolutions.
        of |= _convolutions([p for _, p in trunk], [len(blocks) for blocks in stages])
    heads = set(model.classifier_parameters())
    names = ["stem", *(f"stage {stage}" for stage in range(1, len(stages) + 1)), "head"]
    found: dict[str, list[int]] = {name: [] for name in names}
    # Without gates, which come after the head in LeNet.
    last = max((index for index, p in trunk if id(p) in of), default=-1)
    depth = 0
    for index, (name, parameter) in enumerate(parameters):
        depth = of.get(id(parameter), depth)
        outside = id(parameter) not in of and (name in heads or index > last)
        found["head" if outside else names[depth]].append(index)
    return {name: indices for name, indices in found.items() if indices}


def _convolutions(trunk: list[nn.Parameter], blocks: list[int]) -> dict[int, int]:
    """Stage of each parameter by id, if each convolution, with its norm, is a block."""
    of_block = [stage for stage, count in enumerate(blocks, 1) for _ in range(count)]
    found, passed = {}, 0
    for parameter in trunk:
        if parameter.ndim == 2:
            break
        passed += parameter.ndim == 4
        if passed:
            found[id(parameter)] = of_block[passed - 1]
    return found


@dataclass
class Sums:
    """Sums over the steps of an epoch in one process; part of a checkpoint.

    Args:
        loss: Sum of the mean loss of each step.
        right: Number of correctly classified images.
        norms: Sum of the L2 norms of the gradient, by depth.
        steps: Number of steps.
        train: Seconds spent in steps.
        data: Seconds spent waiting for images.
        left_out: Number of images that couldn't be read.
    """

    loss: Tensor
    right: Tensor
    norms: Tensor
    steps: int = 0
    train: float = 0.0
    data: float = 0.0
    left_out: int = 0

    @classmethod
    def zero(cls, depths: int, device: torch.device) -> Sums:
        """Sums before the first step."""
        loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
        return cls(loss, right, torch.zeros(depths, device=device))

    def finite(self) -> bool:
        """Whether loss and gradients were finite so far; synchronizes with the device."""
        return bool(torch.isfinite(self.loss) & torch.isfinite(self.norms).all())


class Step:
    """Forward, backward and update; `weights` (classes,) are the weights of classes in the loss."""

    def __init__(
        self,
        accelerator: Any,
        network: Any,
        model: Classifier,
        optimizer: Any,
        recipe: Recipe,
        weights: Tensor | None = None,
    ) -> None:
        self._weights = weights
        self._accelerator, self._network = accelerator, network
        self._optimizer, self._recipe = optimizer, recipe
        self._parameters = list(model.parameters())
        self.depths = depths(model)
        rows = torch.empty(len(self._parameters), dtype=torch.long)
        for row, indices in enumerate(self.depths.values()):
            rows[indices] = row
        self._rows = rows.to(accelerator.device)

    def __call__(self, batch: Batch, sums: Sums) -> None:
        """Take a step and add its statistics to `sums`."""
        parts = self._recipe.accumulate
        size = len(batch.x) // parts
        for part in range(parts):
            rows = slice(part * size, (part + 1) * size)
            with self._accelerator.accumulate(self._network):
                logits = self._network(batch.x[rows])
                loss = loss_of(logits, batch.target[rows], self._recipe, self._weights)
                self._accelerator.backward(loss)
                if part == parts - 1:
                    sums.norms += self._norms()
                self._optimizer.step()
                self._optimizer.zero_grad()
            sums.loss += loss.detach() / parts
            sums.right += (logits.detach().argmax(1) == batch.labels[rows]).sum()
        sums.steps += 1

    def _norms(self) -> Tensor:
        """L2 norm by depth of the gradient, which is averaged over all processes."""
        self._accelerator.unscale_gradients(self._optimizer)
        gradients = [
            parameter.new_zeros(()) if parameter.grad is None else parameter.grad
            for parameter in self._parameters
        ]
        each = torch.stack(torch._foreach_norm(gradients)).float()
        squares = torch.zeros(len(self.depths), device=each.device)
        norms = squares.index_add_(0, self._rows, each.square()).sqrt()
        # With fp16, the scaler skips a step whose gradients overflow.
        return norms.nan_to_num(0.0, 0.0, 0.0) if self._recipe.precision == "fp16" else norms


def loss_of(
    logits: Tensor, target: Tensor, recipe: Recipe, weights: Tensor | None = None
) -> Tensor:
    """The mean loss of a batch; `weights` (classes,) are the weights of classes."""
    smooth, classes = recipe.label_smoothing, logits.shape[1]
    if recipe.loss == "cross-entropy":
        return F.cross_entropy(logits, target, weights, label_smoothing=smooth)
    if target.ndim == 1:
        target = F.one_hot(target, classes)
    present = (target > 0).to(logits.dtype) * (1.0 - smooth) + smooth / classes
    return F.binary_cross_entropy_with_logits(logits, present)
