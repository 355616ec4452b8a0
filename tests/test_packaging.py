"""The wheel: what is in it, and that it works where it is unpacked."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import markdown
import numpy as np
import pytest
from PIL import Image

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
        "senetzoo/__init__.pyi",
        "senetzoo/py.typed",
        "senetzoo/deploy/kernels/gated_tail.cpp",
        "senetzoo/inspect/page.html",
        "senetzoo/report/page.html",
        "senetzoo/report/page.md",
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


def test_metadata(wheel: Path) -> None:
    message: Message = email.message_from_string(metadata(wheel, "METADATA"))
    needs = [str(need) for need in message.get_all("Requires-Dist", [])]
    base = {match[0] for need in needs if ";" not in need and (match := re.match(r"[\w.-]+", need))}
    assert base == {
        "torch",
        "torchvision",
        "huggingface-hub",
        "safetensors",
        "click",
        "pillow",
    }
    assert message["Name"] == "senetzoo"
    assert message["License-Expression"] == "Apache-2.0"
    assert message["Requires-Python"] == ">=3.10"
    entry_points = metadata(wheel, "entry_points.txt").split()
    assert entry_points == ["[console_scripts]", "senetzoo", "=", "senetzoo.cli:main"]


def test_a_package_index_can_show_the_description(wheel: Path) -> None:
    """It resolves no link or picture relative to the repository."""
    text = str(email.message_from_string(metadata(wheel, "METADATA")).get_payload())
    headings = re.findall("(?m)^## .*", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert re.findall("(?m)^## .*", text) == headings != []
    page = markdown.markdown(text, extensions=["fenced_code"])
    assert not re.findall(r'(?:href|src)="(?!https:)[^"]*"|<!--', page)


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


# Commands one after another in one process, as JSON; prints what each prints.
COMMANDS = """
import contextlib, io, json, sys
from senetzoo.cli import main

printed = []
for words in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main(json.loads(words), prog_name="senetzoo", standalone_mode=False)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""

# Everything about the images is in the file's metadata; nothing else is needed to use it.
DEPLOYED = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image

net = onnxruntime.InferenceSession(sys.argv[1])
about = {k.removeprefix("senetzoo."): v for k, v in net.get_modelmeta().custom_metadata_map.items()}
size, crop, classes = (json.loads(about[key]) for key in ("size", "crop", "classes"))
mean, std = (np.float32(json.loads(about[key])) for key in ("mean", "std"))
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB")
    short = int(size / crop + 1e-6)
    shape = [max(short, int(short * side / min(image.size))) for side in image.size]
    image = image.resize(shape, Image.Resampling[about["interpolation"].upper()])
    left, top = (round((side - size) / 2) for side in image.size)
    pixels = np.float32(image.crop((left, top, left + size, top + size))) / 255
    (logits,) = net.run(None, {"images": ((pixels - mean) / std).transpose(2, 0, 1)[None]})
    odds = np.exp(logits[0] - logits[0].max())
    print(json.dumps({"image": path, **dict(zip(classes, (odds / odds.sum()).tolist()))}))
assert not {"senetzoo", "torch"} & set(sys.modules)
"""


def test_from_photographs_to_a_file_that_runs_without_us(wheel: Path, tmp_path: Path) -> None:
    """Trained from the wheel with odd preprocessing, evaluated, exported: the same answers."""
    site, data, out = tmp_path / "site", tmp_path / "data", tmp_path / "runs" / "odd"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, color in (("zinnia", 0), ("ash tree", 1), ("Moss", 2)):
            (data / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 90, (60, 75, 3), dtype=np.uint8)
                pixels[..., color] += 120
                Image.fromarray(pixels).save(data / split / name / f"{number}.png")

    def run(*args: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    settings = ["data=folder", "model=resnet20+se4", "phases=((24,2),)", "restart_epochs=0"]
    settings += ["batch=6", "compile=false", "precision=fp32", "test_size=36", "test_crop=0.8"]
    settings += ["mean=(0.1,0.5,0.3)", "std=(0.7,0.2,0.4)"]
    images = sorted(str(path) for path in (data / "val").rglob("*.png"))
    commands: list[list[object]] = [
        ["train", "cifar_small", "--data", data, "--out", out, "--workers", 0],
        ["eval", out, data / "val", "--json"],
        ["predict", *images, "--model", out, "--json"],
        ["export", out, "--to", "onnx", "--output", "net.onnx"],
    ]
    commands[0] += [word for setting in settings for word in ("--set", setting)]
    _, evaluated_line, answers, _ = json.loads(
        run("-c", COMMANDS, *(json.dumps(list(map(str, words))) for words in commands))
    )
    evaluated = json.loads(evaluated_line)
    predicted = [json.loads(line) for line in answers.splitlines()]
    tested = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    deployed = [json.loads(line) for line in run("-c", DEPLOYED, "net.onnx", *images).splitlines()]
    right = 0
    for found, answer in zip(deployed, predicted, strict=True):
        assert found.pop("image") == answer["image"]
        for guess in answer["guesses"]:
            assert found[guess["class"]] == pytest.approx(guess["probability"], abs=1e-4)
        right += max(found, key=found.get) == Path(answer["image"]).parent.name
    assert right == evaluated["right"] == tested["test_correct"]
