"""The engine of split models: the body encodes queries and documents separately, then the head scores the pairs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures.ops import Graphs
from crossrank.engines.openvino_engine import CompiledGraph
from crossrank.tokenization.batching import TOKEN_BUDGET, Batch, fill, group_rows, padded_length, rows_of_next
from crossrank.tokenization.split_encoder import KnownTexts, ReadText, SplitBatch, Text
from crossrank.tokenization.text_cache import TextCache

# Memory of one pass through the head, which multiplies each query's tokens with all of a document's.
_HEAD_BYTES = 64_000_000
# Document tokens of one pass through the head. More are not faster, and every new shape has to be prepared.
_HEAD_TOKENS = 4096
# Memory for the states of queries: enough for several thousand typical ones.
_QUERY_BYTES = 32_000_000
# Index of the upper half of each float32 among 16-bit halves.
_UPPER = slice(1 if sys.byteorder == "little" else 0, None, 2)


class SplitEngine:
    """An engine for :mod:`crossrank.architectures.split_bert`.

    The body (token ids to hidden states of one text) runs in the requested precision. So does the head (a query's and a
    document's hidden states to a logit), except that it runs in float32 for int8.

    :param graphs: The model.
    :param max_length: The most tokens of a text.
    :param precision: One of ``float32``, ``bfloat16``, ``int8``.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    :param known: Documents that were encoded before; newly encoded documents are added.
    """

    token_budget = TOKEN_BUDGET

    def __init__(
        self,
        graphs: Graphs,
        max_length: int,
        *,
        precision: str,
        num_threads: int | None = None,
        known: KnownTexts | None = None,
    ) -> None:
        # OpenVINO computes everything after the last product in float32, so logits are not rounded to ties.
        head_precision = "bfloat16" if precision == "bfloat16" else "float32"
        # Compiling takes most of the loading time, and OpenVINO compiles one graph on one core.
        with ThreadPoolExecutor(1) as beside:
            head = beside.submit(CompiledGraph, graphs.head, head_precision, num_threads)
            self._body = CompiledGraph(graphs.body, precision, num_threads)
            self._head = head.result()
        self.facts = self._body.facts
        self._hidden = graphs.head.input("query_states").get_partial_shape()[2].get_length()
        self._max_length = max_length
        # States of a body that runs in bfloat16 are kept in bfloat16.
        self._rounds = precision != "float32"
        self._queries = TextCache(_QUERY_BYTES)
        self._known = known

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, 1]``."""
        assert isinstance(batch, SplitBatch)
        documents = self.read(batch.documents, self._known)
        logits = np.empty((len(batch.rows), 1), np.float32)
        # Queries of the same length are adjacent, to keep padding small.
        lengths = np.fromiter(map(len, batch.queries), np.int64, len(batch.queries))
        order = np.argsort(-lengths[batch.query_index], kind="stable")
        queries = self.read(batch.queries, self._queries)
        longest = max(map(len, batch.documents))
        for part in self._passes(lengths[batch.query_index[order]], longest):
            rows = order[part]
            logits[rows] = self._match(queries, batch.query_index[rows], documents, batch.document_index[rows])
        return logits

    def read(self, texts: Sequence[Text], known: KnownTexts | None, *, exact: bool = False) -> list[ReadText]:
        """States of texts, from ``known`` if it has them.

        :param exact: Keep them in float32.
        """
        read = [text.read or (None if known is None else known.find(text.key)) for text in texts]
        missing = [i for i, found in enumerate(read) if found is None]
        lengths = np.fromiter((len(texts[i]) for i in missing), np.int64, len(missing))
        for group in group_rows(lengths, np.arange(len(missing)), self.token_budget):
            some = [missing[i] for i in group]
            ids, mask = _padded([texts[i].ids for i in some], self._max_length)
            (states,) = self._body.run({"input_ids": ids, "attention_mask": mask})
            for i, row in zip(some, states, strict=True):
                text = texts[i]
                # A copy, so that the cache does not keep the whole batch in memory.
                kept = _to_bfloat16(row[: len(text)]) if self._rounds and not exact else row[: len(text)].copy()
                found = ReadText(text.ids, text.tokens_cut, kept)
                read[i] = found
                if known is not None:
                    known.keep(text.key, found)
        return [found for found in read if found is not None]

    def _passes(self, query_lengths: NDArray[np.int64], document_length: int) -> Iterator[slice]:
        """Divide pairs, longest query first, into passes with bounded memory."""
        start = 0
        while start < len(query_lengths):
            # The largest arrays are, for each attention head and query token, a state and a product with each
            # token of the document; and the document's states.
            products = int(query_lengths[start]) * 8 * (2 * self._hidden + 2 * document_length)
            rows = _HEAD_BYTES // (4 * (products + 3 * document_length * self._hidden))
            rows = rows_of_next(min(rows, _HEAD_TOKENS // document_length), len(query_lengths) - start)
            yield slice(start, start + rows)
            start += rows

    def _match(
        self,
        queries: Sequence[ReadText],
        query_index: NDArray[np.int64],
        documents: Sequence[ReadText],
        document_index: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        inputs: dict[str, NDArray[Any]] = {}
        for name, texts, index in (("query", queries, query_index), ("document", documents, document_index)):
            which, inputs[f"{name}_index"] = np.unique(index, return_inverse=True)
            chosen = [texts[i] for i in which]
            ids, mask = _padded([text.ids for text in chosen], self._max_length)
            states = np.zeros((*ids.shape, chosen[0].states.shape[1]), np.float32)
            for row, text in zip(states, chosen, strict=True):
                _fill(row[: len(text.ids)], text)
            inputs |= {f"{name}_states": states, f"{name}_ids": ids, f"{name}_mask": mask}
        (logits,) = self._head.run(inputs)
        return logits


def _padded(rows: Sequence[NDArray[np.int32]], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, ``[rows, length]``."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    length = padded_length(int(lengths.max()), most)
    return fill([row.tolist() for row in rows], length, 0), (np.arange(length) < lengths[:, None]).astype(np.int64)


def _to_bfloat16(states: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to bfloat16, which NumPy doesn't have: the upper half of float32's bits."""
    return np.ascontiguousarray((states.view(np.uint32) + np.uint32(0x8000)).view(np.uint16)[:, _UPPER])


def _fill(row: NDArray[np.float32], text: ReadText) -> None:
    """Write a text's states into an array of zeros, ``[L, H]``."""
    if text.scales is not None:
        # The scales first, because a product of int8 and float16 is a hundred times slower.
        np.multiply(text.states, text.scales.astype(np.float32)[:, None], out=row)
    elif text.states.dtype == np.uint16:
        row.view(np.uint16)[:, _UPPER] = text.states
    else:
        row[:] = text.states
