"""DistilBERT: Sanh et al. 2019, https://arxiv.org/abs/1910.01108. BERT without token types, and with other names."""

from __future__ import annotations

from dataclasses import dataclass

from crossrank.architectures import ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights

_EPS = 1e-12  # no key of config.json sets it


@dataclass(frozen=True)
class Args:
    """What the graph needs of ``config.json``."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str
    positions: int

    @classmethod
    def of(cls, config: ModelConfig) -> Args:
        """Read them, with transformers' defaults for missing keys."""
        return cls(
            vocab=config.need("vocab_size"),
            hidden=config.need("dim"),
            layers=config.need("n_layers"),
            heads=config.need("n_heads"),
            intermediate=config.need("hidden_dim"),
            activation=config.get("activation", "gelu"),
            positions=config.get("max_position_embeddings", 512),
        )


def attention(x: Node, context: Node, bias: Node, weights: Weights, args: Args) -> Node:
    """``x`` attends to ``context``, which is ``x`` except in the last layer."""
    size = args.hidden // args.heads
    q, k, v = (
        ops.split_heads(ops.linear(source, weights, name, args.hidden, args.hidden), args.heads, size)
        for name, source in (("q_lin", x), ("k_lin", context), ("v_lin", context))
    )
    merged = ops.merge_heads(ops.attention(q, k, v, bias, size), args.heads, size)
    return ops.linear(merged, weights, "out_lin", args.hidden, args.hidden)


def layer(x: Node, bias: Node, weights: Weights, args: Args, *, first_only: bool = False) -> Node:
    """One block. With ``first_only``, compute only the first token's row, for heads that need no other."""
    rows = ops.first_token(x) if first_only else x
    attended = attention(rows, x, bias, weights.under("attention."), args)
    rows = ops.layer_norm(opset.add(attended, rows), weights, "sa_layer_norm", args.hidden, _EPS)
    inner = ops.activate(ops.linear(rows, weights, "ffn.lin1", args.hidden, args.intermediate), args.activation)
    out = ops.linear(inner, weights, "ffn.lin2", args.intermediate, args.hidden)
    return ops.layer_norm(opset.add(out, rows), weights, "output_layer_norm", args.hidden, _EPS)


def embed(ids: Node, weights: Weights, args: Args) -> Node:
    """Words and positions, normalised: ``[B, L]`` to ``[B, L, H]``. Sinusoidal positions are stored as a table too."""
    x = ops.embedding(weights, "word_embeddings", args.vocab, args.hidden, ids)
    x = opset.add(x, ops.positions(weights, "position_embeddings", args.positions, args.hidden, ids))
    return ops.layer_norm(x, weights, "LayerNorm", args.hidden, _EPS)


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`. There are no token types."""
    args = Args.of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    bias = ops.attention_bias(mask)
    x = embed(ids, weights.under("embeddings."), args)
    for i in range(args.layers):
        below = weights.under(f"transformer.layer.{i}.")
        x = layer(x, bias, below, args, first_only=first_only and i == args.layers - 1)
    return [ids, mask], x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``DistilBertForSequenceClassification`` checkpoint."""
    args = Args.of(config)
    inputs, x = body(config, weights.under("distilbert."), first_only=True)
    return ops.classifier(config, inputs, x, weights, ("pre_classifier", "classifier"), args.hidden, activation="relu")
