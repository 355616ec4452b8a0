"""The same tree gives the same wheel and sdist, byte for byte; and the wheel works on its own."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What lies in a working tree beside what is built from it.
BESIDE = re.compile(r"\.git/|\.(venv|hypothesis|\w+_cache)|(runs|build|dist|site)/|.*__pycache__/")
MIB = 2**20


def build(tree: Path, out: Path, *options: str, umask: int = 0o022, **environment: str) -> Path:
    """Build what `options` say, by default the sdist and the wheel from that."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            *options,
            "--outdir",
            str(out),
            str(tree),
        ],
        env={**os.environ, **environment},
        umask=umask,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree in another folder, its files written in another order, at another time."""
    tree = tmp_path_factory.mktemp("another") / "folder"
    files = [p for p in sorted(ROOT.rglob("*"), reverse=True) if p.is_file()]
    for number, file in enumerate(files):
        inside = file.relative_to(ROOT)
        if BESIDE.match(inside.as_posix()):
            continue
        (tree / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, tree / inside)
        os.utime(tree / inside, (10**9 + number, 10**9 + number))
        (tree / inside).chmod(0o600)
    return tree


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("built"))


def test_a_build_is_the_same_everywhere(built: Path, copy: Path, tmp_path: Path) -> None:
    there = build(
        copy, tmp_path / "there", umask=0o077, LC_ALL="C", TZ="Asia/Tokyo", PYTHONHASHSEED="7"
    )
    assert len(digests(built)) == 2
    assert digests(there) == digests(built)


def test_the_wheel_from_the_sdist_is_that_from_the_tree(built: Path, tmp_path: Path) -> None:
    direct = digests(build(ROOT, tmp_path / "direct", "--wheel"))
    assert direct.items() <= digests(built).items()
    assert len(direct) == 1


def test_sizes(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    assert wheel.stat().st_size < 15 * MIB
    assert sdist.stat().st_size < 25 * MIB
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None


def test_the_sdist_has_what_its_tests_need_and_nothing_else(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    tops = {path.partition("/")[0] for path in inside}
    assert tops == {
        "CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "PKG-INFO",
        "README.md", "README.zh-CN.md", "benchmarks", "constraints.txt", "docs",
        "hubconf.py", "mkdocs.yml", "pyproject.toml", "scripts", "senetzoo", "tests",
        "weights_manifest.json", ".gitignore",
    }  # fmt: skip
    assert not [path for path in inside if path.endswith((".pyc", ".partial", ".log"))]
    tests = {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py")}
    assert tests <= inside


FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Of the lines that need an extra, one says which; what takes minutes is not run again here.
LONG = ("senetzoo bench --model se_resnet50",)


@pytest.mark.slow
def test_the_readme_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """The wheel and what it needs, nothing else; then the README's lines as they are."""
    (wheel,) = built.glob("*.whl")
    home = tmp_path / "home"
    home.mkdir()
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    constraints = ROOT / "constraints.txt"
    torch = next(
        line for line in constraints.read_text().splitlines() if line.startswith("torch==")
    )
    # PyTorch first, as the README says: what is asked for by name may be a build for the CPU.
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "--constraint", str(constraints), str(wheel)], check=True)
    inside = subprocess.run(
        [*pip[:3], "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    assert "senetzoo==" in inside.stdout
    for extra in ("pytest", "timm", "accelerate", "scikit-learn", "hypothesis"):
        assert f"\n{extra}==" not in inside.stdout
    environment = {
        "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program = "\n".join(body for kind, body in FENCE.findall(text) if kind == "python")
    # Under this name the README's line for a network of torchvision finds its operators declared.
    program = program.replace("path/to/clone", str(ROOT)).replace(
        "from torchvision.models",
        "import senetzoo; senetzoo.import_torchvision()\nfrom torchvision.models",
    )
    done = subprocess.run(
        [str(python), "-c", program], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (home / "folder").mkdir()
    # A picture of one color, in the simplest format that there is.
    picture = b"P6 40 40 255\n" + bytes([200, 80, 30]) * 1600
    for path in (home / "photo.ppm", home / "folder" / "photo.ppm"):
        path.write_bytes(picture)
    subprocess.run(
        [str(python), "-c", "from PIL import Image; Image.open('photo.ppm').save('photo.jpg')"],
        cwd=home,
        check=True,
    )
    ran = 0
    for kind, body in FENCE.findall(text):
        for line in body.splitlines() if kind == "sh" else ():
            words = shlex.split(line, comments=True)
            if not words or words[0] in ("make", "pip") or line.startswith(LONG):
                continue
            done = subprocess.run(
                ["sh", "-c", line], cwd=home, env=environment, capture_output=True, text=True
            )
            if done.returncode:
                # An extra that it needs, what the line before it would have made with one, or data
                # that a newcomer has to fetch.
                assert done.returncode == 2, (line, done.stderr)
                known = r"pip install 'senetzoo\[|There is no run|No data at cifar10"
                assert re.search(known, done.stderr), (line, done.stderr)
            else:
                ran += 1
    assert ran >= 6
