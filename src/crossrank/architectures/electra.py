"""ELECTRA: Clark et al. 2020, https://arxiv.org/abs/2003.10555. BERT's layers under a narrower embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossrank.architectures import bert, ops
from crossrank.architectures.ops import Graphs, Node
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """Token ids to the last layer's states: ``[B, L, H]``, or with ``first_only`` the first token's, ``[B, 1, H]``.

    :param weights: Named as in the bare body, without ``electra.``.
    :param typed: Read token types; otherwise all tokens have type 0.
    :returns: The graph's inputs and the states.
    """
    args = bert.Args.of(config)
    narrow = replace(args, hidden=config.get("embedding_size", 128))
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if typed and args.types > 1 else None
    bias = ops.attention_bias(mask)
    x = bert.embed(ids, types, weights.under("embeddings."), narrow)
    if narrow.hidden != args.hidden:
        x = ops.linear(x, weights, "embeddings_project", narrow.hidden, args.hidden)
    for i in range(args.layers):
        below = weights.under(f"encoder.layer.{i}.")
        x = bert.layer(x, bias, below, args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of an ``ElectraForSequenceClassification`` checkpoint."""
    args = bert.Args.of(config)
    inputs, x = body(config, weights.under("electra."), first_only=True, typed=True)
    first = ops.parameter("first_token", -1, args.hidden, dtype=np.float32)
    # Always GELU, as ELECTRA was trained, whatever hidden_act is; BERT has tanh here.
    logits = ops.dense_head(
        first, weights, "classifier.dense", "classifier.out_proj", args.hidden, len(config.labels), activation="gelu"
    )
    return ops.graphs(inputs, [ops.squeeze_first(x)], [first], logits, "electra")
