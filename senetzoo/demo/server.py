"""The server behind the page: three addresses, one of which takes an image.

Nothing in a request names a file. On a loopback address only requests to a loopback name are
answered, else a page of another site could have its own name lead here (DNS rebinding); and images
are taken from this page only, or from programs, which send no Origin.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
import socket
import socketserver
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click

from senetzoo.demo.answer import NOISES, Answerer
from senetzoo.errors import ConfigError, SenetzooError

# Of an image's file, in bytes.
LIMIT = 10_000_000
# Of what is read and thrown away after a refusal, so that the sender reads why.
_DRAIN = 50_000_000
# Seconds that a request may take to arrive.
_ARRIVAL = 60.0
_CONNECTIONS = 32
_CHUNK = 1 << 16
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class RefusalError(Exception):
    """A request that is not answered.

    Args:
        status: Of the response.
        reason: What its sender is told.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Server(ThreadingHTTPServer):
    """The server.

    Args:
        host: Address or name to listen on.
        port: Port; 0 for one that is free.
        answerer: The networks.

    Raises:
        ConfigError: It can't listen there.
    """

    # Two servers on one port would share its requests.
    allow_reuse_port = False
    request_queue_size = _CONNECTIONS

    def __init__(self, host: str, port: int, answerer: Answerer) -> None:
        self.answerer = answerer
        self.page = Path(__file__).with_name("page.html").read_bytes()
        self.policy = _policy(self.page.decode("utf-8"))
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        try:
            family, *_, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__((str(address[0]), port), Handler)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "That is no address"
            raise ConfigError(
                f"The demo can't listen on {host}:{port}.",
                f"{why}.",
                "Type --port 0 for a free port, or --host 127.0.0.1 for this machine",
            ) from None
        self.loopback = ipaddress.ip_address(self._host()).is_loopback

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this machine's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self._host(), self.server_address[1]

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        host = self._host()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # who breaks a connection off needs no telling
            click.echo(f"error: {type(error).__name__}: {error}", err=True)

    def _host(self) -> str:
        return str(self.server_address[0])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version, sys_version = "senetzoo", ""
    # Seconds without a byte.
    timeout = 10.0

    def do_GET(self) -> None:
        try:
            self._check_host()
            path = self._target()[0]
            if path == "/":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
            elif path == "/networks":
                found = self.server.answerer.networks()
                self._send_json({"networks": found, "limit": LIMIT, "noises": NOISES})
            elif path == "/classify":
                raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, "Send an image with POST.")
            else:
                raise RefusalError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        except RefusalError as refusal:
            self.send_error(refusal.status, refusal.reason)

    def do_POST(self) -> None:
        try:
            self._check_host()
            self._check_origin()
            path, query = self._target()
            if path in ("/", "/networks"):
                raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, "Ask for this with GET.")
            if path != "/classify":
                raise RefusalError(HTTPStatus.NOT_FOUND, "There is nothing here.")
            noise = _noise(query)
            data = self._body()
            try:
                answer = self.server.answerer.answer(data, noise)
            except SenetzooError as error:
                reason = " ".join(str(error).splitlines())
                raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from None
            except Exception as error:
                # The page gets no more than this, the terminal the error's name and text.
                click.echo(f"error: {type(error).__name__}: {error}", err=True)
                reason = "The image can't be classified: an error in the program."
                raise RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, reason) from None
            self._send_json(answer)
        except RefusalError as refusal:
            self.send_error(refusal.status, refusal.reason)
            self._drain()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error as JSON; http.server's own come through here too."""
        reason = message or HTTPStatus(code).phrase
        self._send_json({"error": reason}, HTTPStatus(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""

    def _check_host(self) -> None:
        """Refuse a name that is not this machine's, where only this machine is answered."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            raise RefusalError(HTTPStatus.BAD_REQUEST, "A request has one Host header.")
        try:
            name = urlsplit(f"//{hosts[0]}").hostname
        except ValueError:
            name = None
        if self.server.loopback and name not in _LOOPBACK:
            raise RefusalError(
                HTTPStatus.FORBIDDEN,
                "This demo answers to localhost only. Open the address that it printed.",
            )

    def _check_origin(self) -> None:
        """Refuse what a page of another site sends."""
        origin, host = self.headers.get("Origin"), self.headers["Host"]
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise RefusalError(
                HTTPStatus.FORBIDDEN, "This demo takes images from its own page only."
            )

    def _target(self) -> tuple[str, str]:
        """Path and query."""
        try:
            parts = urlsplit(self.path)
        except ValueError:
            raise RefusalError(HTTPStatus.BAD_REQUEST, "That is no address.") from None
        return parts.path, parts.query

    def _body(self) -> bytes:
        """The image's file."""
        kind = self.headers.get_content_type()
        if kind != "application/octet-stream" and not kind.startswith("image/"):
            raise RefusalError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "Send the image's file itself, with Content-Type: application/octet-stream.",
            )
        length = self._length()
        if length is None:
            raise RefusalError(HTTPStatus.LENGTH_REQUIRED, "Say the file's size in Content-Length.")
        if not length:
            raise RefusalError(HTTPStatus.BAD_REQUEST, "The file is empty.")
        if length > LIMIT:
            raise RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file has {length / 1e6:,.1f} MB; at most {LIMIT / 1e6:.0f} MB are taken. "
                "Make the image smaller.",
            )
        parts, missing, end = [], length, time.monotonic() + _ARRIVAL
        while missing:
            try:
                part = self.rfile.read1(min(missing, _CHUNK))
            except TimeoutError:
                part = None
            if part is None or time.monotonic() > end:
                raise RefusalError(HTTPStatus.REQUEST_TIMEOUT, "The file took too long to arrive.")
            if not part:
                raise RefusalError(HTTPStatus.BAD_REQUEST, "The file broke off on its way.")
            parts.append(part)
            missing -= len(part)
        self._read = length
        return b"".join(parts)

    # Of the body.
    _read = 0

    def _length(self) -> int | None:
        """What the request says of its body's size; None where it does not."""
        if self.headers.get("Transfer-Encoding") is not None:
            return None
        text = self.headers.get("Content-Length")
        if text is None:
            return None
        # Not all that int() takes, and not so much that it would take long.
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise RefusalError(HTTPStatus.BAD_REQUEST, "The Content-Length is no number.")
        return int(text)

    def _drain(self) -> None:
        """Read what is still to come, or the sender would lose the answer with the connection."""
        try:
            length = self._length()
            left = min((length or 0) - self._read, _DRAIN)
            end = time.monotonic() + self.timeout
            while left > 0 and time.monotonic() < end:
                part = self.rfile.read1(min(left, _CHUNK))
                if not part:
                    return
                left -= len(part)
        except (RefusalError, OSError):
            return

    def _send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, "application/json", json.dumps(value).encode("ascii"))

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", self.server.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _noise(query: str) -> int:
    """The severity that a query asks for."""
    try:
        asked = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        asked = [("", "")]
    if not asked:
        return 0
    texts = {str(noise): noise for noise in NOISES}
    if len(asked) != 1 or asked[0][0] != "noise" or asked[0][1] not in texts:
        raise RefusalError(
            HTTPStatus.BAD_REQUEST,
            f"The noise is a whole number from {NOISES[0]} to {NOISES[-1]}: noise=2.",
        )
    return texts[asked[0][1]]


def _policy(page: str) -> str:
    """The Content-Security-Policy of a page that needs its own script and style and no other."""

    def own(tag: str) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )

    return (
        f"default-src 'none'; script-src {own('script')}; style-src {own('style')}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
