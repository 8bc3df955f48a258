"""Decide whether a candidate replaces the model in use, and record the figures.

- Better on the data: a two-sided paired permutation test, see :mod:`crossrank.evaluation.significance`.
- Not worse on the guard: non-inferiority, as in clinical trials (G. Piaggio et al., Reporting of noninferiority and
  equivalence randomized trials: extension of the CONSORT 2010 statement, JAMA 2012): the lower end of the 95 % interval
  of the mean paired difference is above ``-margin``.
- Queries needed: ``n = ((z(1 - alpha / 2) + z(power)) * s / d) ** 2`` for a mean paired difference d with standard
  deviation s (J. Cohen, Statistical Power Analysis, 1988, section 2; for retrieval T. Sakai, Topic set size design,
  Information Retrieval Journal 2016). With the observed d this is a rough estimate, and tends to be too low.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.atomic_write import write_atomically
from crossrank.errors import InputError
from crossrank.evaluation.result import PairedComparison
from crossrank.evaluation.significance import DRAWS, compare_all

Floats = NDArray[np.float64]
MOST_DRAWS = 1_000_000


@dataclass(frozen=True)
class Criteria:
    """The criteria for a candidate.

    :param alpha: The candidate is better if the p-value is below this. An equal candidate passes with half this
        probability.
    :param margin: How much of the measure it may lose on the guard: the interval must lie above ``-margin``.
    :param power: The probability with which the needed number of queries shows the difference.
    :param measure: The measure's name in ir-measures.
    :param depth: How many candidates of each query are ranked.
    :param seed: Seed of the permutation test and the bootstrap.
    :raises InputError: If a value is out of range.
    """

    alpha: float = 0.05
    margin: float = 0.02
    power: float = 0.8
    measure: str = "nDCG@10"
    depth: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("alpha", 1e-9, 0.5), ("margin", 0.0, 1.0), ("power", 0.5, 0.999)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name}={getattr(self, name)!r} is outside {least:g} to {most:g}.")


@dataclass(frozen=True)
class Budget:
    """The part of alpha that one round of :func:`.learning.learn` may spend.

    :param alpha: The alpha that all rounds against one version share.
    :param number: The round, from 1.
    """

    alpha: float
    number: int

    @property
    def this_round(self) -> float:
        """What this round may spend."""
        return self.alpha / (self.number * (self.number + 1))

    @property
    def left(self) -> float:
        """What is left for later rounds."""
        return self.alpha / (self.number + 1)

    def as_dict(self) -> dict[str, float]:
        """All of it, for JSON."""
        return {**asdict(self), "this_round": self.this_round, "left": self.left}

    def __str__(self) -> str:
        return (
            f"Round {self.number} against the version in use: it may spend {self.this_round:.2g} of the alpha of "
            f"{self.alpha:g}; {self.left:.2g} is left for later rounds."
        )


def compare_models(
    dataset: str, before: Floats, after: Floats, criteria: Criteria, weights: Floats | None = None
) -> PairedComparison:
    """Compare the model in use with a candidate.

    :param before: The measure of the model in use, ``[queries]``; ``after`` of the candidate.
    :param weights: How much each query counts, ``[queries]``; their mean becomes 1.
    """
    shares = np.ones(len(before)) if weights is None else weights / weights.mean()
    # Enough draws that a p-value well below alpha is possible.
    draws = min(MOST_DRAWS, max(DRAWS, math.ceil(20 / criteria.alpha)))
    systems = [
        (name, {criteria.measure: values * shares}) for name, values in (("in use", before), ("candidate", after))
    ]
    return compare_all(systems, [criteria.measure], dataset=dataset, draws=draws, seed=criteria.seed)[0]


def queries_needed(found: PairedComparison, criteria: Criteria) -> int | None:
    """How many queries are needed to show a difference of this size; ``None`` if the candidate is not better."""
    if found.difference <= 0:
        return None
    return max(math.ceil((_z(criteria) * found.deviation / found.difference) ** 2), fewest_queries(criteria.alpha))


def detectable(found: PairedComparison, criteria: Criteria) -> float:
    """The smallest difference that this many queries can show, with the power of the criteria."""
    return _z(criteria) * found.deviation / math.sqrt(found.queries)


def fewest_queries(alpha: float) -> int:
    """The fewest queries with which a result can be significant: n differences of one sign have p = 2 / 2 ** n."""
    return math.floor(1 - math.log2(alpha)) + 1


@dataclass(frozen=True)
class Decision:
    """Whether the candidate was promoted, and why.

    :param reasons: Sentences about the data, then about the guard.
    :param data: The comparison on the held-out data; ``guard`` on the guard set, or ``None`` without a guard set.
    :param queries_needed: If there are too few queries to decide: about how many are needed.
    :param detectable: The smallest difference that the data can show.
    :param version: The candidate's version in the registry; ``None`` if it was not promoted or there is no registry.
    :param candidate: Name and digest of the candidate; ``against`` those of the model in use.
    :param trained_on: How many queries of the data the candidate was trained on.
    :param budget: For a round of :func:`.learning.learn`: its share of alpha.
    """

    promoted: bool
    reasons: tuple[str, ...]
    data: PairedComparison
    guard: PairedComparison | None
    queries_needed: int | None
    detectable: float
    criteria: Criteria
    candidate: Mapping[str, Any]
    against: Mapping[str, Any]
    time: str
    version: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    trained_on: int = 0
    budget: Budget | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "budget": self.budget.as_dict() if self.budget else None}

    def write(self, path: Path) -> None:
        """Write it as JSON, completely or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as stream:
            stream.write(json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")


def judge(
    data: PairedComparison, guard: PairedComparison | None, criteria: Criteria
) -> tuple[bool, tuple[str, ...], int | None]:
    """Decide from the comparisons on the held-out data and on the guard set.

    :returns: Whether to promote, why, and about how many queries are needed if these are too few.
    """
    better, reason, needed = _judge_data(data, criteria)
    if guard is None:
        return better, (reason,), needed
    low, high = guard.interval
    if low > -criteria.margin:
        kept = f"General ability is kept: {_in_words(guard)}; the lower end is above -{criteria.margin:g}."
        return better, (reason, kept), needed
    lost = "is lost" if high < 0 else "may be lost"
    reasons = (reason, f"General ability {lost}: {_in_words(guard)}; the lower end is not above -{criteria.margin:g}.")
    return False, reasons, needed


def _judge_data(found: PairedComparison, criteria: Criteria) -> tuple[bool, str, int | None]:
    result = f"{_in_words(found)}, p = {found.p:.4f}"
    if found.difference > 0 and found.p < criteria.alpha:
        return True, f"Better: {result}.", None
    if not found.won and not found.lost:
        return False, f"The same: no query of {found.queries} of {found.dataset} is ranked better or worse.", None
    needed = queries_needed(found, criteria)
    if needed is None:
        verdict = "Worse" if found.p < criteria.alpha else "Not better"
        return False, f"{verdict}: {result}.", None
    needed = max(needed, found.queries + 1)
    return (
        False,
        f"Too few queries to decide: {result}, which is not below {criteria.alpha:g}. {found.queries} queries can "
        f"show a difference of {detectable(found, criteria):.4f} or more. If the difference is as large as it looks, "
        f"about {needed} queries are needed (power {criteria.power:.0%}).",
        needed,
    )


def _in_words(found: PairedComparison) -> str:
    (before, after), (low, high) = found.means, found.interval
    change = f"{found.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    return f"{found.measure} {before:.4f} -> {after:.4f} ({change}) on {found.queries} queries of {found.dataset}"


def _z(criteria: Criteria) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - criteria.alpha / 2) + normal.inv_cdf(criteria.power)
