"""What networks say of values that they can not have: every word of it."""

from __future__ import annotations

from typing import Any

import pytest
from support.networks import message

from senetzoo import Stem, config
from senetzoo.errors import ConfigError
from senetzoo.registry import ENTRIES

WIDE = Stem(kernels=(5, 3), strides=(1, 2), widths=(0.25, 1.0))
COUNT = "a whole number of at least 1"
SHARE = "a number from 0 up to, not including, 1"
COUNTS = "a tuple of one or more whole numbers of at least 1"
THREE = "a tuple of 3 whole numbers of at least 1"
KERNELS = "a tuple of 5 tuples of one or more odd whole numbers from 1 to 3"


def wrong(name: str, **changes: Any) -> str:
    return message(lambda: config(name).replace(**changes), ConfigError)


@pytest.mark.parametrize(
    ("name", "field", "value", "rule", "example"),
    [
        (
            "alexnet_2012",
            "widths",
            (96, 256, 384),
            "a tuple of 5 whole numbers of at least 1",
            "(64, 192, 384, 256, 256)",
        ),
        ("alexnet_2012", "groups", 3, "one of 1, 2", "1"),
        ("alexnet_2012", "hidden", 2, "a whole number of at least 4", "4096"),
        ("alexnet_2012", "lrn", 1, "True or False", "False"),
        ("alexnet_2012", "padding", 1, "one of 0, 2", "2"),
        ("alexnet_2012", "dropout_on", "all", "one of 'inputs', 'outputs'", "'inputs'"),
        ("densenet121", "depths", (6, 0), COUNTS, "(3, 4, 6, 3)"),
        ("densenet121", "growth", 0, COUNT, "32"),
        ("densenet121", "width", 2.5, COUNT, "64"),
        ("densenet121", "bottleneck", 1, "True or False", "True"),
        ("densenet121", "memory_efficient", "yes", "True or False", "False"),
        ("densenet121", "drop_rate", 1.0, SHARE, "0.0"),
        ("densenet121", "compression", 0, "a number above 0 and at most 1", "0.5"),
        ("googlenet", "form", "lrn", "one of 'paper', 'torchvision'", "'paper'"),
        ("googlenet", "aux", 1, "True or False", "False"),
        ("googlenet", "aux_dropout", 1.0, SHARE, "0.7"),
        ("inception_resnet_v1", "depths", (5, 10, 0), THREE, "(5, 10, 5)"),
        ("inception_v3", "aux", 1, "True or False", "False"),
        ("mobilenet_v1", "act", "silu", "one of 'relu6', 'relu'", "'relu6'"),
        ("mobilenet_v1", "width", 0, "a number above 0 and at most 8", "1.0"),
        ("plain34", "depths", (3, 0), COUNTS, "(3, 4, 6, 3)"),
        ("preresnet50", "widen", 0, COUNT, "1"),
        ("preresnet50", "stem_norm", 1, "True or False", "False"),
        ("preresnet50", "stride_on", "first", "one of '1x1', '3x3'", "'3x3'"),
        ("senet154", "pool", "same", "one of 'padded', 'ceil'", "'padded'"),
        ("senet154", "group_width", 0, COUNT, "4"),
        ("swin_t", "embed_dim", 0, COUNT, "96"),
        ("swin_t", "depths", (), COUNTS, "(3, 4, 6, 3)"),
        ("swin_t", "window", 1, "a whole number of at least 2 or None", "None"),
        ("swin_t", "key_drop", 1.0, SHARE, "0.0"),
        (
            "vgg16",
            "kernels",
            ((3,), (3,), (2,), (3,), (3,)),
            KERNELS,
            "((3,), (3,), (3, 3), (3, 3), (3, 3))",
        ),
        ("vgg16", "norm", "layer", "one of 'none', 'batch', 'lrn'", "'none'"),
        ("vgg16", "hidden", 0, COUNT, "4096"),
        ("vgg16", "head", "conv", "one of 'pool', 'dense'", "'pool'"),
        ("resnet50", "depths", (), COUNTS, "(3, 4, 6, 3)"),
        ("resnet50", "groups", 0, COUNT, "1"),
        ("resnet50", "width", 0.5, COUNT, "64"),
        ("resnet50", "drop_path", 1.0, SHARE, "0.0"),
        ("resnet50", "in_chans", True, COUNT, "3"),
        ("inception_v4", "depths", (4, 7), THREE, "(4, 7, 3)"),
    ],
)
def test_values(name: str, field: str, value: object, rule: str, example: str) -> None:
    family = ENTRIES[name].config.family
    assert wrong(name, **{field: value}) == (
        f"{family} got {field}={value!r}.\n{field} is {rule}.\nType for example: {field}={example}"
    )


