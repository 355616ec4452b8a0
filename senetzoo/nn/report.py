"""The result of loading weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from senetzoo.nn.preprocessing import Preprocessing


Pinned: TypeAlias = Literal["sha256", "prefix", "sha1", ""]
"""What a file is checked by: its sha256, the start of it, its SHA-1, or nothing."""


@dataclass(frozen=True)
class LoadReport:
    """Which weights a network has, and which of its tensors they don't cover. Made to be printed.

    ``model.load_report`` describes the moment of loading; exports and pushes use the current state,
    `senetzoo.nn.provenance.provenance`.

    Args:
        tag: Which weights: a manifest entry, ``"se_resnet20.cifar10_v1"``; a repository at a
            commit, ``"hf-hub:owner/name@0123..."``; a folder; or a file.
        origin: Where the file came from: ``"embedded"``, ``"cache"``, ``"folder"`` (from
            SENETZOO_WEIGHTS, or written by `save` or a training run), ``"mirror"``, ``"hub"``,
            ``"url"``, or ``"file"`` (passed as ``weights=``).
        sha256: Hash of the file.
        classes: Class names in the order of the logits; empty if the classifier was replaced or
            the weights have no names.
        replaced: Parameters that kept their random initialization, each with the reason.
        adapted: Parameters that were changed to fit, each with the change.
        pinned: The hash stated by the publisher that the file was checked against: ``"sha256"``,
            its ``"prefix"``, ``"sha1"``, or nothing.
        preprocessing: Preprocessing of the training and evaluation images; None if unknown. For a
            variant with another input size, it has that size.
        changed: Tensors whose values differ from the loaded ones. Moving a network to another
            device or casting it to another number format isn't a change.
    """

    tag: str
    origin: str
    sha256: str
    classes: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    adapted: tuple[tuple[str, str], ...] = ()
    pinned: Pinned = "sha256"
    preprocessing: Preprocessing | None = None
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        state = {
            "sha256": "",
            "prefix": ", checked by its start",
            "sha1": ", checked by its SHA-1",
            "": ", not pinned",
        }[self.pinned]
        start = "trained from " if self.changed else ""
        lines = [f"{start}weights {self.tag} ({self.origin}, sha256 {self.sha256[:12]}{state})"]
        lines += [f"  not loaded: {name} ({why})" for name, why in self.replaced]
        lines += [f"  adapted: {name} ({how})" for name, how in self.adapted]
        lines += [f"  changed: {name}" for name in self.changed]
        return "\n".join(lines)
