"""XLM-R under other names, such as jina-reranker-v2-base-multilingual: the layout of flash-attention's BERT.

It computes the same as :mod:`crossrank.architectures.roberta`; q, k and v are stored in one matrix. The published
checkpoint has its own code (``configuration_xlm_roberta.XLMRobertaFlashConfig``), which is not run.
"""

from __future__ import annotations

from crossrank.architectures import bert, ops
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.architectures.roberta import position_ids
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights


def attention(x: Node, context: Node, bias: Node, weights: Weights, args: bert.Args) -> Node:
    """``x`` attends to ``context``, which is ``x`` except in the last layer."""
    size = args.hidden // args.heads
    q, k, v = (
        ops.split_heads(
            ops.linear(source, weights, "Wqkv", args.hidden, args.hidden, part=i, parts=3), args.heads, size
        )
        for i, source in enumerate((x, context, context))
    )
    merged = ops.merge_heads(ops.attention(q, k, v, bias, size), args.heads, size)
    return ops.linear(merged, weights, "out_proj", args.hidden, args.hidden)


def layer(x: Node, bias: Node, weights: Weights, args: bert.Args, *, first_only: bool) -> Node:
    """One block. With ``first_only``, compute only the first token's row, for heads that need no other."""
    rows = ops.first_token(x) if first_only else x
    attended = attention(rows, x, bias, weights.under("mixer."), args)
    rows = ops.layer_norm(opset.add(attended, rows), weights, "norm1", args.hidden, args.eps)
    inner = ops.activate(ops.linear(rows, weights, "mlp.fc1", args.hidden, args.intermediate), args.activation)
    out = ops.linear(inner, weights, "mlp.fc2", args.intermediate, args.hidden)
    return ops.layer_norm(opset.add(out, rows), weights, "norm2", args.hidden, args.eps)


def body(
    config: ModelConfig, weights: Weights, *, first_only: bool = False, typed: bool = False
) -> tuple[list[Node], Node]:
    """The inputs and the last layer's states; see :func:`.registry.build_body`."""
    args = bert.Args.of(config)
    ids, mask = ops.parameter("input_ids", -1, -1), ops.parameter("attention_mask", -1, -1)
    types = ops.parameter("token_type_ids", -1, -1) if typed and args.types > 1 else None
    below = weights.under("embeddings.")
    positions = position_ids(ids, config.get("pad_token_id", 1))
    x = ops.embedding(below, "word_embeddings", args.vocab, args.hidden, ids)
    x = opset.add(x, ops.embedding(below, "position_embeddings", args.positions, args.hidden, positions))
    if args.types > 0:
        x = opset.add(x, ops.token_types(below, "token_type_embeddings", args.types, args.hidden, types))
    x = ops.layer_norm(x, weights, "emb_ln", args.hidden, args.eps)
    bias = ops.attention_bias(mask)
    for i in range(args.layers):
        x = layer(x, bias, weights.under(f"encoder.layers.{i}."), args, first_only=first_only and i == args.layers - 1)
    return [ids, mask] + ([types] if types is not None else []), x


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Graphs of such a checkpoint, with RoBERTa's head."""
    args = bert.Args.of(config)
    inputs, x = body(config, weights.under("roberta."), first_only=True, typed=True)
    return ops.classifier(
        config, inputs, x, weights, ("classifier.dense", "classifier.out_proj"), args.hidden, activation="tanh"
    )
