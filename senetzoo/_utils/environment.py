"""The environment: machine, versions, devices, compiler, and whether downloads are allowed."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import functools
import importlib.util
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import senetzoo
from senetzoo._utils.terminal import counted
from senetzoo.errors import ConfigError

if TYPE_CHECKING:  # reading options and documents shouldn't wait for torch
    import torch

DEVICES = ("cpu", "cuda", "mps")
# More than any machine has; OpenMP aborts the process if asked for billions.
MOST_THREADS = 1024
# The instruction sets that decide the speed of convolutions on x86.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)


def cores() -> int:
    """Cores that this process may run on."""
    affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1


def launched(variable: Literal["RANK", "WORLD_SIZE"], alone: int) -> int:
    """The `variable` that `accelerate launch` or torchrun set; `alone` if it isn't set.

    Raises:
        ConfigError: It isn't a number.
    """
    text = os.environ.get(variable) or str(alone)
    if not text.isdecimal():
        raise ConfigError(
            f"{variable} is set to {text!r}.",
            "It must be a number; accelerate launch and torchrun set it for each process.",
            f"Unset {variable}",
        )
    return int(text)


def environment(device: torch.device, threads: int, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the environment of a measurement.

    Args:
        device: The device that is measured.
        threads: torch's number of threads during the measurement.
        packages: Names of further packages; those that aren't installed are left out.

    Returns:
        JSON values. ``time`` is UTC in ISO 8601, to the second; ``commit`` is as in `revision`;
        ``cpu_capability`` is the instruction set of torch's own kernels; ``cores`` is the number
        that this process may use; ``load`` is the mean number of runnable processes in the last
        minute, which shows other work on the machine; ``cudnn_tf32`` is whether fp32 convolutions
        on a GPU use TF32.
    """
    import torch

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
        "cores": cores(),
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
    """The first value of `key` in a file like /proc/cpuinfo; empty if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return ""
    line = re.search(rf"^{key}\s*:(.*)$", text, re.MULTILINE)
    return line[1].strip() if line else ""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model name."""
    return _cpuinfo("model name", cpuinfo) or platform.processor() or platform.machine()


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """The processor's instruction sets that matter for convolutions."""
    found = _cpuinfo("flags", cpuinfo).split()
    return tuple(flag for flag in _FLAGS if flag in found)


def machine() -> str:
    """Processor, threads and torch's version in one line."""
    import torch

    return f"{processor()}, {counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}"


def revision() -> str | None:
    """Commit of the checkout with this package, with ``-dirty`` if changed; None outside of one."""
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
    """Whether HF_HUB_OFFLINE forbids downloads; called before each download.

    Raises:
        ConfigError: A variable of senetzoo 0.1 is set, which has no effect any more.
    """
    for old, new in (
        ("SENETZOO_OFFLINE", "HF_HUB_OFFLINE=1, which stops every download"),
        ("SENETZOO_MIRROR", "SENETZOO_WEIGHTS, which takes folders and addresses"),
    ):
        if os.environ.get(old):
            raise ConfigError(
                f"{old} is set.", "senetzoo no longer reads it.", f"Unset it, and set {new}"
            )
    # As huggingface_hub reads it.
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def bad_certificates(error: BaseException) -> str | None:
    """The variable with the unreadable certificates that made a download fail with `error`, if any.

    Which variable counts depends on the library that downloads.
    """
    nameless = isinstance(error, (FileNotFoundError, PermissionError)) and not error.filename
    if not (nameless or isinstance(error, ssl.SSLError) or "certificate" in str(error)):
        return None
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(name)
        if not path or Path(path).is_dir():
            continue
        try:
            ssl.create_default_context(cafile=path)
        except OSError:
            return name
    return None


