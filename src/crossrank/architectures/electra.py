"""ELECTRA: Clark et al. 2020, https://arxiv.org/abs/2003.10555. BERT's layers under a narrower embedding."""

from __future__ import annotations

from dataclasses import replace

from crossrank.architectures import bert, ops
from crossrank.architectures.ops import Graphs, Node
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`."""
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
    # Always GELU, as ELECTRA was trained, whatever hidden_act is; BERT has tanh here.
    return ops.classifier(
        config, inputs, x, weights, ("classifier.dense", "classifier.out_proj"), args.hidden, activation="gelu"
    )
