"""``senetzoo demo`` over real HTTP on loopback: answers, bad input, strangers, slow clients."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import senetzoo
from senetzoo.cli import main
from senetzoo.data.corruptions import corrupt
from senetzoo.demo import server as serving
from senetzoo.demo.answer import Answerer
from senetzoo.demo.server import LIMIT, Server
from senetzoo.errors import ConfigError
from senetzoo.inspect import excitations
from senetzoo.inspect.pictures import SIDE, shown
from senetzoo.nn.classifier import Classifier
from senetzoo.predict import predict

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("resnet20", "se_resnet20", "lenet5")
BINARY = "application/octet-stream"


@pytest.fixture(scope="module")
def models() -> dict[str, Classifier]:
    return {name: senetzoo.create(name, pretrained=True) for name in NAMES}


@pytest.fixture
def demo(models: dict[str, Classifier]) -> Iterator[Server]:
    with Server("127.0.0.1", 0, Answerer(models)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def picture(size: tuple[int, int] = (48, 40), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(data, form)
    return data.getvalue()


def ask(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Status and answer; headers by their names with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, named)
        response = connection.getresponse()
        content = response.read()
        if response.getheader("Content-Type") == "application/json":
            return response.status, json.loads(content)
        return response.status, content
    finally:
        connection.close()


def classify(server: Server, body: bytes, path: str = "/classify", **headers: str) -> Any:
    return ask(server, "POST", path, body, **{"Content_Type": BINARY, **headers})


def raw(server: Server, *parts: bytes, end: bool = True) -> bytes:
    """The answer to bytes as they are."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def image_of(uri: str) -> Image.Image:
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# Answers


def test_the_page_needs_nothing_else(demo: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", demo.server_port, timeout=30)
    connection.request("GET", "/")
    response = connection.getresponse()
    page = response.read().decode()
    assert (response.status, response.getheader("Content-Type")) == (
        200,
        "text/html; charset=utf-8",
    )
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}
    assert "//" not in re.sub(r"^\s*//.*$", "", page, flags=re.MULTILINE)
    assert not re.search(r"\s(on\w+|style)=", page)  # what the policy would not let run
    policy = response.getheader("Content-Security-Policy") or ""
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    # What a screen reader and a keyboard need.
    for control in re.findall(r'<input id="(\w+)"', page):
        assert f'<label for="{control}">' in page
    assert 'role="status" aria-live="polite"' in page
    assert '<html lang="en">' in page


def test_networks(demo: Server, models: dict[str, Classifier]) -> None:
    status, answer = ask(demo, "GET", "/networks")
    assert status == 200
    assert answer["limit"] == LIMIT
    assert answer["noises"] == [0, 1, 2, 3, 4, 5]
    assert [n["name"] for n in answer["networks"]] == list(NAMES)
    assert answer["networks"][1]["parameters"] == 274847


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_it_says_what_predict_says(
    demo: Server, models: dict[str, Classifier], tmp_path: Path, form: str
) -> None:
    path = tmp_path / "image"
    path.write_bytes(picture(form=form))
    status, answer = classify(demo, path.read_bytes())
    assert (status, answer["noise"]) == (200, 0)
    for (name, model), found in zip(models.items(), answer["networks"], strict=True):
        assert found["name"] == name
        (expected,) = predict(model, path)
        assert [g["class"] for g in found["guesses"]] == [g.name for g in expected.guesses]
        assert [g["probability"] for g in found["guesses"]] == pytest.approx(
            [g.probability for g in expected.guesses], abs=2e-6
        )
        assert [p["title"] for p in found["pictures"]] == ["what it saw", "Grad-CAM", "Layer-CAM"]
        for shot in found["pictures"]:
            image_of(shot["image"]).load()


