"""timm's names, and those of its ``legacy_se*``: Cadene's ports of the SE authors' Caffe networks.

The files that timm loads are Cadene's own, name for name: ``pretrainedmodels.se_resnet50`` is
``legacy_seresnet50`` here. All pool in ceil mode without padding; the bottlenecks of the SE-ResNets
have the stride on the first 1x1.

``legacy_seresnet18`` and ``34`` are no networks of this zoo: their basic block has a ReLU between
its second norm and the gate, which neither the paper nor a bottleneck of theirs has.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects import timm_mobile
from senetzoo.weights.dialects.base import (
    Counterpart,
    Dialect,
    dense_layers,
    has_deep_stem,
    rewritten,
)

# The hidden units of the narrowest stage, 64 / 16, are rounded up to 8; elsewhere rounding changes
# nothing.
_ROUNDED = "se16(width=round8)"
_LARGE = {"embed_dim": 192, "heads": (6, 12, 24, 48)}

_SELECTIVE = ("skresnet18", "skresnet34", "skresnet50", "skresnext50_32x4d")

NETWORKS = {
    **{
        name: Counterpart(name)
        for name in (
            *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")),
            "inception_v3",
            "inception_v4",
            "inception_resnet_v2",
            *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
            "resnext50_32x4d",
            "resnext101_32x4d",
            "resnext101_32x8d",
            "resnext101_64x4d",
            "wide_resnet50_2",
            "wide_resnet101_2",
            "senet154",
            *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
        )
    },
    "resnet26": Counterpart("resnetbc26"),
    **{f"resnet{d}c": Counterpart(f"resnet{d}", {"stem": "deep"}) for d in (50, 101, 152)},
    "resnext101_32x16d": Counterpart("resnext101_32x8d", {"group_width": 16}),
    "resnext101_32x32d": Counterpart("resnext101_32x8d", {"group_width": 32}),
    "seresnet18": Counterpart("se_resnet18", policy=_ROUNDED),
    "seresnet34": Counterpart("se_resnet34", policy=_ROUNDED),
    **{f"seresnet{d}": Counterpart(f"se_resnet{d}") for d in (50, 101, 152)},
    **{
        f"seresnext{form}": Counterpart(f"se_resnext{form}")
        for form in ("50_32x4d", "101_32x4d", "101_32x8d", "101_64x4d")
    },
    **{name: Counterpart(name) for name in _SELECTIVE},
    "resnest50d": Counterpart("resnest50"),
    **{f"resnetv2_{d}": Counterpart(f"preresnet{d}") for d in (18, 34, 50, 101, 152)},
    "densenet264d": Counterpart("densenet264", {"growth": 48, "width": 96, "stem": "deep"}),
    "legacy_xception": Counterpart("xception"),
    **{name: Counterpart(name) for name in ("repvgg_a0", "repvgg_b0")},
    **{f"convnext_{size}": Counterpart(f"convnext_{size}") for size in ("tiny", "small")},
    **timm_mobile.NETWORKS,
    "swin_tiny_patch4_window7_224": Counterpart("swin_t"),
    "swin_small_patch4_window7_224": Counterpart("swin_s"),
    "swin_base_patch4_window7_224": Counterpart("swin_b"),
    "swin_base_patch4_window12_384": Counterpart("swin_b", {"window": 12}),
    "swin_large_patch4_window7_224": Counterpart("swin_b", _LARGE),
    "swin_large_patch4_window12_384": Counterpart("swin_b", {"window": 12, **_LARGE}),
}


_RESNET = ((r"\.slots\.standard\.(fc[12]\.)", r".se.\1"),)
# Each convolution with its norm is a module there.
_SKNET = (
    (r"^(layer\d\.\d+)\.conv(\d)\.weight", r"\1.conv\2.conv.weight"),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.bn."),
    *_RESNET,
)
# The layers of a deep stem here, and their names there.
_DEEP = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2", "6": "conv3"}


def _preresnet(name: str, _: Classifier) -> str | None:
    if re.match(r"bn1\.", name):
        # Its stem ends in a convolution, as ours does unless `stem_norm` is asked for.
        return None
    return rewritten(
        name,
        (r"^conv1\.(\d)\.", lambda found: f"stem.{_DEEP[found[1]]}."),
        (r"^conv1\.weight", "stem.conv.weight"),
        (r"^layer(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks."),
        (r"\.downsample\.", ".downsample.conv."),
        (r"^fc\.", "head.fc."),
    )


def _densenet(name: str, model: Classifier) -> str | None:
    """A deep stem's convolutions are side by side there, and one child of three here."""
    deep = {"0": "conv0", "1": "norm0", "3": "conv1", "4": "norm1", "6": "conv2"}
    if not isinstance(model.get_submodule("features.conv0"), nn.Sequential):
        return name
    return rewritten(
        name,
        (r"^features\.norm0\.", "features.norm2."),
        (r"^features\.conv0\.(\d)\.", lambda found: f"features.{deep[found[1]]}."),
    )


_VGG = {"0": "pre_logits.fc1", "3": "pre_logits.fc2", "6": "head.fc"}
# The hidden linear layers are convolutions over the 7x7 map there.
_VGG_RULES = ((r"^classifier\.([036])\.", lambda found: f"{_VGG[found[1]]}."),)


