"""Modular cross-encoders: the body of an architecture, followed by modules of sentence-transformers.

Read from sentence_transformers 6.2: sentence_transformer/modules/{pooling,layer_norm}.py and base/modules/{dense,
normalize}.py. Everything after the body is in the head, so it runs in float32, including pooling over many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from crossrank.architectures import ops
from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import Graphs, Node, opset
from crossrank.architectures.registry import build_body
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.modules import POOLED, SCORES, TOKENS, Dense, LayerNorm, Module, Normalize, Pooling
from crossrank.checkpoint.weights import Weights, load_weights
from crossrank.errors import CheckpointError, UnsupportedModelError

_LAYER_NORM_EPS = 1e-5  # torch's default, which sentence-transformers' LayerNorm keeps
_LEAST_WEIGHT = 1e-9  # the smallest divisor in pooling
_LEAST_LENGTH = 1e-12  # the smallest divisor in normalising
_ACTIVATIONS: Mapping[str, Callable[[Node], Node]] = {
    "Identity": lambda x: x,
    "Tanh": lambda x: opset.tanh(x),
    "ReLU": lambda x: opset.relu(x),
    "GELU": lambda x: opset.gelu(x, "erf"),
    "SiLU": lambda x: opset.swish(x),
    "Sigmoid": lambda x: opset.sigmoid(x),
    "ELU": lambda x: opset.elu(x, 1.0),
    "SELU": lambda x: opset.selu(x, ops.scalar(1.6732632423543772), ops.scalar(1.0507009873554805)),
    "LeakyReLU": lambda x: opset.prelu(x, ops.scalar(0.01)),
    "Mish": lambda x: opset.mish(x),
    "Softplus": lambda x: opset.softplus(x),
    "Hardswish": lambda x: opset.hswish(x),
}


def build(config: ModelConfig, weights: Weights, head: Sequence[Module], *, skipped: int = 0) -> Graphs:
    """Build the graphs of a modular checkpoint.

    :param head: The modules after the body; one of them is a ``Pooling``, and one outputs the scores.
    :param skipped: How many tokens at the beginning of each pair are left out of the pooling.
    :raises UnsupportedModelError: If the architecture of the body is unknown.
    :raises CheckpointError: If config and weights don't match.
    """
    # If only the first token is used, the last layer computes only that one.
    first_only = not skipped and all(
        module.modes == ("cls",) if isinstance(module, Pooling) else getattr(module, "source", POOLED) != TOKENS
        for module in head
    )
    inputs, states, name = build_body(config, weights, first_only=first_only, typed=True)
    try:
        mask = opset.convert(inputs[1], np.float32)
        outputs = [states] if first_only else [states, mask]
        body = ov.Model(outputs, inputs, f"{name}_states")
        tokens = ops.parameter("states", -1, -1, -1, dtype=np.float32)
        known = None if first_only else ops.parameter("mask", -1, -1, dtype=np.float32)
        scores = _run(head, tokens, known, skipped)
        return Graphs(body, ov.Model([scores], [tokens] if known is None else [tokens, known], f"{name}_modules"))
    except RuntimeError as error:  # OpenVINO's error for shapes that don't match
        raise CheckpointError(f"The modules in {weights.folder} don't fit each other: {error}") from error


def _run(head: Sequence[Module], tokens: Node, mask: Node | None, skipped: int) -> Node:
    """Run the modules as sentence-transformers does: each reads the named output of an earlier one."""
    known = {TOKENS: tokens}
    for module in head:
        if isinstance(module, Pooling):
            known[POOLED] = _pool(known[TOKENS], mask, module.modes, skipped)
            continue
        source, target = getattr(module, "source", POOLED), getattr(module, "target", POOLED)
        if source not in known:
            raise UnsupportedModelError(
                f"A module {type(module).__name__} reads {source!r}, but before it come only {', '.join(known)}. "
                "Download the checkpoint again."
            )
        if isinstance(module, Dense):
            known[target] = _dense(known[source], module)
        elif isinstance(module, LayerNorm):
            known[target] = _layer_norm(known[source], module)
        elif isinstance(module, Normalize):
            known[target] = _normalize(known[source])
    return known[SCORES]


def _pool(x: Node, mask: Node | None, modes: Sequence[str], skipped: int) -> Node:
    """``[B, L, H]`` and ``[B, L]`` to ``[B, H * modes]``."""
    if mask is None:  # the states have only the first token then
        return opset.squeeze(x, ops.ints(1))
    length = opset.gather(opset.shape_of(mask), ops.integer(1), ops.integer(0))
    places = opset.range(ops.integer(0), length, ops.integer(1), "i64")
    if skipped:
        mask = opset.multiply(mask, opset.convert(opset.greater_equal(places, ops.integer(skipped)), np.float32))
    pooled = [
        _max(x, mask) if mode == "max" else _weighted(x, mask, mode, opset.convert(places, np.float32), skipped)
        for mode in modes
    ]
    return pooled[0] if len(pooled) == 1 else opset.concat(pooled, -1)


def _max(x: Node, mask: Node) -> Node:
    there = opset.greater(opset.unsqueeze(mask, ops.ints(2)), ops.scalar(0.0))
    return opset.reduce_max(opset.select(there, x, ops.scalar(float("-inf"))), ops.ints(1))


def _weighted(x: Node, mask: Node, mode: str, places: Node, skipped: int) -> Node:
    """All other modes are weighted sums of the states."""
    total = None
    if mode == "cls":
        weight = opset.multiply(mask, opset.convert(opset.equal(places, ops.scalar(skipped)), np.float32))
    elif mode == "lasttoken":
        last = opset.reduce_max(opset.multiply(mask, places), ops.ints(1), keep_dims=True)
        weight = opset.multiply(mask, opset.convert(opset.equal(places, last), np.float32))
    else:
        # "weightedmean": later tokens have a larger weight; the first has 1.
        weight = opset.multiply(mask, opset.add(places, ops.scalar(1.0))) if mode == "weightedmean" else mask
        total = opset.maximum(opset.reduce_sum(weight, ops.ints(1), keep_dims=True), ops.scalar(_LEAST_WEIGHT))
        total = opset.sqrt(total) if mode == "mean_sqrt_len_tokens" else total
    pooled = opset.squeeze(opset.matmul(opset.unsqueeze(weight, ops.ints(1)), x, False, False), ops.ints(1))
    return pooled if total is None else opset.divide(pooled, total)


def _dense(x: Node, module: Dense) -> Node:
    weights = load_weights(module.folder)
    y = _ACTIVATIONS[module.activation](
        ops.linear(x, weights, "linear", module.inputs, module.outputs, bias=module.bias)
    )
    if module.residual and module.inputs != module.outputs:
        x = ops.linear(x, weights, "residual", module.inputs, module.outputs, bias=False)
    weights.check_all_read()
    return opset.add(y, x) if module.residual else y


def _layer_norm(x: Node, module: LayerNorm) -> Node:
    weights = load_weights(module.folder)
    y = ops.layer_norm(x, weights, "norm", module.size, _LAYER_NORM_EPS)
    weights.check_all_read()
    return y


def _normalize(x: Node) -> Node:
    length = opset.reduce_l2(x, ops.ints(-1), keep_dims=True)
    return opset.divide(x, opset.maximum(length, ops.scalar(_LEAST_LENGTH)))
