"""Curves from raw scores to probabilities. They need NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.scoring.activation import sigmoid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Platt:
    """``1 / (1 + exp(-(slope z + intercept)))``: Platt 1999, "Probabilistic Outputs for Support Vector Machines".

    :param slope: Above 0.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise InputError(
                f"slope={self.slope} and intercept={self.intercept} can't be used: both must be finite, slope above 0."
            )

    def apply(self, logits: Floats) -> Floats:
        """Probabilities of raw scores, in float64, of the same shape."""
        return sigmoid(self.slope * logits + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """A rising curve through points: Zadrozny and Elkan 2002, "Transforming Classifier Scores into ... Estimates".

    Straight lines join the points. Beyond the first and the last point the curve is flat.

    :param logits: Increasing.
    :param probabilities: Never decreasing, from 0 to 1.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.array(self.logits, np.float64), np.array(self.probabilities, np.float64)
        if not len(x) or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InputError("logits and probabilities must be finite, not empty, and of the same length.")
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any() or y[0] < 0 or y[-1] > 1:
            raise InputError("logits must increase, and probabilities must lie between 0 and 1 and never decrease.")

    def apply(self, logits: Floats) -> Floats:
        """Probabilities of raw scores, in float64, of the same shape."""
        return np.asarray(np.interp(logits, self.logits, self.probabilities), np.float64)


CURVES: Mapping[str, type[Platt] | type[Isotonic]] = {"platt": Platt, "isotonic": Isotonic}
