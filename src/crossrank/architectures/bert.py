"""BERT: Devlin et al. 2019, https://arxiv.org/abs/1810.04805. Used by the ms-marco MiniLM and TinyBERT rerankers."""

from __future__ import annotations

from dataclasses import dataclass

from crossrank.architectures import ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights


@dataclass(frozen=True)
class Args:
    """What the graph needs of ``config.json``."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str
    eps: float
    positions: int
    types: int

    @classmethod
    def of(cls, config: ModelConfig) -> Args:
        """Read them, with transformers' defaults for missing keys."""
        config.only("position_embedding_type", "absolute")
        config.only("is_decoder", False)
        return cls(
            vocab=config.need("vocab_size"),
            hidden=config.need("hidden_size"),
            layers=config.need("num_hidden_layers"),
            heads=config.need("num_attention_heads"),
            intermediate=config.need("intermediate_size"),
            activation=config.get("hidden_act", "gelu"),
            eps=config.get("layer_norm_eps", 1e-12),
            positions=config.need("max_position_embeddings"),
            types=config.get("type_vocab_size", 2),
        )


def attention(x: Node, context: Node, bias: Node, weights: Weights, args: Args) -> Node:
    """``x`` attends to ``context``, which is ``x`` except in the last layer."""
    size = args.hidden // args.heads
    # Three separate products: faster here than one joined one.
    q, k, v = (
        ops.split_heads(ops.linear(source, weights, f"self.{name}", args.hidden, args.hidden), args.heads, size)
        for name, source in (("query", x), ("key", context), ("value", context))
    )
    merged = ops.merge_heads(ops.attention(q, k, v, bias, size), args.heads, size)
    return ops.linear(merged, weights, "output.dense", args.hidden, args.hidden)


def layer(x: Node, bias: Node, weights: Weights, args: Args, *, first_only: bool = False) -> Node:
    """One block. With ``first_only``, compute only the first token's row, for heads that need no other."""
    rows = ops.first_token(x) if first_only else x
    attended = attention(rows, x, bias, weights.under("attention."), args)
    rows = ops.layer_norm(opset.add(attended, rows), weights, "attention.output.LayerNorm", args.hidden, args.eps)
    inner = ops.activate(
        ops.linear(rows, weights, "intermediate.dense", args.hidden, args.intermediate), args.activation
    )
    out = ops.linear(inner, weights, "output.dense", args.intermediate, args.hidden)
    return ops.layer_norm(opset.add(out, rows), weights, "output.LayerNorm", args.hidden, args.eps)


def embed(ids: Node, types: Node | None, weights: Weights, args: Args) -> Node:
    """Words, positions and token types, normalised: ``[B, L]`` to ``[B, L, H]``."""
    x = ops.embedding(weights, "word_embeddings", args.vocab, args.hidden, ids)
    x = opset.add(x, ops.positions(weights, "position_embeddings", args.positions, args.hidden, ids))
    x = opset.add(x, ops.token_types(weights, "token_type_embeddings", args.types, args.hidden, types))
    return ops.layer_norm(x, weights, "LayerNorm", args.hidden, args.eps)


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`."""
    args = Args.of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if typed and args.types > 1 else None
    bias = ops.attention_bias(mask)
    x = embed(ids, types, weights.under("embeddings."), args)
    for i in range(args.layers):
        below = weights.under(f"encoder.layer.{i}.")
        x = layer(x, bias, below, args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``BertForSequenceClassification`` checkpoint."""
    args = Args.of(config)
    inputs, x = body(config, weights.under("bert."), first_only=True, typed=True)
    return ops.classifier(
        config, inputs, x, weights, ("bert.pooler.dense", "classifier"), args.hidden, activation="tanh"
    )
