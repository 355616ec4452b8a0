"""Networks that are a plain sequence of convolutions, such as AlexNet and VGG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.init import init_convs
from senetzoo.nn.slots import Slots, chain


class Unit(NamedTuple):
    """A convolution with the layers up to the next one.

    Args:
        conv: The convolution.
        norm: Norm between the convolution and its ReLU.
        after: Layers after the ReLU: local response norm, pooling.
    """

    conv: nn.Conv2d
    norm: nn.Module | None = None
    after: tuple[nn.Module, ...] = ()


class ConvStack(Classifier):
    """A network whose layers before the head are numbered in its child ``features``.

    Each convolution is a block, with its gate right after the ReLU. The slots are siblings of
    ``features`` (``slots2.0`` for the first convolution of the second stage), which keeps
    torchvision's numbers. A subclass adds ``avgpool`` and ``classifier``.

    Args:
        config: The config.
        stages: The units of each stage.
        strides: Input pixels per pixel of the map after each stage.
    """

    avgpool: nn.AdaptiveAvgPool2d
    classifier: nn.Sequential

    def __init__(
        self, config: Config, stages: Sequence[Sequence[Unit]], strides: Sequence[int]
    ) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        levels = []
        for number, units in enumerate(stages, 1):
            slots, level = nn.ModuleList(), list[str]()
            for conv, norm, after in units:
                home, start = f"slots{number}.{len(slots)}", len(layers)
                layers += [conv, *([] if norm is None else [norm]), nn.ReLU(inplace=True)]
                active = len(layers)
                layers += after
                paths = [f"features.{index}" for index in range(start, len(layers))]
                paths.insert(active - start, f"{home}.standard")
                level += [f"{home}.pre", *paths]
                slots.append(Slots({"pre": conv.in_channels, "standard": conv.out_channels}))
            levels.append(level)
            self.add_module(f"slots{number}", slots)
        self.features = nn.Sequential(*layers)
        self.set_levels(levels, strides, [units[-1].conv.out_channels for units in stages])

    def initialize(self) -> None:
        """He initialization, which trains at any depth; linear layers as in the papers."""
        init_convs(self, "fan_out")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        slots = (self.get_submodule(f"slots{n}") for n in range(1, len(self.feature_info) + 1))
        return tuple(tuple(stage.children()) for stage in slots)

    def pre_logits(self, features: Tensor) -> Tensor:
        return chain(*list(self.classifier)[:-1])(self.avgpool(features).flatten(1))

    def classifiers(self) -> tuple[str, ...]:
        return (f"classifier.{len(self.classifier) - 1}",)

    def input_parameter(self) -> str:
        return "features.0.weight"


def local_response_norm() -> nn.LocalResponseNorm:
    """The norm of AlexNet (Krizhevsky et al. 2012, Section 3.3) and of VGG's A-LRN.

    As in Caffe and pytorchcv, the sum of the squares is divided by the size of the window, unlike
    the formula in the paper.
    """
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)


def dropout(rate: float) -> nn.Module:
    """Dropout; an identity for rate 0, so that later layers of a sequence keep their numbers."""
    return nn.Dropout(rate) if rate else nn.Identity()
