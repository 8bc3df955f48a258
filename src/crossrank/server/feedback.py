"""Feedback over HTTP: choose the rankings to store and to shuffle, and respond to ``POST /v1/feedback``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crossrank.feedback.database import StoreError
from crossrank.feedback.judgement import read_judgement, read_key
from crossrank.feedback.store import KeyReusedError, Ranking, Store, UnknownRankingError
from crossrank.feedback.writer import Writer
from crossrank.server.dialects.body import Body, Question, flag
from crossrank.server.logs import log
from crossrank.server.ranking import Outcome
from crossrank.server.routes.reading import HttpError, read_body
from crossrank.server.settings import Settings
from crossrank.validation import FieldError

STORE_HEADER, KEY_HEADER = "x-crossrank-store", "idempotency-key"
_MOST_BYTES = 1 << 20
_WAIT_SECONDS, _RETRY_SECONDS = 10, 5


class Collector:
    """Stores the chosen rankings and the feedback on them.

    :raises CrossRankError: If the store can't be opened.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        assert settings.feedback is not None
        self._settings = settings
        self.store = Store(settings.feedback)
        self._writer = Writer(
            self.store,
            texts=settings.feedback_texts == "full",
            most=settings.feedback_queue,
            days=settings.feedback_days,
            size=settings.feedback_max_bytes,
            tell=lambda message: log.warning("feedback", extra={"facts": {"why": message}}),
        )
        self._random = random.Random()
        self._rankings = Counter("crossrank_rankings_stored", "Rankings to store", ("outcome",), registry=registry)
        self._judgements = Counter("crossrank_feedback", "Requests with feedback", ("status",), registry=registry)
        Gauge("crossrank_feedback_queue", "Rankings and feedback that wait", registry=registry).set_function(
            lambda: self._writer.queued
        )

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()

    def keep(
        self, request: Request, body: Body, question: Question, outcome: Outcome, note: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Store a ranking if it is to be stored, and shuffle its top if it is chosen for that.

        :param outcome: Its order is changed if it is shuffled.
        :param note: The request's log entry.
        :returns: Whether it is stored, how many of its top places are shuffled, and a warning or ``None``.
        """
        if not self._wanted(request, body) or not question.pairs:
            return {"stored": False}
        if len({query for query, _ in question.pairs}) > 1:
            return {"stored": False, "warning": "not stored: the request has several queries"}
        shuffled = self._shuffle(question, outcome)
        most = self._settings.max_document_characters
        documents = [
            {**_identifier(document), "text": text[:most]}
            for document, (_, text) in zip(question.documents, question.pairs, strict=True)
        ]
        ranking = Ranking(
            request_id=note["request_id"],
            query=question.pairs[0][0],
            documents=documents,
            shown=outcome.order[: question.top_n],
            scores=outcome.scores,
            model=note["model"],
            model_version=note["model_version"],
            dialect=note["dialect"],
            shuffled=shuffled,
        )
        stored = self._writer.offer(ranking)
        self._rankings.labels("queued" if stored else "dropped").inc()
        facts: dict[str, Any] = {"stored": stored}
        if shuffled:
            facts["shuffled"] = shuffled
        if not stored:
            facts["warning"] = "not stored: too many rankings wait for the database"
        return facts

    def _wanted(self, request: Request, body: Body) -> bool:
        header = request.headers.get(STORE_HEADER)
        if header is not None:
            return flag({"store": header}, "store")
        if "store" in body:
            return flag(body, "store")
        return self._random.random() < self._settings.feedback_rate

    def _shuffle(self, question: Question, outcome: Outcome) -> int:
        top = min(self._settings.shuffle_top, len(outcome.order[: question.top_n]))
        if top < 2 or outcome.degraded or self._random.random() >= self._settings.share:
            return 0
        head = list(outcome.order[:top])
        self._random.shuffle(head)
        outcome.order = [*head, *outcome.order[top:]]
        return top

    async def answer(self, request: Request) -> Response:
        """Store feedback; returns once it is on disk.

        :raises HttpError: If the feedback is invalid or can't be written now.
        """
        status = 201
        try:
            body = await read_body(request, _MOST_BYTES, self._settings.body_seconds)
            judgement = read_judgement(body)
            given = request.headers.get(KEY_HEADER)
            key = None if given is None else read_key(given, KEY_HEADER)
            written = asyncio.wrap_future(self._writer.judge(judgement, key))
            number = await asyncio.wait_for(written, _WAIT_SECONDS)
        except (FieldError, KeyReusedError) as error:
            status = 422
            raise HttpError(status, str(error), getattr(error, "field", KEY_HEADER)) from None
        except UnknownRankingError as error:
            status = 404
            raise HttpError(status, str(error), "request_id") from None
        except (StoreError, asyncio.TimeoutError) as error:
            status = 503
            why = str(error) or f"The database has not answered within {_WAIT_SECONDS} s."
            raise HttpError(
                status, f"{why} Send the feedback again, with an Idempotency-Key.", retry_after=str(_RETRY_SECONDS)
            ) from None
        except HttpError as error:
            status = error.status
            raise
        finally:
            self._judgements.labels(str(status)).inc()
        log.info("feedback", extra={"facts": {"request_id": judgement.request_id, "status": status}})
        return JSONResponse({"id": number, "request_id": judgement.request_id}, status)


def _identifier(document: Any) -> dict[str, str]:
    given = document.get("id") if isinstance(document, dict) else None
    return {"id": str(given)[:1000]} if isinstance(given, (str, int)) and not isinstance(given, bool) else {}
