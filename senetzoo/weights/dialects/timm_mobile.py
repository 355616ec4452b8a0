"""timm's names of the mobile networks, of EfficientNet and of RegNet.

Its blocks of inverted residuals are in stages, and name their layers by what they are.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects.base import Counterpart, Rename, is_gate, rewritten

# Of timm's norms but in the networks that it took from TensorFlow, which pad otherwise than ours.
_EPS = {"eps": 1e-5}
# Those with `_tv` are torchvision's, where the authors' own have other widths.
_REGNETS = {
    "x": ("004_tv", "008", "016", "032", "080", "160", "320"),
    "y": ("004", "008_tv", "016", "032", "080_tv", "160", "320"),
}
_SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")

NETWORKS = {
    **{
        f"mobilenetv2_{width}": Counterpart(f"mobilenet_v2{'' if width == '100' else f'_{width}'}")
        for width in ("035", "050", "075", "100", "140")
    },
    "mobilenetv3_large_100": Counterpart("mobilenet_v3_large", _EPS),
    "mobilenetv3_small_100": Counterpart("mobilenet_v3_small", _EPS),
    "mnasnet_050": Counterpart("mnasnet0_5"),
    "mnasnet_075": Counterpart("mnasnet0_75"),
    "mnasnet_100": Counterpart("mnasnet1_0"),
    "mobilenetv1_100": Counterpart("mobilenet_v1"),
    "mobilenetv1_125": Counterpart("mobilenet_v1", {"width": 1.25}),
    "ghostnet_100": Counterpart("ghostnet_100"),
    **{f"efficientnet_b{n}": Counterpart(f"efficientnet_b{n}") for n in range(5)},
    **{f"efficientnet_b{n}": Counterpart(f"efficientnet_b{n}", _EPS) for n in range(5, 8)},
    **{
        f"regnet{letter}_{theirs}": Counterpart(f"regnet_{letter}_{ours}")
        for letter, sizes in _REGNETS.items()
        for theirs, ours in zip(sizes, _SIZES, strict=True)
    },
}

GATES = (
    (r"\.slots\.inner\.fc1\.", ".se.conv_reduce."),
    (r"\.slots\.inner\.fc2\.", ".se.conv_expand."),
)
# The convolutions of a block that expands, and of one that does not.
_LAYERS = (("conv_pw", "conv_dw", "conv_pwl"), ("conv_dw", "conv_pw"))


def _flat(name: str, model: Classifier) -> str | None:
    """MobileNetV2 and V3: blocks in a row here, in stages there."""
    places = [(n, at) for n, blocks in enumerate(model.stages()) for at, _ in enumerate(blocks)]
    found = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if found is None:
        return rewritten(
            name, (r"^classifier\.0\.", "conv_head."), (r"^classifier\.\d\.", "classifier.")
        )
    number, rest = int(found[1]) - 1, found[2]
    if number < 0:
        return rewritten(rest, (r"^0\.", "conv_stem."), (r"^1\.", "bn1."))
    if number == len(places):
        end = f"blocks.{len(model.stages())}.0."
        rules = (
            ("conv_head.", "bn2.")
            if model.family == "MobileNetV2"
            else (end + "conv.", end + "bn1.")
        )
        return rewritten(rest, (r"^0\.", rules[0]), (r"^1\.", rules[1]))
    block = model.get_submodule(f"features.{number + 1}")
    if is_gate(rest):
        rest = rewritten(f".{rest}", *GATES)[1:]
    else:
        layer, _, field = rest.rpartition(".")
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        layers = [path for path, m in block.named_modules() if isinstance(m, kinds)]
        layers = [path for path in layers if not is_gate(path)]
        at, norm = divmod(layers.index(layer), 2)
        convs = _LAYERS[len(layers) == 4]
        rest = f"{f'bn{at + 1}' if norm else convs[at]}.{field}"
    return f"blocks.{places[number][0]}.{places[number][1]}.{rest}"


_MNASNET = (
    (r"^layers\.0\.", "conv_stem."),
    (r"^layers\.1\.", "bn1."),
    (r"^layers\.3\.", "blocks.0.0.conv_dw."),
    (r"^layers\.4\.", "blocks.0.0.bn1."),
    (r"^layers\.6\.", "blocks.0.0.conv_pw."),
    (r"^layers\.7\.", "blocks.0.0.bn2."),
    (r"^layers\.14\.", "conv_head."),
    (r"^layers\.15\.", "bn2."),
    (r"^layers\.(\d+)\.", lambda found: f"blocks.{int(found[1]) - 7}."),
    (r"\.layers\.([036])\.", lambda found: f".{_LAYERS[0][int(found[1]) // 3]}."),
    (r"\.layers\.([147])\.", lambda found: f".bn{int(found[1]) // 3 + 1}."),
    (r"^classifier\.1\.", "classifier."),
)

_EFFICIENTNET = (
    (r"^features\.0\.0\.", "conv_stem."),
    (r"^features\.0\.1\.", "bn1."),
    (r"^features\.8\.0\.", "conv_head."),
    (r"^features\.8\.1\.", "bn2."),
    (r"^classifier\.1\.", "classifier."),
    # The first stage does not expand.
    (r"^(features\.1\.\d+)\.block\.0\.0\.", r"\1.conv_dw."),
    (r"^(features\.1\.\d+)\.block\.2\.0\.", r"\1.conv_pw."),
    (r"^(features\.1\.\d+)\.block\.2\.1\.", r"\1.bn2."),
    (r"\.block\.0\.0\.", ".conv_pw."),
    (r"\.block\.0\.1\.", ".bn1."),
    (r"\.block\.1\.0\.", ".conv_dw."),
    (r"\.block\.1\.1\.", ".bn2."),
    (r"\.block\.3\.0\.", ".conv_pwl."),
    (r"\.block\.3\.1\.", ".bn3."),
    *GATES,
    (r"^features\.(\d)\.", lambda found: f"blocks.{int(found[1]) - 1}."),
)

_REGNET = (
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.bn."),
    (
        r"^trunk_output\.block\d\.block(\d)-(\d+)\.",
        lambda found: f"s{found[1]}.b{int(found[2]) + 1}.",
    ),
    (r"\.proj\.0\.", ".downsample.conv."),
    (r"\.proj\.1\.", ".downsample.bn."),
    (r"\.f\.([abc])\.0\.", lambda found: f".conv{' abc'.index(found[1])}.conv."),
    (r"\.f\.([abc])\.1\.", lambda found: f".conv{' abc'.index(found[1])}.bn."),
    (r"\.slots\.inner\.(fc[12]\.)", r".se.\1"),
    (r"^fc\.", "head.fc."),
)


def old_regnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file of torchvision's, which timm's own address of some weights has."""
    gates = (r"\.f\.se\.(fc[12]\.)", r".se.\1")
    return {rewritten(name, gates, *_REGNET): tensor for name, tensor in state.items()}


FAMILIES: dict[str, Rename] = {
    "MobileNet": (),
    "MobileNetV2": _flat,
    "MobileNetV3": _flat,
    "MNASNet": _MNASNET,
    "GhostNet": GATES,
    "EfficientNet": _EFFICIENTNET,
    "RegNet": _REGNET,
}

_SE = (r"\.se\.conv_(reduce|expand)\.weight", 1)
CONVOLUTIONS = {
    "GhostNet": (_SE,),
    "EfficientNet": (_SE,),
    "MobileNetV3": (_SE, (r"^conv_head\.weight", 1)),
    "RegNet": ((r"\.se\.fc[12]\.weight", 1),),
}
