"""pytorchcv's names (osmr/imgclsmob): ``features``, its stages and their units, then ``output``.

Its deep networks without a ``b`` in the name have the stride of a bottleneck on the first 1x1. Not
here, because they are no networks of this zoo: ``bn_vgg*`` without a ``b`` (convolutions without
bias), ``alexnet`` (the 2012 network in one group), and the SE pre-activation networks for CIFAR,
which lack the norm at the end.
"""

from __future__ import annotations

import re

from torch import nn

from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects.base import (
    Counterpart,
    Dialect,
    has_deep_stem,
    rewriting,
    rewritten,
)
from senetzoo.weights.dialects.pytorchcv_inception import (
    bn_inception,
    inception_resnet,
    inception_v3,
    inception_v4,
)

_CAFFE = {"stride_on": "1x1"}
_NORM = {"stem_norm": True}
_SETS = {"cifar10": 10, "cifar100": 100, "svhn": 10}


def _deep(theirs: str, ours: str, **changes: object) -> dict[str, Counterpart]:
    """The bottleneck networks for ImageNet, with the stride on either convolution."""
    networks = {}
    for depth in (50, 101, 152):
        if (ours, depth) == ("preresnet", 152) or (ours, depth) == ("se_preresnet", 152):
            continue
        networks[f"{theirs}{depth}"] = Counterpart(f"{ours}{depth}", {**_CAFFE, **changes})
        networks[f"{theirs}{depth}b"] = Counterpart(f"{ours}{depth}", changes)
    return networks


def _small(theirs: str, ours: str, **changes: object) -> dict[str, Counterpart]:
    """A network for small images, of each data set that it has weights for."""
    return {
        f"{theirs}_{data}": Counterpart(
            ours, {**changes, **({} if classes == 10 else {"num_classes": classes})}
        )
        for data, classes in _SETS.items()
    }


NETWORKS: dict[str, Counterpart] = {
    "alexnetb": Counterpart("alexnet"),
    **{f"vgg{depth}": Counterpart(f"vgg{depth}") for depth in (11, 13, 16, 19)},
    **{f"bn_vgg{depth}b": Counterpart(f"vgg{depth}_bn") for depth in (11, 13, 16, 19)},
    "bninception": Counterpart("bn_inception"),
    "inceptionv3": Counterpart("inception_v3"),
    "inceptionv4": Counterpart("inception_v4"),
    "inceptionresnetv1": Counterpart("inception_resnet_v1"),
    "inceptionresnetv2": Counterpart("inception_resnet_v2"),
    "resnet18": Counterpart("resnet18"),
    "resnet34": Counterpart("resnet34"),
    **_deep("resnet", "resnet"),
    "seresnet18": Counterpart("se_resnet18"),
    **_deep("seresnet", "se_resnet"),
    "preresnet18": Counterpart("preresnet18", _NORM),
    "preresnet34": Counterpart("preresnet34", _NORM),
    **_deep("preresnet", "preresnet", **_NORM),
    "sepreresnet18": Counterpart("se_preresnet18", _NORM),
    "sepreresnet34": Counterpart("se_preresnet34", _NORM),
    **_deep("sepreresnet", "se_preresnet", **_NORM),
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
    "efficientnet_b0": Counterpart("efficientnet_b0"),
    **_small("resnet20", "resnet20"),
    **_small("resnet56", "resnet56"),
    **_small("resnet110", "resnet110"),
    **_small("resnet164bn", "resnet164"),
    **_small("seresnet20", "se_resnet20"),
    **_small("seresnet56", "se_resnet56"),
    **_small("seresnet110", "se_resnet110"),
    **_small("seresnet164bn", "se_resnet164"),
    **_small("preresnet20", "preresnet20"),
    **_small("preresnet56", "preresnet56"),
    **_small("preresnet110", "preresnet110"),
    **_small("preresnet164bn", "preresnet164"),
    **_small("wrn16_10", "wrn16_8", widen=10),
    **_small("wrn28_10", "wrn28_10"),
    **_small("wrn40_8", "wrn28_10", depths=(6, 6, 6), widen=8),
    **_small("densenet40_k12", "densenet40_12", compression=0.5, width=24),
    **_small("densenet100_k12_bc", "densenet_bc_100_12"),
    **_small("densenet190_k40_bc", "densenet_bc_190_40"),
}


def _unit(found: re.Match[str]) -> str:
    return f"features.stage{found[1]}.unit{int(found[2]) + 1}."


def _stem(name: str, model: Classifier) -> str:
    """The stem of the ResNet line, which is a block of its own where it pools or is deep."""
    block = "features.init_block."
    if has_deep_stem(model):
        deep = {"0": "conv1.conv", "1": "conv1.bn", "3": "conv2.conv", "4": "conv2.bn"}
        deep["6"] = "conv3.conv"
        return rewritten(
            name,
            (r"^conv1\.(\d)\.", lambda found: f"{block}{deep[found[1]]}."),
            (r"^bn1\.", f"{block}conv3.bn."),
        )
    normed = getattr(model, "bn1", None) is not None
    if model.family == "PreResNet":
        rules = (r"^conv1\.", f"{block}conv." if normed else block), (r"^bn1\.", f"{block}bn.")
        return rewritten(name, *rules)
    if getattr(model, "maxpool", None) is not None:
        block += "conv."
    return rewritten(name, (r"^conv1\.", f"{block}conv."), (r"^bn1\.", f"{block}bn."))


