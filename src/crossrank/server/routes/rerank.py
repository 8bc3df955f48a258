"""Ranking requests: from a request in any dialect to a response in the same dialect."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from crossrank.errors import CrossRankError, DownloadError, InputError, ModelError, PreparedError
from crossrank.server.dialects import DEFAULT, dialect_of
from crossrank.server.dialects.body import Answer, Question, flag
from crossrank.server.keys import KeyBusyError, KeyRefusedError
from crossrank.server.logs import log
from crossrank.server.models import UnknownModelError
from crossrank.server.ranking import Outcome, rank
from crossrank.server.routes.reading import HttpError, check_limits, read_body
from crossrank.server.scheduler import QueueFullError
from crossrank.validation import FieldError

if TYPE_CHECKING:
    from crossrank.server.app import State

TIMEOUT_HEADER, ID_HEADER = "x-request-timeout-ms", "x-request-id"
# The maximum of documents named in a header, which must stay short.
_NAMED_IN_HEADER = 50
_MOST_MS = 86_400_000


async def answer_post(request: Request, state: State) -> Response:
    """Answer one request, and log it."""
    started = time.perf_counter()
    given = request.headers.get(ID_HEADER, "")
    request_id = given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex
    note: dict[str, Any] = {"request_id": request_id, "path": request.url.path, "dialect": DEFAULT.name, "model": ""}
    headers: dict[str, str] = {ID_HEADER: request_id}
    try:
        with state.keys.admit(request.headers.get("authorization")).hold():
            content, more = await _answer(request, state, note, started)
        status, headers = 200, {**headers, **more}
    except Exception as error:
        failure = failure_of(error)
        status = failure.status
        content = note.pop("said", DEFAULT).error(status, str(failure), failure.field)
        headers |= failure.headers
        note["error"] = str(failure)
        if status >= 500:
            log.error("request failed", exc_info=error, extra={"facts": note})
    note.pop("said", None)
    seconds = time.perf_counter() - started
    labels = (note["model"], note["dialect"])
    state.metrics.requests.labels(*labels, str(status)).inc()
    state.metrics.seconds.labels(*labels).observe(seconds)
    log.info("request", extra={"facts": {**note, "status": status, "ms": round(1000 * seconds, 1)}})
    if state.tracer is not None:
        state.tracer.record(request.method, request.headers, note, status, seconds)
    return Response(json.dumps(content), status, headers, "application/json")


def failure_of(error: Exception) -> HttpError:
    """Turn an error into a response."""
    match error:
        case HttpError():
            return error
        case FieldError():
            return HttpError(422, str(error), error.field)
        case KeyRefusedError():
            return HttpError(401, str(error), www_authenticate="Bearer")
        case KeyBusyError():
            return HttpError(429, str(error), retry_after="1")
        case QueueFullError():
            return HttpError(429, str(error), retry_after=str(error.retry_after))
        case UnknownModelError():
            return HttpError(404, str(error), "model")
        case InputError():
            return HttpError(422, str(error))
        case ModelError() | PreparedError() if not isinstance(error, DownloadError):
            # A retry would not help, and some clients retry 5xx ten times.
            return HttpError(424, str(error), "model")
        case CrossRankError():
            return HttpError(503, str(error), retry_after="5")
    return HttpError(500, "An unexpected error; the server's log has it under this request's id.")


async def _answer(request: Request, state: State, note: dict[str, Any], started: float) -> tuple[Any, dict[str, str]]:
    settings = state.settings
    deadline = _deadline(request, settings.timeout_ms, started)
    body = await read_body(request, settings.max_body_bytes, settings.body_seconds)
    dialect = dialect_of(body)
    note["dialect"], note["said"] = dialect.name, dialect
    question = dialect.parse(body)
    check_limits([query for query, _ in question.pairs], question.documents, settings)
    entry, warning = state.store.find(question.model)
    note |= {"model": entry.name, "documents": len(question.pairs)}
    if settings.log_texts and question.pairs:
        note["query"] = question.pairs[0][0]
    read = time.perf_counter()
    async with state.store.use(entry) as loaded:
        work = asyncio.ensure_future(rank(loaded, question, state, deadline))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise HttpError(499, "The client left.")
            outcome = work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        note["model_version"] = loaded.version
    timings = {"total": time.perf_counter() - started, "reading": read - started, **outcome.timings}
    warnings = ([warning] if warning else []) + _warnings(outcome)
    kept: dict[str, Any] = {}
    if state.feedback is not None:
        kept = state.feedback.keep(request, body, question, outcome, note)
        warnings += [kept.pop("warning")] if "warning" in kept else []
    elif flag(body, "store"):
        warnings.append("not stored: the server runs without --feedback")
    facts = {
        **{name: note[name] for name in ("request_id", "model", "model_version")},
        "cut": [{"index": index, "tokens": tokens} for index, tokens in outcome.cut.items()],
        "query_tokens_cut": outcome.query_cut,
        "skipped": outcome.skipped,
        "degraded": outcome.degraded,
        "documents_cached": outcome.known["cached"],
        "documents_prepared": outcome.known["prepared"],
        "warnings": warnings,
        "timings": {name: round(seconds, 6) for name, seconds in timings.items()},
        **kept,
    }
    _count(state, note, question, outcome)
    answer = Answer(question, outcome.order, outcome.scores, outcome.tokens, facts)
    return dialect.render(answer), _headers(facts)


def _deadline(request: Request, default_ms: int | None, started: float) -> float | None:
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None if default_ms is None else started + default_ms / 1000
    try:
        milliseconds = float(given)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds <= _MOST_MS:
        raise HttpError(
            422, f"X-Request-Timeout-Ms is {given[:40]!r}. Send milliseconds, from 1 to {_MOST_MS}.", TIMEOUT_HEADER
        )
    return started + milliseconds / 1000


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ---- the fields under crossrank ----------------------------------------------------------------------------------


def _warnings(outcome: Outcome) -> list[str]:
    warnings = []
    if outcome.cut:
        named = ", ".join(map(str, list(outcome.cut)[:20])) + (", ..." if len(outcome.cut) > 20 else "")
        warnings.append(f"{len(outcome.cut)} documents were longer than the model reads and were cut: {named}")
    if outcome.query_cut:
        warnings.append(f"the query was longer than the model reads: {outcome.query_cut} tokens were cut")
    if outcome.degraded:
        warnings.append(f"degraded: {outcome.degraded}")
    return warnings


def _headers(facts: Mapping[str, Any]) -> dict[str, str]:
    """The fields as headers, for dialects whose response is a plain array."""
    cut = [f"{each['index']}={each['tokens']}" for each in facts["cut"]]
    found = {
        "x-crossrank-model": facts["model"],
        "x-crossrank-model-version": facts["model_version"],
        "x-crossrank-cut": _short(cut),
        "x-crossrank-documents-cached": str(facts["documents_cached"] or ""),
        "x-crossrank-documents-prepared": str(facts["documents_prepared"] or ""),
        "x-crossrank-skipped": _short(facts["skipped"]),
        "x-crossrank-degraded": facts["degraded"] or "",
        "x-crossrank-warnings": "; ".join(facts["warnings"]),
        "x-crossrank-stored": str(facts.get("stored", "")).lower(),
        "x-crossrank-shuffled": str(facts.get("shuffled", "")),
        "x-crossrank-timings": ", ".join(f"{name}={seconds:.6f}" for name, seconds in facts["timings"].items()),
    }
    return {
        name: value.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")[:2000]
        for name, value in found.items()
        if value
    }


def _short(items: Sequence[Any]) -> str:
    more = ", ..." if len(items) > _NAMED_IN_HEADER else ""
    return ", ".join(map(str, items[:_NAMED_IN_HEADER])) + more


def _count(state: State, note: dict[str, Any], question: Question, outcome: Outcome) -> None:
    labels = (note["model"], note["dialect"])
    state.metrics.pairs.labels(*labels).inc(len(question.pairs))
    state.metrics.pairs_cut.labels(*labels).inc(len(outcome.cut))
    state.metrics.pairs_skipped.labels(*labels).inc(len(outcome.skipped))
    state.metrics.tokens.labels(*labels).inc(outcome.tokens)
    for known, counter in state.metrics.documents.items():
        counter.labels(*labels).inc(outcome.known[known])
    note |= {"tokens": outcome.tokens, "cut": len(outcome.cut), "skipped": len(outcome.skipped)}
    note |= {f"documents_{known}": outcome.known[known] for known in state.metrics.documents}
    note |= {"degraded": outcome.degraded} if outcome.degraded else {}
