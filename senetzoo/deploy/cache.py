"""What OpenVINO was given for a network, kept on disk: a second start traces nothing.

It is kept by a hash of everything that it was made from, and of where.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import senetzoo
from senetzoo._utils.environment import cpu_flags, processor
from senetzoo.deploy.engines import OPENVINO, Dtype, Runner
from senetzoo.deploy.engines.ov import core, running
from senetzoo.errors import ConfigError
from senetzoo.weights.cache import cache_folder

if TYPE_CHECKING:
    import openvino

# Whose code is known by its version; ours is read.
_KNOWN = ("senetzoo", "torch")
# Of a module, what is no part of what it computes, or is read as tensors.
_APART = {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
# In the text of a value that says too little of it.
_VAGUE = (" at 0x", "tensor(", "array(")


def folder_for(
    model: nn.Module, sample: Tensor, calibration: Tensor | None, *asked: object
) -> Path:
    """Where what is made of these is kept.

    Args:
        model: Of modules of senetzoo and torch, on the processor.
        sample: Its size and layout count.
        calibration: Images whose values count; None where none do.
        *asked: What else was asked for.

    Raises:
        ConfigError: What the network computes can't be read from its modules.
    """
    found = hashlib.sha256()

    def add(*values: object) -> None:
        found.update("\0".join(map(str, values)).encode() + b"\0\0")

    packages = [f"{name} {_version(name)}" for name in ("torch", "openvino", "nncf")]
    add(*packages, processor(), *cpu_flags(), torch.get_num_threads())
    add(*sample.shape, *sample.stride(), *asked)
    for path in sorted(Path(senetzoo.__file__).parent.rglob("*.py")):
        add(path.name, path.read_text(encoding="utf-8"))
    for name, module in model.named_modules():
        kind = type(module)
        add(name, kind.__module__, kind.__qualname__)
        if kind.__module__.partition(".")[0] not in _KNOWN:
            _refuse(f"its {name or 'class'} is a {kind.__qualname__} of {kind.__module__}")
        for key, value in sorted(vars(module).items()):
            if key not in _APART:
                said = repr(value)
                if any(word in said for word in _VAGUE):
                    _refuse(f"{name or 'it'} has its own {key}")
                add(key, said)
    tensors: list[tuple[str, Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    if calibration is not None:
        tensors.append(("", calibration))
    for name, value in tensors:
        add(name, value.dtype, *value.shape)
        found.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return cache_folder() / "optimized" / found.hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _refuse(why: str) -> None:
    raise ConfigError(
        "The optimized network can't be kept.",
        f"What it computes can't be read from its modules: {why}.",
        "Leave cache out",
    )


def keep(folder: Path, model: openvino.Model, report: dict[str, Any]) -> None:
    """Write a network, in OpenVINO's form, and a report: whole or not at all."""
    import openvino

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
        made = Path(temporary) / "whole"
        made.mkdir()
        openvino.serialize(model, str(made / "network.xml"), str(made / "network.bin"))
        (made / "report.json").write_text(json.dumps(report), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was faster
            made.rename(folder)


def kept(folder: Path) -> dict[str, Any] | None:
    """The report that was kept there; None where there is none."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    except (OSError, ValueError):
        return None
    return report


def start(folder: Path, sample: Tensor, dtype: Dtype, streams: int) -> Runner:
    """What was kept there, ready to run as `Engine.load` makes it.

    Raises:
        ConfigError: OpenVINO can't read it.
    """
    try:
        model = core().read_model(str(folder / "network.xml"), str(folder / "network.bin"))
    except RuntimeError as error:
        raise ConfigError(f"{folder} can't be read.", str(error).splitlines()[0]) from None
    precision = "bf16" if dtype == "bf16" else "f32"
    engine = dataclasses.replace(
        OPENVINO,
        start=lambda request: running(model, precision, request.threads, request.streams),
    )
    return engine.load(nn.Identity(), sample, dtype, streams=streams, calibration=sample)
