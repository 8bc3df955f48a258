"""The few operations that all architectures share, on OpenVINO nodes.

Shapes: ``B`` pairs in a batch, ``L`` tokens, ``H`` hidden size, ``N`` heads, ``D = H / N``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures.openvino_import import opset as opset  # for the architectures, which import it from here
from crossrank.architectures.openvino_import import ov
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights
from crossrank.errors import UnsupportedModelError

Node = Any  # openvino's nodes and outputs have no type stubs

# Added to the score of a masked position: far below any real score, but finite, so that a row without any unmasked
# position gives a uniform distribution and not NaN.
MASKED = -1e9


@dataclass(frozen=True)
class Graphs:
    """A model as two graphs.

    :param body: Token ids to hidden states; runs in the requested precision. Its outputs, in order, are the inputs
        of ``head``.
    :param head: Hidden states to logits ``[B, labels]``; runs in float32, because rounded logits make ties.
        ``None`` for an exported graph, whose ``body`` returns the logits.
    """

    body: Any
    head: Any

    @property
    def input_names(self) -> frozenset[str]:
        """The inputs of ``body``."""
        return frozenset(node.get_any_name() for node in self.body.inputs)


def constant(array: NDArray[Any]) -> Node:
    """An array as a constant node that shares its memory."""
    return ov.op.Constant(np.require(array, requirements=["C", "A"]), shared_memory=True)


def scalar(value: float) -> Node:
    """A float32 scalar."""
    return opset.constant(np.float32(value))


def integer(value: int) -> Node:
    """An int64 scalar."""
    return opset.constant(np.int64(value))


def ints(*values: int) -> Node:
    """A vector of int64, for shapes and axes."""
    return opset.constant(np.array(values, dtype=np.int64))


def parameter(name: str, *shape: int, dtype: Any = np.int64) -> Node:
    """An input of a graph; ``-1`` means any size."""
    node = opset.parameter(list(shape), dtype, name=name)
    node.output(0).set_names({name})
    return node


def linear(
    x: Node,
    weights: Weights,
    name: str,
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    part: int = 0,
    parts: int = 1,
) -> Node:
    """``x W^T + b``: ``[..., inputs]`` to ``[..., outputs]``.

    :param part: Which one, if the checkpoint stores several projections stacked in one matrix.
    :param parts: How many are stacked.
    """
    rows = slice(part * outputs, (part + 1) * outputs)
    y = opset.matmul(x, _matrix(weights, f"{name}.weight", (parts * outputs, inputs), rows), False, True)
    return opset.add(y, constant(weights(f"{name}.bias", parts * outputs)[rows])) if bias else y


def _matrix(weights: Weights, name: str, shape: tuple[int, int], rows: slice) -> Node:
    if not weights.as_int8:
        return constant(weights(name, *shape)[rows])
    # The CPU plugin recognizes these three nodes as compressed weights, and multiplies in int8 if the processor can.
    stored, scale = weights.int8(name, *shape)
    return opset.multiply(opset.convert(constant(stored[rows]), np.float32), constant(scale[rows]))


def layer_norm(x: Node, weights: Weights, name: str, size: int, eps: float, *, bias: bool = True) -> Node:
    """Normalise over the last axis, then scale and shift."""
    y = opset.mvn(x, ints(-1), True, eps, "inside_sqrt")
    y = opset.multiply(y, constant(weights(f"{name}.weight", size)))
    return opset.add(y, constant(weights(f"{name}.bias", size))) if bias else y


def embedding(weights: Weights, name: str, rows: int, size: int, ids: Node) -> Node:
    """Look up ids ``[B, L]`` in a table: ``[B, L, size]``. A table stored as int8 rows stays int8.

    Other tables stay float32 in every precision, because a batch reads only a few rows.
    """
    table = f"{name}.weight"
    if table in weights and weights.dtype(table) == "I8":
        stored, scale = weights.int8(table, rows, size)
        picked = opset.convert(opset.gather(constant(stored), ids, ints(0)), np.float32)
        return opset.multiply(picked, opset.gather(constant(scale), ids, ints(0)))
    return opset.gather(constant(weights(table, rows, size)), ids, ints(0))


def positions(weights: Weights, name: str, rows: int, size: int, ids: Node) -> Node:
    """The first ``L`` rows of a position table, for ids ``[B, L]``: ``[L, size]``."""
    return first_rows(constant(weights(f"{name}.weight", rows, size)), ids)


def token_types(weights: Weights, name: str, rows: int, size: int, types: Node | None) -> Node:
    """Embeddings of token types: ``[B, L, size]``; the single row ``[size]`` if the model has only one (``None``)."""
    if types is None:
        return constant(weights(f"{name}.weight", rows, size)[0])
    return embedding(weights, name, rows, size, types)


def first_rows(table: Node, ids: Node) -> Node:
    """As many rows of a table as ids ``[B, L]`` have columns: ``[L, ...]``."""
    length = opset.gather(opset.shape_of(ids), ints(1), ints(0))
    return opset.slice(table, ints(0), length, ints(1), ints(0))


def attention_bias(mask: Node) -> Node:
    """Turn a 0/1 mask ``[B, L]`` into a bias on attention scores: ``[B, 1, 1, L]``."""
    blocked = opset.multiply(opset.subtract(scalar(1.0), opset.convert(mask, np.float32)), scalar(MASKED))
    return opset.unsqueeze(blocked, ints(1, 2))


def split_heads(x: Node, heads: int, size: int) -> Node:
    """``[B, L, N D]`` to ``[B, N, L, D]``."""
    return opset.transpose(opset.reshape(x, ints(0, 0, heads, size), True), ints(0, 2, 1, 3))


def merge_heads(x: Node, heads: int, size: int) -> Node:
    """``[B, N, L, D]`` to ``[B, L, N D]``."""
    return opset.reshape(opset.transpose(x, ints(0, 2, 1, 3)), ints(0, 0, heads * size), True)


def attention(q: Node, k: Node, v: Node, bias: Node, size: int, *, scale: float | None = None) -> Node:
    """Softmax attention on heads ``[B, N, L, D]``, with ``bias`` added to the scores."""
    # Scale q rather than the scores: L D numbers instead of L L.
    q = opset.multiply(q, scalar(size**-0.5 if scale is None else scale))
    scores = opset.add(opset.matmul(q, k, False, True), bias)
    return opset.matmul(opset.softmax(scores, -1), v, False, False)


def first_token(x: Node) -> Node:
    """The first position of each row, kept as a sequence of one: ``[B, L, H]`` to ``[B, 1, H]``."""
    return opset.slice(x, ints(0), ints(1), ints(1), ints(1))


def masked_mean(x: Node, mask: Node) -> Node:
    """Mean over the unmasked positions: ``[B, L, H]`` and ``[B, L]`` to ``[B, H]``."""
    weight = opset.unsqueeze(opset.convert(mask, np.float32), ints(2))
    total = opset.reduce_sum(opset.multiply(x, weight), ints(1))
    return opset.divide(total, opset.reduce_sum(weight, ints(1)))


ACTIVATIONS: dict[str, Callable[[Node], Node]] = {
    **dict.fromkeys(("gelu", "gelu_python"), lambda x: opset.gelu(x, "erf")),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), lambda x: opset.gelu(x, "tanh")),
    "relu": opset.relu,
    **dict.fromkeys(("silu", "swish"), opset.swish),
    "tanh": opset.tanh,
}


def activate(x: Node, name: str) -> Node:
    """Apply an activation by its name in ``config.json``.

    :raises UnsupportedModelError: If the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(
            f"The activation {name!r} in config.json is unknown. Known activations: {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name](x)


def graphs(inputs: list[Node], hidden: list[Node], head_inputs: list[Node], logits: Node, name: str) -> Graphs:
    """Make models of body and head."""
    return Graphs(ov.Model(hidden, inputs, name), ov.Model([logits], head_inputs, f"{name}_head"))


def classifier(
    config: ModelConfig,
    inputs: list[Node],
    x: Node,
    weights: Weights,
    layers: tuple[str, str],
    hidden: int,
    *,
    activation: str,
) -> Graphs:
    """Make models of a body and of a head of two linear layers, with an activation between them.

    :param x: The first token's states, ``[B, 1, hidden]``.
    :param layers: The names of the two layers.
    """
    first = parameter("first_token", -1, hidden, dtype=np.float32)
    exact = weights.compressed(False)
    y = activate(linear(first, exact, layers[0], hidden, hidden), activation)
    logits = linear(y, exact, layers[1], hidden, len(config.labels))
    return graphs(inputs, [squeeze_first(x)], [first], logits, config.model_type)


def squeeze_first(x: Node) -> Node:
    """``[B, 1, H]`` to ``[B, H]``."""
    return opset.squeeze(x, ints(1))
