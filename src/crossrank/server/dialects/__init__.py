"""Dialects: one file for the format of each service. The body alone determines the dialect, on any path.

A new dialect is a file with a ``DIALECT``, a line here and a row in ``tests/server/test_dialects.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossrank.server.dialects import nvidia, rerank, score, tei, voyage, weaviate
from crossrank.server.dialects.body import Dialect
from crossrank.validation import FieldError

# The first match is used, so specific dialects come before the general one.
DIALECTS: tuple[Dialect, ...] = (
    tei.DIALECT,
    nvidia.DIALECT,
    weaviate.DIALECT,
    score.DIALECT,
    voyage.DIALECT,
    rerank.DIALECT,
)
# For errors before a body was read.
DEFAULT = rerank.DIALECT


def dialect_of(body: Mapping[str, Any]) -> Dialect:
    """Find the dialect of a body without nulls.

    :raises FieldError: If no dialect matches.
    """
    for dialect in DIALECTS:
        if dialect.matches(body):
            return dialect
    raise FieldError(
        "The body has neither 'documents' (Cohere, Jina, vLLM, Voyage) nor 'texts' (TEI) nor 'passages' (NVIDIA) nor "
        "'text_1' (vLLM's scores). Send the documents to rank under one of them.",
        "documents",
    )
