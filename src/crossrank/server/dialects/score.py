"""vLLM's score API: pairs of ``text_1`` and ``text_2`` (``queries`` and ``documents``, ``data_1`` and ``data_2``)."""

from __future__ import annotations

import time
from typing import Any

from crossrank.server.dialects import rerank
from crossrank.server.dialects.body import Answer, Body, Dialect, Question, flag, name_of_model, texts
from crossrank.validation import FieldError

_NAMES = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))


def parse(body: Body) -> Question:
    """One query with each document, or as many queries as documents."""
    first, second = next((names for names in _NAMES if names[0] in body and names[1] in body), _NAMES[0])
    queries, documents = texts(body, first), texts(body, second)
    if len(queries) == 1:
        queries *= len(documents)
    if len(queries) != len(documents):
        raise FieldError(
            f"{first} has {len(queries)} texts and {second} has {len(documents)}. Send one query, or one for each.",
            first,
        )
    return Question(
        pairs=list(zip(queries, documents, strict=True)),
        documents=documents,
        model=name_of_model(body),
        raw=not flag(body, "use_activation", True),
    )


def render(answer: Answer) -> dict[str, Any]:
    """In input order."""
    return {
        "id": answer.facts["request_id"],
        "object": "list",
        "created": int(time.time()),
        "model": answer.facts["model"],
        "data": [{"index": i, "object": "score", "score": score} for i, score in enumerate(answer.scores)],
        "usage": answer.usage,
        "crossrank": answer.facts,
    }


DIALECT = Dialect(
    name="score",
    keys=frozenset(first for first, _ in _NAMES),
    parse=parse,
    render=render,
    error=rerank.error,
    example={"model": "bundled", "text_1": "how do I undo a commit", "text_2": ["git reset", "git log"]},
)
