"""Wrong words and bytes, and signals at any moment: what docs/reliability.md promises of them.

With --slow there are more moments, and seeds that nobody chose.
"""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.commands import COMMANDS
from support.images import file_of
from support.networks import keep_record
from test_faults import FOLDER, pictures

import senetzoo
from senetzoo._utils.checks import from_json
from senetzoo._utils.documents import parse_json
from senetzoo.cli import main
from senetzoo.data.images import open_image
from senetzoo.errors import DataError, SenetzooError
from senetzoo.io import folder
from senetzoo.nn.preprocessing import CIFAR10, Preprocessing
from senetzoo.train.recipe import read_setting
from senetzoo.train.recipes import RECIPES
from senetzoo.zoo import find

CASES = 10_000


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """0, or with --slow another one each time; a failing test says which."""
    drawn = random.SystemRandom().randrange(2**32) if request.config.getoption("--slow") else 0
    print(f"seed {drawn}")
    return drawn


# --- Words and bytes -----------------------------------------------------------------------------


_WORDS = r"""
    lenet5 resnet20 se_resnet20.cifar10_v2 resnet20+se4@pre/s3-4 hf-hub:owner/name@v1 timm:resnet18
    se(reduction=4) eca@standard/b1 branch("attn") s1&~s2 none nan inf -1 1e400 9999999999999999999
    ½ ٣ ( ) (( [ {} " ' , . .. / // + @ | & = : * %s -- --help -h lambda
"""
WORDS = [*_WORDS.split(), "", " ", "\udcff", "\0"]


def wrong_text(draw: random.Random, good: str) -> str:
    """`good` with a few changes."""
    text = good
    for _ in range(draw.randint(1, 4)):
        at, to = sorted(draw.randint(0, len(text)) for _ in range(2))
        part = draw.choice([draw.choice(WORDS), chr(draw.randrange(0x250)), text[at:to] * 2, ""])
        text = text[:at] + part + text[draw.choice([at, to]) :]
    return text


def wrong_value(draw: random.Random, good: Any) -> Any:
    """`good`, a value of JSON, with something else at one place."""
    if isinstance(good, dict) and good and draw.random() < 0.9:
        key = draw.choice(list(good))
        if draw.random() < 0.15:
            return {name: value for name, value in good.items() if name != key}
        return {**good, draw.choice([key, key, "x"]): wrong_value(draw, good[key])}
    if isinstance(good, list) and good and draw.random() < 0.7:
        at = draw.randrange(len(good))
        return [*good[:at], wrong_value(draw, good[at]), *good[at + 1 :]]
    others = [None, True, 0, -1, 1.5, 10**30, float("nan"), "", "x", [], [[]], {}, {"a": 1}, good]
    return draw.choice(others)


def wrong_bytes(draw: random.Random, good: bytes) -> bytes:
    """`good` cut, or with a few bytes changed."""
    if draw.random() < 0.3:
        return good[: draw.randrange(len(good))]
    content = bytearray(good)
    for _ in range(draw.randint(1, 6)):
        content[draw.randrange(min(len(content), draw.choice([64, 10**6])))] = draw.randrange(256)
    return bytes(content)


def saved() -> str:
    """A ``config.json``."""
    with tempfile.TemporaryDirectory() as place:
        model = senetzoo.create("resnet20+se4@pre", seed=0, num_classes=5)
        senetzoo.save(model, place, classes=tuple("abcde"), preprocessing=CIFAR10)
        return (Path(place) / folder.CONFIG).read_text(encoding="utf-8")


def images() -> list[bytes]:
    picture = Image.effect_noise((24, 16), 60)
    return [
        file_of(picture if form == "GIF" else picture.convert("RGB"), form)
        for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    ]


POLICIES = ["se4@pre/s3-4 + eca@post", "se(reduction=8,width=min8)@standard", "(bam | none)@s1"]
SETTINGS = ["lr=0.1", "phases=((32,1),)", "model=resnet20+se4", "batch=8", "flip=true", "ema=0.9"]
LINES = {
    "predict": ["lenet5", "image.png", "--top", "3"],
    "train": ["digits", "--seed", "1", "--set", "lr=0.1", "--out", "run"],
    "export": ["lenet5", "--to", "onnx", "--output", "net.onnx"],
    "bench": ["lenet5", "--rounds", "2", "--batch", "1"],
}


