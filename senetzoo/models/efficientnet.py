"""EfficientNet.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(arXiv:1905.11946), Table 1: efficientnet_b0. Its Squeeze-and-Excitation is the network's default
policy, so that it can be moved, exchanged or left out.

Child names are torchvision's. Inside a block the number of torchvision's SE stays free, and the
gate of the default policy sits at ``slots.inner`` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from torch import Tensor, nn

from senetzoo._utils.checks import Rate
from senetzoo.models.family import Family, Paper
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.init import init_separable
from senetzoo.nn.slots import Position, Slots, residual, unit

STEM_WIDTH = 32
HEAD_WIDTH = 1280

# Table 1, stages 2 to 8: (expansion, kernel, stride of the first block, channels, blocks).
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

# Hidden units for a quarter of the block's input: of what is squeezed, the expanded channels,
# that is a quarter where the expansion is 1 and a 24th where it is 6.
SE_POLICY = "se4(act=silu)@inner/s1+se24(act=silu)@inner/~s1"


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(Config):
    """An EfficientNet-B0. Dropout and stochastic depth are the paper's (Section 5.2).

    The rate of stochastic depth rises to `drop_path` at the last block, as everywhere here; in
    torchvision and the authors' code it would get there one block later.

    ``stem="cifar"`` is a form for 32x32 pixels: the stem and the second stage have stride 1, so
    that the last map is 4x4.
    """

    dropout: Rate = 0.2
    drop_path: Rate = 0.2

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the stem and of each stage's first block."""
        strides = (2, *(stride for _, _, stride, _, _ in STAGES))
        return (1, 1, 1, *strides[3:]) if self.small else strides

    def build(self) -> EfficientNet:
        return EfficientNet(self)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        *([nn.SiLU()] if act else []),
    )


class MBConv(nn.Module):
    """Inverted residual: 1x1 to more channels, depthwise, 1x1 to fewer, which stays linear.

    A block that changes the shape has no skip, and so no positions ``post`` and ``identity``.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop_path: float
    ) -> None:
        super().__init__()
        width = inputs * expansion
        layers = [_conv(inputs, width, 1)] if expansion > 1 else []
        layers.append(_conv(width, width, kernel, stride, groups=width))
        self.block = nn.ModuleDict({str(index): layer for index, layer in enumerate(layers)})
        # After the number that torchvision's SE has.
        self.block[str(len(layers) + 1)] = _conv(width, outputs, 1, act=False)
        self.skip = stride == 1 and inputs == outputs
        self.drop_path = DropPath(drop_path) if self.skip and drop_path else None
        channels: dict[Position, int] = {"pre": inputs, "standard": outputs}
        if self.skip:
            channels |= {"post": outputs, "identity": outputs}
        self.slots = Slots({**channels, "inner": width})

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions."""
        *convs, project = self.block.values()
        for conv in convs:
            x = conv(x)
        return project(self.slots.at("inner", x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        if self.skip:
            return residual(x, self.slots, self.branch, drop_path=self.drop_path)
        return unit(x, self.slots, self.branch)


class EfficientNet(Classifier):
    """EfficientNet: built by `EfficientNetConfig.build`."""

    head_name = "classifier.1"
    _config: EfficientNetConfig

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__(config)
        stem_stride, *strides = config.strides
        layers = [_conv(config.in_chans, STEM_WIDTH, 3, stem_stride)]
        inputs = STEM_WIDTH
        rates = linear_rates(config.drop_path, [depth for *_, depth in STAGES])
        for first, drop_paths, row in zip(strides, rates, STAGES, strict=True):
            expansion, kernel, _, width, _ = row
            stage = nn.Sequential()
            for index, drop_path in enumerate(drop_paths):
                stride = 1 if index else first
                stage.append(MBConv(inputs, width, kernel, stride, expansion, drop_path))
                inputs = width
            layers.append(stage)
        layers.append(_conv(inputs, HEAD_WIDTH, 1))
        self.features = nn.Sequential(*layers)
        levels = [[f"features.{index + 1}"] for index in range(len(STAGES))]
        levels[0].insert(0, "features.0")
        levels[-1].append(f"features.{len(layers) - 1}")
        widths = [*(width for *_, width, _ in STAGES[:-1]), HEAD_WIDTH]
        self.set_levels(levels, [*accumulate(config.strides, mul)][1:], widths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout) if config.dropout else nn.Identity(),
            nn.Linear(HEAD_WIDTH, config.num_classes),
        )
        init_separable(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.avgpool(features).flatten(1))  # type: ignore[no-any-return]


TAN_2019 = Paper(
    "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    2019,
    "https://arxiv.org/abs/1905.11946",
)

FAMILY = Family(
    title="EfficientNet",
    papers={"*": TAN_2019},
    small="The stem and the second stage have stride 1: 4x4 before the pool.",
    networks={"efficientnet_b0": EfficientNetConfig()},
    defaults={"efficientnet_b0": SE_POLICY},
)