def test_noise_is_on_what_the_networks_see(demo: Server, models: dict[str, Classifier]) -> None:
    data = picture()
    seen = set()
    for noise in range(6):
        status, answer = classify(demo, data, f"/classify?noise={noise}")
        assert (status, answer["noise"]) == (200, noise)
        for name, found in zip(NAMES, answer["networks"], strict=True):
            transforms = senetzoo.transforms(models[name])
            pixels = transforms.pixels(transforms(Image.open(io.BytesIO(data)))).permute(1, 2, 0)
            if noise:
                pixels = corrupt(pixels[None], "gaussian_noise", noise)[0]
            expected = shown(pixels.permute(2, 0, 1))
            shot = image_of(found["pictures"][0]["image"])
            assert np.array_equal(np.asarray(shot), np.asarray(expected))
            assert min(shot.size) >= SIDE
            seen.add((name, shot.tobytes()))
    assert len(seen) == 6 * len(NAMES)


def test_gates(demo: Server, models: dict[str, Classifier]) -> None:
    data = picture()
    plain, gated, _ = classify(demo, data)[1]["networks"]
    assert plain["gates"] == []
    model = models["se_resnet20"]
    x = senetzoo.transforms(model)(Image.open(io.BytesIO(data)))[None]
    expected = excitations(model, [(x, torch.tensor([0]))], classes=1)
    assert [gate["name"] for gate in gated["gates"]] == list(expected)
    for gate, values in zip(gated["gates"], expected.values(), strict=True):
        mean = values.mean
        assert gate["mean"] == pytest.approx(float(mean.mean()), abs=1e-4)
        assert gate["open"]["channel"] == int(mean.argmax())
        assert gate["closed"]["value"] == pytest.approx(float(mean.min()), abs=1e-4)
        assert image_of(gate["strip"]).size == (len(mean), 1)


# Bad input


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

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
NO_IMAGE = UNREADABLE + "It is no image, or too damaged to be recognised."
# Pillow would give it to Ghostscript.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"hello, I am text", NO_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_IMAGE),
        (EPS, NO_IMAGE),
        (picture()[:-200], UNREADABLE + "It is damaged or cut short."),
        (picture(form="JPEG")[:300], UNREADABLE + "It is damaged or cut short."),
        (
            bomb(),
            UNREADABLE + f"It has more than {Image.MAX_IMAGE_PIXELS} pixels. "
            "Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it",
        ),
    ],
    ids=["text", "svg", "eps", "cut png", "cut jpeg", "bomb"],
)
def test_files_that_are_no_images(demo: Server, body: bytes, message: str) -> None:
    assert classify(demo, body) == (422, {"error": message})
    assert classify(demo, picture())[0] == 200


