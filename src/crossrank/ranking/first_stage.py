"""The scores of the search that found the documents, as a stage: alone, or fused with what came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, StageError
from crossrank.ranking.stage import Context, StageScores
from crossrank.validation import check_threshold, check_top_k, is_positive_integer

Values = NDArray[np.float64]
FUSIONS = ("weighted", "reciprocal_rank")
# Kinds of scores that lie between 0 and 1 whatever the documents are.
_SHARES = ("sigmoid", "softmax", "calibrated", "provider")


def z_scores(values: Values) -> Values:
    """Distance from the mean in standard deviations; 0 where all are the same. NaN is passed over and stays."""
    if np.isnan(values).all():
        return values
    spread = np.nanstd(values)
    scaled: Values = (values - np.nanmean(values)) / (spread if spread > 0 else 1.0)
    return scaled


def min_max(values: Values) -> Values:
    """From 0 for the least to 1 for the most; 0 where all are the same. NaN is passed over and stays."""
    if np.isnan(values).all():
        return values
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low if high > low else 1.0)


NORMALISATIONS: Mapping[str, Callable[[Values], Values]] = {
    "z-score": z_scores,
    "min-max": min_max,
    "none": lambda values: values,
}


class FirstStage:
    r"""First-stage scores, kept in play.

    As the first stage of a pipeline it passes them on as they are, so that ``keep`` and ``threshold`` can be set for
    them. Behind another stage it fuses its scores ``s`` with the first stage's ``f``:

    ``fusion="weighted"``: ``weight * n(f) + (1 - weight) * n(s)``, a convex combination as in Bruch, Gai, Ingber, "An
    Analysis of Fusion Functions for Hybrid Retrieval" (ACM TOIS 2023), https://arxiv.org/abs/2210.11934. ``n`` is the
    normalisation: ``"z-score"`` over the documents of the call, of raw logits where there are some; ``"bounds"``, by
    limits that do not depend on the documents: ``(f - low) / (high - low)`` for the first stage's and as it is for
    a stage of scores between 0 and 1; ``"min-max"`` over the documents of the call; ``"none"``. With z-scores and
    min-max a fused score depends on the documents beside it: good for an order, not for a threshold. A document without
    a first-stage score counts as the worst that has one.

    ``fusion="reciprocal_rank"``: ``weight / (k + rank_f) + (1 - weight) / (k + rank_s)``, both weights 1 where
    ``weight`` is left out; Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
    Rank Learning Methods" (SIGIR 2009). ``rank_f`` is the place in the caller's list, ``rank_s`` the place after the
    stage before; a document that it did not score gets nothing for it.

    :param weight: The first stage's share, from 0 to 1.
    :param fusion: ``"weighted"`` or ``"reciprocal_rank"``.
    :param normalisation: ``"z-score"``, ``"bounds"``, ``"min-max"`` or ``"none"``.
    :param bounds: The least and the largest score that the first stage can give, for ``"bounds"``: (-1, 1) for cosines.
    :param k: How little the first places count more than the next, in reciprocal ranks.
    :param keep: How many documents go on, best first; by default all.
    :param threshold: The least score with which a document goes on.
    :param name: What the stage is called in results.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        weight: float | None = None,
        *,
        fusion: str = "weighted",
        normalisation: str | None = None,
        bounds: Sequence[float] | None = None,
        k: int = 60,
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "first-stage",
    ) -> None:
        check_top_k(keep, "keep")
        check_threshold(threshold)
        if weight is not None and not (isinstance(weight, Real) and not isinstance(weight, bool) and 0 <= weight <= 1):
            raise InputError(f"weight={weight!r} is not a number from 0 to 1, the first stage's share.")
        if fusion not in FUSIONS:
            raise InputError(f"fusion={fusion!r} is none of {', '.join(map(repr, FUSIONS))}.")
        self._normalisation = normalisation or ("z-score" if bounds is None else "bounds")
        if self._normalisation not in (*NORMALISATIONS, "bounds"):
            raise InputError(f"normalisation={normalisation!r} is none of {', '.join((*NORMALISATIONS, 'bounds'))}.")
        if (self._normalisation == "bounds") != (bounds is not None):
            raise InputError(
                f"normalisation={normalisation!r} and bounds={bounds!r} do not fit: 'bounds' needs the least and "
                "largest score that the first stage can give, the others take none."
            )
        if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
            raise InputError(f"bounds={bounds!r} is not a pair (least, largest).")
        if not is_positive_integer(k):
            raise InputError(f"k={k!r} is not a positive integer.")
        self.name, self.keep, self.threshold = name, keep, threshold
        self._weight = weight
        self._fusion = fusion
        self._bounds = bounds
        self._k = k

    def __repr__(self) -> str:
        return f"FirstStage({self._weight}, fusion={self._fusion!r})"

    def warm_up(self) -> None:
        """Do nothing: nothing is slow."""

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Give the first stage's scores, fused with those of the stage before if there is one.

        :raises StageError: If documents have no first-stage scores, or the scores can't be put on one scale.
        """
        first = np.full(len(documents), np.nan) if context.first_stage is None else context.first_stage
        earlier = list(context.earlier.values())[-1:]
        if self._fusion == "reciprocal_rank":
            return StageScores(self._reciprocal(len(documents), context, earlier), kind="fused")
        if np.isnan(first).all():
            raise StageError(
                "no document has a first-stage score. Give tuples (document, score), documents with a field 'score', "
                "or Reranker(score=...); or fuse by ranks, which needs none: fusion='reciprocal_rank'."
            )
        if not earlier:
            return StageScores(first.copy(), kind="first_stage")
        return self._weighted(first, earlier[0])

    def _weighted(self, first: Values, other: StageScores) -> StageScores:
        weight = 0.5 if self._weight is None else self._weight
        missing = np.isnan(first)
        first = np.where(missing, np.nanmin(first), first)
        if self._bounds is not None:
            if other.kind not in _SHARES:
                raise StageError(
                    f"normalisation='bounds' needs scores between 0 and 1 from the stage before, but they are of the "
                    f"kind {other.kind!r}. Take another normalisation."
                )
            low, high = self._bounds
            fused = weight * (first - low) / (high - low) + (1 - weight) * other.scores
        else:
            normalise = NORMALISATIONS[self._normalisation]
            values = other.scores if self._normalisation == "none" else other.sort_by
            fused = weight * normalise(first) + (1 - weight) * normalise(values)
        notes = (f"{np.count_nonzero(missing)} documents have no first-stage score",) if missing.any() else ()
        return StageScores(fused, kind="fused", notes=notes)

    def _reciprocal(self, documents: int, context: Context, earlier: Sequence[StageScores]) -> Values:
        positions: NDArray[Any] = np.arange(documents) if context.positions is None else context.positions
        of_first, of_other = (1.0, 1.0) if self._weight is None else (self._weight, 1 - self._weight)
        fused = of_first / (self._k + 1.0 + positions)
        if earlier:
            # They came in the order that the stage before gave them.
            fused = fused + np.where(earlier[0].scored, of_other / (self._k + 1.0 + np.arange(documents)), 0.0)
        return np.asarray(fused, np.float64)