def _resnet(name: str, model: Classifier) -> str | None:
    """ResNet, SENet and PreResNet."""
    return rewritten(
        _stem(name, model),
        (r"^layer(\d)\.(\d+)\.", _unit),
        (r"(unit\d+)\.conv(\d)\.", r"\1.body.conv\2.conv."),
        (r"(unit\d+)\.(?:bn|norm)(\d)\.", r"\1.body.conv\2.bn."),
        (r"\.downsample\.0\.", ".identity_conv.conv."),
        (r"\.downsample\.1\.", ".identity_conv.bn."),
        (r"\.downsample\.", ".identity_conv."),
        (r"\.slots\.standard\.fc([12])\.", r".se.conv\1."),
        (r"^norm\.", "features.post_activ.bn."),
        (r"^fc\.", "output.fc." if model.family == "SENet" else "output."),
    )


def _densenet(name: str, model: Classifier) -> str | None:
    """Norm and convolution are one child, which has no number where a layer has only one."""
    normed = getattr(model.get_submodule("features"), "norm0", None) is not None
    kinds = {"norm": "bn", "conv": "conv"}
    bottleneck = hasattr(model.get_submodule("features.denseblock1.denselayer1"), "conv2")

    def layer(found: re.Match[str]) -> str:
        stage, unit, kind, number = found.groups()
        return f"features.stage{stage}.unit{unit}.conv{number if bottleneck else ''}.{kinds[kind]}."

    def transition(found: re.Match[str]) -> str:
        stage = int(found[1]) + 1
        return f"features.stage{stage}.trans{stage}.conv.{kinds[found[2]]}."

    return rewritten(
        name,
        (r"^features\.conv0\.", f"features.init_block.{'conv.' if normed else ''}"),
        (r"^features\.norm0\.", "features.init_block.bn."),
        (r"^features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)(\d)\.", layer),
        (r"^features\.transition(\d)\.(norm|conv)\.", transition),
        (r"^features\.norm5\.", "features.post_activ.bn."),
        (r"^classifier\.", "output."),
    )


def _plain(name: str, model: Classifier) -> str | None:
    """AlexNet and VGG: a stage goes to the next pool, a unit is a convolution and what follows."""
    _, index, parameter = (*name.split("."), "", "")[:3]
    places: dict[str, str] = {}
    stage, unit = 1, 0
    for child, layer in model.get_submodule("features").named_children():
        if isinstance(layer, nn.Conv2d):
            unit += 1
            places[child] = f"features.stage{stage}.unit{unit}.conv"
        elif isinstance(layer, nn.BatchNorm2d):
            places[child] = f"features.stage{stage}.unit{unit}.bn"
        elif isinstance(layer, nn.MaxPool2d):
            stage, unit = stage + 1, 0
    if name.startswith("features.") and index in places:
        return f"{places[index]}.{parameter}"
    head = model.get_submodule("classifier")
    hidden = (child for child, layer in head.named_children() if isinstance(layer, nn.Linear))
    linear = dict(zip(hidden, ("output.fc1.fc", "output.fc2.fc", "output.fc3"), strict=False))
    return f"{linear[index]}.{parameter}" if name.startswith("classifier.") else None


_mobilenet = rewriting(
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
    found = re.fullmatch(r"features\.([1-7])\.(\d)\.(.+)", name)
    if found is None:
        layer = {"0": "conv", "1": "bn"}
        return rewritten(
            name,
            (
                r"^features\.0\.(\d)\.",
                lambda at: f"features.init_block.conv.{layer[at[1]]}.",
            ),
            (r"^features\.8\.(\d)\.", lambda at: f"features.final_block.{layer[at[1]]}."),
            (r"^classifier\.1\.", "output.fc."),
        )
    stage, unit = int(found[1]), int(found[2]) + 1
    if stage in (5, 7):
        unit += len(list(model.get_submodule(f"features.{stage - 1}").children()))
    convs = {"0": "dw_conv", "2": "pw_conv"} if stage == 1 else {}
    convs = convs or {"0": "conv1", "1": "conv2", "3": "conv3"}
    rest = rewritten(
        found[3],
        (r"^block\.(\d)\.0\.", lambda at: f"{convs[at[1]]}.conv."),
        (r"^block\.(\d)\.1\.", lambda at: f"{convs[at[1]]}.bn."),
        (r"^slots\.inner\.fc([12])\.", r"se.conv\1."),
    )
    merged = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 5, 7: 5}
    return f"features.stage{merged[stage]}.unit{unit}.{rest}"


_GATES = ((r"\.se\.conv[12]\.weight", 1),)

DIALECT = Dialect(
    networks=NETWORKS,
    families={
        "AlexNet": _plain,
        "VGG": _plain,
        "BNInception": bn_inception,
        "InceptionV3": inception_v3,
        "InceptionV4": inception_v4,
        "InceptionResNet": inception_resnet,
        "ResNet": _resnet,
        "SENet": _resnet,
        "PreResNet": _resnet,
        "DenseNet": _densenet,
        "MobileNet": _mobilenet,
        "EfficientNet": _efficientnet,
    },
    convolutions=dict.fromkeys(("ResNet", "SENet", "PreResNet", "EfficientNet"), _GATES),
)
