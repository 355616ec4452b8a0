"""A network without its head, for detectors and segmenters."""

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
    """A network without its head: images (N, C, H, W) in, a list of maps (N, C, h, w) out.

    Parameters keep their names, so its `state_dict` is a subset of the network's. Layers after the
    last requested map are left out too, so every parameter gets a gradient. Modules and tensors
    are shared with `network`, which isn't changed; attach gates before you build the backbone.

    Args:
        network: A network of this zoo, made by `create` or `load`.
        out_indices: Indices into `Classifier.feature_info`, negative ones from the end; None for
            all maps. The maps come in the order of the stages.
        output_stride: Largest stride of the maps; must be the stride of one of them. Later
            convolutions keep the resolution and are dilated instead (DeepLab, arXiv:1606.00915,
            Section 3.1), in a copy of the network. None for the network's own strides.

    Raises:
        ConfigError: The network has no such map or stride, or it downsamples with something other
            than a convolution with an odd kernel.
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
        """Freeze the stem and the first `stages` stages; later calls of ``train()`` keep that.

        Their batch norms stay in eval mode, as is usual in detectors. Each call replaces the
        previous one: ``freeze(0)`` unfreezes everything.

        Raises:
            ConfigError: The backbone has fewer stages.
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
    """The requested indices, out of `count`, checked and sorted."""
    if not count:
        raise ConfigError(
            "The network has no feature maps.",
            "For a network of your own, only the logits are available.",
            "",
        )
    asked = range(count) if indices is None else indices
    valid = (
        isinstance(asked, Sequence)
        and len(asked)
        and all(type(index) is int and -count <= index < count for index in asked)
        and len({index % count for index in asked}) == len(asked)
    )
    if not valid:
        raise ConfigError(
            f"Backbone got out_indices={indices!r}.",
            f"The network has {count} maps, one after each stage: 0 to {count - 1}, or negative "
            "from the end, each once.",
            f"Type for example: out_indices={tuple(range(count))[-3:]}",
        )
    return tuple(sorted(index % count for index in asked))


def _without_others(module: nn.Module, path: str, paths: Iterable[str]) -> nn.Module | None:
    """`module` at `path`, or a copy without the submodules not in `paths`; None if none is."""
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
    """A copy of `network` whose maps have at most this stride, with their `FeatureInfos`."""
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
            strides = getattr(module, "stride", 1) not in (1, (1, 1))
            conv = module if isinstance(module, nn.Conv2d) else None
            # Without its stride, a convolution with an even kernel changes the size of the map.
            if strides and (conv is None or any(side % 2 == 0 for side in conv.kernel_size)):
                kind = type(module).__name__ + (" with an even kernel" if conv else "")
                raise ConfigError(
                    f"{network.family} got output_stride={stride}.",
                    f"A {kind} downsamples its maps and can't be dilated.",
                    "Leave out output_stride, or use a ResNet",
                )
            if conv is None:
                continue
            strided = strided or strides
            # The formerly strided convolution keeps its pixels; those after it are spread out.
            dilation = after if strided and not strides else before
            conv.stride = (1, 1)
            conv.dilation = tuple(dilation * step for step in conv.dilation)
            if not isinstance(conv.padding, str):
                conv.padding = tuple(dilation * side for side in conv.padding)
    infos = (FeatureInfo(min(info.stride, stride), info.channels) for info in known)
    return network, FeatureInfos(infos)


def _outside_slots(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """All submodules in order, except those of gates."""
    for module in modules:
        if not isinstance(module, Slots):
            yield module
            yield from _outside_slots(module.children())
