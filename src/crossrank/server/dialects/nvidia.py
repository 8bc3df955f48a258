"""NVIDIA NIM: ``query.text`` and ``passages[].text`` in, ``rankings`` out, sorted."""

from __future__ import annotations

from typing import Any

from crossrank.server.dialects.body import Answer, Body, Dialect, Question, detail, question


def parse(body: Body) -> Question:
    """``truncate`` is ignored: long texts are always cut, and the response reports it."""
    return question(body, "passages")


def render(answer: Answer) -> dict[str, Any]:
    """``logit`` is a score from 0 to 1, because RAGFlow adds it to other scores in that range."""
    return {
        "rankings": [{"index": i, "logit": answer.scores[i]} for i in answer.best],
        "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
        "crossrank": answer.facts,
    }


DIALECT = Dialect(
    name="nvidia",
    keys=frozenset({"passages"}),
    parse=parse,
    render=render,
    error=detail,
    example={"model": "bundled", "query": {"text": "undo a commit"}, "passages": [{"text": "git reset"}]},
)
