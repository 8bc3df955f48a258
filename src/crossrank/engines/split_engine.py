"""The engine of split models: queries and documents through the lower layers apart, then the pairs through the head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures.ops import Graphs
from crossrank.engines.openvino_engine import CompiledGraph
from crossrank.tokenization.batching import Batch


class SplitEngine:
    """An engine for :mod:`crossrank.architectures.split_bert`.

    The body (token ids to hidden states of one text) runs in the precision asked for; the head (a query's and a
    document's hidden states to a logit) costs a small part of it and runs in float32.

    :param graphs: The model.
    :param precision: One of ``float32``, ``bfloat16``, ``int8``.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    """

    def __init__(self, graphs: Graphs, *, precision: str, num_threads: int | None = None) -> None:
        self._body = CompiledGraph(graphs.body, precision, num_threads)
        self._head = CompiledGraph(graphs.head, "float32", num_threads)

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What it runs with."""
        return self._body.facts

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, 1]``."""
        inputs = batch.inputs
        (query,) = self._body.run({"input_ids": inputs["query_ids"], "attention_mask": inputs["query_mask"]})
        (document,) = self._body.run({"input_ids": inputs["document_ids"], "attention_mask": inputs["document_mask"]})
        (logits,) = self._head.run({**inputs, "query_states": query, "document_states": document})
        return logits
