"""Voyage: ``documents`` with ``top_k`` or ``truncation``; ``data`` out, sorted."""

from __future__ import annotations

from typing import Any

from crossrank.server.dialects.body import Answer, Body, Dialect, Question, count, flag, name_of_model, text, texts


def parse(body: Body) -> Question:
    """``truncation`` is not obeyed: what is too long is always cut, and said."""
    query, documents = text(body, "query"), texts(body, "documents")
    return Question(
        pairs=[(query, document) for document in documents],
        documents=documents,
        model=name_of_model(body),
        top_n=count(body, "top_k") or count(body, "top_n"),
        return_documents=flag(body, "return_documents"),
    )


def render(answer: Answer) -> dict[str, Any]:
    """A document is a bare string here."""
    shown = answer.question.documents if answer.question.return_documents else None
    data = [
        {"index": i, "relevance_score": answer.scores[i], **({"document": shown[i]} if shown is not None else {})}
        for i in answer.best
    ]
    return {
        "object": "list",
        "data": data,
        "model": answer.model,
        "usage": {"total_tokens": answer.tokens},
        "crossrank": answer.facts,
    }


def error(status: int, message: str, field: str | None) -> dict[str, Any]:
    """Voyage reads ``detail``."""
    return {"detail": message}


DIALECT = Dialect(
    name="voyage",
    keys=frozenset({"top_k", "truncation"}),
    needs="documents",
    parse=parse,
    render=render,
    error=error,
    example={"query": "how do I undo a commit", "documents": ["git reset", "git log"], "top_k": 1, "truncation": True},
)
