"""What loading weights did to a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Input:
    """What a network was trained to see; the fields are those of `Transforms`."""

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    crop: float


@dataclass(frozen=True)
class LoadReport:
    """Which weights a network has, and what of it they do not cover. Print it to read it.

    Args:
        tag: Which weights: a manifest entry, ``"se_resnet20.cifar10_v1"``; a repository at a
            commit, ``"hf-hub:owner/name@0123..."``; or a folder.
        origin: Where the file came from: ``"embedded"``, ``"cache"``, ``"folder"`` (of
            SENETZOO_WEIGHTS, or that `save` wrote), ``"mirror"``, ``"hub"`` or ``"url"``.
        sha256: Hash of the file that was read.
        classes: Class names in the order of the logits; empty after the classifier was replaced
            or where the weights come without names.
        replaced: Parameters that keep their random initialization, with the reason.
        adapted: Parameters that were changed to fit, with what was done.
        pinned: What the file was checked by: ``"sha256"``, the ``"prefix"`` of it that the
            publisher states, or nothing.
        input: What the weights were trained to see; None where nobody says. For another form of
            the network than theirs, the size is that form's.
    """

    tag: str
    origin: str
    sha256: str
    classes: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    adapted: tuple[tuple[str, str], ...] = ()
    pinned: Literal["sha256", "prefix", ""] = "sha256"
    input: Input | None = None

    def __str__(self) -> str:
        state = {"sha256": "", "prefix": ", checked by its start", "": ", not pinned"}[self.pinned]
        lines = [f"weights {self.tag} ({self.origin}, sha256 {self.sha256[:12]}{state})"]
        lines += [f"  not loaded: {name} ({why})" for name, why in self.replaced]
        lines += [f"  adapted: {name} ({how})" for name, how in self.adapted]
        return "\n".join(lines)
