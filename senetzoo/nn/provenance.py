"""What of a load report still holds of the network that has it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.report import LoadReport


def checksums(tensor: Tensor) -> tuple[int, ...]:
    """Checksums of a tensor's values: as they are, and rounded to fp16 and bf16."""
    if not tensor.is_floating_point():
        return (_checksum(tensor),)
    return tuple(_checksum(tensor.to(dtype)) for dtype in _FORMATS)


# What a network of weights in float32 is cast to; float64 has the same values.
_FORMATS = (torch.float32, torch.float16, torch.bfloat16)


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data)


def _is_one_of(tensor: Tensor, known: tuple[int, ...]) -> bool:
    """Whether a tensor has the values whose `checksums` are known, or these rounded."""
    if not tensor.is_floating_point() or len(known) == 1:
        return _checksum(tensor) == known[0]
    return any(
        _checksum(rounded) == number and torch.equal(rounded.to(tensor.dtype), tensor)
        for dtype, number in zip(_FORMATS, known, strict=True)
        for rounded in [tensor.to(dtype)]
    )


def calibration(model: Classifier) -> tuple[float, float | None]:
    """`model.temperature` and `model.reject_below`; none where it was trained since they were set.

    What was set by hand is as it was set.
    """
    tensors, known = model.state_dict(), model.calibrated
    same = tensors.keys() == known.keys() and all(
        tensor.is_meta or _is_one_of(tensor, known[name]) for name, tensor in tensors.items()
    )
    return (model.temperature, model.reject_below) if same or not known else (1.0, None)


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
        classes=model.classes,
        replaced=tuple(new.items()),
        adapted=(*report.adapted, *gone),
        changed=tuple(
            name
            for name, tensor in tensors.items()
            if name not in new and not _is_one_of(tensor, loaded[name])
        ),
    )