@pytest.mark.parametrize("name", ["lenet", "densenet121"])
def test_no_residual_branches(name: str) -> None:
    family = ENTRIES[name].config.family
    assert wrong(name, drop_path=0.1) == (
        f"{family} got drop_path=0.1.\n{family} has no residual branches to drop.\n"
        "Leave drop_path out"
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("inception_v3", "299x299"),
        ("swin_t", "224x224"),
    ],
)
def test_other_stems(name: str, size: str) -> None:
    family = ENTRIES[name].config.family
    assert wrong(name, stem="deep") == (
        f"{family} got stem='deep'.\n"
        f"{family} has the stems 'imagenet' for images of {size} and 'cifar' for images of "
        "32x32 pixels.\n"
        "Leave out stem, or type stem='cifar'"
    )


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("alexnet_2012", {"widths": (96, 255, 384, 384, 256)},
         "AlexNet got widths=(96, 255, 384, 384, 256) with groups=2.\n"
         "The channels of each convolution are a multiple of groups.\n"
         "Type for example: widths=(64, 192, 384, 256, 256)"),
        ("densenet121", {"compression": 0.001},
         "compression=0.001 leaves no channels after a transition.\n"
         "A transition keeps compression times its channels, at least 1.\n"
         "Type for example: compression=0.5"),
        ("densenet121", {"width": 1, "stem": WIDE},
         "width=1 with Stem(kernels=(5, 3), strides=(1, 2), widths=(0.25, 1.0), pool=False) "
         "leaves no channels.\n"
         "Each stem convolution has width times its entry in widths channels, at least 1.\n"
         "Type for example: width=64"),
        ("inception_resnet_v1", {"version": "v3"},
         "InceptionResNet got version='v3'.\nversion is one of 'v1', 'v2'."),
        ("plain34", {"width": 1, "stem": "deep"},
         "width=1 with Stem(kernels=(3, 3, 3), strides=(2, 1, 1), widths=(0.5, 0.5, 1.0), "
         "pool=True) leaves no channels.\n"
         "Each stem convolution has width times its entry in widths channels, at least 1.\n"
         "Type for example: width=64"),
        ("preresnet50", {"block": "basic", "stride_on": "1x1"},
         "A basic block got stride_on='1x1'.\n"
         "Basic blocks have two 3x3 convolutions and the stride on the first.\n"
         'Type for example: block="bottleneck"'),
        ("preresnet50", {"block": "wide"},
         "PreResNet got block='wide'.\nblock is one of 'basic', 'bottleneck'."),
        ("senet154", {"group_width": 1},
         "width=64 with groups=64 and group_width=1 gives no whole groups.\n"
         "Each group of the 3x3 has width * group_width / 128 input channels.\n"
         "Type for example: width=64, group_width=4"),
        ("senet154", {"group_width": 1, "groups": 1},
         "width=64 with groups=1 and group_width=1 gives no whole groups.\n"
         "Each group of the 3x3 has width * group_width / 128 input channels.\n"
         "Type for example: width=64, group_width=4"),
        ("swin_t", {"heads": (3, 6, 12)}, "Swin got heads=(3, 6, 12).\n"
         "Each of the 4 stages has a number of heads that divides its channels, 96, 192, 384, "
         "768.\nType for example: heads=(1, 1, 1, 1)"),
        ("swin_t", {"heads": (3, 6, 12, 25)}, "Swin got heads=(3, 6, 12, 25).\n"
         "Each of the 4 stages has a number of heads that divides its channels, 96, 192, 384, "
         "768.\nType for example: heads=(1, 1, 1, 1)"),
        ("vgg16", {"head": "dense", "stem": "cifar"}, "VGG got head='dense' with stem='cifar'.\n"
         "With stem='cifar' there is one linear layer, which takes the average of a map of "
         "any size.\nLeave head out"),
        ("resnet50", {"block": "bottelneck"}, "ResNet got block='bottelneck'.\n"
         "block is one of 'basic', 'bottleneck'.\nDid you mean 'bottleneck'?"),
        ("resnet50", {"width": 8, "group_width": 4},
         "width=8 with group_width=4 leaves no channels.\n"
         "A group of the first stage has width * group_width / 64 channels, at least 1.\n"
         "Type for example: width=64"),
        ("resnet50", {"block": "basic", "group_width": 128},
         "A basic block got groups=1, group_width=128, stride_on='3x3'.\n"
         "Basic blocks have two ungrouped 3x3 convolutions and the stride on the first.\n"
         'Type for example: block="bottleneck"'),
    ],
)  # fmt: skip
def test_combinations_of_values(name: str, changes: dict[str, Any], text: str) -> None:
    assert wrong(name, **changes) == text


def test_no_such_option() -> None:
    assert message(lambda: ENTRIES["resnet50"].config.replace(strid_on="1x1"), ConfigError) == (
        "ResNetConfig has no option 'strid_on'.\nDid you mean 'stride_on'?"
    )
