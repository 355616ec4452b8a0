"""A small mock server of the Hugging Face Hub on loopback, with faults to switch on.

It serves what huggingface_hub's client asks for when it downloads a file, uploads a folder or lists
a repository, and plain files such as those of download.pytorch.org. Large files (those with the
ending of weights) are stored as the Hub stores them: the resolve address redirects to another
origin, the "content network", and names the sha256 and the size.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest

TOKEN = "hf_loopback"
LARGE = (".safetensors", ".bin", ".pth", ".pt")


@dataclass
class Fault:
    """A fault in the response to requests for a path.

    Args:
        kind: An answer (``"missing"`` 404, ``"unauthorised"`` 401, ``"gated"`` 403, ``"busy"`` 429,
            ``"error"`` 500), or a body: ``"truncated"`` (the connection is closed early),
            ``"dropped"`` (it is reset early), ``"wrong"`` (one bit differs), ``"swapped"`` (another
            content of the same length), ``"slow"`` (`rate` bytes a second), ``"whole"`` (a range is
            asked for, all is sent).
        times: How often; None for always.
        method: Only for this method; None for each.
        after: Bytes of the body that arrive before it breaks; None for half.
        retry_after: Seconds that a busy server asks for.
        rate: Bytes a second of a slow body.
    """

    kind: Literal[
        "missing", "unauthorised", "gated", "busy", "error",
        "truncated", "dropped", "wrong", "swapped", "slow", "whole",
    ]  # fmt: skip
    times: int | None = None
    method: str | None = None
    after: int | None = None
    retry_after: int = 0
    rate: float = 1e6


ANSWERS = {
    "missing": (404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}),
    "unauthorised": (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Unauthorized"}),
    "gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}),
    "busy": (429, {}),
    "error": (500, {}),
}


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Repo:
    """A repository: its commits, oldest first, each with all its files."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(repr(len(self.commits)).encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        self.commits.append((digest.hexdigest(), files))
        return digest.hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class HubServer:
    """The server; `url` is its endpoint. Use `running`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[tuple[str, Fault]] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.url, self.content_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def put(self, repo: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Commit files to a repository, made where it does not exist; the commit's hash."""
        found = self.repos.setdefault(repo, Repo(private))
        before = found.commits[-1][1] if found.commits else {}
        self.blobs |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        return found.commit({**before, **files})

    def serve(self, path: str, content: bytes) -> str:
        """Serve a plain file under ``/path``; its address."""
        self.files[f"/{path}"] = content
        return f"{self.url}/{path}"

    def fail(self, ending: str, fault: Fault) -> None:
        """Let requests for paths that end like this fail."""
        self.faults.append((ending, fault))

    def fault(self, method: str, path: str, *, answers: bool) -> Fault | None:
        """The fault of a request, and one time less of it."""
        with self.lock:
            for ending, fault in self.faults:
                fits = path.endswith(ending) and fault.method in (None, method)
                if fits and fault.times != 0 and (fault.kind in ANSWERS) == answers:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def asked(self, ending: str = "", method: str | None = None) -> list[Request]:
        """The requests for paths with this ending."""
        with self.lock:
            return [
                request
                for request in self.requests
                if request.path.endswith(ending) and method in (None, request.method)
            ]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        # Tests kill clients, and clients hang up.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self.body = self._chunks()
        if path == "/api/agent-harnesses":  # the client's statistics: no request of ours
            return self._say(200, {})
        with self.hub.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.hub.requests.append(Request(self.command, path, headers))
        fault = self.hub.fault(self.command, path, answers=True)
        if fault is not None:
            status, extra = ANSWERS[fault.kind]
            if fault.kind == "busy":
                extra = {"Retry-After": str(fault.retry_after)}
            return self._say(status, {"error": fault.kind}, extra)
        for pattern, method in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return method(self, *match.groups())
        if path in self.hub.files:
            content = self.hub.files[path]
            return self._send(path, content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})
        return self._say(404, {"error": "Not found"})

    do_GET = do_PUT = do_POST = do_HEAD  # noqa: N815

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # --- Answers ---------------------------------------------------------------------------------

    def _say(self, status: int, value: object, extra: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in (extra or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """`content`, or the range of it that is asked for, with the fault that `path` has."""
        fault = None
        if self.command == "GET":
            fault = self.hub.fault(self.command, path, answers=False)
        kind = fault.kind if fault else None
        if kind == "wrong":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if kind == "swapped":
            content = hashlib.shake_128(content).digest(len(content))
        total, start = len(content), 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and kind != "whole":
            start = int(asked[1])
            if start >= total:
                extra = {"Content-Range": f"bytes */{total}"}
                return self._say(416, {"error": "range"}, extra)
            content = content[start : int(asked[2]) + 1 if asked[2] else total]
        self.send_response(206 if asked and kind != "whole" else 200)
        if asked and kind != "whole":
            end = start + len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self._body(content, fault)

    def _body(self, content: bytes, fault: Fault | None) -> None:
        if fault is not None and fault.kind in ("truncated", "dropped"):
            cut = len(content) // 2 if fault.after is None else fault.after
            self.wfile.write(content[:cut])
            self.wfile.flush()
            self.close_connection = True
            if fault.kind == "dropped":
                time.sleep(0.05)  # what was sent has arrived
                reset = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                self.connection.close()
        elif fault is not None and fault.kind == "slow":
            step = max(1, int(fault.rate / 50))
            for place in range(0, len(content), step):
                self.wfile.write(content[place : place + step])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(content)

    def _allowed(self, repo: Repo, *, write: bool = False) -> bool:
        if not (repo.private or write) or self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._say(401, {"error": "Unauthorized"}, {"X-Error-Code": "RepoNotFound"})
        return False

    def _repo(self, name: str, *, write: bool = False) -> Repo | None:
        found = self.hub.repos.get(name)
        if found is None:
            self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found if self._allowed(found, write=write) else None

    def _commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repo = self._repo(name)
        if repo is None:
            return None
        found = repo.at(revision)
        if found is None:
            self._say(404, {"error": "No such revision"}, {"X-Error-Code": "RevisionNotFound"})
        return found

    # --- Downloads -------------------------------------------------------------------------------

    def resolve(self, name: str, revision: str, file: str) -> None:
        found = self._commit(name, revision)
        if found is None:
            return
        commit, files = found
        known = {"X-Repo-Commit": commit}
        if file not in files:
            missing = {**known, "X-Error-Code": "EntryNotFound"}
            return self._say(404, {"error": "Entry not found"}, missing)
        content = files[file]
        if not file.endswith(LARGE):
            return self._send(f"/{file}", content, {**known, "ETag": f'"{_git(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        location = f"{self.hub.content_url}/content/{digest}/{quote(file)}"
        self._say(302, {}, {**known, **linked, "Location": location})

    def content(self, digest: str, file: str) -> None:
        # The other origin must never see the token.
        if self.headers.get("Authorization"):
            return self._say(400, {"error": "a token was sent to the content network"})
        self._send(f"/{file}", self.hub.blobs[digest], {"ETag": f'"{digest}"'})

    def info(self, name: str, revision: str | None) -> None:
        found = self._commit(name, revision or "main")
        if found is not None:
            known = {"id": name, "sha": found[0], "private": self.hub.repos[name].private}
            siblings = [{"rfilename": file} for file in found[1]]
            self._say(200, {**known, "siblings": siblings, "tags": []})

    def tree(self, name: str, revision: str) -> None:
        found = self._commit(name, revision)
        if found is not None:
            self._say(200, [_listed(*item) for item in found[1].items()])

    # --- Uploads ---------------------------------------------------------------------------------

    def whoami(self) -> None:
        if self._allowed(Repo(), write=True):
            self._say(200, {"name": "someone", "type": "user", "orgs": []})

    def create(self) -> None:
        if not self._allowed(Repo(), write=True):
            return
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repos:
            return self._say(409, {"error": "You already created this model repo", **url})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repos[name] = Repo(bool(private))
        self.hub.put(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._say(200, url)

    def validate(self) -> None:
        try:
            card = vars(huggingface_hub.ModelCard(json.loads(self.body)["content"]).data)
        except ValueError as error:
            return self._say(400, {"errors": [{"message": str(error)}], "warnings": []})
        if not any(card.values()):
            return self._say(400, {"errors": [{"message": "no metadata"}], "warnings": []})
        self._say(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        if repo is None:
            return
        there, found = repo.commits[-1][1], []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = _listed(path, there[path])["oid"] if path in there else None
            found.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._say(200, {"files": found})

    def batch(self, name: str) -> None:
        if self._repo(name, write=True) is None:
            return
        objects = []
        for item in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.blobs:
                href = f"{self.hub.content_url}/upload/{item['oid']}"
                answer["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(answer)
        self._say(200, {"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            return self._say(400, {"error": "another hash"})
        self.hub.blobs[digest] = self.body
        self._say(200, {})

    def commit(self, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        if repo is None:
            return
        files = dict(repo.commits[-1][1])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.hub.put(name, files)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._say(200, {"success": True, "commitOid": commit, "commitUrl": url})


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(path: str, content: bytes) -> dict[str, Any]:
    size = len(content)
    listed: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": _git(content)}
    if path.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
        lfs = {"oid": digest, "size": size, "pointerSize": len(text)}
        listed |= {"oid": _git(text.encode()), "lfs": lfs}
    return listed


_REPO = r"([^/]+(?:/[^/]+)?)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"/content/([0-9a-f]{64})/(.+)", _Handler.content),
    (r"/upload/([0-9a-f]{64})", _Handler.upload),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/api/whoami-v2", _Handler.whoami),
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.validate),
    (rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (rf"/api/models/{_REPO}/commit/([^/]+)", _Handler.commit),
    (rf"/api/models/{_REPO}/tree/([^/]+)", _Handler.tree),
    (rf"/api/models/{_REPO}/revision/([^/]+)", _Handler.info),
    (rf"/api/models/{_REPO}()", _Handler.info),
]


# Of huggingface_hub.
CONSTANTS = (
    "ENDPOINT",
    "HUGGINGFACE_CO_URL_TEMPLATE",
    "HF_HUB_CACHE",
    "HF_TOKEN_PATH",
    "HF_STORED_TOKENS_PATH",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_OFFLINE",
    "DOWNLOAD_CHUNK_SIZE",
)


def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, token: str | None = TOKEN
) -> Iterator[HubServer]:
    """A server, and huggingface_hub told to use it and a cache in `folder`."""
    server = HubServer()
    # Read from the environment once, at import: both forms, for this process and for others.
    values = (
        server.url,
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
        str(folder / "hub"),
        str(folder / "token"),
        str(folder / "tokens"),
        True,
        False,
    )
    for name, value in zip(CONSTANTS, values, strict=False):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    for name, text in {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(folder),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": token or "",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, text)
    for name in ("HF_HUB_OFFLINE", "SENETZOO_WEIGHTS", "SENETZOO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
    try:
        yield server
    finally:
        server.close()
