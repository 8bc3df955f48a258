"""Warnings about known problems of rerankers that the figures show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.measures import shown
from crossrank.evaluation.result import LEVEL, Finding, PairedComparison, System

Floats = NDArray[np.float64]

MANY_CUT = 0.10  # of the pairs
MANY_TIES = 0.05  # of the candidates
PILE = 0.5  # of the pairs, within END of an end of the scale
END = 0.01
BAND = 0.05  # of the scale: the width in which nine in ten scores lie
FEW = 0.05  # of the queries


def findings(
    system: System,
    first: System,
    comparison: PairedComparison,
    scores: Floats,
    relevant: NDArray[np.bool_],
    *,
    probabilities: bool,
) -> list[Finding]:
    """Check one reranker for known problems.

    :param comparison: The first stage (before) against the reranker (after), on the main measure.
    :param scores: ``[pairs]``, its probabilities or raw scores.
    :param relevant: ``[pairs]``, whether the document is judged relevant.
    """
    found = [
        _no_gain(comparison),
        _pile_up(system.name, scores, relevant) if probabilities else None,
        _narrow(system.name, scores, "probability" if probabilities else "raw score"),
        _cut(system),
        _ties(system),
        _few_queries(comparison, system.values[comparison.measure] - first.values[comparison.measure]),
    ]
    return [one for one in found if one is not None]


def _no_gain(c: PairedComparison) -> Finding | None:
    measure = shown(c.measure)
    if c.difference < 0 and c.p_corrected < LEVEL:
        text = f"{c.after} makes the ranking worse than {c.before} ({measure} {c.difference:+.3f}, "
        text += f"p = {c.p_corrected:.3f}). It may be trained on other texts or another language: try another model."
        return Finding("worse", c.after, text)
    if c.difference <= 0 or c.p_corrected >= LEVEL:
        text = f"{c.after} is not measurably better than {c.before} ({measure} {c.difference:+.3f}, "
        text += f"p = {c.p_corrected:.3f}). The model may not fit these texts, or there are too few queries to decide."
        return Finding("no-gain", c.after, text)
    return None


def _pile_up(name: str, scores: Floats, relevant: NDArray[np.bool_]) -> Finding | None:
    # Most candidates are irrelevant, so most scores may be near 0, but not those of relevant documents.
    low = float((scores[relevant] < END).mean()) if relevant.any() else 0.0
    high = float((scores > 1 - END).mean()) if len(scores) else 0.0
    if high >= PILE:
        text = f"{high:.0%} of all scores of {name} are above {1 - END}: so close to the end of the scale they hardly "
        text += "differ, and no threshold works. Rank by the raw score; calibrate before cutting by a threshold."
        return Finding("scores-pile-up", name, text)
    if low >= PILE:
        text = f"{low:.0%} of the relevant documents score below {END} with {name}: a threshold would lose them. "
        text += "Rank by the raw score; calibrate before cutting by a threshold."
        return Finding("scores-pile-up", name, text)
    return None


def _narrow(name: str, scores: Floats, what: str) -> Finding | None:
    if len(scores) < 20:
        return None
    low, high = (float(x) for x in np.quantile(scores, (0.05, 0.95)))
    if high - low >= BAND or (what == "probability" and (low < END or high > 1 - END)):
        return None
    text = f"Nine in ten scores of {name} lie between {low:.3f} and {high:.3f} ({what}): they hardly differ. "
    return Finding("narrow-band", name, text + "The checkpoint's head may be missing or untrained.")


def _cut(system: System) -> Finding | None:
    share = system.pairs_cut / system.pairs if system.pairs else 0.0
    if share <= MANY_CUT:
        return None
    text = f"{system.name} cut {share:.0%} of the pairs ({system.pairs_cut}): the rest of their text does "
    text += "not count. Raise --max-length if the model reads more, or split long documents."
    return Finding("many-cut", system.name, text)


def _ties(system: System) -> Finding | None:
    share = system.ties / system.pairs if system.pairs else 0.0
    if share <= MANY_TIES:
        return None
    text = f"{share:.0%} of the candidates ({system.ties}) have the same score from {system.name} as another candidate "
    text += "of the query, so they keep the order of the first stage. Texts may be repeated, or cut to the same start."
    return Finding("many-ties", system.name, text)


def _few_queries(c: PairedComparison, gains: Sequence[float] | Floats) -> Finding | None:
    ordered = np.sort(np.asarray(gains))[::-1]
    most = math.ceil(FEW * len(ordered))
    total, rest = float(ordered.sum()), float(ordered[most:].sum())
    if len(ordered) < 10 or total <= 1e-9 or rest > 1e-9:
        return None
    queries = "1 query makes up" if most == 1 else f"{most} queries make up"
    text = f"{queries} all of the gain of {c.after} over {c.before}: without them, the other {len(ordered) - most} "
    text += f"gain {rest / (len(ordered) - most):+.3f} on average. Look at these queries before you rely on the gain."
    return Finding("few-queries", c.after, text)
