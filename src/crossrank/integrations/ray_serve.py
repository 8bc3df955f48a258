"""Ray Serve: the application of ``crossrank serve`` in several replicas on a cluster.

>>> from ray import serve
>>> from crossrank.integrations.ray_serve import application
>>> serve.run(application({"timeout_ms": 3000}, replicas=4, cpus=2))  # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossrank.errors import CrossRankError, InputError
from crossrank.optional import require
from crossrank.server.settings import Settings, read_settings

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["application"]

Reply = tuple[int, list[tuple[bytes, bytes]], bytes]
# Of a request's ASGI scope, what goes to a replica.
_SCOPE = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
)
# A request whose replica dies goes to another one, at most so often in all.
_TRIES = 4
# Each replica bounds what waits by itself, in tokens (max_queue_tokens).
_AT_ONCE = 1000


def application(
    settings: Mapping[str, Any] | None = None,
    *,
    config: str | None = None,
    replicas: int = 2,
    cpus: float = 1.0,
    fronts: int = 1,
) -> Application:
    """Make the application for ``serve.run``: the same paths and formats as ``crossrank serve``.

    Each replica has its own models and scheduler. If one dies, its requests are answered by another. They all must see
    the files that the settings name.

    :param settings: Of ``crossrank serve``, by name; then the environment of this process, then the file.
    :param config: A TOML file with settings, read here.
    :param replicas: Processes that score.
    :param cpus: Processors of each; it uses as many threads unless ``num_threads`` is set.
    :param fronts: Processes that take requests in and send them to replicas; they need hardly any processor.
    :raises MissingExtraError: If Ray or the server is not installed.
    :raises InputError: If a setting can't be used.
    """
    serve = require("ray.serve", extra="ray", purpose="crossrank.integrations.ray_serve")
    for name, count in (("replicas", replicas), ("fronts", fronts)):
        if count < 1:
            raise InputError(f"{name}={count}: give 1 or more.")
    if cpus <= 0:
        raise InputError(f"cpus={cpus}: give the processors of a replica, such as 2.")
    read, _ = read_settings(settings or {}, config)
    if read.num_threads is None:
        read = read.model_copy(update={"num_threads": max(1, round(cpus))})
    ranker = serve.deployment(
        name="Ranker", num_replicas=replicas, max_ongoing_requests=_AT_ONCE, ray_actor_options={"num_cpus": cpus}
    )(Ranker)
    front = serve.deployment(
        name="Front", num_replicas=fronts, max_ongoing_requests=_AT_ONCE, ray_actor_options={"num_cpus": 0}
    )(serve.ingress(_make_front)())
    bound: Application = front.bind(ranker.bind(read.model_dump(mode="json")))
    return bound


class Ranker:
    """A replica: the server's application, called without HTTP."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        from crossrank import __version__
        from crossrank.server.app import make_app

        self._app = make_app(Settings(**settings), __version__)
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()

    async def check_health(self) -> None:
        """Tell Ray to replace this replica.

        :raises CrossRankError: If it can't score any more.
        """
        if not self._app.state.crossrank.scheduler.alive:
            raise CrossRankError("the scheduler has stopped")

    async def answer(self, scope: dict[str, Any], body: bytes) -> Reply:
        """Answer a request: status, headers and body."""
        received = False
        status, headers, parts = 500, list[tuple[bytes, bytes]](), list[bytes]()

        async def receive() -> dict[str, Any]:
            nonlocal received
            if received:  # when the client leaves, Ray cancels the whole call
                await asyncio.Event().wait()
            received = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            else:
                parts.append(message.get("body", b""))

        await self._app({**scope, "asgi": {"version": "3.0"}}, receive, send)
        return status, headers, b"".join(parts)


def _make_front() -> Any:
    """Make what sends each request to a replica, and to another one if that dies: ranking twice does no harm."""
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import RayServeException

    handle = serve.get_deployment_handle("Ranker")

    async def front(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = {name: scope[name] for name in _SCOPE if name in scope}
        for left in reversed(range(_TRIES)):
            try:
                status, headers, content = await handle.answer.remote(request, body)
                break
            except (RayActorError, RayServeException):
                if not left:
                    raise
                await asyncio.sleep(0.1)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return front
