"""``senetzoo app`` over real HTTP on loopback, and in a browser where one is installed."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from support.images import chunk
from support.networks import message

import senetzoo
from senetzoo.cli import main
from senetzoo.data.corruptions import corrupt
from senetzoo.errors import ConfigError
from senetzoo.eval.predict import predict
from senetzoo.inspect import excitations
from senetzoo.inspect.pictures import SIDE, to_image
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.report import LoadReport
from senetzoo.train.stop import STOPPING

pytest.importorskip("gradio")

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from senetzoo.app import app as apps

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("resnet20", "se_resnet20", "lenet5")


@pytest.fixture(scope="module")
def models() -> dict[str, Classifier]:
    return {name: senetzoo.create(name, pretrained=True) for name in NAMES}


@pytest.fixture(scope="module")
def url(models: dict[str, Classifier], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = apps.build(models)
        yield apps.launch(app)
        app.close(verbose=False)


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture())
    return path


def picture(size: tuple[int, int] = (48, 40), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(data, form)
    return data.getvalue()


def classify(client: Client, path: Path, noise: float = 0) -> Any:
    return client.predict(handle_file(str(path)), noise, api_name="/classify")


def image_of(uri: str) -> Image.Image:
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def fetch(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# --- Answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_it_answers_as_predict(
    client: Client, models: dict[str, Classifier], tmp_path: Path, form: str
) -> None:
    path = tmp_path / "image"
    path.write_bytes(picture(form=form))
    answer = classify(client, path)
    assert answer["noise"] == 0
    assert answer["networks"][1]["parameters"] == 274847
    for (name, model), found in zip(models.items(), answer["networks"], strict=True):
        assert found["name"] == name
        (expected,) = predict(model, path)
        assert [g["class"] for g in found["guesses"]] == [g.name for g in expected.guesses]
        assert [g["probability"] for g in found["guesses"]] == pytest.approx(
            [g.probability for g in expected.guesses], abs=2e-6
        )
        assert list(found["pictures"]) == ["input", "grad_cam", "layer_cam"]
        for shot in found["pictures"].values():
            image_of(shot).load()


def test_noise_is_on_what_the_networks_see(
    client: Client, models: dict[str, Classifier], photo: Path
) -> None:
    seen = set()
    for noise in range(6):
        answer = classify(client, photo, noise)
        assert answer["noise"] == noise
        for name, found in zip(NAMES, answer["networks"], strict=True):
            transforms = senetzoo.transforms(models[name])
            pixels = transforms.pixels(transforms(Image.open(photo))).permute(1, 2, 0)
            if noise:
                pixels = corrupt(pixels[None], "gaussian_noise", noise)[0]
            expected = to_image(pixels.permute(2, 0, 1))
            shot = image_of(found["pictures"]["input"])
            assert np.array_equal(np.asarray(shot), np.asarray(expected))
            assert min(shot.size) >= SIDE
            seen.add((name, shot.tobytes()))
    assert len(seen) == 6 * len(NAMES)


def test_gates(client: Client, models: dict[str, Classifier], photo: Path) -> None:
    plain, gated, _ = classify(client, photo)["networks"]
    assert plain["gates"] == {}
    model = models["se_resnet20"]
    x = senetzoo.transforms(model)(Image.open(photo))[None]
    expected = excitations(model, [(x, torch.tensor([0]))], classes=1)
    assert list(gated["gates"]) == list(expected)
    for path, values in expected.items():
        assert gated["gates"][path] == pytest.approx(values.mean.tolist(), abs=1e-6)


def test_many_at_once_get_their_own_answers(client: Client, tmp_path: Path) -> None:
    paths = []
    for k in range(3):
        paths.append(tmp_path / f"{k}.png")
        paths[-1].write_bytes(picture((20 + k, 30)))
    alone = [classify(client, path) for path in paths]
    jobs = [client.submit(handle_file(str(p)), 0, api_name="/classify") for p in paths]
    assert [job.result() for job in jobs] == alone
    assert alone[0] != alone[1]


# --- Bad input -----------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG with 30,000 x 30,000 pixels in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        )
    )


UNREADABLE = "Can't read the image. "
NO_IMAGE = UNREADABLE + "It isn't an image, or it is too damaged to be recognized."
# Pillow would run Ghostscript on it.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"hello, I am text", NO_IMAGE),
        (EPS, NO_IMAGE),
        (picture()[:-200], UNREADABLE + "It is damaged or truncated."),
        (
            bomb(),
            UNREADABLE + "It has more than 89,478,485 pixels. "
            "Make it smaller; in Python, you can raise PIL.Image.MAX_IMAGE_PIXELS",
        ),
        (b"", UNREADABLE + "The file is empty."),
    ],
    ids=["text", "eps", "cut png", "bomb", "empty"],
)
def test_files_that_are_no_images(
    client: Client,
    models: dict[str, Classifier],
    tmp_path: Path,
    photo: Path,
    body: bytes,
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(body)
    assert message(lambda: classify(client, path), AppError) == text
    assert "Traceback" not in capsys.readouterr().err
    # On the page no answer for an earlier image stays beside the error.
    status, *answers = apps._show(models, str(path), 0)
    assert status == f'<p role="alert">{escape(text)}</p>'
    assert len(answers) == 2 * len(models)
    assert not any(answers)
    classify(client, photo)


def test_a_file_that_is_too_large(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(picture() + bytes(apps.MAX_FILE_SIZE - len(picture())))
    classify(client, path)
    path.write_bytes(bytes(20_000_000))
    with pytest.raises(Exception, match=r"413|size|large"):
        classify(client, path)


def test_class_names_are_text_in_markdown() -> None:
    model = senetzoo.create("lenet5", num_classes=12)
    model.load_report = LoadReport("own", "file", "0" * 64, ("*a* <b>", *"bcdefghijkl"))
    shown = apps._classes(model)
    assert unescape(shown) == "12 classes: *a* <b>, b, c, d, e, f, g, h, i, j ..."
    assert not set(shown) & set("*<>")


@pytest.mark.parametrize("noise", [-1, 2.5, 6])
def test_wrong_noise(client: Client, photo: Path, noise: float) -> None:
    with pytest.raises(AppError):
        classify(client, photo, noise)


def test_no_file_of_the_machine(url: str, tmp_path: Path) -> None:
    """A request can't use a file that wasn't uploaded."""
    path = tmp_path / "private.png"
    path.write_bytes(picture())
    assert fetch(f"{url}gradio_api/file={path}")[0] == 403
    for image in ({"path": str(path), "meta": {"_type": "gradio.FileData"}}, {"path": str(path)}):
        body = json.dumps({"data": [image, 0]}).encode()
        request = urllib.request.Request(
            f"{url}gradio_api/call/classify", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            event = json.load(answer)["event_id"]
        text = fetch(f"{url}gradio_api/call/classify/{event}")[1]
        assert "event: error" in text, text
        assert "probability" not in text


def test_an_error_in_the_program_is_not_shown(
    client: Client, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(apps, "_look", broken)
    assert "secret" not in message(lambda: classify(client, photo), AppError)


# --- Strangers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:9000", True),  # a port that is forwarded
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("LOCALHOST", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8000", False),
        ("192.168.1.7", False),
        ("localhost@evil.example", False),
        ("[", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine(url: str, host: str, known: bool) -> None:
    for path in ("", "config"):
        status, text = fetch(url + path, Host=host)
        assert status == (200 if known else 403)
        if not known:
            assert text == "This app answers only at localhost. Open the address that it printed."


@pytest.mark.parametrize(
    ("origin", "known"),
    [
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://evil.example", False),
        ("http://[", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_images_of_its_own_page(url: str, origin: str, known: bool) -> None:
    status, text = fetch(f"{url}config", Host="localhost:8000", Origin=origin)
    assert status == (200 if known else 403)
    if not known:
        assert text == "This app takes images only from its own page."


def test_on_an_address_that_others_reach(models: dict[str, Classifier]) -> None:
    """Any host name may resolve to this machine."""
    app = apps.build({"lenet5": models["lenet5"]})
    port = urlsplit(apps.launch(app, "0.0.0.0")).port
    try:
        assert fetch(f"http://127.0.0.1:{port}/config", Host="my.machine.example")[0] == 200
    finally:
        app.close(verbose=False)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True),
     ("0.0.0.0", False), ("192.168.1.7", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert apps.is_loopback(host) is loopback


# --- The command ---------------------------------------------------------------------------------

# Runs a program that logs each address that it connects to or looks up.
AUDITED = """
import runpy, sys
log = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, args):
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        print(args[1][0], file=log)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        print(args[0], file=log)
sys.addaudithook(hook)
sys.argv.pop(0)
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def hosts(log: Path) -> set[str]:
    """The logged addresses and names that aren't this machine's."""
    lines = set(log.read_text().split())
    assert lines
    return {line for line in lines if line not in ("127.0.0.1", "::1", "localhost", "0.0.0.0")}


