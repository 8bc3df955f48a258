"""Logits -> scores, in float64 and after ranking: float32 rounds sigmoids above 17 to 1 and so makes ties."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.optional import require

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """``1 / (1 + exp(-x))``, without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: Floats) -> Floats:
    """Softmax over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return total


def _identity(x: Floats) -> Floats:
    return x


def label_logit(logits: Floats, label: int) -> Floats:
    """Make one logit whose sigmoid is the softmax probability of a label: ``[pairs, labels]`` to ``[pairs]``.

    ``z_l - logsumexp(z_others)``: a model of several labels becomes one of a single label, and ranks as such.
    """
    others = np.delete(logits, label, axis=-1)
    peak = others.max(axis=-1)
    margin: Floats = logits[..., label] - peak - np.log(np.exp(others - peak[..., None]).sum(axis=-1))
    return margin


@dataclass(frozen=True)
class Activation:
    """A function on logits.

    :param apply: ``[pairs]`` or ``[pairs, labels]`` in float64 to the same shape.
    :param kind: What its values are called, see :class:`crossrank.pairs.PairScores`.
    :param monotone: Whether it keeps the order of single logits, so that ranking on them is ranking on the values.
    """

    apply: Callable[[Floats], Floats]
    kind: str
    monotone: bool


ACTIVATIONS: Mapping[str, Activation] = {
    "identity": Activation(_identity, "logit", monotone=True),
    "sigmoid": Activation(sigmoid, "sigmoid", monotone=True),
    "softmax": Activation(softmax, "softmax", monotone=False),
    "tanh": Activation(np.tanh, "tanh", monotone=True),
}


def resolve_activation(wanted: Any) -> Activation:
    """Find an activation by its name, or make one of a NumPy function or a torch module.

    :param wanted: ``"identity"``, ``"sigmoid"``, ``"softmax"`` or ``"tanh"``, in any case; a function on NumPy arrays
        or tensors that keeps the shape; or an instance of a torch module, which is given a float64 tensor.
    :raises InputError: If it is none of them.
    """
    name = wanted if isinstance(wanted, str) else type(wanted).__name__ if _of_torch(wanted) else None
    if name is not None and name.lower() in ACTIVATIONS:
        return ACTIVATIONS[name.lower()]
    if isinstance(wanted, str) or not callable(wanted) or isinstance(wanted, type):
        raise InputError(
            f"activation_fn={wanted!r} is not known: give one of {', '.join(map(repr, ACTIVATIONS))}, "
            "a function on NumPy arrays, or an instance of a torch module (torch.nn.Sigmoid(), not torch.nn.Sigmoid)."
        )
    return Activation(_through_torch(wanted) if _of_torch(wanted) else _checked(wanted), "custom", monotone=False)


def _of_torch(value: Any) -> bool:
    return any(base.__module__.partition(".")[0] == "torch" for base in type(value).__mro__)


def _through_torch(module: Callable[[Any], Any]) -> Callable[[Floats], Floats]:
    torch = require("torch", extra="torch", purpose="A torch module as activation_fn")

    def apply(x: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(x)).numpy(), dtype=np.float64)

    return _checked(apply)


def _checked(function: Callable[[Floats], Any]) -> Callable[[Floats], Floats]:
    def apply(x: Floats) -> Floats:
        try:
            values = np.asarray(function(x), dtype=np.float64)
        except (TypeError, AttributeError):
            # A function on tensors, such as torch.sigmoid: who wrote it has imported torch.
            if "torch" not in sys.modules:
                raise
            values = np.asarray(function(sys.modules["torch"].from_numpy(x)), dtype=np.float64)
        if values.shape != x.shape:
            raise InputError(
                f"activation_fn turned logits of shape {x.shape} into {values.shape}. "
                "Give a function that keeps the shape, such as lambda x: 1 / (1 + np.exp(-x))."
            )
        lost = np.isnan(values) & ~np.isnan(x)
        if lost.any():
            raise InputError(
                f"activation_fn turned the logit {float(x[lost][0])} into NaN, which can't be ranked. "
                "Give a function that is defined for every real number, such as lambda x: 1 / (1 + np.exp(-x))."
            )
        return values

    return apply
