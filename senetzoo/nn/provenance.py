"""Which parts of a load report still hold for its network."""

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


# Types that float32 weights are cast to; float64 keeps their values.
_FORMATS = (torch.float32, torch.float16, torch.bfloat16)


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data)


def _is_one_of(tensor: Tensor, known: tuple[int, ...]) -> bool:
    """Whether a tensor has the values with these `checksums`, or the same values rounded."""
    if not tensor.is_floating_point() or len(known) == 1:
        return _checksum(tensor) == known[0]
    return any(
        _checksum(rounded) == number and torch.equal(rounded.to(tensor.dtype), tensor)
        for dtype, number in zip(_FORMATS, known, strict=True)
        for rounded in [tensor.to(dtype)]
    )


def calibration(model: Classifier) -> tuple[float, float | None]:
    """`model.temperature` and `model.reject_below`; the defaults if it was trained since then.

    Values that were set by hand are always returned.
    """
    tensors, known = model.state_dict(), model.calibrated
    same = tensors.keys() == known.keys() and all(
        tensor.is_meta or _is_one_of(tensor, known[name]) for name, tensor in tensors.items()
    )
    return (model.temperature, model.reject_below) if same or not known else (1.0, None)


def provenance(model: Classifier) -> LoadReport | None:
    """The load report of `model`, updated for what was trained, added or removed since loading.

    None for a network without weights; unchanged on the meta device, where there are no values.
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
