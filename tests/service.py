"""A real HTTP server on loopback that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """A request as it came in."""

    number: int
    path: str
    headers: dict[str, str]
    body: Any
    started: float

    @property
    def ids(self) -> list[str]:
        """The ids of the documents in a judge's request."""
        return re.findall(r"begin document, id (d[0-9a-f]{8})\]", self.body["messages"][1]["content"])


@dataclass
class Reply:
    """What to send back. A dictionary or list goes out as JSON; ``drop`` hangs up instead."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False


class Service:
    """``respond`` is called for each request, in its own thread; or a list of replies, the last one for all others."""

    def __init__(self, respond: Callable[[Asked], Reply] | list[Reply]) -> None:
        self.respond = respond if callable(respond) else lambda asked: respond[min(asked.number, len(respond) - 1)]
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                service._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: object) -> None:
                # A client that hung up.
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            asked = Asked(
                len(self.asked),
                handler.path,
                {k.lower(): v for k, v in handler.headers.items()},
                body,
                time.monotonic(),
            )
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self.respond(asked)
            time.sleep(reply.delay)
        finally:
            with self._lock:
                self._at_once -= 1
        if reply.drop:
            handler.close_connection = True
            return
        is_json = not isinstance(reply.body, (str, bytes))
        payload = json.dumps(reply.body) if is_json else reply.body
        payload = payload.encode() if isinstance(payload, str) else payload
        handler.send_response(reply.status)
        headers = {"content-type": "application/json" if is_json else "text/html", **reply.headers}
        for name, value in {**headers, "content-length": str(len(payload))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(payload)


@contextlib.contextmanager
def serving(respond: Callable[[Asked], Reply] | list[Reply]) -> Iterator[Service]:
    """A service, until the block ends."""
    service = Service(respond)
    thread = threading.Thread(target=service._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service._server.shutdown()
        service._server.server_close()


def said(text: str | None, *, finish: str = "stop", usage: dict[str, Any] | None = None, **message: Any) -> Reply:
    """A chat completion with this text."""
    return Reply(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
            ],
            "usage": usage or {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
    )


def graded(asked: Asked, grade: Any, reason: str = "because") -> Reply:
    """A proper answer to a request for one grade."""
    return said(json.dumps({"id": asked.ids[0], "reason": reason, "grade": grade}))


def ranked(ids: list[str]) -> Reply:
    """A proper answer to a request for an order."""
    return said(json.dumps({"ranking": ids}))


def document_of(asked: Asked, identity: str) -> str:
    """The text between a document's markers in a judge's request."""
    text = asked.body["messages"][1]["content"]
    marker = re.search(r"\[(mark-[0-9a-f]{16}) begin query\]", text)[1]
    start = f"[{marker} begin document, id {identity}]\n"
    return text[text.index(start) + len(start) : text.index(f"\n[{marker} end document, id {identity}]")]
