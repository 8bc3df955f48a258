"""The bundled model: a BERT encodes query and document separately, then a small head compares them.

The body is the BERT of a bi-encoder. It runs on each text alone, so that a query is encoded once for all of its
documents, and a document's states can be stored. The head reads the query's and the document's token states together:

- three match signals: the cosine of the two mean-pooled texts (Reimers and Gurevych 2019, arXiv 1908.10084); the mean,
  over the query's tokens, of the best cosine with a token of the document (late interaction: Khattab and Zaharia 2020,
  arXiv 2004.12832); and a saturated count of the document's exact occurrences of the query's tokens (BM25's form:
  Robertson and Zaragoza 2009). A token's weight is learned for its word piece, with a gate on its state.
  The three signals are mixed with weights that depend on the query;
- a correction by a few layers over the query's tokens, which attend to the document's states (only the query's tokens
  are updated, as in MORES: Gao et al. 2020; computing the lower layers of each text alone is PreTTR's idea: MacAvaney
  et al. 2020, arXiv 2004.14255). Attention has a learned bias for equal tokens, and an empty slot.

Body and head may run in bfloat16; with int8, the head runs in float32. The torch version of the head, which
the recipe trains, is ``crossrank/training/split_bert_torch.py``; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossrank.architectures import bert, ops
from crossrank.architectures.ops import Graphs, Node, constant, ints, opset, scalar
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights

_EPS = 1e-5
_TINY = 1e-6


@dataclass(frozen=True)
class HeadArgs:
    """What the head needs of ``config.json``.

    :param special: Ids of the tokens that open and close a text; they have no weight.
    """

    hidden: int
    vocab: int
    layers: int
    heads: int
    head_size: int
    intermediate: int
    special: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig) -> HeadArgs:
        """Read them."""
        return cls(
            hidden=config.need("hidden_size"),
            vocab=config.need("vocab_size"),
            layers=config.need("head_layers"),
            heads=config.need("head_heads"),
            head_size=config.need("head_size"),
            intermediate=config.need("head_intermediate"),
            special=tuple(config.need("special_token_ids")),
        )


@dataclass(frozen=True)
class Side:
    """One text of each pair, as the head sees it.

    :param states: ``[B, L, H]``.
    :param ids: ``[B, L]``.
    :param mask: ``[B, L]``, 0 or 1 in float32.
    """

    states: Node
    ids: Node
    mask: Node


def unit(x: Node) -> Node:
    """Scale the last axis to length 1."""
    return opset.normalize_l2(x, ints(-1), 1e-24, "max")


def equal(a: Node, b: Node) -> Node:
    """Equal tokens: ``[B, L]`` and ``[B, M]`` to ``[B, L, M]``, 0 or 1."""
    return opset.convert(opset.equal(opset.unsqueeze(a, ints(2)), opset.unsqueeze(b, ints(1))), np.float32)


def total(x: Node, axis: int) -> Node:
    """Sum over one axis."""
    return opset.reduce_sum(x, ints(axis))


def attend(x: Node, document: Node, match: Node, bias: Node, weights: Weights, args: HeadArgs) -> Node:
    """Query tokens ``[B, L, H]`` attend to document states ``[B, M, H]``.

    Keys and values are never computed for the document. The key projection is applied to the query and the value
    projection to the attended states. That is the same product at a fraction of the cost, because queries are short.
    """
    n, d, h = args.heads, args.head_size, args.hidden
    q = ops.split_heads(ops.linear(x, weights, "query", h, n * d), n, d)  # [B, N, L, D]
    q = opset.multiply(q, scalar(d**-0.5))
    looking = opset.matmul(q, constant(weights("key", n, d, h)), False, False)  # [B, N, L, H]
    # All heads attend to the same states, so their queries are stacked in one product.
    scores = opset.matmul(opset.reshape(looking, ints(0, -1, h), True), document, False, True)  # [B, N L, M]
    length = opset.gather(opset.shape_of(x), ints(1), ints(0))
    by_head = opset.concat([ints(0, n), length, ints(-1)], 0)
    scores = opset.reshape(scores, by_head, True)  # [B, N, L, M]
    preference = constant(weights("match_bias", n).reshape(1, n, 1, 1))
    scores = opset.add(opset.add(scores, opset.multiply(opset.unsqueeze(match, ints(1)), preference)), bias)
    # The empty slot: a score without a value, whose share of the attention is dropped.
    empty = constant(weights("empty", n).reshape(1, n, 1, 1))
    peak = opset.maximum(opset.reduce_max(scores, ints(3), True), empty)
    powers = opset.exp(opset.subtract(scores, peak))
    norm = opset.add(opset.reduce_sum(powers, ints(3), True), opset.exp(opset.subtract(empty, peak)))
    joined = opset.concat([ints(0), opset.multiply(length, ints(n)), ints(-1)], 0)
    gathered = opset.matmul(opset.reshape(powers, joined, True), document, False, False)  # [B, N L, H]
    values = opset.matmul(opset.reshape(gathered, by_head, True), constant(weights("value", n, h, d)), False, False)
    values = opset.divide(values, norm)  # [B, N, L, D]
    return ops.linear(ops.merge_heads(values, n, d), weights, "output", n * d, h)


def head_layer(x: Node, document: Side, match: Node, weights: Weights, args: HeadArgs) -> Node:
    """One block of the correction."""
    h = args.hidden
    seen = ops.layer_norm(x, weights, "norm1", h, _EPS)
    x = opset.add(x, attend(seen, document.states, match, ops.attention_bias(document.mask), weights, args))
    seen = ops.layer_norm(x, weights, "norm2", h, _EPS)
    inner = opset.gelu(ops.linear(seen, weights, "inner", h, args.intermediate), "erf")
    return opset.add(x, ops.linear(inner, weights, "outer", args.intermediate, h))


def small_mlp(x: Node, weights: Weights, inner: str, outer: str, hidden: int) -> Node:
    """``[..., H]`` to ``[...]``."""
    y = ops.linear(opset.gelu(ops.linear(x, weights, inner, hidden, hidden), "erf"), weights, outer, hidden, 1)
    return opset.squeeze(y, ints(-1))


def score(query: Side, document: Side, weights: Weights, args: HeadArgs) -> Node:
    """Logits of pairs, ``[B, 1]``."""
    h = args.hidden
    real = query.mask
    for token in args.special:
        is_special = opset.equal(query.ids, opset.constant(np.int64(token)))
        real = opset.select(is_special, scalar(0.0), real)
    match = opset.multiply(
        opset.multiply(equal(query.ids, document.ids), opset.unsqueeze(real, ints(2))),
        opset.unsqueeze(document.mask, ints(1)),
    )  # [B, L, M]

    # The weight of each query token.
    gate = opset.sigmoid(opset.squeeze(ops.linear(query.states, weights, "gate", h, 1), ints(-1)))
    word = opset.relu(opset.gather(constant(weights("word_weight", args.vocab)), query.ids, ints(0)))
    weight = opset.multiply(opset.multiply(word, opset.multiply(gate, scalar(2.0))), real)  # [B, L]
    share = opset.divide(weight, opset.add(opset.unsqueeze(total(weight, 1), ints(1)), scalar(_TINY)))

    # Exact matches, saturated and normalised by length; a repeated word of the query counts once.
    k, base, slope = (float(value) for value in np.exp(weights("saturation", 3)))
    count = total(match, 2)
    length = opset.reduce_sum(document.mask, ints(1), True)
    denominator = opset.add(
        count, opset.multiply(opset.add(opset.multiply(length, scalar(slope)), scalar(base)), scalar(k))
    )
    saturated = opset.divide(opset.multiply(count, scalar(1 + k)), denominator)
    earlier = opset.multiply(equal(query.ids, query.ids), _strictly_before(query.ids))
    once = opset.multiply(weight, opset.convert(opset.equal(total(earlier, 2), scalar(0.0)), np.float32))
    lexical = opset.divide(total(opset.multiply(once, saturated), 1), opset.add(total(once, 1), scalar(_TINY)))

    # The best match of each query token in the document.
    # Document states are divided by their lengths after the product, which saves a copy of them.
    lengths = opset.maximum(opset.reduce_l2(document.states, ints(2)), scalar(1e-12))  # [B, M]
    likeness = opset.matmul(unit(query.states), document.states, False, True)
    likeness = opset.divide(likeness, opset.unsqueeze(lengths, ints(1)))
    hidden = opset.unsqueeze(opset.multiply(opset.subtract(document.mask, scalar(1.0)), scalar(1e4)), ints(1))
    best = opset.reduce_max(opset.add(likeness, hidden), ints(2))
    late = total(opset.multiply(share, best), 1)

    query_vector, document_vector = (unit(ops.masked_mean(side.states, side.mask)) for side in (query, document))
    cosine = total(opset.multiply(query_vector, document_vector), 1)

    signals = opset.concat([opset.unsqueeze(s, ints(1)) for s in (cosine, late, lexical)], 1)
    tilt = opset.tanh(ops.linear(query_vector, weights, "mix_by_query", h, 3))
    mix = opset.exp(opset.add(tilt, constant(weights("mix", 3))))
    start = total(opset.multiply(mix, signals), 1)

    # The correction.
    spread = opset.add(opset.multiply(real, scalar(0.0)), opset.unsqueeze(cosine, ints(1)))
    features = opset.concat(
        [opset.unsqueeze(f, ints(2)) for f in (saturated, opset.multiply(best, real), weight, spread)], 2
    )
    x = opset.add(query.states, ops.linear(features, weights, "features", 4, h))
    for i in range(args.layers):
        x = head_layer(x, document, match, weights.under(f"layer.{i}."), args)
    x = ops.layer_norm(x, weights, "norm", h, _EPS)
    per_token = small_mlp(x, weights, "token_inner", "token_outer", h)
    overall = small_mlp(opset.squeeze(ops.first_token(x), ints(1)), weights, "pair_inner", "pair_outer", h)
    correction = opset.add(total(opset.multiply(share, per_token), 1), overall)
    logits = opset.add(opset.add(start, opset.multiply(correction, scalar(10.0))), constant(weights("bias", 1)))
    return opset.unsqueeze(logits, ints(1))


def _strictly_before(ids: Node) -> Node:
    """``[L, L]``: 1 if the column is before the row."""
    length = opset.gather(opset.shape_of(ids), ints(1), ints(0))
    steps = opset.range(scalar(0.0), opset.convert(opset.squeeze(length, ints(0)), np.float32), scalar(1.0), "f32")
    before = opset.less(opset.unsqueeze(steps, ints(0)), opset.unsqueeze(steps, ints(1)))
    return opset.convert(before, np.float32)


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Body and head of a split checkpoint."""
    args = HeadArgs.of(config)
    inputs, states = bert.body(config, weights.under("bert."))
    query_states = ops.parameter("query_states", -1, -1, args.hidden, dtype=np.float32)
    document_states = ops.parameter("document_states", -1, -1, args.hidden, dtype=np.float32)
    query_ids, query_mask = ops.parameter("query_ids", -1, -1), ops.parameter("query_mask", -1, -1)
    document_ids, document_mask = ops.parameter("document_ids", -1, -1), ops.parameter("document_mask", -1, -1)
    query_index, document_index = ops.parameter("query_index", -1), ops.parameter("document_index", -1)

    def side(states: Node, ids: Node, mask: Node, index: Node) -> Side:
        states, ids, mask = (opset.gather(x, index, ints(0)) for x in (states, ids, mask))
        return Side(states, ids, opset.convert(mask, np.float32))

    query = side(query_states, query_ids, query_mask, query_index)
    document = side(document_states, document_ids, document_mask, document_index)
    logits = score(query, document, weights.under("head.").compressed(False), args)
    head_inputs = [query_states, query_ids, query_mask, query_index]
    head_inputs += [document_states, document_ids, document_mask, document_index]
    return ops.graphs(inputs, [states], head_inputs, logits, "split_bert")
