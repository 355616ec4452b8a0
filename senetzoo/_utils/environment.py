"""Where the package runs: machine, versions, devices; and whether downloads are allowed."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import subprocess
import threading
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import senetzoo
from senetzoo.errors import ConfigError

DEVICES = ("cpu", "cuda", "mps")
# Types that torch itself computes in, by their names in options and records.
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# More than any machine has: with as many as a number can say, OpenMP ends the process.
MOST_THREADS = 1024
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


def environment(device: torch.device, threads: int, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Where this process runs, for a record of what it measures.

    Args:
        device: What is measured.
        threads: Threads of torch during the measurement.
        packages: Names of packages that take part; those that are not installed are left out.

    Returns:
        JSON values. ``time`` is UTC, ISO 8601, to the second; ``commit`` as `revision` has it;
        ``cpu_capability`` the instruction set that torch's own kernels use; ``cores`` those that
        this process may run on; ``load`` the runnable processes of the last minute: other work on
        the machine shows here, which ratios bear and latencies do not; ``cudnn_tf32`` whether
        fp32 convolutions of a GPU round to TF32.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cuda = device.type == "cuda"
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "senetzoo": senetzoo.__version__,
        "commit": revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": _versions(packages),
        "platform": platform.platform(),
        "cpu": processor(),
        "cpu_flags": cpu_flags(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1,
        "threads": threads,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32 if cuda else None,
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in dict.fromkeys(packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _cpuinfo(key: str, path: Path) -> str:
    """The first value of `key` in a file like /proc/cpuinfo; empty where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return ""
    line = re.search(rf"^{key}\s*:(.*)$", text, re.MULTILINE)
    return line[1].strip() if line else ""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor."""
    return _cpuinfo("model name", cpuinfo) or platform.processor() or platform.machine()


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Which instruction sets that matter for convolutions this processor has."""
    found = _cpuinfo("flags", cpuinfo).split()
    return tuple(flag for flag in _FLAGS if flag in found)


def machine() -> str:
    """Processor, threads and torch's version in one line."""
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def revision() -> str | None:
    """Commit of the checkout that this package is in, ``-dirty`` with changes; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids downloads; asked before each of them, data included.

    Raises:
        ConfigError: A variable of senetzoo 0.1 is set, which does nothing any more.
    """
    for old, new in (
        ("SENETZOO_OFFLINE", "HF_HUB_OFFLINE=1, which stops every download"),
        ("SENETZOO_MIRROR", "SENETZOO_WEIGHTS, which takes folders and addresses"),
    ):
        if os.environ.get(old):
            raise ConfigError(
                f"{old} is set.", "senetzoo reads it no more.", f"Unset it, and set {new}"
            )
    # As huggingface_hub reads it.
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def check_device(name: str, *, bf16: bool = False) -> torch.device:
    """Try a device with a small convolution.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        bf16: Try it in bf16 too.

    Raises:
        ConfigError: It is not available here, or can't compute in bf16.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise ConfigError(f"There is no device {name!r}.", f"Devices are {', '.join(DEVICES)}.")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= there:
        raise ConfigError(
            f"The device {name!r} is not available.",
            f"torch {torch.__version__} sees {there} {device.type} devices here.",
            "Type: --device cpu",
        )
    for dtype, word in [(torch.float32, "fp32"), *[(torch.bfloat16, "bf16")] * bf16]:
        if not _convolves(device, dtype):
            raise ConfigError(
                f"The device {name!r} can't compute in {word}.",
                f"torch {torch.__version__} has no {word} convolution for it.",
                "Type: --dtype fp32" if word == "bf16" else "Type: --device cpu",
            )
    return device


def _convolves(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return False
    try:
        one = torch.ones(1, 1, 3, 3, device=device, dtype=dtype)
        torch.nn.functional.conv2d(one, one)
    except (RuntimeError, TypeError):
        return False
    return True


PROCESS = threading.RLock()
"""Held by who changes, for the length of a call, what is of the whole process."""


@contextlib.contextmanager
def unwarned(category: type[Warning] = Warning) -> Iterator[None]:
    """Without warnings; one thread at a time, since the filters are of the whole process."""
    with PROCESS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def variable_set(name: str, value: str) -> Iterator[None]:
    """Run with a variable of the environment set, unless it is; one thread at a time."""
    with PROCESS:
        had = name in os.environ
        os.environ.setdefault(name, value)
        try:
            yield
        finally:
            if not had:
                os.environ.pop(name, None)


@contextlib.contextmanager
def threads_set(number: int | None) -> Iterator[None]:
    """Run with `number` threads of torch; None leaves the number as it is.

    Where it is another one, one thread at a time: torch has one number for the process.
    """
    if number is None or number == torch.get_num_threads():  # the usual case, once a batch
        yield
        return
    with PROCESS:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
