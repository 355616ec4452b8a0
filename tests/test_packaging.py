"""The wheel: what is in it, and that it works where it is unpacked."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from senetzoo.weights import manifest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path, file: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{file}"))
        return archive.read(name).decode()


def test_content(wheel: Path) -> None:
    shipped = {name for name in names(wheel) if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in shipped} == {"senetzoo"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "senetzoo").rglob("*.py")}
    weights = {
        f"senetzoo/weights/embedded/{entry.source.file}"
        for entry in manifest.manifest().values()
        if entry.source.kind == "embedded"
    }
    others = {
        "senetzoo/weights_manifest.json",
        "senetzoo/py.typed",
        "senetzoo/inspect/page.html",
        "senetzoo/report/page.html",
        "senetzoo/report/parts.html",
        "senetzoo/report/style.css",
        "senetzoo/report/base.html",
        "senetzoo/report/excitations.html",
    }
    assert shipped == modules | weights | others
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("senetzoo/weights_manifest.json").decode()
    assert manifest.parse(text) == manifest.manifest()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names(wheel))


def test_size(wheel: Path) -> None:
    """Small enough to be installed only to try it: weights come with what nobody asked for."""
    assert wheel.stat().st_size < 15 * 2**20


def test_metadata(wheel: Path) -> None:
    message: Message = email.message_from_string(metadata(wheel, "METADATA"))
    needs = [str(need) for need in message.get_all("Requires-Dist", [])]
    base = {match[0] for need in needs if ";" not in need and (match := re.match(r"[\w.-]+", need))}
    assert base == {
        "torch",
        "torchvision",
        "huggingface-hub",
        "safetensors",
        "einops",
        "click",
        "pillow",
    }
    assert message["Name"] == "senetzoo"
    assert message["License-Expression"] == "Apache-2.0"
    assert message["Requires-Python"] == ">=3.10"
    entry_points = metadata(wheel, "entry_points.txt").split()
    assert entry_points == ["[console_scripts]", "senetzoo", "=", "senetzoo.cli:main"]


SCRIPT = """
import sys, senetzoo
from senetzoo.weights import manifest
assert senetzoo.__file__.startswith(sys.argv[1]), senetzoo.__file__
assert str(manifest.path()).startswith(sys.argv[1]), manifest.path()
print(sum(p.numel() for p in senetzoo.create("se_resnet20").parameters()))
for tag, entry in manifest.manifest().items():
    if entry.source.kind == "embedded":
        assert senetzoo.create(tag).load_report.tag == tag
from senetzoo.cli import main
main(["weights", "verify"], prog_name="senetzoo")
"""


def test_it_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(site)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "274847"
    embedded = [t for t, e in manifest.manifest().items() if e.source.kind == "embedded"]
    assert [line.split()[0] for line in lines[1:]] == embedded
