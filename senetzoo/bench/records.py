"""Records of measurements: one JSON object a line, with where and how it was measured."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

import senetzoo
from senetzoo.environment import processor, revision
from senetzoo.errors import ConfigError

# What decides the speed of convolutions on x86; elsewhere /proc/cpuinfo has no such flags.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)


@dataclass(frozen=True)
class Environment:
    """Machine and versions.

    Args:
        time: UTC, ISO 8601, to the second.
        senetzoo: Version.
        commit: Of the checkout that senetzoo runs from, ``-dirty`` with changes; None elsewhere.
        python: Version.
        torch: Version.
        packages: Versions of the engines and of the other libraries that take part.
        platform: Operating system.
        cpu: Model name.
        cpu_flags: Instruction sets that decide the speed of convolutions.
        cpu_capability: The one that torch's own kernels use.
        cores: Cores that this process may run on.
        threads: Threads of torch.
        load: Runnable processes in the last minute before the measurement: other work on the
            machine shows here. Ratios bear it, latencies do not.
        gpu: Model name, where one was measured.
        cudnn_tf32: Whether its fp32 convolutions round to TF32.
    """

    time: str
    senetzoo: str
    commit: str | None
    python: str
    torch: str
    packages: dict[str, str]
    platform: str
    cpu: str
    cpu_flags: tuple[str, ...]
    cpu_capability: str
    cores: int
    threads: int
    load: float | None
    gpu: str | None
    cudnn_tf32: bool | None

    @property
    def machine(self) -> str:
        """The machine's class, as file names have it: ``amd-epyc-2c``."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.gpu or self.cpu}-{self.cores}c".lower())


def environment(device: torch.device, threads: int, packages: Sequence[str] = ()) -> Environment:
    """Where this process runs.

    Args:
        device: What is measured.
        threads: Threads of torch during the measurement.
        packages: Names of packages that take part; those that are not installed are left out.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cuda = device.type == "cuda"
    return Environment(
        time=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        senetzoo=senetzoo.__version__,
        commit=revision(),
        python=platform.python_version(),
        torch=torch.__version__,
        packages=_versions(packages),
        platform=platform.platform(),
        cpu=processor(),
        cpu_flags=cpu_flags(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cores=len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1,
        threads=threads,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        gpu=torch.cuda.get_device_name(device) if cuda else None,
        cudnn_tf32=torch.backends.cudnn.allow_tf32 if cuda else None,
    )


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in dict.fromkeys(packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Read which instruction sets that matter for convolutions this processor has."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return ()
    line = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    found = line[1].split() if line else []
    return tuple(flag for flag in _FLAGS if flag in found)


def append(report: Mapping[str, object], where: Environment, folder: Path) -> Path:
    """Append `report` as one line to the file of its machine and day.

    Args:
        report: JSON values.
        where: Names the file.
        folder: Made if it is not there.

    Returns:
        The file: ``<gpu or cpu>-<cores>c-<UTC day>.jsonl``.

    Raises:
        ConfigError: The file can't be written.
    """
    path = folder / f"{where.machine}-{where.time[:10]}.jsonl"
    line = json.dumps(report) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise ConfigError(
            f"The record {path} can't be written.",
            f"{error.strerror}.",
            "Give another folder: --records-dir FOLDER",
        ) from None
    return path