def test_a_file_that_is_too_large(demo: Server) -> None:
    """The sender learns why, though it would have gone on sending."""
    message = "The file has 20.0 MB; at most 10 MB are taken. Make the image smaller."
    assert classify(demo, bytes(20_000_000)) == (413, {"error": message})
    # One that only says it is, and sends nothing, is answered at once.
    answer = raw(
        demo,
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Content-Length: 999999999999999999\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.0 413 ")
    assert b"1,000,000,000,000.0 MB; at most 10 MB are taken." in answer
    assert classify(demo, picture() + bytes(LIMIT - len(picture())))[0] == 200


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ([b"Content-Type: image/png"], 411, "Say the file's size in Content-Length."),
        (
            [b"Content-Type: image/png", b"Transfer-Encoding: chunked"],
            411,
            "Say the file's size in Content-Length.",
        ),
        ([b"Content-Type: image/png", b"Content-Length: 0"], 400, "The file is empty."),
        *(
            (
                [b"Content-Type: image/png", b"Content-Length: " + length],
                400,
                "The Content-Length is no number.",
            )
            for length in (b"-1", b"+5", b"1_0", b"five", b"9" * 5000, "٣".encode())
        ),
        (
            [b"Content-Type: image/png", b"Content-Length: 500"],
            400,
            "The file broke off on its way.",
        ),
        *(
            (
                [*kind, b"Content-Length: 3"],
                415,
                "Send the image's file itself, with Content-Type: application/octet-stream.",
            )
            for kind in (
                [],
                [b"Content-Type: text/plain"],
                [b"Content-Type: multipart/form-data; boundary=x"],
                [b"Content-Type: application/x-www-form-urlencoded"],
            )
        ),
    ],
)
def test_bodies_that_are_not_taken(
    demo: Server, headers: list[bytes], status: int, message: str
) -> None:
    head = b"\r\n".join([b"POST /classify HTTP/1.1", b"Host: localhost", *headers, b"", b"abc"])
    answer = raw(demo, head)
    assert answer.startswith(b"HTTP/1.0 %d " % status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": message}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/classify", 405, "Send an image with POST."),
        ("GET", "/favicon.ico", 404, "There is nothing here."),
        ("GET", "/../../etc/passwd", 404, "There is nothing here."),
        ("GET", "/%2e%2e/page.html", 404, "There is nothing here."),
        ("POST", "/", 405, "Ask for this with GET."),
        ("POST", "/networks", 405, "Ask for this with GET."),
        ("POST", "/upload", 404, "There is nothing here."),
        ("DELETE", "/classify", 501, "Unsupported method ('DELETE')"),
        ("PUT", "/page.html", 501, "Unsupported method ('PUT')"),
        *(
            ("POST", f"/classify?{query}", 400, "The noise is a whole number from 0 to 5: noise=2.")
            for query in (
                "noise=6", "noise=-1", "noise=2.5", "noise=", "noise", "noise=%D9%A3", "nose=2",
                "noise=1&noise=2", "x",
            )
        ),
    ],
)  # fmt: skip
def test_addresses_and_methods(
    demo: Server, method: str, path: str, status: int, message: str
) -> None:
    body = picture() if method == "POST" else None
    assert ask(demo, method, path, body, Content_Type="image/png") == (status, {"error": message})


