"""``senetzoo predict --explain``: the page and the pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from support import commands

import senetzoo
from senetzoo import SE
from senetzoo.data.images import open_image
from senetzoo.eval.predict import predict
from senetzoo.inspect import Evidence, evidence, excitations, grad_cam, layer_cam
from senetzoo.inspect import page as pages
from senetzoo.inspect.pictures import SIDE, overlay, sheet, strip, to_image
from senetzoo.nn.preprocessing import CIFAR10, Preprocessing

run = partial(commands.run, "predict")


def photo(path: Path, size: tuple[int, int] = (40, 50), mode: str = "RGB") -> Path:
    """Random pixels, a little smoothed."""
    random = np.random.default_rng(len(path.name))
    bands = [
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
        for _ in Image.new(mode, (1, 1)).getbands()
    ]
    image = Image.merge(mode, bands) if len(bands) > 1 else bands[0]
    image.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


class Images(HTMLParser):
    """The images on a page, and everything that a browser would download."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, Image.Image]] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        for name in ("src", "href", "srcset", "action", "data"):
            if name in values and not values[name].startswith("data:image/png;base64,"):
                self.fetched.append(values[name])
        if tag == "script":
            self.fetched.append(tag)
        if tag == "img":
            data = base64.b64decode(values["src"].partition(",")[2])
            self.found.append((values["alt"], Image.open(io.BytesIO(data))))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "new" / "why"
    paths = [photo(tmp_path / "a.png"), photo(tmp_path / "b.jpg")]
    done = run(*paths, "--explain", out, "--top", 2)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"explained: {out / 'explain.html'}"
    assert sorted(path.name for path in out.iterdir()) == [
        "a.explain.png", "b.explain.png", "explain.html",
    ]  # fmt: skip
    for name in ("a", "b"):
        with Image.open(out / f"{name}.explain.png") as image:
            image.load()
            assert image.width > 3 * SIDE
    page = Images(out / "explain.html")
    assert not page.fetched
    # Three pictures and nine gates for each image.
    assert len(page.found) == 2 * (3 + 9)
    model = senetzoo.create("se_resnet20", pretrained=True)
    for path, first in zip(paths, (0, 12), strict=True):
        (alt, seen), (cam, _), (layer, _), *strips = page.found[first : first + 12]
        assert alt == f"{path}, as the network saw it"
        best = predict(model, path)[0].guesses[0]
        assert cam == f"Grad-CAM for {best.name}"
        assert layer == f"Layer-CAM for {best.name}"
        assert [s.size for _, s in strips] == [(w, 1) for w in (16, 32, 64) for _ in range(3)]
        expected = to_image(CIFAR10.pixels(CIFAR10(open_image(path))))
        assert np.array_equal(np.asarray(seen), np.asarray(expected))
    words = " ".join(page.text)
    for path in paths:
        assert str(path) in words
    assert "layer3.2 standard" in words


@pytest.mark.parametrize("form", ["transparent", "gray", "turned", "wide"])
def test_the_picture_is_what_the_network_saw(tmp_path: Path, form: str) -> None:
    """The picture gives the same input when it is preprocessed again."""
    path = tmp_path / "x.png"
    if form == "transparent":
        photo(path, mode="RGBA")
    elif form == "gray":
        photo(path, mode="L")
    elif form == "wide":
        photo(path, size=(200, 40))
    else:
        photo(path)
        with Image.open(path) as image:
            exif = image.getexif()
            exif[0x0112] = 6  # a quarter turn
            image.save(path, exif=exif)
    out = tmp_path / "out"
    assert run(path, "--explain", out).exit_code == 0
    (_, picture), *_ = Images(out / "explain.html").found
    assert picture.size == (SIDE, SIDE)
    small = picture.resize((32, 32), Image.Resampling.NEAREST)
    model = senetzoo.create("se_resnet20", pretrained=True)
    again = senetzoo.transforms(model)(small)
    assert torch.equal(again, senetzoo.transforms(model)(open_image(path)))


def test_json(tmp_path: Path) -> None:
    path, out = photo(tmp_path / "a.png"), tmp_path / "out"
    done = run(path, tmp_path / "none.png", "--explain", out, "--json", "--top", 1)
    assert done.exit_code == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert list(second) == ["image", "error"]
    assert list(first) == ["image", "guesses", "explanation"]
    found = first["explanation"]
    assert found["page"] == str(out / "explain.html")
    assert found["picture"] == str(out / "a.explain.png")
    model = senetzoo.create("se_resnet20", pretrained=True)
    x = senetzoo.transforms(model)(open_image(path))
    values = {
        (name, k): value
        for name, gate in excitations(model, [(x[None], torch.tensor([0]))], classes=1).items()
        for k, value in enumerate(gate.mean.tolist())
    }
    order = sorted(values, key=lambda place: values[place])
    for word, expected in (("closed", order[:5]), ("opened", order[:-6:-1])):
        assert [(c["gate"], c["channel"]) for c in found[word]] == expected
        for channel in found[word]:
            value = values[channel["gate"], channel["channel"]]
            assert channel["value"] == pytest.approx(value, abs=1e-6)


