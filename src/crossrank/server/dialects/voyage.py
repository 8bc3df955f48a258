"""Voyage: ``documents`` with ``top_k`` or ``truncation``; ``data`` out, sorted."""

from __future__ import annotations

from typing import Any

from crossrank.server.dialects.body import Answer, Body, Dialect, Question, count, detail, flag, question


def parse(body: Body) -> Question:
    """``truncation`` is ignored: long texts are always cut, and the response reports it."""
    top_k = count(body, "top_k") or count(body, "top_n")
    return question(body, "documents", top_n=top_k, return_documents=flag(body, "return_documents"))


def render(answer: Answer) -> dict[str, Any]:
    """A document is a plain string here."""
    shown = answer.question.documents if answer.question.return_documents else None
    data = [
        {"index": i, "relevance_score": answer.scores[i], **({"document": shown[i]} if shown is not None else {})}
        for i in answer.best
    ]
    return {
        "object": "list",
        "data": data,
        "model": answer.facts["model"],
        "usage": {"total_tokens": answer.tokens},
        "crossrank": answer.facts,
    }


DIALECT = Dialect(
    name="voyage",
    keys=frozenset({"top_k", "truncation"}),
    needs="documents",
    parse=parse,
    render=render,
    error=detail,
    example={"query": "how do I undo a commit", "documents": ["git reset", "git log"], "top_k": 1, "truncation": True},
)
