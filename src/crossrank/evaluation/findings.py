"""Warnings about known problems of rerankers that the figures show."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.measures import display_name
from crossrank.evaluation.result import LEVEL, KnownProblem, PairedComparison, System

Floats = NDArray[np.float64]

MANY_CUT = 0.10  # of the pairs
MANY_TIES = 0.05  # of the candidates
PILE = 0.5  # of the pairs: scores that differ from 0 or 1 by less than END
END = 0.01
BAND = 0.05  # the width of a range that contains nine in ten scores
FEW = 0.05  # of the queries


def findings(
    system: System,
    first: System,
    comparison: PairedComparison,
    scores: Floats,
    relevant: NDArray[np.bool_],
    *,
    probabilities: bool,
) -> list[KnownProblem]:
    """Check one reranker for known problems.

    :param comparison: The first stage (before) against the reranker (after), on the main measure.
    :param scores: ``[pairs]``, its probabilities or raw scores.
    :param relevant: ``[pairs]``, whether the document is judged relevant.
    """
    gains = system.values[comparison.measure] - first.values[comparison.measure]
    found = (
        *_gain(comparison),
        *_spread(system.name, scores, relevant, probabilities),
        *_pairs(system),
        *_few_queries(comparison, gains),
    )
    return [KnownProblem(code, system.name, text) for code, text in found]


def _gain(c: PairedComparison) -> Iterator[tuple[str, str]]:
    """Check whether it is better than the first stage."""
    figures = f"than {c.before} ({display_name(c.measure)} {c.difference:+.3f}, p = {c.p_corrected:.3f})"
    if c.difference < 0 and c.p_corrected < LEVEL:
        yield (
            "worse",
            f"{c.after} makes the ranking worse {figures}. It may be trained on other texts or another language: try "
            "another model.",
        )
    elif c.difference <= 0 or c.p_corrected >= LEVEL:
        yield (
            "no-gain",
            f"{c.after} is not measurably better {figures}. The model may not fit these texts, or there are too few "
            "queries to decide.",
        )


def _spread(name: str, scores: Floats, relevant: NDArray[np.bool_], probabilities: bool) -> Iterator[tuple[str, str]]:
    """Check whether its scores use the scale."""
    remedy = "Rank by the raw score, and calibrate before you use a threshold."
    # Most candidates are irrelevant, so most scores may be near 0, but not those of relevant documents.
    lost = float((scores[relevant] < END).mean()) if relevant.any() else 0.0
    high = float((scores > 1 - END).mean()) if len(scores) else 0.0
    if probabilities and high >= PILE:
        yield (
            "scores-pile-up",
            f"{high:.0%} of all scores of {name} are above {1 - END}. They differ so little that no threshold works. "
            f"{remedy}",
        )
    elif probabilities and lost >= PILE:
        yield (
            "scores-pile-up",
            f"{lost:.0%} of the relevant documents score below {END} with {name}: a threshold would lose them. "
            f"{remedy}",
        )
    if len(scores) < 20:
        return
    bottom, top = (float(x) for x in np.quantile(scores, (0.05, 0.95)))
    if top - bottom < BAND and not (probabilities and (bottom < END or top > 1 - END)):
        yield (
            "narrow-band",
            f"Nine in ten scores of {name} lie between {bottom:.3f} and {top:.3f} "
            f"({'probability' if probabilities else 'raw score'}): they hardly differ. The checkpoint's head may be "
            "missing or untrained.",
        )


def _pairs(system: System) -> Iterator[tuple[str, str]]:
    """Check for pairs that were cut and for equal scores."""
    cut, ties = system.share_cut or 0.0, system.ties / max(1, system.pairs)
    if cut > MANY_CUT:
        yield (
            "many-cut",
            f"{system.name} cut {cut:.0%} of the pairs ({system.pairs_cut}): the rest of their text does not count. "
            "Raise --max-length if the model reads more, or split long documents.",
        )
    if ties > MANY_TIES:
        yield (
            "many-ties",
            f"{ties:.0%} of the candidates ({system.ties}) have the same score from {system.name} as another candidate "
            "of the query, so they keep the order of the first stage. Texts may be repeated, or cut to the same start.",
        )


def _few_queries(c: PairedComparison, gains: Floats) -> Iterator[tuple[str, str]]:
    """Check whether the gain comes from a few queries."""
    ordered = np.sort(gains)[::-1]
    most = math.ceil(FEW * len(ordered))
    total, rest = float(ordered.sum()), float(ordered[most:].sum())
    if len(ordered) >= 10 and total > 1e-9 >= rest:
        queries = "1 query makes up" if most == 1 else f"{most} queries make up"
        yield (
            "few-queries",
            f"{queries} all of the gain of {c.after} over {c.before}: without them, the other {len(ordered) - most} "
            f"gain {rest / (len(ordered) - most):+.3f} on average. Look at these queries before you rely on the gain.",
        )
