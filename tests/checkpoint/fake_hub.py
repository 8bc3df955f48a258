"""A loopback server that plays the parts of the Hugging Face hub which huggingface_hub needs to fetch a model.

As on the real hub: a missing repository and a private one answer alike (401 without a token, 404 with one), the listing
of a gated repository is public while its files are not, and large files are redirected to another host, the CDN, which
sees no token.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".onnx")

# A repository for tests: its name, its small files, and all that a reranker needs.
NAME = "owner/reranker"
WEIGHTS = bytes(range(256)) * 800
SMALL = {"config.json": b'{"model_type": "bert"}', "tokenizer.json": b"{}", "tokenizer_config.json": b"{ }"}
WHOLE = {**SMALL, "model.safetensors": WEIGHTS}


@dataclass(frozen=True)
class Request:
    """One line of the server's log."""

    method: str
    path: str
    range: str | None
    token: str | None

    @property
    def file(self) -> str | None:
        """The file that was asked for, if it was one."""
        if self.path.startswith("/cdn/"):
            return self.path.split("/", 3)[-1]
        return self.path.partition("/resolve/")[2].partition("/")[2] or None


@dataclass
class Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


@dataclass
class Break:
    """How a download goes wrong: after so many bytes, so many more times, with a closed or a reset connection."""

    after: int
    times: int
    reset: bool = False


class FakeHub:
    """The server, in a thread, from construction to :meth:`stop`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, set[str]] = {}
        self.breaks: dict[str, Break] = {}
        self.log: list[Request] = []
        self.before: Callable[[Request], object] | None = None  # called with each request, after it is logged
        self.status: int | None = None  # if set, the answer to everything
        self.page: bytes | None = None  # if set, the body of every answer: what a hotel's login page does
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Close the port: from here on, connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, name: str, files: dict[str, bytes], ref: str = "main", **facts: bool) -> str:
        """Put files into a repository as one commit, let ``ref`` (a branch or a tag) stand for it; its hash."""
        repo = self.repos.setdefault(name, Repo())
        digest = hashlib.sha1(f"{name} {len(repo.commits)}".encode(), usedforsecurity=False).hexdigest()
        repo.commits[digest] = dict(files)
        repo.refs[ref] = digest
        for fact, value in facts.items():
            setattr(repo, fact, value)
        return digest

    def break_off(self, file: str, *, after: int, times: int, reset: bool = False) -> None:
        """Let the next downloads of a file end after so many bytes, by a closed or by a reset connection."""
        self.breaks[file] = Break(after, times, reset)

    def fetched(self) -> list[str]:
        """The files whose bytes were asked for, in the order of the requests."""
        return [request.file for request in self.log if request.method == "GET" and request.file is not None]

    def gets(self, file: str) -> list[Request]:
        """The requests for one file's bytes."""
        return [request for request in self.log if request.method == "GET" and request.file == file]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        """Close without the usual farewell, so that a socket which lingers for no time is reset."""
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.0"  # a connection for each request, so that nothing is answered after stop()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean; the log is hub.log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(self.command, path, self.headers.get("Range"), token)
        self.hub.log.append(request)
        if self.hub.before is not None:
            self.hub.before(request)
        if self.hub.status is not None or self.hub.page is not None:
            return self._send(self.hub.status or 200, self.hub.page or b"")
        if path.startswith("/cdn/"):
            _, _, digest, filename = path.split("/", 3)
            return self._send_file(self._blob(digest), filename, {})
        if token is not None and token not in self.hub.tokens:
            return self._send(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        is_api = path.startswith(("/api/models/", "/api/datasets/"))
        if is_api:
            # Datasets are repositories called "datasets/owner/name" here, as in the addresses of their files.
            name, _, ref = path.removeprefix("/api/").removeprefix("models/").partition("/revision/")
            filename = ""
        else:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            ref, _, filename = rest.partition("/")
        repo = self.hub.repos.get(name)
        may_read = token is not None and name in self.hub.tokens[token]
        if repo is None or (repo.private and not may_read):
            return self._error(401 if token is None else 404, "RepoNotFound")
        commit = repo.refs.get(ref or "main", ref)
        if commit not in repo.commits:
            return self._error(404, "RevisionNotFound")
        files = repo.commits[commit]
        if is_api:
            body = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files], "tags": []}
            return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if repo.gated and not may_read:
            return self._error(401 if token is None else 403, "GatedRepo")
        if filename not in files:
            return self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
        return self._send_entry(filename, files[filename], commit)

    def _send_entry(self, filename: str, data: bytes, commit: str) -> None:
        if not filename.endswith(LARGE):
            etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            return self._send_file(data, filename, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        digest = hashlib.sha256(data).hexdigest()
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"http://localhost:{self.hub.port}/cdn/{digest}/{filename}",
        }
        return self._send(302, headers=headers)

    def _blob(self, digest: str) -> bytes:
        blobs = (data for repo in self.hub.repos.values() for files in repo.commits.values() for data in files.values())
        return next(data for data in blobs if hashlib.sha256(data).hexdigest() == digest)

    def _send_file(self, data: bytes, filename: str, headers: dict[str, str]) -> None:
        status, total = 200, len(data)
        if (asked := self.headers.get("Range")) is not None:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status, data = 206, data[start:]
            headers = {**headers, "Content-Range": f"bytes {start}-{total - 1}/{total}"}
        broken = self.hub.breaks.get(filename)
        if self.command != "GET" or broken is None or broken.times == 0:
            return self._send(status, data, headers)
        broken.times -= 1
        self._head(status, headers | {"Content-Length": str(len(data))})
        self.wfile.write(data[: broken.after])
        if broken.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        return None

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, headers={"X-Error-Code": code, **(headers or {})})

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