def _parsed(draw: random.Random) -> None:
    name = draw.choice(list(LINES))
    words = [wrong_text(draw, word) if draw.random() < 0.4 else word for word in LINES[name]]
    if draw.random() < 0.3:
        draw.shuffle(words)
    # A command line can't hold a null.
    COMMANDS[name,].make_context(name, [word.replace("\0", "") for word in words])


CONFIG, IMAGES = saved(), images()
PREPROCESSING = {
    **{"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    **{"interpolation": "bilinear", "crop": 0.875},
}
KINDS: dict[str, Callable[[random.Random], object]] = {
    "command lines": _parsed,
    "references": lambda draw: find(wrong_text(draw, draw.choice(WORDS))),
    "policies": lambda draw: senetzoo.policy(wrong_text(draw, draw.choice(POLICIES))),
    "stems": lambda draw: senetzoo.config("resnet20").replace(
        stem=wrong_text(draw, draw.choice(["cifar", "deep", "7x7/2+pool"]))
    ),
    "settings": lambda draw: dataclasses.replace(
        RECIPES["digits"].recipe, **dict([read_setting(wrong_text(draw, draw.choice(SETTINGS)))])
    ),
    "config.json, values": lambda draw: folder.described(
        folder.parse(json.dumps(wrong_value(draw, json.loads(CONFIG))))
    ),
    "config.json, text": lambda draw: folder.parse(wrong_text(draw, CONFIG)),
    "preprocessing": lambda draw: from_json(
        Preprocessing, wrong_value(draw, PREPROCESSING), "preprocessing"
    ),
    "JSON": lambda draw: parse_json(wrong_text(draw, draw.choice(["[" * 9999, '{"a": 1}', "1e5"]))),
    "images": lambda draw: open_image(wrong_bytes(draw, draw.choice(IMAGES))),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_words_and_bytes_are_refused_in_words(
    kind: str, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    draw, count, refused = random.Random(seed), CASES // len(KINDS), 0
    for _ in range(count):
        state = draw.getstate()
        try:
            KINDS[kind](draw)
        except (SenetzooError, click.ClickException, click.exceptions.Exit):
            refused += 1
        except Exception as error:
            draw.setstate(state)
            raise AssertionError(f"{kind}: {type(error).__name__}: {error}") from error
    # Most changes are wrong, and some are not.
    assert count * 0.05 < refused < count
    keep_record("reliability", {"of": "wrong words and bytes", "kind": kind, "cases": count})


# --- Signals -------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What a signal is that comes before or after the training."""


def stop(number: int, _: object) -> None:
    raise Stopped(number)


@pytest.fixture
def alarm() -> Iterator[Callable[[float, signal.Signals], None]]:
    """Sends this process a signal after some seconds; what nobody handles is `Stopped`."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in (*numbers, signal.SIGALRM)}

    def send(seconds: float, number: signal.Signals) -> None:
        for each in numbers:
            signal.signal(each, stop)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield send
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


MOMENTS = [
    pytest.param(k, workers, marks=[] if k < few else pytest.mark.slow)
    for workers, all_of_them, few in ((0, 40, 4), (2, 10, 1))
    for k in range(all_of_them)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures"), "ab")


@pytest.fixture(scope="module")
def whole(data: Path) -> tuple[bytes, float]:
    """The weights of the run that nothing stops, and its seconds."""
    assert trained(data, data.parent / f"{data.name}-first", 0) == 0
    out, begun = data.parent / f"{data.name}-whole", time.monotonic()
    assert trained(data, out, 0) == 0
    return (out / "model.safetensors").read_bytes(), time.monotonic() - begun


def trained(data: Path, out: Path, workers: int) -> int:
    """The exit code of a training."""
    threads = torch.get_num_threads()
    where = ("--data", data, "--out", out, "--workers", workers)
    words = (*FOLDER, "--set", "phases=((32,8),)", *where)
    try:
        result = CliRunner().invoke(main, [str(word) for word in words])
    finally:
        torch.set_num_threads(threads)
    assert "Traceback" not in result.output
    if isinstance(result.exception, (Exception, Stopped)):
        raise result.exception
    return result.exit_code


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no timers of signals")
@pytest.mark.parametrize(("k", "workers"), MOMENTS)
def test_a_run_that_is_stopped_at_any_moment_ends_with_the_same_weights(
    k: int,
    workers: int,
    data: Path,
    whole: tuple[bytes, float],
    tmp_path: Path,
    alarm: Callable[[float, signal.Signals], None],
) -> None:
    draw, out = random.Random(k), tmp_path / "run"
    number = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[k % 3]
    weights, seconds = whole
    alarm(draw.uniform(0.01, seconds), number)
    try:
        code = trained(data, out, workers)
    except Stopped:
        code = 130
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert code in (0, 130)
    assert trained(data, out, workers) == 0
    assert (out / "model.safetensors").read_bytes() == weights
    line = {"of": "signals", "signal": number.name, "workers": workers, "stopped": code == 130}
    keep_record("reliability", line)


# --- Images --------------------------------------------------------------------------------------


def _noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.effect_noise(size, 60).convert("RGB").convert(mode)


def _large_header() -> bytes:
    """A PNG that says it is 60000x60000."""
    content = bytearray(file_of(_noise(), "PNG"))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    return bytes(content)


def _transparent_palette() -> bytes:
    return file_of(_noise().quantize(16), "PNG", transparency=3)


def _16_bits() -> bytes:
    return file_of(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG")


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return file_of(_noise(), "JPEG", exif=exif)


ODD: dict[str, Callable[[], bytes]] = {
    **{f"mode {mode}": lambda mode=mode: file_of(_noise(mode), "TIFF")  # type: ignore[misc]
       for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I", "F")},
    **{f"orientation {k}": lambda k=k: _exif(k) for k in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255)},  # type: ignore[misc]
    **{f"{w}x{h}": lambda w=w, h=h: file_of(_noise(size=(w, h)), "PNG")  # type: ignore[misc]
       for w, h in ((1, 1), (1, 500), (500, 1), (3, 2))},
    **{f"first {k} bytes": lambda k=k: file_of(_noise(), "JPEG")[:k]  # type: ignore[misc]
       for k in (0, 1, 2, 20, 300, 600)},
    "CMYK in a JPEG": lambda: file_of(_noise("CMYK"), "JPEG"),
    "16 bits": _16_bits,
    "a palette with a transparent color": _transparent_palette,
    "an animation": lambda: file_of(_noise(), "GIF", save_all=True, append_images=[_noise()] * 3),
    "an animated WebP": lambda: file_of(_noise(), "WEBP", save_all=True, append_images=[_noise()]),
    "progressive": lambda: file_of(_noise(), "JPEG", progressive=True),
    "several pages": lambda: file_of(_noise(), "TIFF", save_all=True, append_images=[_noise()]),
    "a huge header": _large_header,
    "zeros": lambda: bytes(4000),
    "a page of a server": lambda: b"<!DOCTYPE html><html>404</html>",
    "a comment of 60000 bytes": lambda: file_of(_noise(), "JPEG", comment=b"x" * 60_000),
    "words behind": lambda: file_of(_noise(), "PNG") + b"and more" * 100,
    "a profile that is none": lambda: file_of(_noise(), "PNG", icc_profile=b"\x00" * 200),
}  # fmt: skip
REFUSED = {
    *(f"first {k} bytes" for k in (0, 1, 2, 20, 300, 600)),
    "a huge header", "zeros", "a page of a server",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ODD)
def test_an_odd_image_is_read_or_refused_in_words(what: str) -> None:
    content = ODD[what]()
    if what in REFUSED:
        with pytest.raises(DataError):
            open_image(content)
    else:
        pixels = np.asarray(open_image(content).convert("RGB"))
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        if "x" not in what:
            assert len(np.unique(pixels)) > 1
    keep_record("reliability", {"of": "odd images", "kind": what, "refused": what in REFUSED})
