"""What loading weights did to a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from senetzoo.nn.preprocessing import Preprocessing


@dataclass(frozen=True)
class LoadReport:
    """Which weights a network has, and what of it they do not cover. Print it to read it.

    ``model.load_report`` is of the moment of loading. What is exported or pushed says what holds
    then: `senetzoo.nn.provenance.provenance`.

    Args:
        tag: Which weights: a manifest entry, ``"se_resnet20.cifar10_v1"``; a repository at a
            commit, ``"hf-hub:owner/name@0123..."``; a folder; or a file.
        origin: Where the file came from: ``"embedded"``, ``"cache"``, ``"folder"`` (of
            SENETZOO_WEIGHTS, or that `save` or a training run wrote), ``"mirror"``, ``"hub"``,
            ``"url"``, or ``"file"`` (given as ``weights=``).
        sha256: Hash of the file that was read.
        classes: Class names in the order of the logits; empty after the classifier was replaced
            or where the weights come without names.
        replaced: Parameters that keep their random initialization, with the reason.
        adapted: Parameters that were changed to fit, with what was done.
        pinned: What the file was checked by: ``"sha256"``, the ``"prefix"`` of it or the
            ``"sha1"`` that the publisher states, or nothing.
        preprocessing: What images went through when the weights were trained and tested; None
            where nobody says. For another form of the network than theirs, the size is that form's.
        changed: Tensors that have other values than those that were loaded. A network on another
            device, or in another number format, has the same ones, rounded to that format.
    """

    tag: str
    origin: str
    sha256: str
    classes: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    adapted: tuple[tuple[str, str], ...] = ()
    pinned: Literal["sha256", "prefix", "sha1", ""] = "sha256"
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
