"""The engine of bi-encoders: texts through the body, then pooled to one vector each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.engines.openvino_engine import CompiledGraph
from crossrank.tokenization.batching import Batch

Floats = NDArray[np.float32]


class EmbeddingEngine:
    """Runs a graph of :mod:`crossrank.architectures.registry`; safe to call from many threads.

    :param graph: Token ids to states: of all tokens, or only of the first one if the pooling is ``"cls"``.
    :param size: ``H``, the length of a vector.
    :param pooling: ``"mean"`` or ``"cls"``.
    :param precision: Precision of the graph: ``float32``, ``bfloat16`` or ``int8``. Pooling is in float32.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    """

    def __init__(self, graph: Any, size: int, pooling: str, *, precision: str, num_threads: int | None = None) -> None:
        self.size = size
        self._graph = CompiledGraph(graph, precision, num_threads)
        self.facts = self._graph.facts
        self._pooling = pooling

    def embed(self, batch: Batch) -> Floats:
        """A vector of length 1 for each text, ``[batch, H]``; zeros where the pooled states are zero."""
        (states,) = self._graph.run(batch.inputs)
        if self._pooling == "cls":
            pooled: Floats = states[:, 0]
        else:
            # A sum is enough, because the next step normalizes the length.
            mask = batch.inputs["attention_mask"].astype(np.float32)
            pooled = np.matmul(mask[:, None, :], states)[:, 0]
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(length, np.float32(1e-12)), dtype=np.float32)
