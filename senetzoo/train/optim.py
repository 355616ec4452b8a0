"""The optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from senetzoo._utils.torchvision import import_torchvision
from senetzoo.errors import ConfigError, MissingExtraError
from senetzoo.nn.classifier import Classifier
from senetzoo.train.recipe import Recipe
from senetzoo.train.step import depths


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum for convolutions, Nesterov SGD for everything else.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers", in the variant for convolutional
    networks with batch norm: each filter bank (C_out, C_in * k * k) is scaled to the norm
    sqrt(C_out) before its update, so the learning rate is the relative step size.
    `torch.optim.Muon` only supports matrices and has no such scaling.
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
        """Perform one update."""
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
    """Move the singular values of `matrix` (M, N) toward 1, keeping its singular vectors.

    The quintic Newton-Schulz iteration with the coefficients of Jordan et al.; the singular values
    end up between about 0.7 and 1.2, which is close enough.
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


def make_optimizer(
    model: Classifier, recipe: Recipe, fresh: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Make the optimizer of `recipe`; each group has its peak learning rate as ``peak``.

    Norms, biases, gates and layer scales have no weight decay. Muon trains the convolutions that
    read more than four channels, except those in gates: not the first one, nor depthwise ones.
    Frozen parameters are left out. `fresh` names the parameters that the initial weights don't
    cover.
    """
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    parts = _parts(model, recipe.layer_decay, fresh)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        gate = ".slots" in name or name.startswith("slots")
        # Swin's table of position biases is a matrix, and ConvNeXt's scale has three dimensions.
        last = name.rpartition(".")[2]
        bias = "bias" in last or last == "layer_scale"
        kind, rate = "decay", recipe.lr
        if gate or bias or parameter.ndim < 2:
            kind = "plain"
        # SGD is better for the first layer, which sees raw pixels with few channels.
        elif recipe.optimizer == "muon" and parameter.ndim == 4 and parameter.shape[1] > 4:
            kind, rate = "muon", recipe.muon_lr
        group = groups.setdefault((kind, parts[name]), {"params": [], "peak": rate * parts[name]})
        group["params"].append(parameter)
        if kind == "muon":
            group |= {"muon": True, "lr": group["peak"], "momentum": recipe.muon_momentum}
        else:
            group["weight_decay"] = recipe.weight_decay if kind == "decay" else 0.0
    order = ("decay", "plain", "muon")
    ordered = [groups[key] for key in sorted(groups, key=lambda key: order.index(key[0]))]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            ordered, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
    if recipe.optimizer == "adam":
        return torch.optim.Adam(ordered, lr=recipe.lr)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(ordered, lr=recipe.lr)
    if recipe.optimizer == "lamb":
        try:
            import_torchvision()  # which timm imports
            from timm.optim.lamb import Lamb
        except ImportError:
            raise MissingExtraError("The optimizer LAMB", "timm", "train") from None
        # timm clips the global gradient norm at 1, as the paper's recipes do.
        return cast(torch.optim.Optimizer, Lamb(ordered, lr=recipe.lr))
    return Muon(ordered, lr=recipe.lr, momentum=recipe.momentum)


def _parts(model: Classifier, decay: float, fresh: Collection[str]) -> dict[str, float]:
    """Factor on the learning rate of each parameter."""
    names = [name for name, _ in model.named_parameters()]
    parts = dict.fromkeys(names, 1.0)
    for distance, indices in enumerate(reversed(depths(model).values())):
        parts |= {names[i]: decay**distance for i in indices if names[i] not in fresh}
    return parts


def freeze(model: Classifier, recipe: Recipe, fresh: Collection[str] = ()) -> tuple[nn.Module, ...]:
    """Freeze the parameters that `recipe` freezes, except `fresh` ones, as in `make_optimizer`.

    Returns:
        The frozen batch norms, which must stay in eval mode.

    Raises:
        ConfigError: Nothing is left to train, or there are fewer stages.
    """
    if not recipe.freeze:
        return ()
    parameters, by_depth = list(model.named_parameters()), depths(model)
    stages = [part for part in by_depth if part.startswith("stage")]
    count = len(stages) if recipe.freeze == "trunk" else recipe.freeze
    if count > len(stages):
        raise ConfigError(
            f"The recipe got freeze={count}.",
            f"{recipe.model} has {len(stages)} stages.",
            "Type for example: --set freeze=trunk",
        )
    for part in {"stem", *stages[:count]} & by_depth.keys():
        for index in by_depth[part]:
            name, parameter = parameters[index]
            parameter.requires_grad_(name in fresh)
    if not any(parameter.requires_grad for _, parameter in parameters):
        raise ConfigError(f"The recipe got freeze={recipe.freeze!r}.", "Nothing is left to train.")
    return tuple(
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and not any(parameter.requires_grad for parameter in module.parameters())
    )
