"""ELECTRA: Clark et al. 2020, https://arxiv.org/abs/2003.10555. BERT's layers under a narrower embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossrank.architectures import bert, heads, ops
from crossrank.architectures.ops import Graphs
from crossrank.checkpoint.config import ModelConfig
from crossrank.checkpoint.weights import Weights


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of an ``ElectraForSequenceClassification`` checkpoint."""
    args = bert.Args.of(config)
    narrow = replace(args, hidden=config.get("embedding_size", 128))
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if args.types > 1 else None
    bias = ops.attention_bias(mask)
    x = bert.embed(ids, types, weights.under("electra.embeddings."), narrow)
    if narrow.hidden != args.hidden:
        x = ops.linear(x, weights, "electra.embeddings_project", narrow.hidden, args.hidden)
    for i in range(args.layers):
        below = weights.under(f"electra.encoder.layer.{i}.")
        x = bert.layer(x, bias, below, args, first_only=i == args.layers - 1)
    first = ops.parameter("first_token", -1, args.hidden, dtype=np.float32)
    # GELU whatever hidden_act says, where BERT has tanh: ELECTRA's authors trained it so.
    logits = heads.dense(
        first, weights, "classifier.dense", "classifier.out_proj", args.hidden, len(config.labels), activation="gelu"
    )
    inputs = [ids, mask] + ([types] if types is not None else [])
    return ops.graphs(inputs, [heads.squeeze_first(x)], [first], logits, "electra")
