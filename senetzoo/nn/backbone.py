"""A network without its head, as detectors and segmenters take it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn
from typing_extensions import Self

from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.maps import FeatureInfo, FeatureInfos
from senetzoo.nn.slots import Slots
from senetzoo.nn.trunk import Trunk


class Backbone(Trunk):
    """The maps of a network, without its head: a list of (N, C, h, w) from images (N, C, H, W).

    Its tensors are those of the network before its head, under their names: its `state_dict` is a
    part of the network's. What runs after the last map that is asked for is left out too, so that
    every parameter gets a gradient. Modules and tensors are shared with `network`, which is not
    changed; attach gates to the network before.

    Args:
        network: A network of this zoo, as `create` and `load` give it.
        out_indices: Which maps of `Classifier.feature_info`, from 0, or from the end; None for
            all. They come in the order of the stages.
        output_stride: Largest stride of a map, of those that the network has. Later convolutions
            keep the size of their maps, and are dilated instead (DeepLab, arXiv:1606.00915,
            Section 3.1), in a copy of the network. None for the network's own strides.

    Raises:
        ConfigError: The network has no such map or stride, or is made smaller by something else
            than convolutions.
    """

    def __init__(
        self,
        network: Classifier,
        out_indices: Sequence[int] | None = None,
        output_stride: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, Classifier):
            raise ConfigError(
                f"Backbone got a {type(network).__name__}.",
                "It takes a network of this zoo.",
                'Type for example: Backbone(create("resnet50", pretrained=True))',
            )
        known = network.feature_info
        if output_stride is not None:
            network, known = _dilated(network, output_stride)
        self.out_indices = _checked(out_indices, len(known))
        self.layout = network.layout
        self.feature_info = FeatureInfos(known[index] for index in self.out_indices)
        self._paths = network._paths[: self.out_indices[-1] + 1]
        paths = [path for level in self._paths for path in level]
        for name, child in network.named_children():
            if (kept := _without_others(child, name, paths)) is not None:
                self.add_module(name, kept)
        self._frozen: tuple[nn.Module, ...] = ()

    def forward(self, x: Tensor) -> list[Tensor]:
        return [found for index, found in enumerate(self._maps(x)) if index in self.out_indices]

    feature_maps = forward

    def freeze(self, stages: int) -> None:
        """Let the stem and so many stages learn nothing, for all later calls of ``train()`` too.

        Their batch norms stay in eval mode, as in the detectors of the literature; other calls
        before are undone.

        Raises:
            ConfigError: It has fewer stages.
        """
        if type(stages) is not int or not 0 <= stages <= len(self._paths):
            raise ConfigError(
                f"freeze got stages={stages!r}.",
                f"The backbone has {len(self._paths)} stages.",
                "Type for example: backbone.freeze(1)",
            )
        self.requires_grad_(True)
        self._frozen = tuple(part for level in range(stages) for part in self._running(level))
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in getattr(self, "_frozen", ()):
            part.eval()
        return self


def _checked(indices: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The maps that are asked for, of `count`, in their order."""
    if not count:
        raise ConfigError(
            "The network has no feature maps to give.",
            "Of a network of one's own only the logits are known.",
            "",
        )
    asked = range(count) if indices is None else indices
    valid = (
        not isinstance(asked, (str, int))
        and len(asked)
        and all(type(index) is int and -count <= index < count for index in asked)
    )
    if not valid:
        raise ConfigError(
            f"The network has no maps out_indices={indices!r}.",
            f"It has {count}, one after each stage: 0 to {count - 1}.",
            f"Type for example: out_indices={tuple(range(count))[-3:]}",
        )
    return tuple(sorted({index % count for index in asked}))


def _without_others(module: nn.Module, path: str, paths: Iterable[str]) -> nn.Module | None:
    """`module`, which has this path, or a copy of it without what has none of `paths`; or None."""
    if path in paths:
        return module
    if not any(other.startswith(f"{path}.") for other in paths):
        return None
    kept = copy.copy(module)
    kept._modules = {}
    for name, child in module._modules.items():
        if child is not None and (part := _without_others(child, f"{path}.{name}", paths)):
            kept._modules[name] = part
    return kept


def _dilated(network: Classifier, stride: int) -> tuple[Classifier, FeatureInfos]:
    """A copy of `network` whose maps have at most this stride, and what they are."""
    known = network.feature_info
    if stride not in known.reduction():
        raise ConfigError(
            f"Backbone got output_stride={stride!r}.",
            f"The strides of its maps are {', '.join(map(str, known.reduction()))}.",
            f"Type for example: output_stride={known[len(known) // 2].stride}",
        )
    network = copy.deepcopy(network)
    before = after = 1
    for level, info in enumerate(known):
        if info.stride <= stride:
            continue
        before, after = after, info.stride // stride
        strided = False
        for module in _outside_slots(network._running(level)):
            if not isinstance(module, nn.Conv2d):
                if getattr(module, "stride", 1) not in (1, (1, 1)):
                    raise ConfigError(
                        f"{network.family} got output_stride={stride}.",
                        f"A {type(module).__name__} makes its maps smaller, and can't be dilated.",
                        "Leave output_stride out, or take a network of the ResNet line",
                    )
                continue
            strides = module.stride != (1, 1)
            strided = strided or strides
            # What made the map smaller looks at the pixels that it looked at; what follows, too.
            dilation = after if strided and not strides else before
            module.stride, module.dilation = (1, 1), (dilation, dilation)
            if not isinstance(module.padding, str):
                module.padding = tuple(dilation * side for side in module.padding)
    infos = (FeatureInfo(min(info.stride, stride), info.channels) for info in known)
    return network, FeatureInfos(infos)


def _outside_slots(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """All modules in these, in order, but those of gates."""
    for module in modules:
        if not isinstance(module, Slots):
            yield module
            yield from _outside_slots(module.children())