def test_other_networks_and_layers(tmp_path: Path) -> None:
    path, out = photo(tmp_path / "a.png"), tmp_path / "out"
    done = run(path, "--explain", out, "--model", "resnet20", "--layer", "1", "--json")
    assert json.loads(done.stdout)["explanation"]["opened"] == []
    page = Images(out / "explain.html")
    assert len(page.found) == 3
    words = " ".join(page.text)
    assert "This network has no gates." in words
    assert "Network resnet20; heat maps of the map of layer 1." in words
    first = np.asarray(page.found[1][1])
    assert run(path, "--explain", out, "--model", "resnet20", "--layer", "layer1").exit_code == 0
    assert np.array_equal(np.asarray(Images(out / "explain.html").found[1][1]), first)
    assert run(path, "--explain", out, "--model", "resnet20").exit_code == 0
    assert not np.array_equal(np.asarray(Images(out / "explain.html").found[1][1]), first)
    assert run(path, "--explain", out, "--model", "lenet5").exit_code == 0  # gray, 28 pixels


def test_bad_images_do_not_stop_the_others(tmp_path: Path) -> None:
    good, out = photo(tmp_path / "good.png"), tmp_path / "out"
    bad = tmp_path / "<script>alert(1)<.png"
    bad.write_bytes(b"no image")
    done = run(bad, good, tmp_path / "none", "a\0.explain.png", "--explain", out)
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == 3
    page = Images(out / "explain.html")
    assert not page.fetched
    assert len(page.found) == 12
    words = " ".join(page.text)
    assert f"Can't read {bad}. It isn't an image, or it is too damaged to be recognized." in words
    assert f"Can't read {tmp_path / 'none'}. No such file or directory." in words


def test_names_of_files(tmp_path: Path) -> None:
    names = [
        "a/x.png",
        "b/x.png",
        "b/X.jpg",
        "猫 é.png",
        "y" * 240 + ".png",
        "猫" * 80 + ".png",
        "z.explain.png",
        os.fsdecode(b"caf\xe9.png"),
        "esc\x1b[31m.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(tmp_path / name)
    out = tmp_path / "out"
    done = run(*(tmp_path / name for name in names), "--explain", out)
    assert done.exit_code == 0, done.output
    written = {path.name for path in out.iterdir()}
    assert written == {
        "explain.html",
        "x.explain.png",
        "x-2.explain.png",
        "X-2.explain.png" if "X-2.explain.png" in written else "X-3.explain.png",
        "猫 é.explain.png",
        "y" * 150 + ".explain.png",
        "猫" * 50 + ".explain.png",
        "z.explain.explain.png",
        os.fsdecode(b"caf\xe9.explain.png"),
        "esc\x1b[31m.explain.png",
    }
    assert len({name.lower() for name in written}) == 1 + len(names)
    words = " ".join(Images(out / "explain.html").text)
    assert str(tmp_path / r"caf\xe9.png") in words
    assert str(tmp_path / r"esc\x1b[31m.png") in words
    assert str(tmp_path / "猫 é.png") in words


@pytest.mark.parametrize("where", ["", "why"])
def test_in_the_folder_of_the_images(tmp_path: Path, where: str) -> None:
    """A second run gives the same result, and no image is overwritten."""
    images = {path: path.read_bytes() for name in "ab" if (path := photo(tmp_path / f"{name}.png"))}
    out = tmp_path / where
    first = run(tmp_path, "--explain", out)
    assert first.exit_code == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(files) == {
        *images, out / "a.explain.png", out / "b.explain.png", out / "explain.html",
    }  # fmt: skip
    assert {path: files[path] for path in images} == images
    second = run(tmp_path, "--explain", out)
    assert second.stdout == first.stdout
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


def test_files_are_whole_or_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = photo(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    for name in ("a.explain.png", "explain.html"):
        (out / name).write_text("old")

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pages, "png", full)
        done = run(path, "--explain", out)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, "No space left on device.")
    assert {p.name: p.read_text() for p in out.iterdir()} == {
        "a.explain.png": "old",
        "explain.html": "old",
    }
    assert run(path, "--explain", out).exit_code == 0
    assert len(Images(out / "explain.html").found) == 12
    assert sorted(p.name for p in out.iterdir()) == ["a.explain.png", "explain.html"]


