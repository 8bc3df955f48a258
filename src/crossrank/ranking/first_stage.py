"""The scores of the search that found the documents, as a stage: alone, or fused with those of another stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, StageError
from crossrank.ranking.stage import Context, StageScores
from crossrank.validation import check_choice, check_number, check_positive_integer, check_threshold, check_top_k

Values = NDArray[np.float64]
# Kinds of scores that always lie between 0 and 1.
_SHARES = ("sigmoid", "softmax", "calibrated", "provider")


# What is subtracted from the values, and by what the rest is divided.
NORMALISATIONS: Mapping[str, Callable[[Values], tuple[Any, Any]]] = {
    "z-score": lambda values: (np.mean(values), np.std(values)),
    "min-max": lambda values: (np.min(values), np.ptp(values)),
    "none": lambda values: (0.0, 1.0),
}


def normalised(values: Values, how: str) -> Values:
    """Normalise values; all become 0 if they are the same. NaN is ignored and stays."""
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    start, spread = NORMALISATIONS[how](known)
    scaled: Values = (values - start) / (spread if spread > 0 else 1.0)
    return scaled


class FirstStage:
    """Uses the first-stage scores.

    As the first stage of a pipeline it passes them on unchanged, so that ``keep`` and ``threshold`` apply to them.
    After another stage it fuses that stage's scores ``s`` with the first-stage scores ``f``:

    ``fusion="weighted"``: ``weight * n(f) + (1 - weight) * n(s)``, a convex combination as in Bruch, Gai, Ingber, "An
    Analysis of Fusion Functions for Hybrid Retrieval" (ACM TOIS 2023), https://arxiv.org/abs/2210.11934. ``n`` is the
    normalisation. ``"z-score"`` and ``"min-max"`` use the documents of the call, and raw logits if there are any: a
    fused score then depends on the other documents, so it is suited to sorting but not to a threshold. ``"bounds"``
    does not depend on the other documents: it uses ``(f - low) / (high - low)``, and the other stage's scores without
    a change; they must be between 0 and 1. ``"none"`` changes nothing. A document without a first-stage score gets the
    lowest one.

    ``fusion="reciprocal_rank"``: ``weight / (k + rank_f) + (1 - weight) / (k + rank_s)``, both weights 1 if
    ``weight`` is not given; Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
    Rank Learning Methods" (SIGIR 2009). ``rank_f`` is the position in the caller's list, ``rank_s`` the position
    after the other stage. For a document that the other stage did not score, the second term is 0.

    :param weight: The first stage's share, from 0 to 1.
    :param fusion: ``"weighted"`` or ``"reciprocal_rank"``.
    :param normalisation: ``"z-score"``, ``"bounds"``, ``"min-max"`` or ``"none"``.
    :param bounds: For ``"bounds"``: the lowest and the highest possible first-stage score; (-1, 1) for cosines.
    :param k: For reciprocal ranks: the larger it is, the less the first positions stand out.
    :param keep: How many documents to pass on, best first; by default all.
    :param threshold: The lowest score that a document needs to be passed on.
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
        if weight is not None:
            check_number("weight", weight, low=0, high=1, remedy="It is the first stage's share.")
        check_choice("fusion", fusion, ("weighted", "reciprocal_rank"))
        self._normalisation = normalisation or ("z-score" if bounds is None else "bounds")
        check_choice("normalisation", self._normalisation, (*NORMALISATIONS, "bounds"))
        if (self._normalisation == "bounds") != (bounds is not None):
            raise InputError(
                f"normalisation={normalisation!r} and bounds={bounds!r} can't be combined: 'bounds' needs "
                "bounds=(lowest, highest) of the first-stage scores, and the other normalisations need none."
            )
        if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
            raise InputError(f"bounds={bounds!r} is not a pair (lowest, highest).")
        check_positive_integer("k", k)
        self.name, self.keep, self.threshold = name, keep, threshold
        self._weight = weight
        self._fusion = fusion
        self._bounds = bounds
        self._k = k

    @property
    def takes_ids(self) -> bool:
        """True: it reads no text."""
        return True

    def __repr__(self) -> str:
        return f"FirstStage({self._weight}, fusion={self._fusion!r})"

    def warm_up(self) -> None:
        """Do nothing: there is nothing to load."""

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Return the first-stage scores, fused with those of the stage before, if any.

        :raises StageError: If no document has a first-stage score, or ``"bounds"`` does not fit the other scores.
        """
        first = np.full(len(documents), np.nan) if context.first_stage is None else context.first_stage
        earlier = list(context.earlier.values())[-1:]
        if self._fusion == "reciprocal_rank":
            return StageScores(self._reciprocal(len(documents), context, earlier), kind="fused")
        if np.isnan(first).all():
            raise StageError(
                "no document has a first-stage score. Give tuples (document, score), documents with a field 'score', "
                "or Reranker(score=...); or fuse by ranks, which needs no scores: fusion='reciprocal_rank'."
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
                    f"normalisation='bounds' needs scores between 0 and 1 from the stage before, but their kind is "
                    f"{other.kind!r}. Use another normalisation."
                )
            low, high = self._bounds
            fused = weight * (first - low) / (high - low) + (1 - weight) * other.scores
        else:
            how = self._normalisation
            values = other.scores if how == "none" else other.sort_by
            fused = weight * normalised(first, how) + (1 - weight) * normalised(values, how)
        notes = (f"{np.count_nonzero(missing)} documents have no first-stage score",) if missing.any() else ()
        return StageScores(fused, kind="fused", notes=notes)

    def _reciprocal(self, documents: int, context: Context, earlier: Sequence[StageScores]) -> Values:
        positions: NDArray[Any] = np.arange(documents) if context.positions is None else context.positions
        of_first, of_other = (1.0, 1.0) if self._weight is None else (self._weight, 1 - self._weight)
        fused = of_first / (self._k + 1.0 + positions)
        if earlier:
            # The documents come in the order of the stage before.
            fused = fused + np.where(earlier[0].scored, of_other / (self._k + 1.0 + np.arange(documents)), 0.0)
        return np.asarray(fused, np.float64)
