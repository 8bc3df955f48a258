"""ModernBERT: Warner et al. 2024, https://arxiv.org/abs/2412.13663.

Rotary positions, gated feed-forward, norms before the blocks, and local attention in most layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures import ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights
from crossrank.errors import UnsupportedModelError

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
# The key and the default of each kind's rotary base, as configs had them before rope_parameters.
_THETAS: Mapping[str, tuple[str, float]] = {
    _GLOBAL: ("global_rope_theta", 160_000.0),
    _LOCAL: ("local_rope_theta", 10_000.0),
}


@dataclass(frozen=True)
class Args:
    """What the graph needs of ``config.json``.

    :param kinds: The kind of each layer: global or local attention.
    :param window: The reach of local attention, in tokens to each side.
    :param thetas: The rotary base of each kind of layer.
    :param pooling: ``"cls"`` or ``"mean"``.
    """

    vocab: int
    hidden: int
    heads: int
    intermediate: int
    activation: str
    eps: float
    positions: int
    kinds: tuple[str, ...]
    window: int
    thetas: Mapping[str, float]
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    pooling: str
    head_bias: bool
    head_activation: str

    @classmethod
    def of(cls, config: ModelConfig) -> Args:
        """Read them, with transformers' defaults for missing keys."""
        config.only("classifier_pooling", "cls", "mean")
        every, layers = config.get("global_attn_every_n_layers", 3), config.need("num_hidden_layers")
        kinds = tuple(config.get("layer_types", [_LOCAL if i % every else _GLOBAL for i in range(layers)]))
        if len(kinds) != layers or not set(kinds) <= set(_THETAS):
            raise UnsupportedModelError(
                f"config.json has layer_types={list(kinds)}; one of {' or '.join(_THETAS)} is expected for each of "
                f"the {layers} layers."
            )
        return cls(
            vocab=config.need("vocab_size"),
            hidden=config.need("hidden_size"),
            heads=config.need("num_attention_heads"),
            intermediate=config.need("intermediate_size"),
            activation=config.get("hidden_activation", "gelu"),
            eps=config.get("norm_eps", 1e-5),
            positions=config.get("max_position_embeddings", 8192),
            kinds=kinds,
            window=config.get("local_attention", 128) // 2,
            thetas={kind: _theta(config, kind) for kind in _THETAS},
            norm_bias=config.get("norm_bias", False),
            attention_bias=config.get("attention_bias", False),
            mlp_bias=config.get("mlp_bias", False),
            pooling=config.get("classifier_pooling", "cls"),
            head_bias=config.get("classifier_bias", False),
            head_activation=config.get("classifier_activation", "gelu"),
        )


def _theta(config: ModelConfig, kind: str) -> float:
    """The rotary base of a kind of layer: from ``rope_parameters`` (transformers 5) or the older keys."""
    config.only("rope_scaling")
    rope: Mapping[str, Any] = config.get("rope_parameters", {}).get(kind) or {}
    if rope.get("rope_type", "default") != "default":
        raise UnsupportedModelError(
            f"config.json has rope_parameters with rope_type={rope['rope_type']!r} for {kind}; only 'default' has a "
            "graph here. Take another checkpoint."
        )
    key, usual = _THETAS[kind]
    return float(rope.get("rope_theta") or config.get(key, usual))


@dataclass(frozen=True)
class Kind:
    """What the layers of one kind share: the rotation ``[L, D / 2]`` and the bias on attention scores."""

    cos: Node
    sin: Node
    bias: Node


def kind_of(speeds: NDArray[np.float32], positions: int, bias: Node, ids: Node) -> Kind:
    """Su et al. 2021, https://arxiv.org/abs/2104.09864: position ``p`` turns the pair ``i`` by ``p speeds[i]``."""
    # float32 as in transformers; in float64, far positions would differ by more than rounding.
    angles = np.arange(positions, dtype=np.float32)[:, None] * speeds
    cos, sin = (ops.first_rows(ops.constant(table), ids) for table in (np.cos(angles), np.sin(angles)))
    return Kind(cos, sin, bias)


def speeds_of(theta: float, size: int) -> NDArray[np.float32]:
    """The speeds ``theta^(-2i/D)`` of a head of size ``D``: ``[D / 2]``."""
    powers = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return np.asarray(np.float32(1.0) / np.float32(theta) ** powers, dtype=np.float32)


def rotate(x: Node, kind: Kind, size: int) -> Node:
    """Rotate the pairs of coordinates ``(i, i + D / 2)`` of heads ``[B, N, L, D]`` by the angles of their position."""
    left, right = opset.split(x, ops.integer(3), 2).outputs()
    turned = (
        opset.subtract(opset.multiply(left, kind.cos), opset.multiply(right, kind.sin)),
        opset.add(opset.multiply(right, kind.cos), opset.multiply(left, kind.sin)),
    )
    return opset.concat(list(turned), 3)


