"""Text Embeddings Inference: ``texts`` in, a sorted array out. crossrank's own fields are in headers."""

from __future__ import annotations

from typing import Any

from crossrank.server.dialects.body import Answer, Body, Dialect, Question, flag, question

_TYPES = {401: "Unauthorized", 422: "Validation", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}


def parse(body: Body) -> Question:
    """``truncate`` is ignored: long texts are always cut, and the response reports it."""
    return question(body, "texts", return_documents=flag(body, "return_text"), raw=flag(body, "raw_scores"))


def render(answer: Answer) -> list[dict[str, Any]]:
    """``index``, ``text`` if requested, ``score``."""
    shown = answer.question.documents if answer.question.return_documents else None
    return [
        {"index": i, **({"text": shown[i]} if shown is not None else {}), "score": answer.scores[i]}
        for i in answer.best
    ]


def error(status: int, message: str, field: str | None) -> dict[str, Any]:
    """TEI's own two keys."""
    return {"error": message, "error_type": _TYPES.get(status, "Validation" if status < 500 else "Backend")}


DIALECT = Dialect(
    name="tei",
    keys=frozenset({"texts"}),
    parse=parse,
    render=render,
    error=error,
    example={"query": "how do I undo a commit", "texts": ["git reset", "git log"], "return_text": False},
)