def check_device(name: str, *, bf16: bool = False) -> torch.device:
    """Test a device with a small convolution.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        bf16: Also test bf16.

    Raises:
        ConfigError: The device is not available, or can't compute in bf16.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise ConfigError(f"There is no device {name!r}.", f"The devices are {', '.join(DEVICES)}.")
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
    import torch

    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return False
    try:
        one = torch.ones(1, 1, 3, 3, device=device, dtype=dtype)
        torch.nn.functional.conv2d(one, one)
    except (RuntimeError, TypeError):
        return False
    return True


def compiler_missing(device: torch.device) -> tuple[str, str]:
    """What `torch.compile` lacks on a device, in a sentence, and what to do about it.

    Two empty texts if it works. The C++ compiler is that of torch's settings: the variable CXX, or
    g++; if g++ isn't installed but clang++ is, torch's settings are changed to it. The compiler is
    tested on a few lines, once per process.
    """
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "It requires Triton, which is not installed.", "Type: pip install triton"
    if device.type != "cpu":
        return "", ""
    from torch._inductor import config

    missing = _compiler_missing(names := compilers())
    if missing[0] and names == ("g++",) and not shutil.which("g++"):
        other = ("clang++",)
        if shutil.which(*other) and not (missing := _compiler_missing(other))[0]:
            config.cpp.cxx = (None, *other)
    return missing


def compilers() -> tuple[str, ...]:
    """The C++ compilers in torch's settings, of which the first that is installed counts."""
    from torch._inductor import config

    words = config.cpp.cxx
    return (words,) if isinstance(words, str) else tuple(name for name in words if name)


@functools.cache
def _compiler_missing(names: tuple[str, ...]) -> tuple[str, str]:
    """As `compiler_missing`, for the first C++ compiler of `names` that is installed."""
    found = next(filter(shutil.which, names), None)
    if found is None:
        name = " or ".join(names)
        if name != "g++" and name == os.environ.get("CXX"):
            return (
                f"The variable CXX is {name!r}, and there is no such program.",
                "Unset it, or set it to a C++ compiler: CXX=g++",
            )
        return (
            f"It requires a C++ compiler, and there is none: torch looks for {name}.",
            "Install g++ or clang++, or set the variable CXX to another compiler",
        )
    said = "" if sys.platform == "win32" else _compiles(found)
    remedy = "Repair it, or set the variable CXX to another compiler"
    for header, package in (("Python.h", "python3-dev"), ("omp.h", "libomp-dev")):
        if header in said:
            remedy = f"Install the package with {header}: on Debian and Ubuntu {package}"
    return (f"The C++ compiler {found} fails here: {said}.", remedy) if said else ("", "")


def _compiles(compiler: str) -> str:
    """A C++ compiler's error for a library such as inductor's; empty if it works."""
    parallel = sys.platform != "darwin"  # on which OpenMP comes with torch
    source = "#include <Python.h>\n#include <cmath>\n" + "#include <omp.h>\n" * parallel
    number = "omp_get_max_threads()" if parallel else "1"
    source += f'extern "C" int threads() {{ return {number}; }}'
    # ignore_cleanup_errors, because the library stays open.
    with tempfile.TemporaryDirectory(prefix="senetzoo-", ignore_cleanup_errors=True) as folder:
        file, made = Path(folder) / "try.cpp", Path(folder) / "try.so"
        file.write_text(source, encoding="utf-8")
        options = ["-std=c++17", "-shared", "-fPIC", *["-fopenmp"] * parallel]
        options += [f"-I{sysconfig.get_path('include')}"]
        try:
            done = subprocess.run(
                [compiler, *options, str(file), "-o", str(made)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=120,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
                wrong = next((line for line in lines if "error" in line), "")
                return (wrong or [*lines, f"it exits with {done.returncode}"][0]).rstrip(".")
            ctypes.CDLL(str(made))
        except subprocess.TimeoutExpired:
            return "it timed out"
        except OSError as error:
            return (error.strerror or str(error)).rstrip(".")
    return ""


PROCESS = threading.RLock()
"""Held while a call temporarily changes global state of the process."""


@contextlib.contextmanager
def unwarned(category: type[Warning] = Warning) -> Iterator[None]:
    """Suppress warnings; one thread at a time, because the filters are global."""
    with PROCESS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def threads_set(number: int | None) -> Iterator[None]:
    """Run with `number` torch threads; None keeps the current number.

    If the number changes, one thread at a time, because it is global.
    """
    import torch

    if number is None or number == torch.get_num_threads():  # the usual case
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
    """Wait until the device has finished its work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
