"""Cohere v1 and v2, Jina, vLLM, Xinference, infinity: ``documents`` in, sorted ``results`` out, the same for all."""

from __future__ import annotations

from typing import Any

from crossrank.server.dialects.body import (
    Answer,
    Body,
    Dialect,
    Question,
    count,
    document_text,
    flag,
    items,
    name_of_model,
    text,
    texts,
)
from crossrank.validation import FieldError


def parse(body: Body) -> Question:
    """Read the union of their fields."""
    query = text(body, "query")
    fields = body.get("rank_fields", [])
    if not isinstance(fields, list) or not all(isinstance(name, str) for name in fields):
        raise FieldError("rank_fields is not a list of strings. Send the names of the fields to read.", "rank_fields")
    return Question(
        pairs=[(query, document) for document in texts(body, "documents", fields)],
        documents=items(body, "documents"),
        model=name_of_model(body),
        top_n=count(body, "top_n"),
        return_documents=flag(body, "return_documents"),
        raw=flag(body, "raw_scores") or not flag(body, "use_activation", True),
    )


def render(answer: Answer) -> dict[str, Any]:
    """A result has only keys that clients know. Our own are under ``crossrank`` and in ``meta.warnings``."""
    results = []
    for index in answer.best:
        result: dict[str, Any] = {"index": index, "relevance_score": answer.scores[index]}
        if answer.question.return_documents:
            document = answer.question.documents[index]
            result["document"] = document if isinstance(document, dict) else {"text": document_text(document, "")}
        results.append(result)
    meta: dict[str, Any] = {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": answer.tokens, "output_tokens": 0},
    }
    if warnings := answer.facts["warnings"]:
        meta["warnings"] = warnings
    return {
        "id": answer.facts["request_id"],
        "object": "rerank",
        "model": answer.facts["model"],
        "results": results,
        "usage": answer.usage,
        "meta": meta,
        "crossrank": answer.facts,
    }


def error(status: int, message: str, field: str | None) -> dict[str, Any]:
    """Cohere's ``message``, Jina's ``detail`` and vLLM's ``error``."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "message": message,
        "detail": message,
        "error": {"message": message, "type": kind, "param": field, "code": status},
    }


DIALECT = Dialect(
    name="rerank",
    keys=frozenset({"documents"}),
    parse=parse,
    render=render,
    error=error,
    example={"model": "bundled", "query": "how do I undo a commit", "documents": ["git reset", "git log"], "top_n": 1},
)
