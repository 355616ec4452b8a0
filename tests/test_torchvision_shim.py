"""Importing torchvision whose operators don't load, each case in a copy of an interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

# A package that fails as torchvision does, at a line before or after which it is whole.
BROKEN = """
import torch
from . import extension
if not hasattr(torch.ops.torchvision, "nms"):
    raise RuntimeError("operator torchvision::nms does not exist")
assert not extension.STALE, "a submodule of the failed import was kept"
from . import datasets, transforms, models
"""
# Loaded before the failure; knows whether the operators were there when it ran.
EXTENSION = 'import torch\nSTALE = not hasattr(torch.ops.torchvision, "nms")\n'


def fake(folder: Path, init: str) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    (package / "extension.py").write_text(EXTENSION)
    for name in ("datasets", "transforms", "models"):
        (package / f"{name}.py").write_text("WHOLE = True\n")
    return folder


# An interpreter that has imported torch and nothing of torchvision, which takes seconds; it goes on
# in a copy of itself for each program that it reads.
COPIES = """
import json, os, sys, traceback
import torch
for line in sys.stdin:
    code, said = json.loads(line)
    if not os.fork():
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{said}/{name}", os.O_WRONLY | os.O_CREAT), number)
        try:
            exec(code, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.wait()
    print("done", flush=True)
"""


@dataclass(frozen=True)
class Done:
    """What a program wrote."""

    stdout: str
    stderr: str


Run: TypeAlias = Callable[..., Done]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", COPIES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(interpreter: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs `code` with `path` before all other packages."""

    def run(code: str, *path: Path) -> Done:
        assert interpreter.stdin is not None
        assert interpreter.stdout is not None
        root, said = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("said")
        lines = f"import sys\nsys.path[:0] = {[str(p) for p in (*path, root)]!r}\n{code}"
        print(json.dumps([lines, str(said)]), file=interpreter.stdin, flush=True)
        assert interpreter.stdout.readline() == "done\n"
        return Done((said / "stdout").read_text(), (said / "stderr").read_text())

    return run


SHIM = (
    "from senetzoo._utils.torchvision import import_torchvision\n"
    "import senetzoo._utils.torchvision as shim\n"
)


def test_real_torchvision_classifies_whether_its_operators_load_or_not(run: Run) -> None:
    done = run(
        SHIM
        + "import torch\nroot = import_torchvision()\nassert root is sys.modules['torchvision']\n"
        + "from torchvision import datasets, models, transforms\n"
        + "from torchvision.transforms.v2 import functional\n"
        + "print(datasets.CIFAR10.__name__, transforms.Resize.__name__, end=' ')\n"
        + "print(tuple(models.resnet18(num_classes=3).eval()(torch.rand(1, 3, 32, 32)).shape))\n"
    )
    assert done.stdout == "CIFAR10 Resize (1, 3)\n", done.stderr


def test_a_whole_torchvision_leaves_the_library_alone(run: Run, tmp_path: Path) -> None:
    done = run(
        SHIM
        + "import torch\nprint(import_torchvision().NAME, shim._library)\n"
        + "print(hasattr(torch.ops.torchvision, 'nms'))\n",
        fake(tmp_path, "NAME = 'whole'\n"),
    )
    assert done.stdout == "whole None\nFalse\n", done.stderr


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("", id="first import"),
        pytest.param(
            "import senetzoo\nsenetzoo.import_torchvision()\nimport torchvision\n",
            id="by the public function",
        ),
        pytest.param(
            "try:\n    import torchvision\nexcept RuntimeError as error:\n    print(error)\n",
            id="after the user's own failed import",
        ),
        pytest.param(
            "try:\n    from torchvision.models import WHOLE\nexcept RuntimeError as error:\n"
            "    print(error)\n",
            id="after a failed import of a submodule",
        ),
    ],
)
def test_missing_operators_are_declared(run: Run, tmp_path: Path, before: str) -> None:
    done = run(
        before
        + SHIM
        + "import torch\nimport_torchvision()\nimport_torchvision()\n"
        + "from torchvision.datasets import WHOLE\nfrom torchvision import models, transforms\n"
        + "print(WHOLE, models.WHOLE, transforms.WHOLE)\n"
        + "print(torch.ops.torchvision.nms.default._schema)\n"
        + "print(torch.ops.torchvision.qnms.default._schema)\n",
        fake(tmp_path, BROKEN),
    )
    error = "operator torchvision::nms does not exist\n" if "error" in before else ""
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor\n"
    assert done.stdout == (
        f"{error}True True True\ntorchvision::nms{schema}torchvision::qnms{schema}"
    ), done.stderr


def test_only_the_missing_operators_are_declared(run: Run, tmp_path: Path) -> None:
    done = run(
        "import torch\nown = torch.library.Library('torchvision', 'DEF')\n"
        + "own.define('qnms(Tensor own) -> Tensor')\n"
        + SHIM
        + "import_torchvision()\nprint(torch.ops.torchvision.qnms.default._schema)\n",
        fake(tmp_path, BROKEN),
    )
    assert done.stdout == "torchvision::qnms(Tensor own) -> Tensor\n", done.stderr


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError('CUDA error: no device')",
        "RuntimeError('PyTorch and torchvision were compiled with different CUDA major versions')",
        "ImportError('libjpeg.so: no such file')",
    ],
)
def test_other_errors_pass_through(run: Run, tmp_path: Path, error: str) -> None:
    done = run(
        SHIM
        + "try:\n    import_torchvision()\nexcept Exception as error:\n"
        + "    print(repr(error), shim._library)\n",
        fake(tmp_path, f"raise {error}\n"),
    )
    assert done.stdout == f"{error} None\n", done.stderr


def test_a_second_failure_passes_through(run: Run, tmp_path: Path) -> None:
    error = "RuntimeError('operator torchvision::nms does not exist')"
    done = run(
        SHIM
        + "for _ in range(2):\n    try:\n        import_torchvision()\n"
        + "    except RuntimeError as error:\n        print(repr(error))\n",
        fake(tmp_path, f"raise {error}\n"),
    )
    assert done.stdout == f"{error}\n{error}\n", done.stderr


def test_import_senetzoo_imports_no_torchvision(run: Run, tmp_path: Path) -> None:
    done = run(
        "import senetzoo, senetzoo.nn.preprocessing, senetzoo.data.files\n"
        "print('torchvision' in sys.modules, 'PIL' in sys.modules)\n",
        fake(tmp_path, "raise RuntimeError('imported')\n"),
    )
    assert done.stdout == "False False\n", done.stderr
