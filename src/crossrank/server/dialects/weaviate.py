"""Weaviate's ``reranker-transformers``: ``documents`` with ``property``; scores in input order."""

from __future__ import annotations

from typing import Any

from crossrank.server.dialects.body import Answer, Body, Dialect, Question, question


def parse(body: Body) -> Question:
    """``property`` names what Weaviate read the texts from; only that it is there matters."""
    return question(body, "documents", top_n=None)


def render(answer: Answer) -> dict[str, Any]:
    """A score for each document, in input order."""
    question = answer.question
    scores = [{"document": text, "score": answer.scores[i]} for i, text in enumerate(question.documents)]
    return {
        "query": question.pairs[0][0] if question.pairs else "",
        "property": "",
        "scores": scores,
        "crossrank": answer.facts,
    }


def error(status: int, message: str, field: str | None) -> dict[str, Any]:
    """Weaviate reads a string."""
    return {"error": message}


DIALECT = Dialect(
    name="weaviate",
    keys=frozenset({"documents"}),
    needs="property",
    parse=parse,
    render=render,
    error=error,
    example={"query": "how do I undo a commit", "documents": ["git reset", "git log"], "property": ""},
)
