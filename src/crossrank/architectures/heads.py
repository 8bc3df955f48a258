"""Classification heads: what a checkpoint puts on its hidden states. They run in float32, see ``ops.Graphs``."""

from __future__ import annotations

from crossrank.architectures.ops import Node, activate, ints, linear, opset
from crossrank.checkpoint.weights import Weights


def bare(x: Node, weights: Weights, name: str, hidden: int, labels: int) -> Node:
    """One linear layer: ``[B, hidden]`` to ``[B, labels]``."""
    return linear(x, weights.compressed(False), name, hidden, labels)


def dense(x: Node, weights: Weights, inner: str, outer: str, hidden: int, labels: int, activation: str) -> Node:
    """A linear layer with an activation, then one to the labels: ``[B, hidden]`` to ``[B, labels]``."""
    exact = weights.compressed(False)
    y = activate(linear(x, exact, inner, hidden, hidden), activation)
    return linear(y, exact, outer, hidden, labels)


def squeeze_first(x: Node) -> Node:
    """``[B, 1, H]`` to ``[B, H]``."""
    return opset.squeeze(x, ints(1))
