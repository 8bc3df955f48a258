"""Find a threshold on scores, with a confidence bound on its precision or recall."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.scoring.calibration import Threshold

Floats = NDArray[np.float64]

# Each number of best pairs to try is larger than the one before by this factor. Fewer tries need less correction.
_STEP = 1.25


def threshold_for(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    target_precision: float | None = None,
    target_recall: float | None = None,
    confidence: float = 0.95,
    queries: ArrayLike | None = None,
) -> Threshold:
    """Find the threshold that keeps the most pairs at a precision, or the fewest at a recall.

    Bounds are Clopper and Pearson's (1934), one-sided. For a precision several thresholds are tried, the best 29, 37,
    46, ... pairs, fixed by their number and not by their labels; each bound is held to ``(1 - confidence) / tries``
    (Bonferroni), so that the guarantee holds for the chosen one. For a recall the threshold is the score of one
    relevant pair, whose rank depends only on their number (Wilks 1941), so no correction is needed.

    Pairs of one query are similar, so they carry less information than independent pairs. How similar can't be
    measured if everything kept is relevant. So with ``queries`` the bounds assume the worst case, that the pairs of a
    query are all relevant or all irrelevant, and count them as one pair (see :func:`_effective` for queries with
    different numbers of pairs).

    :param scores: ``[pairs]``, finite.
    :param labels: ``[pairs]``, whether each is relevant.
    :param target_precision: At least this share of the kept pairs should be relevant.
    :param target_recall: At least this share of the relevant pairs should be kept. Give one of the two targets.
    :param confidence: The confidence of the bound.
    :param queries: ``[pairs]``, the query of each pair; without it, pairs are assumed to be independent.
    :raises InputError: If too few pairs are judged. The message says how many more are needed.
    """
    x, y, groups = _checked(scores, labels, queries)
    given = [(name, value) for name, value in (("precision", target_precision), ("recall", target_recall)) if value]
    if len(given) != 1:
        raise InputError("Give one of target_precision and target_recall.")
    (measure, target), alpha = given[0], 1 - confidence
    if not 0 < target < 1 or not 0 < confidence < 1:
        raise InputError(f"target_{measure}={target} and confidence={confidence} must be between 0 and 1.")
    find = _precision if measure == "precision" else _recall
    score, found = find(x, y, groups, target, alpha)
    kept = float(np.mean(x >= score))
    return Threshold(measure, target, score, found.bound, found.share, confidence, found.pairs, found.effective, kept)


class _Share:
    """A share of pairs and its lower bound."""

    def __init__(self, hits: NDArray[np.bool_], groups: NDArray[np.int64], alpha: float) -> None:
        self.pairs = len(hits)
        self.share = float(hits.mean())
        self.effective = _effective(groups)
        self.bound = lower_bound(self.share * self.effective, self.effective, alpha)


def lower_bound(hits: float, pairs: float, alpha: float) -> float:
    """Clopper and Pearson's lower bound of a share, with the confidence ``1 - alpha``."""
    beta = require("scipy.stats", extra="evaluation", purpose="A confidence bound").beta
    return float(beta.ppf(alpha, hits, pairs - hits + 1)) if hits > 0 else 0.0


def _effective(groups: NDArray[np.int64]) -> float:
    """The number of independent pairs with the same information, if all pairs of one query have the same label.

    Kish's number of clusters, ``(sum m)^2 / sum m^2`` for queries of ``m`` pairs each: 1 for the pairs of one query,
    the number of pairs if each has a different query.
    """
    sizes = np.bincount(groups)
    return float(len(groups) ** 2 / (sizes.astype(np.float64) ** 2).sum())