def _inception_v4(name: str, model: Classifier) -> str | None:
    """A single sequence there, stages here; the stem's pools are the other branch of two blocks."""
    found = re.fullmatch(r"(stem|stage[123])\.(\d+)\.(.+)", name)
    if found is None:
        return name.replace("fc.", "last_linear.", 1)
    stage, index, rest = found.groups()
    stages = ("stem", "stage1", "stage2", "stage3")
    earlier = stages[: stages.index(stage)]
    before = sum(len(list(model.get_submodule(one).children())) for one in earlier)
    if stage == "stem" and index in ("3", "5"):
        rest = re.sub(r"^branch[01]\.", "conv.", rest)
    elif stage == "stage3" and index != "0":
        rest = rewritten(
            rest,
            (r"^branch([12])\.(\d)\.branch0\.", r"branch\1_\2a."),
            (r"^branch([12])\.(\d)\.branch1\.", r"branch\1_\2b."),
            (r"^branch([12])\.(\d)\.", r"branch\1_\2."),
        )
    return f"features.{before + int(index)}.{rest}"


def _swin_layer(found: re.Match[str]) -> str:
    index = int(found[1])
    return f"layers.{index // 2}.{'blocks' if index % 2 else 'downsample'}."


_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.(\d)\.", _swin_layer),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^head\.", "head.fc."),
)


_CONVNEXT = (
    (r"^features\.0\.", "stem."),
    (r"^features\.([246])\.", lambda found: f"stages.{int(found[1]) // 2}.downsample."),
    (r"^features\.([1357])\.", lambda found: f"stages.{int(found[1]) // 2}.blocks."),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.0\.", "head.norm."),
    (r"^classifier\.2\.", "head.fc."),
)


def _old_vgg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files of torchvision's, whose hidden layers are linear."""
    result = {rewritten(name, *_VGG_RULES): tensor for name, tensor in state.items()}
    for name, side in (("pre_logits.fc1.weight", 7), ("pre_logits.fc2.weight", 1)):
        tensor = result.get(name)
        if tensor is not None and tensor.ndim == 2 and tensor.shape[1] % side**2 == 0:
            result[name] = tensor.reshape(len(tensor), -1, side, side)
    return result


def _old_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' files: merging ends a stage there and begins the next one in timm."""
    if "layers.0.downsample.reduction.weight" not in state:
        return state
    rules = (
        (r"^layers\.(\d)(?=\.downsample\.)", lambda found: f"layers.{int(found[1]) + 1}"),
        (r"^head\.(?!fc\.)", "head.fc."),
    )
    return {rewritten(name, *rules): tensor for name, tensor in state.items()}


_GATES = ((r"\.se\.fc[12]\.weight", 1),)

DIALECT = Dialect(
    networks=NETWORKS,
    families={
        "ResNet": _RESNET,
        "SENet": _RESNET,
        "SKNet": _SKNET,
        "ResNeSt": (),
        "PreResNet": _preresnet,
        "DenseNet": _densenet,
        "VGG": _VGG_RULES,
        "RepVGG": ((r"^blocks\.", "stages."),),
        "InceptionV3": (),
        "InceptionV4": _inception_v4,
        "InceptionResNet": (),
        "Xception": (),
        "Swin": _SWIN,
        "ConvNeXt": _CONVNEXT,
        **timm_mobile.FAMILIES,
    },
    convolutions={
        **dict.fromkeys(("ResNet", "SENet", "SKNet"), _GATES),
        "PreResNet": ((r"^head\.fc\.weight", 1),),
        "VGG": ((r"^pre_logits\.fc1\.weight", 7), (r"^pre_logits\.fc2\.weight", 1)),
        **timm_mobile.CONVOLUTIONS,
    },
    vectors={"ConvNeXt": r"\.gamma$"},
    computed={"Swin": r"\.relative_position_index$"},
    updates={
        "DenseNet": dense_layers,
        "VGG": _old_vgg,
        "Swin": _old_swin,
        "RegNet": timm_mobile.old_regnet,
    },
)


_CEIL = {"pool": "ceil"}
_CAFFE = {"pool": "ceil", "stride_on": "1x1"}

_LEGACY_NETWORKS = {
    "legacy_seresnet50": Counterpart("se_resnet50", _CAFFE),
    "legacy_seresnet101": Counterpart("se_resnet101", _CAFFE),
    "legacy_seresnet152": Counterpart("se_resnet152", _CAFFE),
    "legacy_seresnext26_32x4d": Counterpart(
        "se_resnext50_32x4d", {"depths": (2, 2, 2, 2), **_CEIL}
    ),
    "legacy_seresnext50_32x4d": Counterpart("se_resnext50_32x4d", _CEIL),
    "legacy_seresnext101_32x4d": Counterpart("se_resnext101_32x4d", _CEIL),
    "legacy_senet154": Counterpart("senet154", _CEIL),
}


def _legacy_resnet(name: str, model: Classifier) -> str | None:
    return rewritten(
        name,
        (r"^conv1\.(\d)\.", lambda found: f"layer0.{_DEEP[found[1]]}.".replace("norm", "bn")),
        (r"^conv1\.weight", "layer0.conv1.weight"),
        (r"^bn1\.", "layer0.bn3." if has_deep_stem(model) else "layer0.bn1."),
        (r"\.slots\.standard\.(fc[12]\.)", r".se_module.\1"),
        (r"^fc\.", "last_linear."),
    )


_LEGACY_GATES = ((r"\.se_module\.fc[12]\.weight", 1),)

LEGACY = Dialect(
    networks=_LEGACY_NETWORKS,
    families={"ResNet": _legacy_resnet, "SENet": _legacy_resnet},
    convolutions={"ResNet": _LEGACY_GATES, "SENet": _LEGACY_GATES},
)
