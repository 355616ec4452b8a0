"""ResNet, ResNeXt, Wide ResNet and the CIFAR ResNets.

- He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385): Table 1 for
  ImageNet, Section 4.2 for CIFAR-10.
- Xie et al. 2016, "Aggregated Residual Transformations" (arXiv:1611.05431): ResNeXt.
- Zagoruyko and Komodakis 2016, "Wide Residual Networks" (arXiv:1605.07146): wide_resnet*.

Child names are torchvision's, so its state dicts load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, Paper
from senetzoo.nn.classifier import Classifier, FeatureInfo
from senetzoo.nn.config import Config, check_choice, check_count, check_depths
from senetzoo.nn.drop_path import DropPath
from senetzoo.nn.slots import Slots, TensorMap, residual
from senetzoo.nn.stem import as_stem, stem_convs


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Config):
    """A network of the ResNet line.

    Args:
        block: ``"basic"`` (two 3x3) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        depths: Blocks of each stage.
        width: Channels of the stem and of the first stage's 3x3; doubled at each later stage.
        groups: Groups of the bottleneck's 3x3 (ResNeXt's cardinality).
        group_width: Channels of one group in the first stage, for a `width` of 64.
        stride_on: Which convolution of the first bottleneck of a stage has stride 2: the 3x3
            (torchvision; Gross and Wilber's change, about half a point better) or the first 1x1
            (the paper, and the Caffe networks of the SE authors).
        pool: The stem's max pool: ``"padded"`` by 1 (torchvision), or ``"ceil"``: unpadded in
            ceil mode (Caffe).
        shortcut: Where the shape changes: ``"project"`` (the paper's option B, 1x1 convolution)
            or ``"pad"`` (option A: every second pixel, zeros for the new channels, no
            parameters).
    """

    any_stem: ClassVar[bool] = True

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    width: int = 64
    groups: int = 1
    group_width: int = 64
    stride_on: Literal["1x1", "3x3"] = "3x3"
    pool: Literal["padded", "ceil"] = "padded"
    shortcut: Literal["project", "pad"] = "project"

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "block": ("basic", "bottleneck"),
            "stride_on": ("1x1", "3x3"),
            "pool": ("padded", "ceil"),
            "shortcut": ("project", "pad"),
        }
        for field, allowed in choices.items():
            check_choice("ResNet", field, getattr(self, field), allowed)
        own = {"groups": 1, "group_width": 64, "stride_on": "3x3"}
        given = [f"{field}={getattr(self, field)!r}" for field in own]
        if self.block == "basic" and any(getattr(self, f) != value for f, value in own.items()):
            raise ConfigError(
                f"A basic block got {', '.join(given)}.",
                "Basic blocks have two ungrouped 3x3 convolutions and the stride on the first.",
                'Type for example: block="bottleneck"',
            )
        object.__setattr__(self, "depths", check_depths("depths", self.depths, (3, 4, 6, 3)))
        for field in ("width", "groups", "group_width"):
            check_count(field, getattr(self, field), 1 if field == "groups" else 64)
        if self.block == "bottleneck" and self.width * self.group_width < 64:
            raise ConfigError(
                f"width={self.width} with group_width={self.group_width} leaves no channels.",
                "A group of the first stage has width * group_width / 64 channels, at least 1.",
                "Type for example: width=64",
            )
        if int(self.width * min(as_stem(self.stem).widths)) < 1:
            raise ConfigError(
                f"width={self.width} with {self.stem!r} leaves no channels.",
                "The stem's convolutions have width times its widths channels, at least 1.",
                "Type for example: width=64",
            )

    def build(self) -> ResNet:
        return ResNet(self)


class _Block(nn.Module):
    """What both blocks do around their branch."""

    relu: nn.ReLU
    downsample: nn.Module | None
    drop_path: DropPath | None
    slots: Slots

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions and their norms; the activation after the sum is not in it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x,
            self.slots,
            self.branch,
            shortcut=self.downsample,
            act=self.relu,
            drop_path=self.drop_path,
        )


class BasicBlock(_Block):
    """Two 3x3 convolutions and a shortcut (ResNet paper, Fig. 5 left)."""

    expansion = 1

    def __init__(
        self, inputs: int, planes: int, stride: int, drop_path: float, config: ResNetConfig
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride, config.shortcut)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots(
            {
                "pre": inputs,
                "standard": planes,
                "post": planes,
                "identity": planes,
                "inner": planes,
            }
        )

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.slots.at("inner", x)
        return self.bn2(self.conv2(x))  # type: ignore[no-any-return]


class Bottleneck(_Block):
    """1x1, 3x3, 1x1 and a shortcut (ResNet paper, Fig. 5 right; ResNeXt paper, Fig. 3c)."""

    expansion = 4

    def __init__(
        self, inputs: int, planes: int, stride: int, drop_path: float, config: ResNetConfig
    ) -> None:
        super().__init__()
        width = planes * config.group_width // 64 * config.groups
        outputs = planes * self.expansion
        first, second = (stride, 1) if config.stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, groups=config.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, config.shortcut)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots(
            {
                "pre": inputs,
                "standard": outputs,
                "post": outputs,
                "identity": outputs,
                "inner": width,
            }
        )

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.slots.at("inner", x)
        return self.bn3(self.conv3(x))  # type: ignore[no-any-return]


class PadShortcut(nn.Module):
    """Option A of the ResNet paper: every second pixel, zeros for the channels that are new.

    The paper does not say where the zeros go; they are split between both ends here, as in the
    widely used reimplementation akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.pad = (0, 0, 0, 0, before, outputs - inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.pad)


def _shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    if kind == "pad":
        return PadShortcut(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(Classifier):
    """ResNet, ResNeXt, Wide ResNet, CIFAR ResNet: built by `ResNetConfig.build`."""

    config: ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        block = BasicBlock if config.block == "basic" else Bottleneck
        stem = as_stem(config.stem)
        inputs = config.width
        self.conv1 = stem_convs(stem, config.in_chans, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module | None = None
        if stem.pool and config.pool == "padded":
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        elif stem.pool:
            self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)

        total, done = sum(config.depths), 0
        for index, depth in enumerate(config.depths):
            planes = config.width * 2**index
            blocks: list[nn.Module] = []
            for number in range(depth):
                stride = 2 if index > 0 and number == 0 else 1
                drop_path = config.drop_path * done / max(total - 1, 1)
                blocks.append(block(inputs, planes, stride, drop_path, config))
                inputs = planes * block.expansion
                done += 1
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.fc = nn.Linear(inputs, config.num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        return tuple(
            tuple(self.get_submodule(f"layer{index + 1}").children())
            for index in range(len(self.config.depths))
        )

    def levels(self) -> tuple[TensorMap, ...]:
        first, *others = (
            self.get_submodule(f"layer{index + 1}") for index in range(len(self.config.depths))
        )
        return (lambda x: first(self.forward_stem(x)), *others)

    def forward_stem(self, x: Tensor) -> Tensor:
        """What the first stage gets of an image."""
        x = self.relu(self.bn1(self.conv1(x)))
        return x if self.maxpool is None else self.maxpool(x)

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        expansion = 1 if self.config.block == "basic" else 4
        return tuple(
            FeatureInfo(
                stride=as_stem(self.config.stem).stride * 2**index,
                channels=self.config.width * 2**index * expansion,
            )
            for index in range(len(self.config.depths))
        )

    @property
    def cam_layer(self) -> nn.Module:
        return self.stages()[-1][-1]

    def forward_head(self, features: Tensor) -> Tensor:
        x = self.avgpool(features).flatten(1)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.fc(x)  # type: ignore[no-any-return]

    def classifiers(self) -> tuple[str, ...]:
        return ("fc",)

    def input_parameter(self) -> str:
        return "conv1.weight" if len(as_stem(self.config.stem).kernels) == 1 else "conv1.0.weight"


def _basic(*depths: int) -> ResNetConfig:
    return ResNetConfig(block="basic", depths=depths)


def _bottleneck(*depths: int, groups: int = 1, group_width: int = 64) -> ResNetConfig:
    return ResNetConfig(block="bottleneck", depths=depths, groups=groups, group_width=group_width)


def _cifar(depth: int, shortcut: Literal["project", "pad"] = "project") -> ResNetConfig:
    """Section 4.2 of the ResNet paper: 6n+2 layers, three stages of n blocks, 16-32-64 wide."""
    return ResNetConfig(
        block="basic",
        depths=((depth - 2) // 6,) * 3,
        width=16,
        num_classes=10,
        stem="cifar",
        shortcut=shortcut,
    )


HE_2015 = Paper(
    "Deep Residual Learning for Image Recognition", 2015, "https://arxiv.org/abs/1512.03385"
)
XIE_2016 = Paper(
    "Aggregated Residual Transformations for Deep Neural Networks",
    2016,
    "https://arxiv.org/abs/1611.05431",
)
ZAGORUYKO_2016 = Paper("Wide Residual Networks", 2016, "https://arxiv.org/abs/1605.07146")

FAMILY = Family(
    title="ResNet",
    papers={"resnext*": XIE_2016, "wide_*": ZAGORUYKO_2016, "resnet*": HE_2015},
    small="The stem is one 3x3 convolution of stride 1, without the pool: 4x4 before the pool of "
    "networks of four stages, 8x8 of three.",
    networks={
        "resnet18": _basic(2, 2, 2, 2),
        "resnet34": _basic(3, 4, 6, 3),
        "resnet50": _bottleneck(3, 4, 6, 3),
        "resnet101": _bottleneck(3, 4, 23, 3),
        "resnet152": _bottleneck(3, 8, 36, 3),
        "resnext50_32x4d": _bottleneck(3, 4, 6, 3, groups=32, group_width=4),
        "resnext101_32x4d": _bottleneck(3, 4, 23, 3, groups=32, group_width=4),
        "resnext101_32x8d": _bottleneck(3, 4, 23, 3, groups=32, group_width=8),
        "resnext101_64x4d": _bottleneck(3, 4, 23, 3, groups=64, group_width=4),
        "wide_resnet50_2": _bottleneck(3, 4, 6, 3, group_width=128),
        "wide_resnet101_2": _bottleneck(3, 4, 23, 3, group_width=128),
        **{f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)},
        **{f"resnet{depth}a": _cifar(depth, "pad") for depth in (20, 32, 44, 56, 110)},
    },
)