def window_bias(bias: Node, ids: Node, window: int) -> Node:
    """The padding's bias ``[B, 1, 1, L]`` and that of positions more than ``window`` apart: ``[B, 1, L, L]``."""
    length = opset.gather(opset.shape_of(ids), ops.integer(1), ops.integer(0))
    places = opset.range(ops.integer(0), length, ops.integer(1), "i64")
    apart = opset.abs(opset.subtract(opset.unsqueeze(places, ops.ints(1)), opset.unsqueeze(places, ops.ints(0))))
    far = opset.convert(opset.greater(apart, ops.integer(window)), np.float32)
    return opset.add(bias, opset.multiply(far, ops.scalar(ops.MASKED)))


def attention(x: Node, kind: Kind, weights: Weights, args: Args, *, first_only: bool) -> Node:
    """Every position of ``x``, or with ``first_only`` the first, attends to ``x``."""
    size = args.hidden // args.heads
    rows = ops.first_token(x) if first_only else x
    q, k, v = (
        ops.split_heads(
            ops.linear(source, weights, "Wqkv", args.hidden, args.hidden, bias=args.attention_bias, part=i, parts=3),
            args.heads,
            size,
        )
        for i, source in enumerate((rows, x, x))
    )
    bias = kind.bias
    if first_only:
        # Position 0 is not rotated, and only its row of a local layer's bias is needed.
        bias = opset.slice(bias, ops.ints(0), ops.ints(1), ops.ints(1), ops.ints(2))
    else:
        q = rotate(q, kind, size)
    merged = ops.merge_heads(ops.attention(q, rotate(k, kind, size), v, bias, size), args.heads, size)
    return ops.linear(merged, weights, "Wo", args.hidden, args.hidden, bias=args.attention_bias)


def feed_forward(x: Node, weights: Weights, args: Args) -> Node:
    """GeGLU, Shazeer 2020, https://arxiv.org/abs/2002.05202: one half of ``Wi`` is activated, the second gates it."""
    value, gate = (
        ops.linear(x, weights, "Wi", args.hidden, args.intermediate, bias=args.mlp_bias, part=i, parts=2)
        for i in range(2)
    )
    gated = opset.multiply(ops.activate(value, args.activation), gate)
    return ops.linear(gated, weights, "Wo", args.intermediate, args.hidden, bias=args.mlp_bias)


def layer(x: Node, kind: Kind, weights: Weights, args: Args, *, first: bool, first_only: bool) -> Node:
    """One block.

    :param first: Whether it is the first layer, whose input is already normalised by the embedding.
    :param first_only: Compute only the first token's row, if the head needs no other.
    """
    normed = x if first else ops.layer_norm(x, weights, "attn_norm", args.hidden, args.eps, bias=args.norm_bias)
    rows = ops.first_token(x) if first_only else x
    rows = opset.add(rows, attention(normed, kind, weights.under("attn."), args, first_only=first_only))
    normed = ops.layer_norm(rows, weights, "mlp_norm", args.hidden, args.eps, bias=args.norm_bias)
    return opset.add(rows, feed_forward(normed, weights.under("mlp."), args))


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`. There are no token types."""
    args = Args.of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    bias = ops.attention_bias(mask)
    kinds = {
        kind: kind_of(
            speeds_of(args.thetas[kind], args.hidden // args.heads),
            args.positions,
            bias if kind == _GLOBAL else window_bias(bias, ids, args.window),
            ids,
        )
        for kind in _THETAS
    }
    x = ops.embedding(weights, "embeddings.tok_embeddings", args.vocab, args.hidden, ids)
    x = ops.layer_norm(x, weights, "embeddings.norm", args.hidden, args.eps, bias=args.norm_bias)
    last = len(args.kinds) - 1
    for i, kind in enumerate(args.kinds):
        x = layer(
            x, kinds[kind], weights.under(f"layers.{i}."), args, first=i == 0, first_only=first_only and i == last
        )
    return [ids, mask], ops.layer_norm(x, weights, "final_norm", args.hidden, args.eps, bias=args.norm_bias)


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``ModernBertForSequenceClassification`` checkpoint."""
    args = Args.of(config)
    inputs, x = body(config, weights.under("model."), first_only=args.pooling == "cls")
    hidden = ops.squeeze_first(x) if args.pooling == "cls" else ops.masked_mean(x, inputs[1])
    pooled = ops.parameter("pooled", -1, args.hidden, dtype=np.float32)
    logits = head(pooled, weights.compressed(False), args, len(config.labels))
    return ops.graphs(inputs, [hidden], [pooled], logits, "modernbert")


def head(x: Node, weights: Weights, args: Args, labels: int) -> Node:
    """Dense, activation and norm, then the classifier: ``[B, H]`` to ``[B, labels]``."""
    x = ops.activate(
        ops.linear(x, weights, "head.dense", args.hidden, args.hidden, bias=args.head_bias), args.head_activation
    )
    x = ops.layer_norm(x, weights, "head.norm", args.hidden, args.eps, bias=args.norm_bias)
    return ops.linear(x, weights, "classifier", args.hidden, labels)
