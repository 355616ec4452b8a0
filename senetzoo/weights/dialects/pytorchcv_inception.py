"""pytorchcv's names in the Inception line, whose branches and convolutions count from 1."""

from __future__ import annotations

import re

from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects.base import rewritten


def bn_inception(name: str, model: Classifier) -> str | None:
    """Of its ``bninception``."""
    del model
    stem = {"0": "conv1", "2": "conv2.conv1", "3": "conv2.conv2"}
    modules = {"3a": (1, 1), "3b": (1, 2), "3c": (2, 1), "4e": (3, 1), "5a": (3, 2), "5b": (3, 3)}
    modules |= {f"4{letter}": (2, number) for number, letter in enumerate("abcd", 2)}
    found = re.fullmatch(r"inception(\d\w)\.(branch\w+)\.(.+)", name)
    if found is None:
        return rewritten(
            name,
            (r"^stem\.(\d)\.", lambda at: f"features.init_block.{stem[at[1]]}."),
            (r"^fc\.", "output."),
        )
    stage, unit = modules[found[1]]
    kinds = ("branch1x1", "branch3x3", "branch_double3x3", "branch_pool")
    # Those of stride 2 have no 1x1 branch.
    branch = kinds.index(found[2]) + (0 if unit == 1 and stage > 1 else 1)
    rest = found[3]
    if found[2] == "branch_pool":
        # The pool is layer 0 of the branch here.
        rest = re.sub(r"^1\.", "conv.", rest)
    else:
        rest = re.sub(r"^(\d)\.", lambda at: f"conv{int(at[1]) + 1}.", rest)
    return f"features.stage{stage}.unit{unit}.branches.branch{branch}.{rest}"


def inception_v3(name: str, model: Classifier) -> str | None:
    """Of its ``inceptionv3``, which has no auxiliary head."""
    del model
    stem = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
    units = {f"5{letter}": (1, number) for number, letter in enumerate("bcd", 1)}
    units |= {f"6{letter}": (2, number) for number, letter in enumerate("abcde", 1)}
    units |= {f"7{letter}": (3, number) for number, letter in enumerate("abc", 1)}
    found = re.fullmatch(r"Mixed_(\d\w)\.(branch\w+?)(?:_(\d)([ab]?))?\.((?:conv|bn)\..+)", name)
    if found is None:
        if name.startswith("AuxLogits."):
            return None
        return rewritten(
            name,
            (
                r"^Conv2d_(\w+)\.",
                lambda at: f"features.init_block.conv{stem.index(at[1]) + 1}.",
            ),
            (r"^fc\.", "output.fc."),
        )
    module, kind, number, half, rest = found.groups()
    stage, unit = units[module]
    reduction = module in ("6a", "7a")
    if kind == "branch1x1":
        place = "branch1.conv"
    elif kind == "branch_pool":
        place = "branch4.conv"
    else:
        # The longer of the two comes last: 3x3dbl, 7x7dbl, 7x7x3.
        branch = (2 if len(kind) > len("branch3x3") else 1) + (0 if reduction else 1)
        place = f"branch{branch}.conv_list.conv{number or 1}"
        if half:
            place = f"branch{branch}.{'conv1x3' if half == 'a' else 'conv3x1'}"
    return f"features.stage{stage}.unit{unit}.branches.{place}.{rest}"


def _branches(name: str) -> str:
    """Inside a module of Inception v4 and Inception-ResNet."""

    def numbered(at: re.Match[str]) -> str:
        return f"branches.branch{int(at[1]) + 1}.conv_list.conv{int(at[2]) + 1}."

    return rewritten(
        name,
        # The pool is layer 0 of the last branch here.
        (r"\bbranch3\.1\.", "branches.branch4.conv."),
        (
            r"\bbranch(\d)\.\d\.branch([01])\.",
            lambda at: f"branches.branch{int(at[1]) + 1}.{('conv1x3', 'conv3x1')[int(at[2])]}.",
        ),
        (r"(?<!\.branches)\.branch(\d)\.(\d)\.", lambda at: f".{numbered(at)}"),
        (
            r"(?<!\.branches)\.branch(\d)\.(?=conv\.|bn\.)",
            lambda at: f".branches.branch{int(at[1]) + 1}.conv.",
        ),
    )


def inception_v4(name: str, model: Classifier) -> str | None:
    """Of its ``inceptionv4``."""
    del model
    name = rewritten(
        _branches(name),
        (r"^stem\.([012])\.", lambda at: f"features.init_block.conv{int(at[1]) + 1}."),
        (r"^stem\.([345])\.", lambda at: f"features.init_block.block{int(at[1]) - 2}."),
        (r"^(stage\d)\.(\d)\.", lambda at: f"features.{at[1]}.unit{int(at[2]) + 1}."),
        (r"^fc\.", "output.fc."),
    )
    # The only convolution of a branch is a list of one there, in the first module of stage 2.
    first = r"^(features\.stage2\.unit1\.branches\.branch1)\.conv\."
    return re.sub(first, r"\1.conv_list.conv1.", name)


def inception_resnet(name: str, model: Classifier) -> str | None:
    """Of its ``inceptionresnetv1`` and ``inceptionresnetv2``."""
    stem = ("1a", "2a", "2b", "3b", "4a", "4b")
    last = len(list(model.get_submodule("repeat_2").children())) + 2
    first_version = getattr(model, "last_linear", None) is not None
    name = rewritten(
        _branches(name),
        (r"^conv2d_7b\.", "features.final_conv."),
        (r"^conv2d_(\w+)\.", lambda at: f"features.init_block.conv{stem.index(at[1]) + 1}."),
        (r"^mixed_5b\.", "features.init_block.block."),
        (r"^repeat\.(\d+)\.", lambda at: f"features.stage1.unit{int(at[1]) + 1}."),
        (r"^mixed_6a\.", "features.stage2.unit1."),
        (r"^repeat_1\.(\d+)\.", lambda at: f"features.stage2.unit{int(at[1]) + 2}."),
        (r"^mixed_7a\.", "features.stage3.unit1."),
        (r"^repeat_2\.(\d+)\.", lambda at: f"features.stage3.unit{int(at[1]) + 2}."),
        (r"^block8\.", f"features.stage3.unit{last}."),
        (r"(unit\d+)\.conv2d\.", r"\1.conv."),
        (r"^classif\.", "output.fc2." if first_version else "output.fc."),
        (r"^last_linear\.", "output.fc1."),
        (r"^last_bn\.", "output.bn."),
    )
    first = r"^(features\.stage2\.unit1\.branches\.branch1)\.conv\."
    return re.sub(first, r"\1.conv_list.conv1.", name)
