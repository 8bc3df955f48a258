"""The engine of bi-encoders: texts through the body, then pooled to one vector each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint.config import ModelConfig, load_config
from crossrank.checkpoint.embedding import Embedding, read_embedding
from crossrank.engines.openvino_engine import CompiledGraph, native_precision
from crossrank.engines.select import choose_precision, usable_length
from crossrank.tokenization.batching import Batch
from crossrank.tokenization.text_encoder import TextEncoder
from crossrank.tokenization.tokenizer import load_tokenizer

Floats = NDArray[np.float32]


class EmbeddingEngine:
    """Runs a graph of :mod:`crossrank.architectures.states`; safe to call from many threads.

    :param graph: Token ids to states: of all tokens, or of the first alone where the pooling is ``"cls"``.
    :param size: ``H``, the length of a vector.
    :param pooling: ``"mean"`` or ``"cls"``.
    :param precision: Of the graph: one of ``float32``, ``bfloat16``, ``int8``. Pooling is in float32.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    """

    def __init__(self, graph: Any, size: int, pooling: str, *, precision: str, num_threads: int | None = None) -> None:
        self.size = size
        self._graph = CompiledGraph(graph, precision, num_threads)
        self._pooling = pooling

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What it runs with."""
        return self._graph.facts

    def embed(self, batch: Batch) -> Floats:
        """A vector of length 1 for each text, ``[batch, H]``; zeros where the pooled states are zero."""
        (states,) = self._graph.run(batch.inputs)
        if self._pooling == "cls":
            pooled: Floats = states[:, 0]
        else:
            # Divided by nothing: the length goes in the next step.
            mask = batch.inputs["attention_mask"].astype(np.float32)
            pooled = np.matmul(mask[:, None, :], states)[:, 0]
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled / np.maximum(length, np.float32(1e-12)), dtype=np.float32)


@dataclass(frozen=True)
class LoadedBiEncoder:
    """A bi-encoder ready to embed."""

    config: ModelConfig
    embedding: Embedding
    encoder: TextEncoder
    engine: EmbeddingEngine


def load_bi_encoder(
    folder: Path, *, precision: str, max_length: int | None, num_threads: int | None
) -> LoadedBiEncoder:
    """Open the folder of a bi-encoder.

    :raises ModelError: If the files can't be used, or are not of a bi-encoder.
    :raises InputError: If a setting does not fit the model.
    """
    from crossrank.architectures.states import build_states
    from crossrank.checkpoint.weights import load_weights

    config = load_config(folder)
    weights = load_weights(folder)
    embedding = read_embedding(folder, config, list(weights))
    precision = native_precision(choose_precision(precision))
    graph = build_states(config, weights.compressed(precision == "int8"), first_only=embedding.pooling == "cls")
    encoder = TextEncoder(
        load_tokenizer(folder, config.raw.get("vocab_size")),
        usable_length(config, max_length),
        config.get("pad_token_id", 0),
    )
    size = int(config.get("hidden_size", None) or config.need("dim"))  # the latter is DistilBERT's word
    engine = EmbeddingEngine(graph, size, embedding.pooling, precision=precision, num_threads=num_threads)
    return LoadedBiEncoder(config, embedding, encoder, engine)
