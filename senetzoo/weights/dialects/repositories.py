"""Names of well-known repositories of ResNets for CIFAR, whose files have no library behind them.

kuangliu/pytorch-cifar calls the head ``linear`` and shortcuts ``shortcut``, and so does
akamaster/pytorch_resnet_cifar10, whose shortcuts have no parameters; weiaicunzai/pytorch-cifar100
numbers the layers of a branch. Many copies of them differ in a word.
"""

from __future__ import annotations

import re

from torch import Tensor

from senetzoo.weights.dialects.base import Dialect, rewritten

# Words of the copies for the head and the shortcuts.
_HEAD = r"^(?:linear|fc|classifier|head|last_linear|output|out|logits)\.(?=weight$|bias$)"
_SHORTCUT = r"\.(?:shortcut|downsample|short_cut|skip|projection|proj|identity)\.(?=[01]\.)"


def _one_word(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file with other words for the head or the shortcuts; one with torchvision's stays."""
    words = {match[0] for name in state if (match := re.search(f"{_HEAD}|{_SHORTCUT}", name))}
    if words <= {"fc.", ".downsample."}:
        return state
    rules = ((_HEAD, "linear."), (_SHORTCUT, ".shortcut."))
    return {rewritten(name, *rules): tensor for name, tensor in state.items()}


KUANGLIU = Dialect(
    networks={},
    families={"ResNet": ((r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear."))},
    updates={"ResNet": _one_word},
)

WEIAICUNZAI = Dialect(
    networks={},
    families={
        "ResNet": (
            (r"\.conv(\d)\.", lambda found: f".residual_function.{3 * int(found[1]) - 3}."),
            (r"\.bn(\d)\.", lambda found: f".residual_function.{3 * int(found[1]) - 2}."),
            (r"^conv1\.", "conv1.0."),
            (r"^bn1\.", "conv1.1."),
            (r"^layer(\d)\.", lambda found: f"conv{int(found[1]) + 1}_x."),
            (r"\.downsample\.", ".shortcut."),
        )
    },
)
