"""GET endpoints: health, readiness, models and metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crossrank.errors import CrossRankError
from crossrank.server.routes.reading import HttpError

if TYPE_CHECKING:
    from crossrank.server.app import State

CREATED = int(time.time())


async def health(request: Request, state: State) -> Response:
    """Report that the process is running."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request, state: State) -> Response:
    """Report whether the default model has scored the golden pairs; 503 if not. A GET starts loading it."""
    entry = state.store.entries[state.store.default]
    try:
        loaded = await state.store.load(entry)
    except CrossRankError as error:
        return JSONResponse({"status": "not ready", "model": entry.name, "reason": str(error)}, 503)
    if not state.scheduler.alive:
        return JSONResponse({"status": "not ready", "reason": "the scheduler has stopped; restart the server"}, 503)
    return JSONResponse({"status": "ready", "model": entry.name, "version": loaded.version})


async def info(request: Request, state: State) -> Response:
    """TEI's fields, which Dify and Continue read, and our own."""
    entry = state.store.entries[state.store.default]
    held = entry.loaded.info if entry.loaded else {}
    length = held.get("max_length", 512)
    return JSONResponse(
        {
            "model_id": entry.where or entry.name,
            "model_sha": entry.loaded.version if entry.loaded else None,
            "model_dtype": held.get("precision", "float32"),
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_concurrent_requests": 512,
            "max_input_length": length,
            "max_batch_tokens": state.settings.max_queue_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": state.settings.max_documents,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": state.version,
            "crossrank": {"default": entry.name, "models": state.store.facts()},
        }
    )


async def models(request: Request, state: State) -> Response:
    """The models, in OpenAI's format."""
    return JSONResponse({"object": "list", "data": [_model(name) for name in state.store.entries]})


async def one_model(request: Request, state: State) -> Response:
    """One model, or the default model for an unknown name; Xinference's clients read its type."""
    entry, _ = state.store.find(str(request.path_params["name"]))
    return JSONResponse(_model(entry.name))


async def metrics(request: Request, state: State) -> Response:
    """All counters for Prometheus."""
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def reload(request: Request, state: State) -> Response:
    """Load the versions on disk, and use them if they are sound: ``?model=NAME``, by default all loaded models."""
    name = request.query_params.get("model")
    if name is not None and name not in state.store.entries:
        raise HttpError(404, f"There is no model {name[:200]!r} here. There are: {', '.join(state.store.entries)}.")
    state.reread_keys()
    outcome = await state.store.reload(name)
    failed = any(each["status"] == "failed" for each in outcome.values())
    return JSONResponse({"models": outcome}, 500 if failed else 200)


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "crossrank",
        "model_type": "rerank",
        "model_name": name,
    }
