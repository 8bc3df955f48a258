"""RoBERTa: Liu et al. 2019, https://arxiv.org/abs/1907.11692; XLM-R and CamemBERT have the same structure.

BERT's layers, but positions start after the padding id, and the head reads the first token without a pooler.
"""

from __future__ import annotations

import numpy as np

from crossrank.architectures import bert, ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights


def position_ids(ids: Node, padding: int) -> Node:
    """Positions ``[B, L]``: tokens are counted from ``padding + 1`` on, and padding is at ``padding``."""
    real = opset.convert(opset.not_equal(ids, ops.integer(padding)), np.int64)
    counted = opset.multiply(opset.cumsum(real, ops.integer(1)), real)
    return opset.add(counted, ops.integer(padding))


def embed(ids: Node, types: Node | None, weights: Weights, args: bert.Args, padding: int) -> Node:
    """Words, positions and token types, normalised: ``[B, L]`` to ``[B, L, H]``."""
    x = ops.embedding(weights, "word_embeddings", args.vocab, args.hidden, ids)
    positions = position_ids(ids, padding)
    x = opset.add(x, ops.embedding(weights, "position_embeddings", args.positions, args.hidden, positions))
    x = opset.add(x, ops.token_types(weights, "token_type_embeddings", args.types, args.hidden, types))
    return ops.layer_norm(x, weights, "LayerNorm", args.hidden, args.eps)


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`."""
    args = bert.Args.of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if typed and args.types > 1 else None
    bias = ops.attention_bias(mask)
    x = embed(ids, types, weights.under("embeddings."), args, config.get("pad_token_id", 1))
    for i in range(args.layers):
        below = weights.under(f"encoder.layer.{i}.")
        x = bert.layer(x, bias, below, args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``RobertaForSequenceClassification`` checkpoint or a related one: all name the body ``roberta``."""
    args = bert.Args.of(config)
    inputs, x = body(config, weights.under("roberta."), first_only=True, typed=True)
    return ops.classifier(
        config, inputs, x, weights, ("classifier.dense", "classifier.out_proj"), args.hidden, activation="tanh"
    )
