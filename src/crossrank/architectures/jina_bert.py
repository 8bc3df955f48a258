"""JinaBERT: Günther et al. 2023, https://arxiv.org/abs/2310.19923, such as jina-reranker-v1-turbo-en.

BERT without a position table: attention scores decrease with the distance of two tokens (ALiBi, Press et al. 2022,
https://arxiv.org/abs/2108.12409, here in both directions), and the feed-forward is gated. The published checkpoints
have their own code (``jinaai/jina-bert-implementation``), which is not run.
"""

from __future__ import annotations

import math

import numpy as np

from crossrank.architectures import bert, ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights

_GATES = {"geglu": "gelu", "reglu": "relu"}  # feed_forward_type: its activation


def args_of(config: ModelConfig) -> bert.Args:
    """Read what the graph needs of ``config.json``. Its activation is that of the gate."""
    config.only("position_embedding_type", "alibi")
    config.only("feed_forward_type", *_GATES)
    return bert.Args(
        vocab=config.need("vocab_size"),
        hidden=config.need("hidden_size"),
        layers=config.need("num_hidden_layers"),
        heads=config.need("num_attention_heads"),
        intermediate=config.need("intermediate_size"),
        activation=_GATES[config.need("feed_forward_type")],
        eps=config.get("layer_norm_eps", 1e-12),
        positions=0,  # it has no position table
        types=config.get("type_vocab_size", 2),
    )


def slopes(heads: int) -> list[float]:
    """The slope of each head: how much its scores decrease per token of distance.

    For a power of two, a geometric sequence from ``2^(-8 / heads)``. For another number, the sequence of the power
    below it, then every second value of the sequence of the power above.
    """
    power = 2 ** math.floor(math.log2(heads))
    row = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
    return row if power == heads else row + slopes(2 * power)[0::2][: heads - power]


def distance_bias(ids: Node, heads: int) -> Node:
    """The bias on attention scores for the distance of two positions: ``[1, N, L, L]``."""
    length = opset.gather(opset.shape_of(ids), ops.integer(1), ops.integer(0))
    places = opset.range(ops.integer(0), length, ops.integer(1), "i64")
    apart = opset.abs(opset.subtract(opset.unsqueeze(places, ops.ints(1)), opset.unsqueeze(places, ops.ints(0))))
    falls = -np.array(slopes(heads), np.float32).reshape(1, heads, 1, 1)
    return opset.multiply(opset.convert(apart, np.float32), ops.constant(falls))


def layer(x: Node, bias: Node, weights: Weights, args: bert.Args, *, first_only: bool) -> Node:
    """One block. With ``first_only``, compute only the first token's row, for heads that need no other."""
    rows = ops.first_token(x) if first_only else x
    if first_only:
        bias = opset.slice(bias, ops.ints(0), ops.ints(1), ops.ints(1), ops.ints(2))
    attended = bert.attention(rows, x, bias, weights.under("attention."), args)
    rows = ops.layer_norm(opset.add(attended, rows), weights, "attention.output.LayerNorm", args.hidden, args.eps)
    mlp = weights.under("mlp.")
    gate, value = (
        ops.linear(rows, mlp, "gated_layers", args.hidden, args.intermediate, bias=False, part=i, parts=2)
        for i in range(2)
    )
    gated = opset.multiply(ops.activate(gate, args.activation), value)
    out = ops.linear(gated, mlp, "wo", args.intermediate, args.hidden)
    return ops.layer_norm(opset.add(out, rows), mlp, "layernorm", args.hidden, args.eps)


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`."""
    args = args_of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if typed and args.types > 1 else None
    below = weights.under("embeddings.")
    x = ops.embedding(below, "word_embeddings", args.vocab, args.hidden, ids)
    x = opset.add(x, ops.token_types(below, "token_type_embeddings", args.types, args.hidden, types))
    x = ops.layer_norm(x, below, "LayerNorm", args.hidden, args.eps)
    bias = opset.add(ops.attention_bias(mask), distance_bias(ids, args.heads))
    for i in range(args.layers):
        x = layer(x, bias, weights.under(f"encoder.layer.{i}."), args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``JinaBertForSequenceClassification`` checkpoint."""
    args = args_of(config)
    inputs, x = body(config, weights.under("bert."), first_only=True, typed=True)
    return ops.classifier(
        config, inputs, x, weights, ("bert.pooler.dense", "classifier"), args.hidden, activation="tanh"
    )