def _precision(
    x: Floats, y: NDArray[np.bool_], groups: NDArray[np.int64], target: float, alpha: float
) -> tuple[float, _Share]:
    order = np.argsort(-x, kind="stable")
    sizes = _grid(groups[order], target, alpha)
    tries = len(sizes)
    if not sizes:
        need, count = _needed(1.0, target, alpha), _effective(groups)
        raise InputError(
            f"{_counted(len(x), count)} judged pairs are too few for a precision of {target} with a confidence of "
            f"{1 - alpha:g}: even if everything kept were relevant, {need} would be needed. Judge at least "
            f"{math.ceil(need - count)} more{'' if count == len(x) else ', each of another query'}."
        )
    best: tuple[float, _Share] | None = None
    seen: list[_Share] = []
    for size in sizes:
        score = float(x[order[size - 1]])
        taken = x >= score
        share = _Share(y[taken], groups[taken], alpha / tries)
        seen.append(share)
        if share.bound >= target:
            best = score, share
    if best is not None:
        return best
    top = max(seen, key=lambda share: share.share)
    if top.share <= target:
        raise InputError(
            f"No threshold reaches a precision of {target}: the best of {tries} tried has {top.share:.3f} on "
            f"{top.pairs} pairs. More judgements won't change that; choose a lower target or a better model."
        )
    able = [share for share in seen if share.share > target]
    missing = [_missing(share, target, alpha / tries) * len(x) / share.pairs for share in able]
    more, near = min(zip(missing, able, strict=True), key=lambda found: found[0])
    raise InputError(
        f"{len(x)} judged pairs are too few for a precision of {target} with a confidence of {1 - alpha:g}: the "
        f"nearest threshold has {near.share:.3f} on {near.pairs} pairs, but a lower bound of only {near.bound:.3f}. "
        f"If the share stays the same, about {math.ceil(more)} more judged pairs are needed."
    )


def _missing(share: _Share, target: float, alpha: float) -> float:
    """The number of additional pairs with which the bound reaches the target, if the share stays the same."""
    return _needed(share.share, target, alpha) * share.pairs / share.effective - share.pairs


def _counted(pairs: int, effective: float) -> str:
    return f"{pairs}" if effective == pairs else f"{pairs} (which count as {effective:.0f})"


def _grid(groups: NDArray[np.int64], target: float, alpha: float) -> list[int]:
    """Give the numbers of best pairs to try. They depend on the queries but not on the labels.

    :param groups: The query of each pair, best pair first.
    """
    size, sizes = float(_needed(1.0, target, alpha)), []
    while size <= len(groups):
        sizes.append(int(size))
        size = max(size + 1, size * _STEP)
    # Skip numbers that can't reach the target even if all pairs are relevant, which depends on the number of tries.
    before = None
    while sizes and len(sizes) != before:
        before = len(sizes)
        need = _needed(1.0, target, alpha / before)
        sizes = [size for size in sizes if _effective(groups[:size]) >= need]
    return sizes


def _recall(
    x: Floats, y: NDArray[np.bool_], groups: NDArray[np.int64], target: float, alpha: float
) -> tuple[float, _Share]:
    relevant, of = np.sort(x[y]), groups[y][np.argsort(x[y], kind="stable")]

    def share(lost: int) -> _Share:
        """The share that is kept if the threshold is the score of the relevant pair with this many below it."""
        return _Share(relevant >= relevant[lost], of, alpha)

    # The lowest relevant score keeps all; each step up loses one more, and the bound falls.
    lost = bisect_right(range(len(relevant)), -target, key=lambda lost: -share(lost).bound) - 1
    if lost < 0:
        need, count = _needed(1.0, target, alpha), _effective(of)
        raise InputError(
            f"{_counted(len(relevant), count)} relevant pairs are too few for a recall of {target} with a confidence "
            f"of {1 - alpha:g}: {need} are needed. Judge pairs until there are {math.ceil(need - count)} more relevant "
            f"ones{'' if count == len(relevant) else ' of other queries'}."
        )
    return float(relevant[lost]), share(lost)


def _needed(share: float, target: float, alpha: float) -> int:
    """The fewest pairs with which an observed share has a bound of at least the target."""
    if share >= 1:
        return math.ceil(math.log(alpha) / math.log(target))
    low, high = 1, 2
    while lower_bound(share * high, high, alpha) < target and high < 1 << 40:
        low, high = high, 2 * high
    sizes = range(low + 1, high)
    return low + 1 + bisect_left(sizes, target, key=lambda pairs: lower_bound(share * pairs, pairs, alpha))


def _checked(
    scores: ArrayLike, labels: ArrayLike, queries: ArrayLike | None
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    x, y = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    groups = np.arange(len(x)) if queries is None else np.unique(np.asarray(queries), return_inverse=True)[1]
    if x.ndim != 1 or x.shape != y.shape or x.shape != groups.shape:
        raise InputError(f"scores {x.shape}, labels {y.shape} and queries {groups.shape} must have the same length.")
    if not np.isfinite(x).all():
        raise InputError(f"scores[{int(np.flatnonzero(~np.isfinite(x))[0])}] is not finite. Leave such pairs out.")
    return x, y, groups.astype(np.int64)
