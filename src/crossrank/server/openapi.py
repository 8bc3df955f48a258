"""Request bodies and response statuses for `/docs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossrank.server.dialects import DIALECTS


def _json(schema: Mapping[str, Any], **content: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema, **content}}}


def _responses(texts: Mapping[int, str]) -> dict[str, Any]:
    return {str(status): {"description": text, **_json({})} for status, text in texts.items()}


_TEXT = {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"text": {"type": "string"}}}]}
_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT}]}
_COUNT = {"type": ["integer", "null"]}
_FLAG = {"type": ["boolean", "null"]}
_STRING = {"type": "string"}
_INDICES = {"type": "array", "items": {"type": "integer"}}
# All fields that a dialect reads, and each dialect's example.
RANK = {
    "requestBody": {
        "required": True,
        **_json(
            {
                "type": "object",
                "properties": {
                    "query": _TEXT,
                    **dict.fromkeys(("documents", "texts", "passages", "queries", "text_1", "text_2"), _TEXTS),
                    "model": {"type": ["string", "null"]},
                    **dict.fromkeys(("top_n", "top_k"), _COUNT),
                    **dict.fromkeys(("return_documents", "return_text", "raw_scores", "truncate", "truncation"), _FLAG),
                    "rank_fields": {"type": "array", "items": {"type": "string"}},
                },
            },
            examples={dialect.name: {"value": dict(dialect.example)} for dialect in DIALECTS},
        ),
    },
    "responses": _responses(
        {
            200: "The ranking, in the format of the request",
            400: "Not JSON",
            401: "The API key is missing or unknown",
            404: "An unknown model, with --strict-models",
            408: "The body arrived too slowly",
            413: "Too many documents or bytes",
            422: "A field can't be used",
            424: "The model can't be loaded",
            429: "Too many tokens are waiting; Retry-After says how long to wait",
            503: "A model's files can't be downloaded, or a pipeline's stage failed",
        }
    ),
}
FEEDBACK = {
    "requestBody": {
        "required": True,
        **_json(
            {
                "type": "object",
                "required": ["request_id"],
                "properties": {
                    **dict.fromkeys(("request_id", "missing", "comment", "user"), _STRING),
                    **dict.fromkeys(("clicked", "order"), _INDICES),
                    "helpful": {"type": "object", "additionalProperties": {"type": "boolean"}},
                    "stars": {"type": "object", "additionalProperties": {"type": "number"}},
                },
            },
            example={"request_id": "...", "clicked": [1], "helpful": {"1": True}, "user": "u-17"},
        ),
    },
    "responses": _responses(
        {
            201: "The feedback is stored",
            400: "Not JSON",
            401: "The API key is missing or unknown",
            404: "The ranking is not stored, or feedback is off",
            408: "The body arrived too slowly",
            413: "More than 1 MiB",
            422: "A field can't be used",
            503: "The database can't be written; Retry-After says when to try again",
        }
    ),
}
OBJECT = {"requestBody": _json({"type": "object"})}
RELOAD = {"parameters": [{"name": "model", "in": "query", "schema": {"type": "string"}}]}
NAME = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
