"""Query and document -> ids apart: for models that read them separately in the lower layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.errors import InputError
from crossrank.tokenization.batching import Batch, fill, padded_length
from crossrank.tokenization.pair_encoder import EncodedPairs, encode_pairs
from crossrank.tokenization.tokenizer import PairTemplate

_UNLIMITED = 1 << 40


class SplitEncoder:
    """The encoder of models that read query and document apart before they read them together.

    Assembles ``query_ids`` and ``query_mask`` ``[queries, query length]``, ``document_ids`` and ``document_mask``
    ``[documents, document length]``, and ``query_index`` and ``document_index`` ``[batch]``: what each pair is made of.
    A text that many pairs share is there once.

    :param tokenizer: With truncation and padding off.
    :param template: Where the special tokens stand; the prefix opens a text, the suffix ends it.
    :param max_length: The most tokens of a document, special tokens included.
    :param max_query_length: The most tokens of a query, special tokens included.
    :raises InputError: If ``max_length`` leaves no room for a token.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate, max_length: int, max_query_length: int) -> None:
        if max_length < 3:
            raise InputError(
                f"max_length={max_length} is too short: two special tokens and one of text need at least 3."
            )
        self.max_length = max_length
        self.max_query_length = min(max_query_length, max_length)
        self.tokenizer = tokenizer
        self._start, self._end, self._pad = template.prefix[0], template.suffix[-1], template.pad_id

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Tokenize each distinct text once and measure what each will lose."""
        whole = encode_pairs(self.tokenizer, pairs, room=_UNLIMITED, specials=0)
        query_kept = np.minimum(whole.query_kept, self.max_query_length - 2)
        document_kept = np.minimum(whole.document_kept, self.max_length - 2)
        return replace(
            whole,
            # A query is read once for all of its documents, so a pair costs as much as its document.
            lengths=document_kept + 2,
            query_kept=query_kept,
            document_kept=document_kept,
            query_cut=whole.query_kept - query_kept,
            document_cut=whole.document_kept - document_kept,
            apart=True,
        )

    def assemble(self, encoded: EncodedPairs, rows: NDArray[np.int64]) -> Batch:
        """Pad the distinct queries and documents of some pairs, each to its longest."""
        which_queries, query_index = np.unique(encoded.pairs[rows, 0], return_inverse=True)
        which_documents, document_index = np.unique(encoded.pairs[rows, 1], return_inverse=True)
        queries = [self._framed(encoded.queries[i][: self.max_query_length - 2]) for i in which_queries]
        documents = [self._framed(encoded.documents[i][: self.max_length - 2]) for i in which_documents]
        query_ids, query_mask = self._padded(queries, self.max_query_length)
        document_ids, document_mask = self._padded(documents, self.max_length)
        inputs = {
            "query_ids": query_ids,
            "query_mask": query_mask,
            "document_ids": document_ids,
            "document_mask": document_mask,
            "query_index": query_index.astype(np.int64),
            "document_index": document_index.astype(np.int64),
        }
        return Batch(inputs, rows, sum(map(len, queries)) + sum(map(len, documents)))

    def _framed(self, ids: Sequence[int]) -> list[int]:
        return [self._start, *ids, self._end]

    def _padded(self, rows: list[list[int]], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        length = padded_length(int(lengths.max()), most)
        return fill(rows, length, self._pad), (np.arange(length) < lengths[:, None]).astype(np.int64)
