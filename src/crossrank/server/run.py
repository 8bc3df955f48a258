"""Start the server of ``crossrank serve`` and print its address."""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any

import uvicorn

from crossrank.errors import CrossRankError, InputError
from crossrank.server import logs
from crossrank.server.app import make_app
from crossrank.server.settings import Settings

_LEVELS = ("debug", "info", "warning", "error")


def run(settings: Settings) -> int:
    """Serve until the process is told to stop; return the exit code.

    :raises CrossRankError: If a setting can't be used.
    :raises OSError: If the port can't be used.
    """
    from crossrank import __version__

    if settings.log_level not in _LEVELS:
        raise InputError(f"log_level={settings.log_level!r} is not known: give one of {', '.join(_LEVELS)}.")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InputError("tls_cert and tls_key need each other. Give both, or neither.")
    if settings.tls_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
        except (ssl.SSLError, OSError) as error:
            raise InputError(
                f"{str(settings.tls_cert)!r} and {str(settings.tls_key)!r} can't be used for TLS: {error}. Give the "
                "certificate and its own key, both as PEM files."
            ) from error
    logs.set_up(settings.log_level)
    app = make_app(settings, __version__)
    listening = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.grace_seconds,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        server_header=False,
        ws="none",
    )
    server = _Server(config)
    server.welcome = _welcome(settings, listening.getsockname()[1], list(app.state.crossrank.store.entries))
    server.run(sockets=[listening])
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    welcome = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            try:
                print(self.welcome, flush=True)  # noqa: T201
            except OSError:
                sys.stdout = None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise CrossRankError(
            f"{host}:{port} can't be listened on: {error.strerror}. Is a server running there? Give another --port."
        ) from error
    return found


def _welcome(settings: Settings, port: int, names: list[str]) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    base = f"{'https' if settings.tls_cert else 'http'}://{host}:{port}"
    rows: list[tuple[str, Any]] = [
        ("full URL (Open WebUI, LightRAG)", f"{base}/v1/rerank"),
        ("base URL with /v1 (Dify, RAGFlow, Cherry Studio)", f"{base}/v1"),
        ("base URL (Cohere SDK, LiteLLM, LangChain, TEI)", base),
        ("all paths", f"{base}/docs"),
    ]
    lines = [f"crossrank serves {', '.join(names)} on {base}", ""]
    return "\n".join(lines + [f"  {what:<50} {url}" for what, url in rows] + ["", "Stop with Ctrl-C."])