@pytest.mark.parametrize(
    "stop",
    [pytest.param(stop, marks=[pytest.mark.slow] * (stop != signal.SIGTERM)) for stop in STOPPING],
)
def test_it_prints_its_address_asks_nobody_and_deletes_uploads_when_stopped(
    tmp_path: Path, photo: Path, stop: signal.Signals
) -> None:
    log, uploads = tmp_path / "hosts.txt", tmp_path / "tmp"
    uploads.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", AUDITED, str(log), "senetzoo.cli", "app", "--json"],
        cwd=ROOT,
        # torch makes a folder of its own in TMPDIR otherwise.
        env={**os.environ, "TMPDIR": str(uploads), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        client = Client(url, verbose=False, download_files=tmp_path)
        networks = classify(client, photo)["networks"]
        assert [n["name"] for n in networks] == ["resnet20", "se_resnet20"]
        assert any(path.name == "photo.png" for path in uploads.rglob("*"))
        assert all(path.stat().st_mode & 0o077 == 0 for path in uploads.iterdir())
        client.close()
        process.send_signal(stop)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, ""), err[-1500:]
    assert err.splitlines() == [
        "loading resnet20 and se_resnet20 ...",
        "The default weights of resnet20 are resnet20.cifar10_v2.",
        "The default weights of se_resnet20 are se_resnet20.cifar10_v2.",
    ]
    assert hosts(log) == set()
    assert list(uploads.iterdir()) == []


