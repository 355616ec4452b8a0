"""The optimizers, and which parameters they treat how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from senetzoo._utils.torchvision import torchvision
from senetzoo.errors import MissingExtraError
from senetzoo.train.recipe import Recipe


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized, for convolutions; Nesterov SGD for everything else.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers", in the form for convolutional
    networks with batch norm: each filter bank (C_out, C_in * k * k) is scaled to the norm
    sqrt(C_out) before it moves, so the learning rate is the relative size of a step. torch's own
    `torch.optim.Muon` takes matrices only and has no such scaling.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "muon": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if group["weight_decay"] and not group["muon"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradient)
                buffer = state["momentum"].mul_(momentum).add_(gradient)
                update = gradient.add(buffer, alpha=momentum)
                if group["muon"]:
                    update = orthogonalize(update.flatten(1)).view(update.shape)
                    parameter.mul_(parameter.shape[0] ** 0.5 / parameter.norm().clamp_min(1e-12))
                parameter.add_(update, alpha=-group["lr"])


def orthogonalize(matrix: Tensor, steps: int = 4) -> Tensor:
    """`matrix` (M, N) with its singular values moved towards 1, its singular vectors kept.

    The quintic Newton-Schulz iteration with the coefficients of Jordan et al.; the values end
    between about 0.7 and 1.2, which is near enough.
    """
    x = matrix / matrix.norm().clamp_min(1e-7)
    wide = x.shape[0] <= x.shape[1]
    if not wide:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    result: Tensor = x if wide else x.T
    return result


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of `recipe`; each group has its peak learning rate as ``peak``.

    Norms, biases and gates have no weight decay; Muon trains the convolutions but the first.
    """
    decay, plain, convolutions = [], [], []
    for name, parameter in model.named_parameters():
        gate = ".slots" in name or name.startswith("slots")
        # Swin's table of position biases is a matrix.
        bias = "bias" in name.rpartition(".")[2]
        if gate or bias or parameter.ndim < 2:
            plain.append(parameter)
        # The first layer sees raw pixels, of few channels: SGD does better there.
        elif recipe.optimizer == "muon" and parameter.ndim == 4 and parameter.shape[1] > 4:
            convolutions.append(parameter)
        else:
            decay.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": rate, "peak": recipe.lr}
        for parameters, rate in ((decay, recipe.weight_decay), (plain, 0.0))
        if parameters
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    if recipe.optimizer == "lamb":
        try:
            torchvision()  # which timm imports
            from timm.optim.lamb import Lamb
        except ImportError:
            raise MissingExtraError("The optimizer LAMB", "timm", "train") from None
        # timm clips the norm of all gradients at 1, as the paper's recipes do.
        return cast(torch.optim.Optimizer, Lamb(groups, lr=recipe.lr))
    conv = {
        "params": convolutions,
        "muon": True,
        "lr": recipe.muon_lr,
        "peak": recipe.muon_lr,
        "momentum": recipe.muon_momentum,
    }
    return Muon([*groups, conv], lr=recipe.lr, momentum=recipe.momentum)
