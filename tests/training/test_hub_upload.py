"""Uploading, by the real client, to a loopback server that plays what it asks of the hub."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crossrank.errors import DownloadError, InputError, ModelAccessError
from crossrank.training.push import check_repository, push


class Hub(ThreadingHTTPServer):
    """Keeps the files of commits by repository; all of them come in the commit itself, as small files do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.token = "hf_good"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the test's output."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        name = self.path.removeprefix("/api/models/").partition("/")[0]
        return self._answer(200, {"id": name, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.files.setdefault(name, {})
            return self._answer(200, {"url": f"{self.server.url}/{name}", "name": name, "id": name})
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        name, _, rest = self.path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if rest == "preupload":
            wanted = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in wanted]
            return self._answer(200, {"files": modes})
        if rest == "commit":
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    self.server.files[name][value["path"]] = base64.b64decode(value["content"])
            commit = {
                "commitOid": "1" * 40,
                "commitUrl": f"{self.server.url}/{name}/commit/{'1' * 40}",
                "success": True,
            }
            return self._answer(200, commit)
        return self._answer(404, {"error": self.path})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.shutdown()
    server.server_close()


def test_the_whole_folder_arrives(hub: Hub, tiny_bert: Path) -> None:
    url = push(tiny_bert, "owner/reranker", token="hf_good")
    assert url == f"{hub.url}/owner/reranker"
    assert hub.files == {"owner/reranker": {path.name: path.read_bytes() for path in tiny_bert.iterdir()}}


def test_a_refusal_says_where_the_model_is(hub: Hub, tiny_bert: Path) -> None:
    with pytest.raises(ModelAccessError, match="hf upload owner/reranker"):
        push(tiny_bert, "owner/reranker", token="hf_bad")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(DownloadError, match="could not be uploaded"):
        push(tiny_bert, "owner/reranker", token="hf_good")


def test_a_name_of_no_use_is_seen_before_training() -> None:
    check_repository("owner/name")
    with pytest.raises(InputError, match="owner/name"):
        check_repository("a name/with spaces")