@pytest.mark.slow
def test_the_file_is_a_space(tmp_path: Path, photo: Path) -> None:
    """As on Hugging Face: the file alone, listening on the address in the environment."""
    shutil.copy(apps.__file__, tmp_path / "app.py")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "hosts.txt"
    environment = {
        **os.environ,
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path / "uploads"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", AUDITED, str(log), "app.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert str(port) in process.stdout.readline()
        client = Client(f"http://127.0.0.1:{port}/", verbose=False, download_files=tmp_path)
        networks = classify(client, photo)["networks"]
        assert [n["name"] for n in networks] == list(apps.NAMES)
        client.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None
    assert hosts(log) == set()


def run(*arguments: str) -> Result:
    # The command restores the environment.
    return CliRunner(env={"GRADIO_TEMP_DIR": ""}).invoke(main, ["app", *arguments])


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(
        f"error: The app can't listen on 127.0.0.1:{port}.\n"
        "The port is in use or not allowed, or the address isn't one of this machine.\n"
        "Type --port 0 for a free port, or --host 127.0.0.1 for this machine\n"
    )


def test_two_apps_do_not_share_a_port(url: str, models: dict[str, Classifier]) -> None:
    with pytest.raises(ConfigError, match="The port is in use"):
        apps.launch(apps.build({"lenet5": models["lenet5"]}), port=urlsplit(url).port)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "70000 is not in the range 0<=x<=65535"),
        (["--model", "resnt20"], "There is no network 'resnt20'."),
        (["--host", "no such host"], "The app can't listen on no such host:"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


# --- In a browser --------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        f"user-data-dir={tmp_path / 'profile'}", "window-size=1280,1200",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


def test_in_a_browser(browser: Any, url: str, models: dict[str, Classifier], photo: Path) -> None:
    """Load the page, upload an image, read the result; all requests go to this machine."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 60)
    browser.get("about:blank")
    browser.get_log("performance")  # of the browser's own first page
    browser.get(url)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(photo))
    wait.until(lambda b: "says" in b.find_element(By.TAG_NAME, "body").text)
    text = browser.find_element(By.TAG_NAME, "body").text
    for name, model in models.items():
        best = predict(model, photo)[0].guesses[0]
        assert f"{name} says {best.name}, {100 * best.probability:.1f} %" in text
        assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in text
        assert f"10 classes: {', '.join(model.classes or ())}" in text
    assert text.count("This network has no gates.") == 2
    assert text.count("Grad-CAM") >= len(NAMES)
    assert "layer3.2 standard" in text
    # No horizontal scrolling, of the page or of a table.
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
        " && [...document.querySelectorAll('.wide')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    before = text
    number = browser.find_element(By.CSS_SELECTOR, "input[type=number]")
    number.clear()
    number.send_keys("5\t")
    wait.until(
        lambda b: "says" in (now := b.find_element(By.TAG_NAME, "body").text) and now != before
    )
    bad = photo.with_name("text.jpg")
    bad.write_text("hello, I am text")
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Remove Image']").click()
    wait.until(lambda b: "says" not in b.find_element(By.TAG_NAME, "body").text)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(bad))
    wait.until(lambda b: NO_IMAGE in b.find_element(By.TAG_NAME, "body").text)
    requests = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert any(request.startswith(f"{url}gradio_api/upload") for request in requests)
    abroad = [r for r in requests if not r.startswith((url, "data:", "blob:", "about:"))]
    assert abroad == []
