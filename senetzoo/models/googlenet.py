"""GoogLeNet, the first Inception network.

Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842), Table 1. The table's column
of parameters does not follow from its widths (2.7K for the first convolution, which has 9,408
weights); the widths are what counts here. What the paper leaves open is as in BVLC's replication
for Caffe: pools round up, and the constants of the local response norms.

Child names are torchvision's, so that the state dict of its network, which is `googlenet_bn`,
loads strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Rate
from senetzoo.models.family import Family, Paper
from senetzoo.models.inception import Inception, InceptionNetwork
from senetzoo.nn.classifier import Config
from senetzoo.nn.conv import ConvNormAct
from senetzoo.nn.init import init_convs

# The nine modules of Table 1. A max pool of stride 2 precedes 4a and 5a.
MODULES = (
    # name #1x1 #3x3 reduce #3x3 #5x5 reduce #5x5 pool proj
    ("3a", 64, 96, 128, 16, 32, 32),
    ("3b", 128, 128, 192, 32, 96, 64),
    ("4a", 192, 96, 208, 16, 48, 64),
    ("4b", 160, 112, 224, 24, 64, 64),
    ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64),
    ("4e", 256, 160, 320, 32, 128, 128),
    ("5a", 256, 160, 320, 32, 128, 128),
    ("5b", 384, 192, 384, 48, 128, 128),
)


@dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig(Config):
    """A GoogLeNet.

    With ``stem="cifar"`` a single 3x3 convolution of 192 channels and stride 1 takes the place of
    all layers before the module 3a. A 32x32 image then has maps of 32x32, 16x16 and 8x8.

    Args:
        form: ``"paper"``: convolutions with biases and without norms, local response norms in
            the stem; or ``"torchvision"``: batch norms, 3x3 in place of 5x5 convolutions, a 2x2
            pool before 5a.
        aux: Whether there are auxiliary heads after 4a and 4d, in training mode.
        aux_dropout: Dropout in the auxiliary heads, in [0, 1).
    """

    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.4
    form: Literal["paper", "torchvision"] = "paper"
    aux: bool = False
    aux_dropout: Rate = 0.7

    @property
    def min_size(self) -> int:
        # What 4a has to give: two pixels for the 3x3 pool after 4e, five for the pool of the
        # paper's auxiliary heads.
        pixels = 1 if self.form == "torchvision" else 5 if self.aux else 2
        return 2 * pixels if self.small else 16 * pixels - 1

    def build(self) -> GoogLeNet:
        return GoogLeNet(self)


def _conv(config: GoogLeNetConfig) -> Callable[..., nn.Module]:
    paper = config.form == "paper"
    return partial(ConvNormAct, bias=True, norm=False) if paper else partial(ConvNormAct, eps=1e-3)


def module(inputs: int, widths: tuple[int, ...], config: GoogLeNetConfig) -> Inception:
    """Four branches side by side (Fig. 2b)."""
    conv = _conv(config)
    # torchvision's 3x3 is an oversight that its weights were trained with (its issue 906).
    large = 5 if config.form == "paper" else 3
    one, three_reduce, three, five_reduce, five, pool = widths
    branches = {
        "branch1": conv(inputs, one, 1),
        "branch2": nn.Sequential(
            conv(inputs, three_reduce, 1), conv(three_reduce, three, 3, padding=1)
        ),
        "branch3": nn.Sequential(
            conv(inputs, five_reduce, 1), conv(five_reduce, five, large, padding=large // 2)
        ),
        "branch4": nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(inputs, pool, 1)),
    }
    return Inception(inputs, one + three + five + pool, branches)


class AuxHead(nn.Module):
    """An auxiliary classifier (Section 5): pool to 4x4, 1x1 convolution, two linear layers."""

    def __init__(self, inputs: int, config: GoogLeNetConfig) -> None:
        super().__init__()
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(4)
        if config.form == "paper":
            # Of 14x14 pixels this gives the 4x4 that the linear layer takes; of other maps the
            # adaptive pool makes it.
            self.pool = nn.Sequential(nn.AvgPool2d(5, 3), self.pool)
        self.conv = _conv(config)(inputs, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(config.aux_dropout) if config.aux_dropout else None
        self.fc2 = nn.Linear(1024, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool(x)).flatten(1)
        x = F.relu(self.fc1(x), inplace=True)
        if self.dropout is not None:
            x = self.dropout(x)
        return self.fc2(x)  # type: ignore[no-any-return]


class GoogLeNet(InceptionNetwork):
    """GoogLeNet: built by `GoogLeNetConfig.build`."""

    aux: ClassVar[Mapping[str, str]] = {"inception4a": "aux1.fc2", "inception4d": "aux2.fc2"}
    _config: GoogLeNetConfig
    fc: nn.Linear

    def __init__(self, config: GoogLeNetConfig) -> None:
        super().__init__(config)
        conv, paper = _conv(config), config.form == "paper"
        pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        # In the paper's Fig. 3, not in its table.
        norm = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75) if paper else nn.Identity
        stem: dict[str, nn.Module] = (
            {"conv1": conv(config.in_chans, 192, 3, padding=1)}
            if config.small
            else {
                "conv1": conv(config.in_chans, 64, 7, 2, 3),
                "maxpool1": pool(),
                "norm1": norm(),
                "conv2": conv(64, 64, 1),
                "conv3": conv(64, 192, 3, padding=1),
                "norm2": norm(),
                "maxpool2": pool(),
            }
        )
        for name, layer in stem.items():
            self.add_module(name, layer)
        inputs = 192
        for name, *widths in MODULES:
            self.add_module(f"inception{name}", module(inputs, tuple(widths), config))
            one, _, three, _, five, project = widths
            inputs = one + three + five + project
        self.maxpool3 = pool()
        self.maxpool4 = pool() if paper else nn.MaxPool2d(2, 2, ceil_mode=True)
        self.aux1 = AuxHead(512, config) if config.aux else None
        self.aux2 = AuxHead(528, config) if config.aux else None
        third, fourth, fifth = (
            [f"inception{name}" for name, *_ in MODULES if name[0] == stage] for stage in "345"
        )
        levels = [*stem, *third], ["maxpool3", *fourth], ["maxpool4", *fifth]
        self.set_stages(levels, (480, 832, 1024))
        self.add_head(inputs)
        self._initialize()

    def _initialize(self) -> None:
        if self._config.form == "paper":
            # The paper does not say how; without batch norms the scale matters, and He et al.'s
            # (arXiv:1502.01852) keeps it through any number of layers.
            init_convs(self, "fan_in")
            return
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.01, a=-2, b=2)


SZEGEDY_2014 = Paper("Going Deeper with Convolutions", 2014, "https://arxiv.org/abs/1409.4842")

FAMILY = Family(
    title="GoogLeNet",
    papers={"*": SZEGEDY_2014},
    small="One 3x3 convolution of 192 channels and stride 1 takes the place of the stem: 8x8 "
    "before the pool.",
    networks={
        "googlenet": GoogLeNetConfig(),
        "googlenet_bn": GoogLeNetConfig(form="torchvision", dropout=0.2),
    },
)