def test_wrong_usage(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    done = run(path, "--layer", "1")
    assert done.exit_code == 2
    assert done.stderr.endswith("Error: --layer requires --explain.\n")
    done = run(path, "--explain", path)
    assert done.exit_code == 2
    assert done.stderr.endswith(
        f"error: Explanations can't be written to {path}.\n"
        "It is a file, and explanations are several files in a folder.\n"
        "Name a folder, which doesn't have to exist\n"
    )
    done = run(path, "--explain", tmp_path / "out", "--layer", "layr3")
    assert done.exit_code == 2
    assert done.stderr.endswith("Did you mean 'layer3'?\n")
    assert not list((tmp_path / "out").iterdir())
    done = run(path, "--explain", path / "below")
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_it_needs_no_extra(tmp_path: Path) -> None:
    """In a process that can't import the optional packages."""
    path = photo(tmp_path / "a.png")
    program = f"""
import sys
for name in ("matplotlib", "jinja2", "scipy", "sklearn", "skimage", "pyarrow", "timm", "captum"):
    sys.modules[name] = None
from senetzoo.cli import main
main(["predict", {str(path)!r}, "--explain", {str(tmp_path / "out")!r}], prog_name="senetzoo")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "explain.html").exists()


# The function


def test_evidence() -> None:
    model = senetzoo.create("resnet20", policy=SE(4, init="identity"), seed=0)
    x = torch.randn(3, 32, 32)
    found = evidence(model, x, CIFAR10, target=4, layer=2)
    assert found.target == 4
    assert torch.equal(found.picture, CIFAR10.pixels(x))
    assert torch.equal(found.grad_cam, grad_cam(model, x[None], target=4, layer=2)[0])
    assert torch.equal(found.layer_cam, layer_cam(model, x[None], target=4, layer=2)[0])
    with torch.no_grad():
        assert torch.allclose(found.probabilities, model.eval()(x[None])[0].softmax(0))
    # An identity gate multiplies by 1, which is half of what it can.
    for channel in [*found.opened(3), *found.closed(3)]:
        assert (channel.value, channel.relative) == (1.0, 0.5)
    best = evidence(model, x, CIFAR10)
    assert best.target == int(best.probabilities.argmax())
    plain = evidence(senetzoo.create("resnet20", seed=0), x, CIFAR10)
    assert (plain.gates, plain.opened(3), plain.closed(3)) == ({}, [], [])


@pytest.mark.parametrize("transforms", [CIFAR10, Preprocessing(9, (0.3,), (0.2,), crop=0.5)])
def test_pixels_undo_what_normalized_does(transforms: Preprocessing) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (len(transforms.mean), 16, 16)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    assert torch.equal(transforms.pixels(transforms.normalized(pixels)), pixels)


def test_pictures() -> None:
    picture = torch.zeros(1, 2, 4, dtype=torch.uint8)
    picture[0, 0, 1] = 200
    seen = np.asarray(to_image(picture))
    assert seen.shape == (SIDE, 2 * SIDE, 3)
    half = SIDE // 2
    assert (seen[:half, half : 2 * half] == 200).all()
    assert int((seen > 0).sum()) == 3 * half * half
    # Hot is brighter than cold; one size whatever the map's.
    heat = torch.zeros(2, 2)
    heat[1, 0] = 7.0
    hot = np.asarray(overlay(torch.zeros(3, 8, 8, dtype=torch.uint8), heat)).astype(int).sum(2)
    assert hot.shape == (SIDE, SIDE)
    assert hot[-1, 0] == hot.max() > hot[0, -1] == hot.min()
    cold = np.asarray(overlay(torch.zeros(3, 8, 8, dtype=torch.uint8), heat * 0))
    assert (cold == cold[0, 0]).all()
    cells = np.asarray(strip(torch.tensor([0.0, 0.5, 1.0, 9.0]), 8, 3)).astype(int).sum(2)
    assert cells.shape == (3, 8)
    assert cells[0, 0] < cells[0, 2] < cells[0, 4] == cells[0, 6]
    assert strip(torch.rand(2048), 500, 10).size == (500, 10)


def test_a_heat_map_of_zeros_is_told(tmp_path: Path) -> None:
    zeros = Evidence(
        torch.zeros(3, 8, 8, dtype=torch.uint8), torch.ones(1), 0,
        torch.zeros(2, 2), torch.zeros(2, 2), {},
    )  # fmt: skip
    page = pages.Page(tmp_path, "net")
    page.add("x.png", "x.png", [("cat", 1.0)], zeros)
    words = " ".join(Images(page.write()).text)
    assert "Grad-CAM is zero everywhere: this map is evidence against the class." in words
    # However long the texts are, the picture's size is the same.
    short, long = (sheet(zeros, text, [text]) for text in ("title", "title" * 500))
    assert short.size == long.size
    assert short.width > 3 * SIDE


def test_the_picture_has_the_names_and_the_legend_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], said: str, *args: Any) -> None:
        drawn.append(said)
        draw(self, xy, said, *args)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    done = run(photo(tmp_path / "a.png"), "--explain", tmp_path / "why", "--top", 2)
    assert done.exit_code == 0, done.output
    assert "layer3.1 standard" in drawn
    said, words = "\n".join(drawn), " ".join(Images(tmp_path / "why" / "explain.html").text)
    assert ".slots." not in said
    for part in ("from dark (nothing) to bright", "from dark (closed) to bright (open)"):
        assert part in said
        assert part in words


def test_tables_of_both_pages_show_that_they_continue() -> None:
    """With the shadow of a table that is too wide for a phone."""
    styles = [
        Path(senetzoo.__file__).with_name(folder).joinpath(name).read_text(encoding="utf-8")
        for folder, name in (("report", "style.css"), ("inspect", "page.html"))
    ]
    shadows = [re.findall(r"linear-gradient.* 100% 0 (?:local|scroll)", text) for text in styles]
    assert len(shadows[0]) == 2
    assert shadows[0] == shadows[1]
