"""pytorchcv's names (osmr/imgclsmob): ``features``, its stages and their units, then ``output``.

Its deep networks without a ``b`` in the name have the stride of a bottleneck on the first 1x1; CBAM
takes the largest value before the mean. Not here, because they are no networks of this zoo:

- ``bn_vgg*`` without a ``b`` (convolutions without bias), ``alexnet`` (the 2012 network in one
  group) and ``resnet18_w*`` (narrow stages, and a last block that is not);
- ``mobilenetv2*`` and ``mobilenetv3*``: layers of their classifiers have no bias, and the widths
  are rounded otherwise;
- ``shufflenetv2_*`` (a pool in ceil mode, without padding) and ``shufflenetv2b_*`` (halves of other
  widths);
- ``regnetx004``, ``regnety008`` and ``regnety080``, whose widths torchvision rounds otherwise;
- ``efficientnet_b*b`` and ``efficientnet_b*c`` (TensorFlow's padding).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects.base import Counterpart, Dialect, Rule, has_deep_stem, rewritten

_LINES = {"": "", "se": "se_", "pre": "pre", "sepre": "se_pre"}
_SETS = {"cifar10": 10, "cifar100": 100, "svhn": 10}


def _line(theirs: str, ours: str) -> dict[str, Counterpart]:
    """The ResNets for ImageNet, the deep ones with the stride on either convolution."""
    norm: dict[str, object] = {"stem_norm": True} if "pre" in theirs else {}
    deep = (50, 101, 152, 200) if norm else (50, 101, 152)
    # There is none of 14 layers with SE.
    shallow = (26, 38) if "se" in theirs else (14, 26, 38)
    forms = [
        *((f"{depth}", f"{depth}", norm) for depth in (10, 12, 14, 16, 18, 26, 34)),
        *((f"bc{depth}b", f"bc{depth}", norm) for depth in shallow),
        *((f"{depth}", f"{depth}", {"stride_on": "1x1", **norm}) for depth in deep),
        *((f"{depth}b", f"{depth}", norm) for depth in deep),
    ]
    return {
        f"{theirs}resnet{form}": Counterpart(f"{ours}resnet{form_here}", changes)
        for form, form_here, changes in forms
    }


def _small(theirs: str, ours: str, **changes: object) -> dict[str, Counterpart]:
    """A network for small images, of each data set that it has weights for."""
    return {
        f"{theirs}_{data}": Counterpart(
            ours, {**changes, **({} if classes == 10 else {"num_classes": classes})}
        )
        for data, classes in _SETS.items()
    }


# Its name of the size, ours, and the kinds that are as wide as torchvision's.
_REGNETS = (
    ("004", "400mf", "y"),
    ("008", "800mf", "x"),
    ("016", "1_6gf", "xy"),
    ("032", "3_2gf", "xy"),
    ("080", "8gf", "x"),
    ("160", "16gf", "xy"),
    ("320", "32gf", "xy"),
)

NETWORKS: dict[str, Counterpart] = {
    "alexnetb": Counterpart("alexnet"),
    **{f"vgg{depth}": Counterpart(f"vgg{depth}") for depth in (11, 13, 16, 19)},
    **{f"bn_vgg{depth}b": Counterpart(f"vgg{depth}_bn") for depth in (11, 13, 16, 19)},
    "bninception": Counterpart("bn_inception"),
    "inceptionv3": Counterpart("inception_v3"),
    "inceptionv4": Counterpart("inception_v4"),
    "inceptionresnetv1": Counterpart("inception_resnet_v1"),
    "inceptionresnetv2": Counterpart("inception_resnet_v2"),
    "xception": Counterpart("xception"),
    **{name: other for line in _LINES.items() for name, other in _line(*line).items()},
    "preresnet269b": Counterpart("preresnet269", {"stem_norm": True}),
    **{
        f"cbam_resnet{depth}": Counterpart(f"resnet{depth}", policy="cbam")
        for depth in (18, 34, 50, 101, 152)
    },
    **{
        f"{se}resnext{form}": Counterpart(f"{se and 'se_'}resnext{form}")
        for se in ("", "se")
        for form in ("50_32x4d", "101_32x4d", "101_64x4d")
    },
    "senet154": Counterpart("senet154"),
    **{f"densenet{depth}": Counterpart(f"densenet{depth}") for depth in (121, 161, 169, 201)},
    **{
        f"mobilenet_{theirs}": Counterpart(f"mobilenet_v1{ours}", {"act": "relu"})
        for theirs, ours in {"w1": "", "w3d4": "_075", "wd2": "_050", "wd4": "_025"}.items()
    },
    **{f"squeezenet_v1_{n}": Counterpart(f"squeezenet1_{n}") for n in "01"},
    **{f"efficientnet_b{n}": Counterpart(f"efficientnet_b{n}") for n in range(5)},
    **{f"efficientnet_b{n}": Counterpart(f"efficientnet_b{n}", {"eps": 1e-5}) for n in range(5, 8)},
    **{
        f"regnet{letter}{theirs}": Counterpart(f"regnet_{letter}_{ours}")
        for theirs, ours, letters in _REGNETS
        for letter in letters
    },
    **{
        key: value
        for theirs, ours in _LINES.items()
        for depth in ["20", "56", "110", "164bn", "272bn", "542bn", "1001", "1202"]
        for key, value in _small(
            f"{theirs}resnet{depth}",
            f"{ours}resnet{depth.removesuffix('bn')}",
            # These have a norm in the stem and none at the end.
            **({"stem_norm": True, "last_norm": False} if theirs == "sepre" else {}),
        ).items()
    },
    **{
        key: value
        for form in ("16_10", "28_10", "40_8")
        for key, value in _small(f"wrn{form}", f"wrn{form}").items()
    },
    **_small("densenet40_k12", "densenet40_12", compression=0.5, width=24),
    **_small("densenet100_k12_bc", "densenet_bc_100_12"),
    **_small("densenet190_k40_bc", "densenet_bc_190_40"),
}


def _unit(found: re.Match[str]) -> str:
    return f"features.stage{found[1]}.unit{int(found[2]) + 1}."


def _unit_of(number: int, model: Classifier) -> str:
    """The unit that is the block of that number, from 0, in the network."""
    stages = enumerate(model.stages(), 1)
    places = [(n, unit) for n, blocks in stages for unit in range(1, len(blocks) + 1)]
    return "features.stage{}.unit{}.".format(*places[number])


_DEEP = {"0": "conv1.conv", "1": "conv1.bn", "3": "conv2.conv", "4": "conv2.bn", "6": "conv3.conv"}


def _stem(model: Classifier) -> tuple[Rule, Rule]:
    """The stem of the ResNet line, which is a block of its own where it pools or is deep."""
    block = "features.init_block."
    if has_deep_stem(model):
        deep = r"^conv1\.(\d)\.", lambda found: f"{block}{_DEEP[found[1]]}."
        return deep, (r"^bn1\.", f"{block}conv3.bn.")
    conv = "conv."
    if model.family == "PreResNet":
        conv = "conv." if getattr(model, "bn1", None) is not None else ""
    elif getattr(model, "maxpool", None) is not None:
        block += "conv."
    return (r"^conv1\.", f"{block}{conv}"), (r"^bn1\.", f"{block}bn.")


_SE = ((r"\.slots\.standard\.fc([12])\.", r".se.conv\1."),)
_CBAM = (
    (r"\.slots\.standard\.fc([12])\.", r".cbam.ch_gate.mlp.fc\1."),
    (r"\.slots\.standard\.(conv|bn)\.", r".cbam.sp_gate.conv.\1."),
)


def _resnet(name: str, model: Classifier) -> str | None:
    """ResNet, SENet and PreResNet."""
    block, gated, _ = name.partition(".slots.standard.")
    parts = dict(model.get_submodule(f"{block}.slots.standard").named_children()) if gated else {}
    return rewritten(
        name,
        *_stem(model),
        *(_CBAM if {"fc1", "conv", "bn"} <= parts.keys() else _SE),
        (r"^layer(\d)\.(\d+)\.", _unit),
        (r"(unit\d+)\.conv(\d)\.", r"\1.body.conv\2.conv."),
        (r"(unit\d+)\.(?:bn|norm)(\d)\.", r"\1.body.conv\2.bn."),
        (r"\.downsample\.0\.", ".identity_conv.conv."),
        (r"\.downsample\.1\.", ".identity_conv.bn."),
        (r"\.downsample\.", ".identity_conv."),
        (r"^norm\.", "features.post_activ.bn."),
        (r"^fc\.", "output.fc." if model.family == "SENet" else "output."),
    )


def _densenet(name: str, model: Classifier) -> str | None:
    """Norm and convolution are one child, which has no number where a layer has only one."""
    features = model.get_submodule("features")
    normed = getattr(features, "norm0", None) is not None
    number = r"\4" if hasattr(features.get_submodule("denseblock1.denselayer1"), "conv2") else ""

    def transition(found: re.Match[str]) -> str:
        stage = int(found[1]) + 1
        return f"features.stage{stage}.trans{stage}.conv."

    return rewritten(
        name,
        (r"^features\.norm0\.", "features.init_block.bn."),
        (r"^features\.conv0\.", f"features.init_block.{'conv.' if normed else ''}"),
        (r"^features\.norm5\.", "features.post_activ.bn."),
        (r"\.norm(?=\d?\.)", ".bn"),
        (
            r"^features\.denseblock(\d)\.denselayer(\d+)\.(bn|conv)(\d)\.",
            rf"features.stage\1.unit\2.conv{number}.\3.",
        ),
        (r"^features\.transition(\d)\.", transition),
        (r"^classifier\.", "output."),
    )


def _plain(name: str, model: Classifier) -> str | None:
    """AlexNet and VGG: a stage goes to the next pool, a unit is a convolution and what follows."""
    places: dict[str, str] = {}
    stage, unit = 1, 0
    for child, layer in model.get_submodule("features").named_children():
        unit += isinstance(layer, nn.Conv2d)
        kind = "conv" if isinstance(layer, nn.Conv2d) else "bn"
        places[f"features.{child}"] = f"features.stage{stage}.unit{unit}.{kind}"
        if isinstance(layer, nn.MaxPool2d):
            stage, unit = stage + 1, 0
    hidden = (
        f"classifier.{child}"
        for child, layer in model.get_submodule("classifier").named_children()
        if isinstance(layer, nn.Linear)
    )
    places |= zip(hidden, ("output.fc1.fc", "output.fc2.fc", "output.fc3"), strict=False)
    module, _, parameter = name.rpartition(".")
    return f"{places[module]}.{parameter}" if module in places else None


_MOBILENET = (
    (r"^conv_stem\.", "features.init_block.conv."),
    (r"^bn1\.", "features.init_block.bn."),
    (
        r"^blocks\.(\d)\.(\d)\.",
        lambda found: f"features.stage{int(found[1]) + 1}.unit{int(found[2]) + 1}.",
    ),
    (r"\.conv_(dw|pw)\.", r".\1_conv.conv."),
    (r"(unit\d)\.bn1\.", r"\1.dw_conv.bn."),
    (r"(unit\d)\.bn2\.", r"\1.pw_conv.bn."),
    (r"^classifier\.", "output."),
)


def _efficientnet(name: str, model: Classifier) -> str | None:
    """Stages of one resolution are one: ours 4 and 5, and 6 and 7."""
    merged = (1, 2, 3, 4, 4, 5, 5)

    def unit(found: re.Match[str]) -> str:
        stage, number = int(found[1]), int(found[2]) + 1
        if stage in (5, 7):
            number += len(list(model.get_submodule(f"features.{stage - 1}").children()))
        return f"features.stage{merged[stage - 1]}.unit{number}."

    # The first stage does not expand.
    convs = (
        ("dw_conv", "", "pw_conv")
        if name.startswith("features.1.")
        else ("conv1", "conv2", "", "conv3")
    )
    return rewritten(
        name,
        (r"^features\.0\.", "features.init_block.conv."),
        (r"^features\.8\.", "features.final_block."),
        (r"^classifier\.1\.", "output.fc."),
        (r"^features\.([1-7])\.(\d+)\.", unit),
        (r"\.block\.(\d)\.", lambda found: f".{convs[int(found[1])]}."),
        (r"(_block|conv\d?)\.0\.", r"\1.conv."),
        (r"(_block|conv\d?)\.1\.", r"\1.bn."),
        (r"\.slots\.inner\.fc([12])\.", r".se.conv\1."),
    )


_REGNET = (
    (r"^stem\.0\.", "features.init_block.conv."),
    (r"^stem\.1\.", "features.init_block.bn."),
    (r"^trunk_output\.block\d\.block(\d)-(\d+)\.", _unit),
    (r"\.proj\.0\.", ".identity_conv.conv."),
    (r"\.proj\.1\.", ".identity_conv.bn."),
    (r"\.f\.([abc])\.0\.", lambda found: f".body.conv{' abc'.index(found[1])}.conv."),
    (r"\.f\.([abc])\.1\.", lambda found: f".body.conv{' abc'.index(found[1])}.bn."),
    (r"\.slots\.inner\.fc([12])\.", r".body.se.conv\1."),
    (r"^fc\.", "output."),
)


def _squeezenet(name: str, model: Classifier) -> str | None:
    children = model.get_submodule("features").named_children()
    fires = [child for child, layer in children if hasattr(layer, "squeeze")]
    return rewritten(
        name,
        (r"^features\.0\.", "features.init_block.conv."),
        (
            r"^features\.(\d+)\.(squeeze|expand\dx\d)\.",
            lambda found: f"{_unit_of(fires.index(found[1]), model)}{found[2]}.conv.",
        ),
        (r"^classifier\.1\.", "output.final_conv."),
    )


def _xception(name: str, model: Classifier) -> str | None:
    ends = {"1": "init_block.conv1", "2": "init_block.conv2"}
    ends |= {"3": "final_block.conv1", "4": "final_block.conv2"}
    return rewritten(
        name,
        (r"^(conv|bn)([1-4])\.", lambda found: f"features.{ends[found[2]]}.{found[1]}."),
        (r"^block(\d+)\.", lambda found: _unit_of(int(found[1]) - 1, model)),
        (r"\.skip\.", ".identity_conv.conv."),
        (r"\.skipbn\.", ".identity_conv.bn."),
        # Three layers for each convolution, but for the first ReLU of all.
        (
            r"\.rep\.(\d+)\.(conv1|pointwise)?",
            lambda found: (
                f".body.block{int(found[1]) // 3 + 1}."
                + (f"conv.{found[2]}" if found[2] else "bn.")
            ),
        ),
        (r"\.conv\.conv1\.", ".conv.dw_conv."),
        (r"\.conv\.pointwise\.", ".conv.pw_conv."),
        (r"^fc\.", "output."),
    )


# --- The Inception line, whose branches and convolutions count from 1 ----------------------------


def _bn_inception(name: str, _: Classifier) -> str | None:
    stem = {"0": "conv1", "2": "conv2.conv1", "3": "conv2.conv2"}
    found = re.fullmatch(r"inception(\d\w)\.(branch\w+)\.(.+)", name)
    if found is None:
        return rewritten(
            name,
            (r"^stem\.(\d)\.", lambda at: f"features.init_block.{stem[at[1]]}."),
            (r"^fc\.", "output."),
        )
    module, kind, rest = found.groups()
    stage, unit = next(
        (stage, units.index(module) + 1)
        for stage, units in enumerate(
            (("3a", "3b"), ("3c", "4a", "4b", "4c", "4d"), ("4e", "5a", "5b")), 1
        )
        if module in units
    )
    kinds = ("branch1x1", "branch3x3", "branch_double3x3", "branch_pool")
    # Those of stride 2 have no 1x1 branch.
    branch = kinds.index(kind) + (0 if unit == 1 and stage > 1 else 1)
    if kind == "branch_pool":
        # The pool is layer 0 of the branch here.
        rest = re.sub(r"^1\.", "conv.", rest)
    rest = re.sub(r"^(\d)\.", lambda at: f"conv{int(at[1]) + 1}.", rest)
    return f"features.stage{stage}.unit{unit}.branches.branch{branch}.{rest}"


def _inception_v3(name: str, _: Classifier) -> str | None:
    """There is no auxiliary head."""
    stem = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
    found = re.fullmatch(r"Mixed_(\d)(\w)\.(branch\w+?)(?:_(\d)([ab]?))?\.((?:conv|bn)\..+)", name)
    if name.startswith("AuxLogits."):
        return None
    if found is None:
        return rewritten(
            name,
            (r"^Conv2d_(\w+)\.", lambda at: f"features.init_block.conv{stem.index(at[1]) + 1}."),
            (r"^fc\.", "output.fc."),
        )
    stage, letter, kind, number, half, rest = found.groups()
    # The modules are 5b to 5d, 6a to 6e and 7a to 7c; the first of 6 and 7 reduces.
    unit = "bcd".index(letter) + 1 if stage == "5" else "abcde".index(letter) + 1
    reduces = stage != "5" and letter == "a"
    if kind in ("branch1x1", "branch_pool"):
        place = "branch1.conv" if kind == "branch1x1" else "branch4.conv"
    else:
        # The longer of the two comes last: 3x3dbl, 7x7dbl, 7x7x3.
        branch = (2 if len(kind) > len("branch3x3") else 1) + (0 if reduces else 1)
        list_place = f"conv_list.conv{number or 1}"
        place = f"branch{branch}.{_HALVES[half] if half else list_place}"
    return f"features.stage{int(stage) - 4}.unit{unit}.branches.{place}.{rest}"


_HALVES = {"a": "conv1x3", "b": "conv3x1", "0": "conv1x3", "1": "conv3x1"}


def _next(template: str) -> Callable[[re.Match[str]], str]:
    """What takes the place of a match: `template`, filled with its groups, numbers plus 1."""

    def filled(found: re.Match[str]) -> str:
        return template.format(*(int(one) + 1 for one in found.groups()))

    return filled


# Inside a module of Inception v4 and Inception-ResNet.
_BRANCHES: tuple[Rule, ...] = (
    # The pool is layer 0 of the last branch here.
    (r"\bbranch3\.1\.", "branches.branch4.conv."),
    (
        r"\bbranch(\d)\.\d\.branch([01])\.",
        lambda at: f"branches.branch{int(at[1]) + 1}.{_HALVES[at[2]]}.",
    ),
    (r"(?<!\.branches)\.branch(\d)\.(\d)\.", _next(".branches.branch{}.conv_list.conv{}.")),
    (r"(?<!\.branches)\.branch(\d)\.(?=conv\.|bn\.)", _next(".branches.branch{}.conv.")),
)
# The only convolution of a branch is a list of one there, in the first module of stage 2.
_LIST_OF_ONE = (
    r"^(features\.stage2\.unit1\.branches\.branch1)\.conv\.",
    r"\1.conv_list.conv1.",
)
_INCEPTION_V4 = (
    *_BRANCHES,
    (r"^stem\.([012])\.", _next("features.init_block.conv{}.")),
    (r"^stem\.([345])\.", lambda at: f"features.init_block.block{int(at[1]) - 2}."),
    (r"^stage(\d)\.(\d)\.", _unit),
    (r"^fc\.", "output.fc."),
    _LIST_OF_ONE,
)


def _inception_resnet(name: str, model: Classifier) -> str | None:
    """Of its ``inceptionresnetv1`` and ``inceptionresnetv2``."""
    stem = ("1a", "2a", "2b", "3b", "4a", "4b")
    last = len(list(model.get_submodule("repeat_2").children())) + 2
    first_version = getattr(model, "last_linear", None) is not None
    return rewritten(
        name,
        *_BRANCHES,
        (r"^conv2d_7b\.", "features.final_conv."),
        (r"^conv2d_(\w+)\.", lambda at: f"features.init_block.conv{stem.index(at[1]) + 1}."),
        (r"^mixed_5b\.", "features.init_block.block."),
        (r"^repeat\.(\d+)\.", _next("features.stage1.unit{}.")),
        (r"^mixed_6a\.", "features.stage2.unit1."),
        (r"^repeat_1\.(\d+)\.", lambda at: f"features.stage2.unit{int(at[1]) + 2}."),
        (r"^mixed_7a\.", "features.stage3.unit1."),
        (r"^repeat_2\.(\d+)\.", lambda at: f"features.stage3.unit{int(at[1]) + 2}."),
        (r"^block8\.", f"features.stage3.unit{last}."),
        (r"(unit\d+)\.conv2d\.", r"\1.conv."),
        (r"^classif\.", "output.fc2." if first_version else "output.fc."),
        (r"^last_linear\.", "output.fc1."),
        (r"^last_bn\.", "output.bn."),
        _LIST_OF_ONE,
    )


_GATES = ((r"\.se\.conv[12]\.weight", 1),)

DIALECT = Dialect(
    networks=NETWORKS,
    families={
        "AlexNet": _plain,
        "VGG": _plain,
        "BNInception": _bn_inception,
        "InceptionV3": _inception_v3,
        "InceptionV4": _INCEPTION_V4,
        "InceptionResNet": _inception_resnet,
        "ResNet": _resnet,
        "SENet": _resnet,
        "PreResNet": _resnet,
        "DenseNet": _densenet,
        "MobileNet": _MOBILENET,
        "EfficientNet": _efficientnet,
        "RegNet": _REGNET,
        "SqueezeNet": _squeezenet,
        "Xception": _xception,
    },
    convolutions={
        **dict.fromkeys(("ResNet", "SENet", "PreResNet", "EfficientNet", "RegNet"), _GATES),
        "SqueezeNet": ((r"^output\.final_conv\.weight", 1),),
    },
    mirrored={"ResNet": r"\.sp_gate\.conv\.conv\.weight"},
)
