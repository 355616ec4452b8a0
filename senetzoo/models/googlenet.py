"""GoogLeNet, the first Inception network.

Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842), Table 1. The table's
parameter counts don't match its widths (2.7K for the first convolution, which has 9,408 weights);
this file uses the widths. What the paper doesn't specify is as in BVLC's Caffe replication: ceil
mode of the pools, and the constants of the local response norms.

Child names are torchvision's, so the state dict of its network loads strictly into `googlenet_bn`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import nn

from senetzoo._utils.checks import Rate
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inception import Concat, Inception, path
from senetzoo.nn.classifier import Config
from senetzoo.nn.conv import ConvNormAct
from senetzoo.nn.stack import dropout

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

    With ``stem="cifar"`` a single 3x3 convolution of 192 channels and stride 1 replaces all layers
    before module 3a. The maps of a 32x32 image are then 32x32, 16x16 and 8x8.

    Args:
        form: ``"paper"``: convolutions with biases and without norms, local response norms in
            the stem; or ``"torchvision"``: batch norms, 3x3 instead of 5x5 convolutions, a 2x2
            pool before 5a.
        aux: Whether to add auxiliary heads after 4a and 4d, which only run in training mode.
        aux_dropout: Dropout in the auxiliary heads, in [0, 1).
    """

    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.4
    form: Literal["paper", "torchvision"] = "paper"
    aux: bool = False
    aux_dropout: Rate = 0.7

    @property
    def min_size(self) -> int:
        # The output of 4a needs two pixels for the 3x3 pool after 4e, five for the pool of the
        # paper's auxiliary heads.
        pixels = 1 if self.form == "torchvision" else 5 if self.aux else 2
        return 2 * pixels if self.small else 16 * pixels - 1

    def build(self) -> Inception:
        conv, paper = _conv(self), self.form == "paper"
        pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        # These norms are in the paper's Fig. 3, but not in its table.
        norm = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75) if paper else nn.Identity
        layers: dict[str, nn.Module] = (
            {"conv1": conv(self.in_chans, 192, 3, padding=1)}
            if self.small
            else {
                "conv1": conv(self.in_chans, 64, 7, 2, 3),
                "maxpool1": pool(),
                "norm1": norm(),
                "conv2": conv(64, 64, 1),
                "conv3": conv(64, 192, 3, padding=1),
                "norm2": norm(),
                "maxpool2": pool(),
            }
        )
        inputs = 192
        for name, *widths in MODULES:
            if name == "4a":
                layers["maxpool3"] = pool()
            elif name == "5a":
                layers["maxpool4"] = pool() if paper else nn.MaxPool2d(2, 2, ceil_mode=True)
            outputs = sum((widths[0], widths[2], widths[4], widths[5]))
            layers[f"inception{name}"] = module(inputs, outputs, widths, self)
            inputs = outputs
        aux = {"inception4a": "aux1.fc2", "inception4d": "aux2.fc2"} if self.aux else {}
        if aux:
            layers |= {"aux1": _head(512, self), "aux2": _head(528, self)}
        model = Inception(
            self,
            layers,
            ("maxpool3", "maxpool4"),
            (480, 832, 1024),
            # The paper does not specify it. Without batch norms the scale matters, which He et
            # al.'s initialization (arXiv:1502.01852) keeps through any number of layers.
            init="fan_in" if paper else None,
            apart=("aux1", "aux2"),
            aux=aux,
        )
        if not paper:
            for layer in model.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    nn.init.trunc_normal_(layer.weight, std=0.01, a=-2, b=2)
        return model


def _conv(config: GoogLeNetConfig) -> Callable[..., nn.Module]:
    paper = config.form == "paper"
    return partial(ConvNormAct, bias=True, norm=False) if paper else partial(ConvNormAct, eps=1e-3)


def module(inputs: int, outputs: int, widths: Sequence[int], config: GoogLeNetConfig) -> Concat:
    """Four parallel branches (Fig. 2b)."""
    # torchvision's 3x3 is a mistake that its weights were trained with (torchvision issue 906).
    large = 5 if config.form == "paper" else 3
    one, three_reduce, three, five_reduce, five, pool = widths
    branch = partial(path, inputs, conv=partial(_conv(config), padding="same"))
    branches = {
        "branch1": branch((one, 1)),
        "branch2": branch((three_reduce, 1), (three, 3)),
        "branch3": branch((five_reduce, 1), (five, large)),
        "branch4": branch(nn.MaxPool2d(3, 1, padding=1), (pool, 1)),
    }
    return Concat(branches, (inputs, outputs))


def _head(inputs: int, config: GoogLeNetConfig) -> nn.Module:
    """An auxiliary classifier (Section 5): pool to 4x4, 1x1 convolution, two linear layers."""
    pool: nn.Module = nn.AdaptiveAvgPool2d(4)
    if config.form == "paper":
        # This pools a 14x14 map to the 4x4 that the linear layer takes; the adaptive pool does so
        # for maps of other sizes.
        pool = nn.Sequential(nn.AvgPool2d(5, 3), pool)
    layers = {
        "pool": pool,
        "conv": _conv(config)(inputs, 128, 1),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(128 * 4 * 4, 1024),
        "act": nn.ReLU(inplace=True),
        "dropout": dropout(config.aux_dropout),
        "fc2": nn.Linear(1024, config.num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


FAMILY = Family(
    title="GoogLeNet",
    papers={"*": arxiv("Going Deeper with Convolutions", "1409.4842")},
    small="One 3x3 convolution of 192 channels and stride 1 replaces the stem: the last map is "
    "8x8.",
    networks={
        "googlenet": GoogLeNetConfig(),
        "googlenet_bn": GoogLeNetConfig(form="torchvision", dropout=0.2),
    },
)
