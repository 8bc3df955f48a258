"""Fit a calibration on judged pairs: the better of two curves, by log loss on held-out queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.scoring.activation import sigmoid
from crossrank.scoring.calibration import Quality
from crossrank.scoring.calibration_curves import Isotonic, Platt

Floats = NDArray[np.float64]
Curve = Platt | Isotonic

BINS = 10
FOLDS = 5
LEAST = 20  # relevant pairs, and irrelevant pairs, that are needed for a useful curve
# A small additional slope of the isotonic curve, so that scores on the same step keep their order.
_TILT = 1e-6


class ReliabilityPoint(NamedTuple):
    """Pairs whose probability is in one bin.

    :param predicted: The mean of their probabilities.
    :param observed: The share of relevant pairs.
    """

    predicted: float
    observed: float
    pairs: int


@dataclass(frozen=True)
class Fitted:
    """A curve and how it was chosen; names as in :class:`~crossrank.scoring.calibration.Calibration`.

    :param held_out: ``[pairs]``, the probability of each from a curve fitted on other queries.
    """

    curve: Curve
    held_out: Floats
    log_losses: Mapping[str, float]
    before: Quality
    after: Quality
    reliability_before: tuple[ReliabilityPoint, ...]
    reliability_after: tuple[ReliabilityPoint, ...]


def fit_platt(logits: Floats, labels: NDArray[np.bool_]) -> Platt:
    """Fit a sigmoid by maximum likelihood, with Platt's targets.

    They are ``(N+ + 1) / (N+ + 2)`` and ``1 / (N- + 2)`` instead of 1 and 0, so that separable data has a finite
    optimum. Each pair is used twice, as relevant and as irrelevant, weighted by its target.

    :raises InputError: If relevant pairs score no higher than others.
    """
    linear = require("sklearn.linear_model", extra="evaluation", purpose="Calibration")
    relevant = int(labels.sum())
    high, low = (relevant + 1) / (relevant + 2), 1 / (len(labels) - relevant + 2)
    target = np.where(labels, high, low)
    center, scale = float(logits.mean()), float(logits.std()) or 1.0  # only helps the optimizer
    x = ((logits - center) / scale)[:, None]
    model = linear.LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    classes = np.repeat([1, 0], len(x))
    model.fit(np.concatenate([x, x]), classes, sample_weight=np.concatenate([target, 1 - target]))
    slope = float(model.coef_[0, 0]) / scale
    if slope <= 0:
        raise InputError(
            "Relevant pairs score no higher than irrelevant ones, so these scores can't be calibrated. "
            "Check the model on this data with `crossrank evaluate`."
        )
    return Platt(slope, float(model.intercept_[0]) - slope * center)


def fit_isotonic(logits: Floats, labels: NDArray[np.bool_]) -> Isotonic:
    """Fit a rising step curve by least squares, with Platt's targets as limits, so that no probability is 0 or 1."""
    isotonic = require("sklearn.isotonic", extra="evaluation", purpose="Calibration")
    relevant = int(labels.sum())
    model = isotonic.IsotonicRegression(
        y_min=1 / (len(labels) - relevant + 2), y_max=(relevant + 1) / (relevant + 2), out_of_bounds="clip"
    )
    model.fit(logits, labels.astype(np.float64))
    x, y = np.asarray(model.X_thresholds_, np.float64), np.asarray(model.y_thresholds_, np.float64)
    span = x[-1] - x[0] or 1.0
    y = (1 - _TILT) * y + _TILT * (x - x[0]) / span
    return Isotonic(tuple(x.tolist()), tuple(np.maximum.accumulate(y).tolist()))


FITS: Mapping[str, Callable[[Floats, NDArray[np.bool_]], Curve]] = {"platt": fit_platt, "isotonic": fit_isotonic}


