"""Fast implementations of the operators in `senetzoo.deploy.tail`, built on first use.

On a CPU they are C++, compiled once per machine; on a GPU they are Triton.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from senetzoo._utils.environment import PROCESS, compiler_missing, compilers
from senetzoo._utils.files import atomically, locked
from senetzoo.deploy.tail import RELU, gated_tail, pack
from senetzoo.errors import ConfigError, first_line
from senetzoo.weights.cache import cache_folder

SOURCE = Path(__file__).with_name("gated_tail.cpp")
# Compiler flags of torch's own kernels for each CPU capability.
_FLAGS = {
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c"),
}
_SECONDS = 300
_CPU = torch.device("cpu")
_OTHERWISE = "It is optional: networks run without it"


def check(dtype: torch.dtype, device: torch.device = _CPU) -> None:
    """Compile and load the operators' fast implementations, and check that they run in `dtype`.

    Raises:
        ConfigError: They are not available here.
    """
    with PROCESS:
        why, remedy = _library_missing() if device.type == "cpu" else _triton_missing(device)
        if not why:
            why, remedy = _fails(dtype, device)
    if why:
        raise ConfigError("The tails of residual branches have no kernel here.", why, remedy)


@functools.cache
def _library_missing() -> tuple[str, str]:
    capability = torch.backends.cpu.get_cpu_capability()
    if sys.platform != "linux" or capability not in _FLAGS:
        return "It needs Linux and a processor with AVX2 or AVX-512.", _OTHERWISE
    why = compiler_missing(torch.device("cpu"))
    if why[0]:
        return why
    try:
        library = _compiled(_command(capability))
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if "error" in line]
        said = (lines or [f"the compiler ends with exit code {error.returncode}"])[0]
        if "brgemm" in error.stderr:
            said = f"torch {torch.__version__} has another brgemm ({said})"
    except subprocess.TimeoutExpired:
        said = f"the compiler takes more than {_SECONDS} seconds"
    except (OSError, RuntimeError) as error:
        said = first_line(error)
    else:
        return "", ""
    return f"It can't be compiled: {said}.", _OTHERWISE


def _triton_missing(device: torch.device) -> tuple[str, str]:
    why = compiler_missing(device)
    if why[0]:
        return why
    try:
        importlib.import_module("senetzoo.deploy.kernels.gpu")
    except (ImportError, AttributeError) as error:  # an incompatible version of Triton
        return f"Triton can't be used: {first_line(error)}.", _OTHERWISE
    return "", ""


def _command(capability: str) -> list[str]:
    """The compiler and its options, without the output file."""
    compiler = next(filter(None, map(shutil.which, compilers())))
    root = Path(torch.__file__).parent
    flags = _FLAGS[capability]
    if capability == "AVX512" and torch.cpu._is_avx512_bf16_supported():
        flags += ("-mavx512bf16",)
    return [
        *(compiler, "-std=c++20", "-O3", "-shared", "-fPIC", "-fopenmp", *flags),
        *(f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *("-isystem", str(root / "include"), str(SOURCE)),
        *(f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch"),
    ]


def _compiled(command: list[str]) -> str:
    """Path of the library that `command` compiles: from the cache, or compiled by one process."""
    parts = [*command, torch.__version__, SOURCE.read_text(encoding="utf-8")]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = cache_folder() / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"gated_tail-{digest}.so"
    if not library.exists():
        with locked(folder / f"{library.name}.lock"):
            if not library.exists():
                with atomically(library) as file:
                    subprocess.run(
                        [*command, "-o", str(file)],
                        capture_output=True,
                        text=True,
                        errors="replace",
                        check=True,
                        timeout=_SECONDS,
                        stdin=subprocess.DEVNULL,
                    )
    return str(library)


@functools.cache
def _fails(dtype: torch.dtype, device: torch.device) -> tuple[str, str]:
    """Run the loaded implementation in `dtype`; why it can't be used, or two empty strings."""
    draw = torch.Generator().manual_seed(0)
    x, weight, shortcut = (
        torch.randn(size, generator=draw).to(device, dtype)
        for size in ((2, 32, 5, 7), (64, 32), (2, 64, 5, 7))
    )
    arguments = (x, pack(weight), None, None, shortcut, RELU)
    try:
        found = torch.ops.senetzoo.gated_tail(*arguments)
    except Exception as error:  # brgemm doesn't support the type, or Triton's compiler fails
        return f"It fails: {first_line(error)}", _OTHERWISE
    expected = gated_tail(*arguments)
    if torch.allclose(found.float(), expected.float(), rtol=0.02, atol=0.1):
        return "", ""
    return "It computes other values than its definition.", _OTHERWISE
