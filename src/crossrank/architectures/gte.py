"""GTE: Zhang et al. 2024, https://arxiv.org/abs/2407.19669, such as gte-multilingual-reranker-base.

BERT's order of blocks and norms, with rotary positions and a gated feed-forward. Its ``model_type`` is ``new`` if the
checkpoint has its own code (``Alibaba-NLP/new-impl``, which is not run), and ``gte`` in transformers from 5 on. The
weights have the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures import ops
from crossrank.architectures.modernbert import Kind, kind_of, rotate, speeds_of
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights
from crossrank.errors import UnsupportedModelError

_DEFAULT_THETAS: Mapping[str, float] = {"new": 10_000.0, "gte": 160_000.0}


@dataclass(frozen=True)
class Args:
    """What the graph needs of ``config.json``.

    :param speeds: The rotation of each pair of coordinates per position, ``[D / 2]``.
    """

    vocab: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str
    eps: float
    positions: int
    types: int
    speeds: NDArray[np.float32]

    @classmethod
    def of(cls, config: ModelConfig) -> Args:
        """Read them, with the published code's defaults for missing keys."""
        config.only("position_embedding_type", "rope")
        config.only("layer_norm_type", "layer_norm")
        config.only("logn_attention_scale", False)
        hidden, count = config.need("hidden_size"), config.need("num_attention_heads")
        return cls(
            vocab=config.need("vocab_size"),
            hidden=hidden,
            layers=config.need("num_hidden_layers"),
            heads=count,
            intermediate=config.need("intermediate_size"),
            activation=config.get("hidden_act", "gelu"),
            eps=config.get("layer_norm_eps", 1e-12),
            positions=config.get("max_position_embeddings", 8192),
            types=config.get("type_vocab_size", 1),
            speeds=speeds(config, hidden // count),
        )


def speeds(config: ModelConfig, size: int) -> NDArray[np.float32]:
    """Rotary speeds of a head of ``size``, stretched for long texts if config.json says so ("ntk").

    https://kexue.fm/archives/9706: the base grows by the factor, and every speed shrinks by its ``2 / size``-th power;
    with ``mixed_b``, lower speeds shrink more.
    """
    rope: Mapping[str, Any] = config.get("rope_parameters", {})
    theta = float(rope.get("rope_theta") or config.get("rope_theta", _DEFAULT_THETAS[config.model_type]))
    scaling: Mapping[str, Any] = config.get("rope_scaling", {})
    kind = scaling.get("type") or scaling.get("rope_type") or rope.get("rope_type") or "default"
    if kind not in ("default", "ntk"):
        raise UnsupportedModelError(
            f"config.json has rotary positions of the kind {kind!r}; only 'default' and 'ntk' are supported. "
            "Take another checkpoint."
        )
    factor, mixed = float(scaling.get("factor", 1.0)), scaling.get("mixed_b")
    if kind == "default" or factor <= 1:
        return speeds_of(theta, size)
    if mixed is None:
        return np.asarray(speeds_of(theta * factor, size) / np.float32(factor ** (2 / size)), dtype=np.float32)
    growth = np.log(factor) / (size / 2) ** mixed * np.arange(1, size // 2 + 1, dtype=np.float32) ** mixed
    return np.asarray(speeds_of(theta, size) / np.exp(growth), dtype=np.float32)


def attention(x: Node, context: Node, kind: Kind, weights: Weights, args: Args) -> Node:
    """``x`` attends to ``context``, which is ``x`` except in the last layer, where ``x`` is the first token."""
    size = args.hidden // args.heads
    packed = "qkv_proj.weight" in weights

    def project(source: Node, i: int) -> Node:
        if packed:
            y = ops.linear(source, weights, "qkv_proj", args.hidden, args.hidden, part=i, parts=3)
        else:
            y = ops.linear(source, weights, f"{'qkv'[i]}_proj", args.hidden, args.hidden)
        return ops.split_heads(y, args.heads, size)

    q, k, v = project(x, 0), project(context, 1), project(context, 2)
    if x is context:  # position 0 is not rotated
        q = rotate(q, kind, size)
    merged = ops.merge_heads(ops.attention(q, rotate(k, kind, size), v, kind.bias, size), args.heads, size)
    return ops.linear(merged, weights, "o_proj", args.hidden, args.hidden)


def feed_forward(x: Node, weights: Weights, args: Args) -> Node:
    """GeGLU, Shazeer 2020, https://arxiv.org/abs/2002.05202: the second half of the matrix is activated."""
    value, gate = (
        ops.linear(x, weights, "up_gate_proj", args.hidden, args.intermediate, bias=False, part=i, parts=2)
        for i in range(2)
    )
    gated = opset.multiply(ops.activate(gate, args.activation), value)
    return ops.linear(gated, weights, "down_proj", args.intermediate, args.hidden)


def layer(x: Node, kind: Kind, weights: Weights, args: Args, *, first_only: bool) -> Node:
    """One block. With ``first_only``, compute only the first token's row, for heads that need no other."""
    rows = ops.first_token(x) if first_only else x
    attended = attention(rows, x, kind, weights.under("attention."), args)
    rows = ops.layer_norm(opset.add(rows, attended), weights, "attn_ln", args.hidden, args.eps)
    out = feed_forward(rows, weights.under("mlp."), args)
    return ops.layer_norm(opset.add(rows, out), weights, "mlp_ln", args.hidden, args.eps)


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`."""
    args = Args.of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if typed and args.types > 1 else None
    below = weights.under("embeddings.")
    x = ops.embedding(below, "word_embeddings", args.vocab, args.hidden, ids)
    if args.types > 0:
        x = opset.add(x, ops.token_types(below, "token_type_embeddings", args.types, args.hidden, types))
    x = ops.layer_norm(x, below, "LayerNorm", args.hidden, args.eps)
    kind = kind_of(args.speeds, args.positions, ops.attention_bias(mask), ids)
    for i in range(args.layers):
        x = layer(x, kind, weights.under(f"encoder.layer.{i}."), args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``NewForSequenceClassification`` or ``GteForSequenceClassification`` checkpoint."""
    args = Args.of(config)
    prefix = "gte." if "gte.pooler.dense.weight" in weights else "new."
    inputs, x = body(config, weights.under(prefix), first_only=True, typed=True)
    return ops.classifier(
        config, inputs, x, weights, (f"{prefix}pooler.dense", "classifier"), args.hidden, activation="tanh"
    )