def fit(logits: ArrayLike, labels: ArrayLike, queries: ArrayLike, *, method: str | None = None) -> Fitted:
    """Fit the curves, and choose the one with the lower log loss on held-out queries.

    Folds consist of whole queries (scikit-learn's ``StratifiedGroupKFold``), because pairs of one query are similar.
    Quality is measured on held-out pairs; the returned curve is fitted on all pairs.

    :param logits: ``[pairs]``, raw scores.
    :param labels: ``[pairs]``, whether each is relevant.
    :param queries: ``[pairs]``, which query each belongs to.
    :param method: ``"platt"`` or ``"isotonic"``, instead of choosing.
    :raises InputError: If there are too few queries, or too few pairs of either kind. The message says how many more
        are needed.
    """
    x, y = np.asarray(logits, np.float64), np.asarray(labels).astype(bool)
    names, groups = np.unique(np.asarray(queries), return_inverse=True)
    if method is not None and method not in FITS:
        raise InputError(f"method={method!r} is unknown. Choose from {', '.join(FITS)}.")
    if not np.isfinite(x).all():
        raise InputError(f"logits[{int(np.flatnonzero(~np.isfinite(x))[0])}] is not finite. Leave such pairs out.")
    for what, count in (("relevant", int(y.sum())), ("irrelevant", int((~y).sum()))):
        if count < LEAST:
            raise InputError(
                f"{count} {what} judged pairs are too few to calibrate on: {LEAST} are needed. "
                f"Judge {LEAST - count} more."
            )
    if len(names) < FOLDS:
        raise InputError(
            f"Judged pairs of {len(names)} queries are too few to calibrate on: {FOLDS} are needed. "
            f"Judge pairs of {FOLDS - len(names)} more."
        )
    for what, count in (("relevant", len(np.unique(groups[y]))), ("irrelevant", len(np.unique(groups[~y])))):
        if count < 2:
            raise InputError(
                f"All {what} pairs are of one query, so a curve fitted on the other queries can't be checked. "
                f"Judge {what} pairs of more queries."
            )
    held_out = {name: _held_out(FITS[name], x, y, groups) for name in ([method] if method else FITS)}
    losses = {name: quality(probabilities, y).log_loss for name, probabilities in held_out.items()}
    chosen = min(losses, key=losses.__getitem__)
    before, after = sigmoid(x), held_out[chosen]
    return Fitted(
        FITS[chosen](x, y),
        after,
        losses,
        quality(before, y),
        quality(after, y),
        reliability(before, y),
        reliability(after, y),
    )


def _held_out(
    fitting: Callable[[Floats, NDArray[np.bool_]], Curve], x: Floats, y: NDArray[np.bool_], groups: NDArray[np.int64]
) -> Floats:
    folds = require("sklearn.model_selection", extra="evaluation", purpose="Calibration").StratifiedGroupKFold(FOLDS)
    probabilities = np.empty(len(x))
    for train, test in folds.split(x, y, groups):
        probabilities[test] = fitting(x[train], y[train]).apply(x[test])
    return probabilities


def reliability(probabilities: Floats, labels: NDArray[np.bool_]) -> tuple[ReliabilityPoint, ...]:
    """Group pairs into ten bins of equal width by their probability. Empty bins are left out."""
    at = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    pairs = np.bincount(at, minlength=BINS)
    predicted, observed = (np.bincount(at, weights=value, minlength=BINS) for value in (probabilities, labels))
    return tuple(
        ReliabilityPoint(float(predicted[i] / pairs[i]), float(observed[i] / pairs[i]), int(pairs[i]))
        for i in np.flatnonzero(pairs)
    )


def quality(probabilities: Floats, labels: NDArray[np.bool_]) -> Quality:
    """Measure the quality of probabilities.

    The expected calibration error is the mean, over pairs, of the distance between predicted and observed share in a
    pair's bin: Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".
    """
    metrics = require("sklearn.metrics", extra="evaluation", purpose="Calibration")
    bins = reliability(probabilities, labels)
    ece = sum(point.pairs * abs(point.predicted - point.observed) for point in bins) / max(1, len(labels))
    brier = metrics.brier_score_loss(labels, probabilities, pos_label=True)
    return Quality(float(ece), float(brier), float(metrics.log_loss(labels, probabilities, labels=[False, True])))