@pytest.mark.parametrize(
    "request_",
    [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
     b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200,
     b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
     b"GET /\r\n\r\n", b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_request(
    demo: Server, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = raw(demo, request_)
    assert b"Traceback" not in answer
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert ask(demo, "GET", "/networks")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_program_is_not_shown(
    demo: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(demo.answerer, "answer", broken)
    message = "The image can't be classified: an error in the program."
    assert classify(demo, picture()) == (500, {"error": message})
    assert capfd.readouterr().err == "error: RuntimeError: secret\n"


# Strangers


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
def test_only_names_of_this_machine(demo: Server, host: str, known: bool) -> None:
    message = "This demo answers to localhost only. Open the address that it printed."
    for method, path in (("GET", "/"), ("GET", "/networks"), ("POST", "/classify")):
        body = picture() if method == "POST" else None
        status, answer = ask(demo, method, path, body, Host=host, Content_Type=BINARY)
        if known:
            assert status == 200
        else:
            assert (status, answer) == (403, {"error": message})


@pytest.mark.parametrize(
    ("origin", "known"),
    [
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_images_of_its_own_page(demo: Server, origin: str, known: bool) -> None:
    status, answer = classify(demo, picture(), Host="localhost:8000", Origin=origin)
    if known:
        assert status == 200
    else:
        message = "This demo takes images from its own page only."
        assert (status, answer) == (403, {"error": message})


def test_on_an_address_that_others_reach(models: dict[str, Classifier]) -> None:
    """Any name may lead there; the Origin still has to be the same."""
    with Server("0.0.0.0", 0, Answerer(models)) as server:
        assert not server.loopback
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            assert ask(server, "GET", "/networks", Host="my.machine.example")[0] == 200
            assert classify(server, b"x", Host="a.example", Origin="http://b.example")[0] == 403
        finally:
            server.shutdown()
            thread.join()


# Slow clients


def test_slow_clients_do_not_block_others(demo: Server) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    idle = [socket.create_connection(("127.0.0.1", demo.server_port)) for _ in range(8)]
    try:
        for number, connection in enumerate(idle):
            connection.sendall(
                (b"", b"GET", head, head + b"Content-Length: 99\r\n\r\nx")[number % 4]
            )
        assert classify(demo, picture())[0] == 200
    finally:
        for connection in idle:
            connection.close()
    assert classify(demo, picture())[0] == 200


def test_slow_clients_are_told_and_left(
    demo: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving.Handler, "timeout", 0.2)
    head = (
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Content-Length: 99\r\n\r\nabc"
    )
    answer = raw(demo, head, end=False)
    assert answer.startswith(b"HTTP/1.0 408 ")
    assert b"The file took too long to arrive." in answer
    assert raw(demo, b"POST /classify HTTP/1.1\r\nHost:", end=False) == b""
    # One that never pauses, and never ends.
    monkeypatch.setattr(serving, "_ARRIVAL", 0.0)
    assert raw(demo, head, end=False).startswith(b"HTTP/1.0 408 ")
    assert capfd.readouterr() == ("", "")


def test_more_connections_than_it_takes(demo: Server) -> None:
    many = [
        socket.create_connection(("127.0.0.1", demo.server_port))
        for _ in range(serving._CONNECTIONS)
    ]
    try:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(demo, "GET", "/networks")
    finally:
        for connection in many:
            connection.close()
    for _ in range(50):
        try:
            assert ask(demo, "GET", "/networks")[0] == 200
        except (ConnectionError, http.client.HTTPException):
            continue  # the threads have not yet seen that they are alone
        break
    else:
        pytest.fail("the connections did not come back")


def test_who_leaves_early_is_no_error(demo: Server, capfd: pytest.CaptureFixture[str]) -> None:
    head = (
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Content-Length: %d\r\n\r\n" % len(picture())
    )
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", demo.server_port))
        connection.sendall(head + picture())
        # Reset, not closed: what is sent to it then is an error.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert classify(demo, picture())[0] == 200
    assert capfd.readouterr() == ("", "")


def test_many_at_once_get_their_own_answers(demo: Server) -> None:
    bodies = [picture((20 + k, 30)) for k in range(3)]
    alone = [classify(demo, body) for body in bodies]
    together: list[Any] = [None] * len(bodies)

    def one(k: int) -> None:
        together[k] = classify(demo, bodies[k])

    threads = [threading.Thread(target=one, args=(k,)) for k in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


# The command


def test_it_prints_its_address_and_ends_with_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "senetzoo.cli", "demo", "--port", "0", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)[1])  # type: ignore[index]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/networks")
        answer = json.loads(connection.getresponse().read())
        assert [n["name"] for n in answer["networks"]] == ["resnet20", "se_resnet20"]
        # A client that is still there does not keep it.
        with socket.create_connection(("127.0.0.1", port)):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == [
        "The default weights of resnet20 are resnet20.cifar10_v2.",
        "The default weights of se_resnet20 are se_resnet20.cifar10_v2.",
    ]


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ["demo", "--port", str(port)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(
        f"error: The demo can't listen on 127.0.0.1:{port}.\n"
        "Address already in use.\n"
        "Type --port 0 for a free port, or --host 127.0.0.1 for this machine\n"
    )


def test_two_demos_do_not_share_a_port(demo: Server, models: dict[str, Classifier]) -> None:
    with pytest.raises(ConfigError, match="Address already in use"):
        Server("127.0.0.1", demo.server_port, Answerer(models))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "no such host"], "The demo can't listen on no such host:8000."),
        (["--host", "192.0.2.1"], "The demo can't listen on 192.0.2.1:8000."),
        (["--host", "a" * 70 + ".example"], "The demo can't listen on " + "a" * 70),
        (["--port", "70000"], "70000 is not in the range 0<=x<=65535"),
        (["--model", "resnt20"], "There is no network 'resnt20'."),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["demo", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_localhost_by_its_names(models: dict[str, Classifier]) -> None:
    for host in ("localhost", "127.0.0.1"):
        with Server(host, 0, Answerer(models)) as server:
            assert server.loopback
            assert server.url.startswith(("http://127.0.0.1:", "http://[::1]:"))
    if socket.has_ipv6:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return  # a machine without it
        with Server("::1", 0, Answerer(models)) as server:
            assert server.url == f"http://[::1]:{server.server_port}/"
            assert server.loopback
