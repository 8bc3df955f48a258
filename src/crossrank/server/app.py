"""The application, assembled from its parts."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crossrank.errors import CrossRankError
from crossrank.server import openapi
from crossrank.server.dialects import DEFAULT
from crossrank.server.keys import Keys
from crossrank.server.logs import log
from crossrank.server.metrics import Metrics
from crossrank.server.models import ModelStore
from crossrank.server.routes import facts, feedback, page
from crossrank.server.routes.explain import cut, explain
from crossrank.server.routes.rerank import answer_post, failure_of
from crossrank.server.scheduler import Scheduler
from crossrank.server.settings import Settings
from crossrank.server.tracing import Tracer, make_tracer

if TYPE_CHECKING:
    from crossrank.server.feedback import Collector

# Every path that some client posts to. All are the same, because the body determines the dialect.
RANK_PATHS = ("/v1/rerank", "/v2/rerank", "/rerank", "/api/rerank", "/v1/score", "/score", "/v1/ranking", "/ranking")
# Accepted but not documented: doubled prefixes, other products' names, base URLs that end in a slash.
OTHER_RANK_PATHS = (
    "/",
    "/invocations",
    "/reranking",
    "/v1/reranking",
    "/v1/retrieval/nvidia/reranking",
    "/api/v1/rerank",
    "/v1/v1/rerank",
    "/v1/v2/rerank",
    "/v2/v1/rerank",
    "/v2/v2/rerank",
    "/v1/v1/score",
    "/rerank/rerank",
    "/v1/rerank/rerank",
)
GET_PATHS: dict[str, Callable[[Request, State], Awaitable[Response]]] = {
    "/health": facts.health,
    "/ping": facts.health,
    "/.well-known/live": facts.health,
    "/ready": facts.ready,
    "/.well-known/ready": facts.ready,
    "/info": facts.info,
    "/meta": facts.info,
    "/v1/models": facts.models,
    "/models": facts.models,
    "/v1/models/{name:path}": facts.one_model,
    "/metrics": facts.metrics,
    "/page/facts": page.facts,
    "/v1/feedback/stats": feedback.stats,
}
POST_PATHS: dict[str, tuple[Callable[[Request, State], Awaitable[Response]], dict[str, Any]]] = {
    "/v1/explain": (explain, openapi.OBJECT),
    "/v1/cut": (cut, openapi.OBJECT),
    "/v1/rollback": (page.rollback, openapi.OBJECT),
    "/v1/feedback": (feedback.give, openapi.FEEDBACK),
    "/admin/reload": (facts.reload, openapi.RELOAD),
}
# Paths for probes and scrapers, which send no key.
_WITHOUT_KEY = frozenset({"/health", "/ping", "/ready", "/.well-known/live", "/.well-known/ready", "/metrics"})
# How many pipelines run at a time, each in a thread beside the scheduler.
_PIPELINES = 4


@dataclass
class State:
    """State that the routes share."""

    settings: Settings
    version: str
    keys: Keys
    store: ModelStore
    metrics: Metrics
    scheduler: Scheduler
    feedback: Collector | None = None
    tracer: Tracer | None = None
    pipelines: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PIPELINES))
    explanations: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    def reread_keys(self) -> None:
        """Read the keys again; if that fails, the old keys stay."""
        try:
            self.keys.read()
        except CrossRankError as error:
            log.error("keys not changed", extra={"facts": {"why": str(error)}})


def make_app(settings: Settings, version: str) -> FastAPI:
    """Assemble the application.

    :raises CrossRankError: If a setting can't be used.
    """
    metrics = Metrics()
    scheduler = Scheduler(settings.max_queue_tokens, metrics.observe)
    metrics.watch_queue(lambda: scheduler.queued_tokens)
    state = State(settings, version, Keys(settings.keys_file), ModelStore(settings), metrics, scheduler)
    state.tracer = make_tracer(version)
    if settings.feedback is not None:
        from crossrank.server.feedback import Collector  # here, because it needs the extra 'feedback'

        state.feedback = Collector(settings, metrics.registry)
    app = FastAPI(title="crossrank", version=version, lifespan=partial(_lifespan, state=state), redoc_url=None)
    app.state.crossrank = state
    for path in RANK_PATHS + OTHER_RANK_PATHS:
        app.add_api_route(
            path,
            _posting(state),
            methods=["POST"],
            summary="Rank documents; the body tells the format",
            openapi_extra=openapi.RANK,
            include_in_schema=path in RANK_PATHS,
            operation_id=f"post{path.replace('/', '_')}",
        )
    for path, answer in GET_PATHS.items():
        app.add_api_route(
            path,
            _guarded(answer, state, needs_key=path not in _WITHOUT_KEY),
            methods=["GET"],
            summary=(answer.__doc__ or "").partition("\n")[0],
            openapi_extra=openapi.NAME if "{name" in path else None,
            operation_id=f"get{path.replace('/', '_').replace('{name:path}', 'name').replace('.', '_')}",
        )
    for path, (answer, extra) in POST_PATHS.items():
        app.add_api_route(
            path,
            _guarded(answer, state, needs_key=True),
            methods=["POST"],
            summary=(answer.__doc__ or "").partition(":")[0],
            openapi_extra=extra,
            status_code=int(next(iter(extra.get("responses", ("200",))))),
        )
    for path, name in page.FILES.items():
        app.add_api_route(path, _guarded(page.file(name), state, needs_key=False), include_in_schema=False)
    app.add_exception_handler(HTTPException, _http_exception)
    return app


def _posting(state: State) -> Callable[[Request], Awaitable[Response]]:
    async def post(request: Request) -> Response:
        return await answer_post(request, state)

    return post


def _guarded(
    answer: Callable[[Request, State], Awaitable[Response]], state: State, *, needs_key: bool
) -> Callable[[Request], Awaitable[Response]]:
    async def get(request: Request) -> Response:
        try:
            if needs_key:
                state.keys.admit(request.headers.get("authorization"))
            return await answer(request, state)
        except Exception as error:
            failure = failure_of(error)
            if failure.status >= 500:
                log.error("request failed", exc_info=error, extra={"facts": {"path": request.url.path}})
            said = DEFAULT.error(failure.status, str(failure), failure.field)
            return JSONResponse(said, failure.status, failure.headers)

    return get


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == 405:
        message = f"{method} is not for {path}. To rank, POST; GET /docs lists all paths."
        return JSONResponse(DEFAULT.error(405, message, None), 405, dict(error.headers or {}))
    meant = next((known for known in ("/score", "/ranking") if path.endswith(known)), "/v1/rerank")
    message = (
        f"There is nothing at {method} {path[:200]}. To rank, POST to {meant} (Cohere: /v2/rerank; TEI: /rerank; all "
        "formats work on each of them). GET /docs lists all paths."
    )
    return JSONResponse(DEFAULT.error(404, message, None), 404)


@asynccontextmanager
async def _lifespan(app: FastAPI, state: State) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = {loop.create_task(state.store.watch())}

    def on_hangup() -> None:
        state.reread_keys()
        task = loop.create_task(state.store.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # In Ray Serve the loop runs in another thread, which can't have signals.
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    if state.settings.preload:
        for entry in state.store.entries.values():
            await state.store.load(entry)
    else:
        # The default model loads in the background, so that the port is open at once.
        tasks.add(loop.create_task(_warm(state)))
    yield
    for task in tasks:
        task.cancel()
    state.scheduler.stop()
    if state.feedback is not None:
        await asyncio.to_thread(state.feedback.close)
    if state.tracer is not None:
        await asyncio.to_thread(state.tracer.close)


async def _warm(state: State) -> None:
    entry = state.store.entries[state.store.default]
    try:
        await state.store.load(entry)
    except CrossRankError as error:
        log.error("the default model can't be loaded", extra={"facts": {"model": entry.name, "why": str(error)}})
