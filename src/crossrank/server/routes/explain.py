"""Explain a document's score, and report how much of it the model reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crossrank.evaluation.explain import explain as explain_pair
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.server.dialects.body import Body, document_text, name_of_model, text, texts
from crossrank.server.routes.reading import HttpError, check_limits, read_body
from crossrank.validation import encodable

if TYPE_CHECKING:
    from crossrank.server.app import State

# Pairs scored for one explanation. Few, because it runs beside the rankings.
_BUDGET = 128


async def explain(request: Request, state: State) -> Response:
    """Return the words of a query and a document that made the score: ``{"query": ..., "document": ...}``."""
    body = await read_body(request, state.settings.max_body_bytes, state.settings.body_seconds)
    query = text(body, "query")
    check_limits([query], [], state.settings)
    document = document_text(body.get("document"), "document")[: state.settings.max_document_characters]
    async with state.explanations, _model(body, state) as (model, facts):
        found = await asyncio.to_thread(explain_pair, model, query, document, budget=_BUDGET)
    told = asdict(found)
    del told["query"], told["document"]
    return JSONResponse({**facts, **told})


async def cut(request: Request, state: State) -> Response:
    """Return how many characters of each document the model reads: ``{"query": ..., "documents": [...]}``."""
    body = await read_body(request, state.settings.max_body_bytes, state.settings.body_seconds)
    query, documents = text(body, "query"), texts(body, "documents")
    check_limits([query], documents, state.settings)
    most = state.settings.max_document_characters
    async with state.explanations, _model(body, state) as (model, facts):
        read = await asyncio.to_thread(_characters_read, model, query, [one[:most] for one in documents])
    return JSONResponse({**facts, "read": read})


@asynccontextmanager
async def _model(body: Body, state: State) -> AsyncIterator[tuple[CrossEncoder, dict[str, Any]]]:
    entry, _ = state.store.find(name_of_model(body))
    async with state.store.use(entry) as loaded:
        if not isinstance(loaded.runs, CrossEncoder):
            raise HttpError(422, f"{entry.name} is a pipeline; only a single model can be explained.", "model")
        yield loaded.runs, {"model": entry.name, "model_version": loaded.version}


def _characters_read(model: CrossEncoder, query: str, documents: list[str]) -> list[int]:
    encoder = model.load().encoder
    read = []
    for document in documents:
        encoded = encoder.encode([(query, document)])
        if not encoded.document_cut[0]:
            read.append(len(document))
            continue
        offsets = encoder.tokenizer.encode(encodable(document), add_special_tokens=False).offsets
        kept = int(encoded.document_kept[0])
        read.append(int(offsets[kept - 1][1]) if 0 < kept <= len(offsets) else 0)
    return read
