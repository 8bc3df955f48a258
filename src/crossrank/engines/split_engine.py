"""The engine of split models: queries and documents through the lower layers apart, then the pairs through the head."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures.ops import Graphs
from crossrank.engines.openvino_engine import CompiledGraph
from crossrank.tokenization.batching import Batch, padded_length

# Queries whose states are kept: those of a few thousand pairs, at most 100 kB each.
QUERIES_KEPT = 128


class SplitEngine:
    """An engine for :mod:`crossrank.architectures.split_bert`.

    The body (token ids to hidden states of one text) runs in the precision asked for; the head (a query's and a
    document's hidden states to a logit) costs a small part of it and runs in float32.

    :param graphs: The model.
    :param precision: One of ``float32``, ``bfloat16``, ``int8``.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    """

    def __init__(self, graphs: Graphs, *, precision: str, num_threads: int | None = None) -> None:
        # Compiling is most of the time to load, and OpenVINO does one graph on one core.
        with ThreadPoolExecutor(1) as beside:
            head = beside.submit(CompiledGraph, graphs.head, "float32", num_threads)
            self._body = CompiledGraph(graphs.body, precision, num_threads)
            self._head = head.result()
        self._queries: dict[bytes, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What it runs with."""
        return self._body.facts

    def _query_states(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """States of queries, ``[queries, length, H]``, zero behind the end of each.

        Each query is read alone, so its states don't depend on its neighbours, and once for the batches of its
        documents.
        """
        lengths = mask.sum(1).tolist()
        rows = []
        for row, length in zip(ids, lengths, strict=True):
            key = row[:length].tobytes()
            found = self._queries.get(key)
            if found is None:
                own = padded_length(length, ids.shape[1])
                (states,) = self._body.run({"input_ids": row[None, :own], "attention_mask": _ones(length, own)})
                found = states[0, :length]
                with self._lock:
                    self._queries[key] = found
                    while len(self._queries) > QUERIES_KEPT:
                        self._queries.pop(next(iter(self._queries)), None)
            rows.append(found)
        filled = np.zeros((*ids.shape, rows[0].shape[1]), np.float32)
        for i, found in enumerate(rows):
            filled[i, : len(found)] = found
        return filled

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, 1]``."""
        inputs = batch.inputs
        query = self._query_states(inputs["query_ids"], inputs["query_mask"])
        (document,) = self._body.run({"input_ids": inputs["document_ids"], "attention_mask": inputs["document_mask"]})
        (logits,) = self._head.run({**inputs, "query_states": query, "document_states": document})
        return logits


def _ones(length: int, padded: int) -> NDArray[np.int64]:
    return (np.arange(padded) < length).astype(np.int64)[None]
