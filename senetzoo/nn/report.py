"""What loading weights did to a network, and what of it still holds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from senetzoo.nn.classifier import Classifier
    from senetzoo.nn.preprocessing import Preprocessing


@dataclass(frozen=True)
class LoadReport:
    """Which weights a network has, and what of it they do not cover. Print it to read it.

    ``model.load_report`` is of the moment of loading. What is exported or pushed says what holds
    then: `provenance`.

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
        pinned: What the file was checked by: ``"sha256"``, the ``"prefix"`` of it that the
            publisher states, or nothing.
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
    pinned: Literal["sha256", "prefix", ""] = "sha256"
    preprocessing: Preprocessing | None = None
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        state = {"sha256": "", "prefix": ", checked by its start", "": ", not pinned"}[self.pinned]
        start = "trained from " if self.changed else ""
        lines = [f"{start}weights {self.tag} ({self.origin}, sha256 {self.sha256[:12]}{state})"]
        lines += [f"  not loaded: {name} ({why})" for name, why in self.replaced]
        lines += [f"  adapted: {name} ({how})" for name, how in self.adapted]
        lines += [f"  changed: {name}" for name in self.changed]
        return "\n".join(lines)


def checksums(tensor: Tensor) -> tuple[int, ...]:
    """Checksums of a tensor's values: as they are, and rounded to fp16 and bf16."""
    if not tensor.is_floating_point():
        return (_checksum(tensor),)
    return tuple(_checksum(tensor.to(dtype)) for dtype in _FORMATS)


# What a network of weights in float32 is cast to; float64 has the same values.
_FORMATS = (torch.float32, torch.float16, torch.bfloat16)


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(memoryview(flat.view(torch.uint8).numpy()))


def _is_one_of(tensor: Tensor, known: tuple[int, ...]) -> bool:
    """Whether a tensor has the values whose `checksums` are known, or these rounded."""
    if not tensor.is_floating_point() or len(known) == 1:
        return _checksum(tensor) == known[0]
    return any(
        _checksum(rounded) == number and torch.equal(rounded.to(tensor.dtype), tensor)
        for dtype, number in zip(_FORMATS, known, strict=True)
        for rounded in [tensor.to(dtype)]
    )


def provenance(model: Classifier) -> LoadReport | None:
    """The load report of `model` as of now: what has been trained, put in or taken out since.

    None for a network without weights. On the meta device, without values, it is as it was.
    """
    report, loaded = model.load_report, model.loaded
    tensors: Mapping[str, Tensor] = model.state_dict()
    if report is None or not loaded or any(tensor.is_meta for tensor in tensors.values()):
        return report
    new = dict(report.replaced)
    new |= {name: "put in later" for name in tensors if name not in loaded and name not in new}
    gone = [(name, "taken out later") for name in loaded if name not in tensors]
    return replace(
        report,
        replaced=tuple(new.items()),
        adapted=(*report.adapted, *gone),
        changed=tuple(
            name
            for name, tensor in tensors.items()
            if name not in new and not _is_one_of(tensor, loaded[name])
        ),
    )
