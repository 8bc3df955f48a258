"""DeBERTa v2 and v3: He et al. 2020 and 2021, https://arxiv.org/abs/2006.03654, https://arxiv.org/abs/2111.09543.

Attention scores are a sum: content to content, content to position (c2p), position to content (p2c), where a
"position" is how far apart two tokens are, in buckets that widen with the distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures import ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights


@dataclass(frozen=True)
class Args:
    """What the graph needs of ``config.json``.

    :param terms: The positional terms of the scores: ``"c2p"``, ``"p2c"`` or both.
    :param relative: Whether distances are used; without, the terms only change the scale.
    :param span: Distances, or buckets of them, to each side.
    :param buckets: Whether far distances share buckets.
    :param most_apart: The distance at which the buckets end.
    :param share_key: Whether positions use the projections of contents, not separate matrices.
    :param normed: Whether the distances' embeddings are normalised.
    :param absolute: Whether absolute positions are added to the input.
    """

    vocab: int
    embedding: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str
    pooler_activation: str
    eps: float
    positions: int
    types: int
    terms: tuple[str, ...]
    relative: bool
    span: int
    buckets: bool
    most_apart: int
    share_key: bool
    normed: bool
    absolute: bool

    @classmethod
    def of(cls, config: ModelConfig) -> Args:
        """Read them, with transformers' defaults for missing keys."""
        hidden, count = config.need("hidden_size"), config.need("num_attention_heads")
        config.only("conv_kernel_size", 0)
        config.only("attention_head_size", hidden // count)
        config.only("pooler_hidden_size", hidden)
        positions = config.get("max_position_embeddings", 512)
        terms = config.get("pos_att_type", [])
        terms = tuple(term.strip() for term in (terms.lower().split("|") if isinstance(terms, str) else terms))
        most_apart, buckets = config.get("max_relative_positions", -1), config.get("position_buckets", -1)
        most_apart = positions if most_apart < 1 else most_apart
        return cls(
            vocab=config.need("vocab_size"),
            embedding=config.get("embedding_size", hidden),
            hidden=hidden,
            layers=config.need("num_hidden_layers"),
            heads=count,
            intermediate=config.need("intermediate_size"),
            activation=config.get("hidden_act", "gelu"),
            pooler_activation=config.get("pooler_hidden_act", "gelu"),
            eps=config.get("layer_norm_eps", 1e-7),
            positions=positions,
            types=config.get("type_vocab_size", 0),
            terms=tuple(term for term in ("c2p", "p2c") if term in terms),
            relative=config.get("relative_attention", False),
            span=buckets if buckets > 0 else most_apart,
            buckets=buckets > 0,
            most_apart=most_apart,
            share_key=config.get("share_att_key", False),
            normed="layer_norm" in config.get("norm_rel_ebd", "none").lower(),
            absolute=config.get("position_biased_input", True),
        )


@dataclass(frozen=True)
class Distances:
    """Distances, shared by all layers.

    :param table: An embedding for each bucket, ``[2 span, H]``.
    :param rising: The bucket of each distance from ``1 - L`` to ``L - 1``, ``[2 L - 1]``.
    :param falling: The same, from ``L - 1`` to ``1 - L``.
    :param behind: The bucket of each distance from ``0`` to ``1 - L``: from the first token to all others, ``[L]``.
    :param length: ``L`` as a vector of one.
    """

    table: NDArray[np.float32]
    rising: Node
    falling: Node
    behind: Node
    length: Node


def bucket_of(args: Args) -> NDArray[np.int64]:
    """The row of the embedding table for each distance from ``1 - positions`` to ``positions - 1``.

    Near distances have their own buckets; far ones share buckets of equal width on a logarithmic scale.
    """
    distance = np.arange(1 - args.positions, args.positions)
    if args.buckets:
        middle = args.span // 2
        # float32 as in transformers, because rounding matters at the edge of a bucket.
        far = np.maximum(np.abs(distance), middle).astype(np.float32) / np.float32(middle)
        share = np.log(far) / np.log(np.float32((args.most_apart - 1) / middle))
        log = np.ceil(share * np.float32(middle - 1)).astype(np.int64) + middle
        distance = np.where(np.abs(distance) <= middle, distance, np.sign(distance) * log)
    clipped: NDArray[np.int64] = np.clip(distance + args.span, 0, 2 * args.span - 1)
    return clipped


def distances(ids: Node, weights: Weights, args: Args) -> Distances:
    """Tables for the maximum length are made once, here; the graph slices them for each batch."""
    table = weights("rel_embeddings.weight", 2 * args.span, args.hidden)
    if args.normed:
        mean, variance = table.mean(1, keepdims=True), table.var(1, keepdims=True)
        scale, shift = weights("LayerNorm.weight", args.hidden), weights("LayerNorm.bias", args.hidden)
        table = (table - mean) / np.sqrt(variance + np.float32(args.eps)) * scale + shift
    buckets = bucket_of(args)
    length = opset.gather(opset.shape_of(ids), ops.ints(1), ops.ints(0))
    middle, one = ops.ints(args.positions - 1), ops.ints(1)  # the index of distance 0
    begin, end = opset.subtract(opset.add(middle, one), length), opset.add(middle, length)
    rising, falling = ops.constant(buckets), ops.constant(buckets[::-1].copy())
    axis = ops.ints(0)
    return Distances(
        table=table,
        rising=opset.slice(rising, begin, end, one, axis),
        falling=opset.slice(falling, begin, end, one, axis),
        behind=opset.slice(falling, middle, end, one, axis),
        length=length,
    )


def project(name: str, known: Distances, weights: Weights, args: Args) -> Node:
    """The buckets' embeddings times one of the layer's matrices, as heads: ``[N, 2 span, D]``. Computed once, here."""
    matrix, bias = weights(f"{name}.weight", args.hidden, args.hidden), weights(f"{name}.bias", args.hidden)
    rows = (known.table @ matrix.T + bias).reshape(2 * args.span, args.heads, -1)
    return ops.constant(np.ascontiguousarray(rows.transpose(1, 0, 2)))


def align(scores: Node, length: Node) -> Node:
    """From scores by distance to scores by position: ``[B, N, L, 2 L - 1]`` to ``[B, N, L, L]``.

    ``out[i, j] = scores[i, j - i + L - 1]``. Read as one row of numbers, each line of that starts ``2 L - 2`` after
    the one before it, so two slices and two reshapes do it (Dai et al. 2019, https://arxiv.org/abs/1901.02860,
    appendix B), where a gather would need an index for every score.
    """
    one, last = ops.ints(1), ops.ints(-1)
    stride = opset.subtract(opset.add(length, length), ops.ints(2))
    begin = opset.subtract(length, one)
    end = opset.add(begin, opset.multiply(length, stride))
    flat = opset.reshape(scores, ops.ints(0, 0, -1), True)
    lines = opset.slice(flat, begin, end, one, ops.ints(2))
    lines = opset.reshape(lines, opset.concat([ops.ints(0, 0), length, last], 0), True)
    return opset.slice(lines, ops.ints(0), length, one, ops.ints(3))


def position_scores(
    q: Node, k: Node, known: Distances, weights: Weights, args: Args, *, first_only: bool
) -> list[Node]:
    """The positional terms of the scores, each ``[B, N, L, L]``, or ``[B, N, 1, L]`` for the first token alone.

    :param q: Queries ``[B, N, L or 1, D]``, scaled already.
    :param k: Keys ``[B, N, L, D]``.
    """
    names = ("key_proj", "query_proj") if args.share_key else ("pos_key_proj", "pos_query_proj")
    axis, terms = ops.integer(1), []
    if "c2p" in args.terms:
        keys = project(names[0], known, weights, args)
        keys = opset.gather(keys, known.behind if first_only else known.falling, axis)
        scores = opset.matmul(q, keys, False, True)
        terms.append(scores if first_only else align(scores, known.length))
    if "p2c" in args.terms:
        queries = opset.multiply(project(names[1], known, weights, args), ops.scalar(scale(args)))
        queries = opset.gather(queries, known.behind if first_only else known.rising, axis)
        if first_only:
            # One query for each key: the diagonal of a matrix product.
            scores = opset.reduce_sum(opset.multiply(k, queries), ops.ints(3))
            terms.append(opset.unsqueeze(scores, ops.ints(2)))
        else:
            scores = align(opset.matmul(k, queries, False, True), known.length)
            terms.append(opset.transpose(scores, ops.ints(0, 1, 3, 2)))
    return terms


def scale(args: Args) -> float:
    """``1 / sqrt(D (1 + terms))``, because the scores are a sum of ``1 + terms`` products."""
    return float((args.hidden // args.heads * (1 + len(args.terms))) ** -0.5)


def attention(
    x: Node, context: Node, bias: Node, known: Distances | None, weights: Weights, args: Args, *, first_only: bool
) -> Node:
    """``x`` attends to ``context``, which is ``x`` except in the last layer."""
    size = args.hidden // args.heads
    inner = weights.under("self.")
    q, k, v = (
        ops.split_heads(ops.linear(source, inner, name, args.hidden, args.hidden), args.heads, size)
        for name, source in (("query_proj", x), ("key_proj", context), ("value_proj", context))
    )
    q = opset.multiply(q, ops.scalar(scale(args)))
    if known is not None:
        for term in position_scores(q, k, known, inner, args, first_only=first_only):
            bias = opset.add(bias, term)
    merged = ops.merge_heads(ops.attention(q, k, v, bias, size, scale=1.0), args.heads, size)
    return ops.linear(merged, weights, "output.dense", args.hidden, args.hidden)


def layer(
    x: Node, bias: Node, known: Distances | None, weights: Weights, args: Args, *, first_only: bool = False
) -> Node:
    """One block. With ``first_only``, compute only the first token's row, for heads that need no other."""
    rows = ops.first_token(x) if first_only else x
    attended = attention(rows, x, bias, known, weights.under("attention."), args, first_only=first_only)
    rows = ops.layer_norm(opset.add(attended, rows), weights, "attention.output.LayerNorm", args.hidden, args.eps)
    inner = ops.activate(
        ops.linear(rows, weights, "intermediate.dense", args.hidden, args.intermediate), args.activation
    )
    out = ops.linear(inner, weights, "output.dense", args.intermediate, args.hidden)
    return ops.layer_norm(opset.add(out, rows), weights, "output.LayerNorm", args.hidden, args.eps)


def embed(ids: Node, types: Node | None, weights: Weights, args: Args) -> Node:
    """Words and, if the model has them, positions and token types, normalised: ``[B, L]`` to ``[B, L, H]``."""
    x = ops.embedding(weights, "word_embeddings", args.vocab, args.embedding, ids)
    if args.absolute:
        x = opset.add(x, ops.positions(weights, "position_embeddings", args.positions, args.embedding, ids))
    if args.types > 0:
        x = opset.add(x, ops.token_types(weights, "token_type_embeddings", args.types, args.embedding, types))
    if args.embedding != args.hidden:
        x = ops.linear(x, weights, "embed_proj", args.embedding, args.hidden, bias=False)
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
    encoder = weights.under("encoder.")
    known = distances(ids, encoder, args) if args.relative else None
    for i in range(args.layers):
        below = encoder.under(f"layer.{i}.")
        x = layer(x, bias, known, below, args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of a ``DebertaV2ForSequenceClassification`` checkpoint."""
    args = Args.of(config)
    inputs, x = body(config, weights.under("deberta."), first_only=True, typed=True)
    return ops.classifier(
        config, inputs, x, weights, ("pooler.dense", "classifier"), args.hidden, activation=args.pooler_activation
    )
