"""Decision: whether a candidate takes the place of the model in use, with all figures it rests on.

- Better on the data: two-sided paired permutation test, see :mod:`crossrank.evaluation.significance`.
- Not worse on the guard: non-inferiority, as in clinical trials (G. Piaggio et al., Reporting of noninferiority and
  equivalence randomized trials: extension of the CONSORT 2010 statement, JAMA 2012): the lower end of the 95 % interval
  of the mean paired difference lies above ``-margin``.
- Queries needed: ``n = ((z(1 - alpha / 2) + z(power)) * s / d) ** 2`` for a mean paired difference d with standard
  deviation s (J. Cohen, Statistical Power Analysis, 1988, section 2; for retrieval T. Sakai, Topic set size design,
  Information Retrieval Journal 2016). With the d that was seen it is a rough guess, and rather too low.
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
from crossrank.evaluation.significance import DRAWS, intervals, permutation_p

Floats = NDArray[np.float64]
MOST_DRAWS = 1_000_000
# Differences of a measure that are smaller are the tool's own rounding.
_SAME = 1e-9


@dataclass(frozen=True)
class Criteria:
    """What a candidate has to meet.

    :param alpha: It is better if the p-value is below this; an equal one passes with a chance of half of it.
    :param margin: How much of the measure it may lose on the guard: the interval has to end above its negative.
    :param power: With what chance the needed number of queries would show the difference.
    :param measure: By its name in ir-measures.
    :param depth: How many of a query's candidates are ranked.
    :param seed: Of permutation test and bootstrap.
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
                raise InputError(f"{name}={getattr(self, name)!r} is outside {least:g} to {most:g}. Take one between.")


@dataclass(frozen=True)
class Budget:
    """What a round of :func:`.learning.learn` may spend of the alpha that all rounds against one version share.

    :param alpha: The budget.
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


@dataclass(frozen=True)
class Figures:
    """Two models on the same queries.

    :param before: Mean of the measure of the model in use; ``after`` of the candidate.
    :param interval: Ends of the 95 % interval of the mean difference (bootstrap over queries).
    :param deviation: Standard deviation of the differences.
    :param p: Two-sided.
    :param won: Queries on which the candidate is better.
    """

    dataset: str
    measure: str
    queries: int
    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    deviation: float
    p: float
    won: int
    lost: int
    tied: int

    def queries_needed(self, criteria: Criteria) -> int | None:
        """How many queries it would take to show a difference as large as this; ``None`` if there is none to show."""
        if self.difference <= 0:
            return None
        needed = (_z(criteria) * self.deviation / self.difference) ** 2
        return max(math.ceil(needed), fewest_queries(criteria.alpha))

    def detectable(self, criteria: Criteria) -> float:
        """The smallest difference that so many queries would show, with the power of the criteria."""
        return _z(criteria) * self.deviation / math.sqrt(self.queries)


def figures(dataset: str, before: Floats, after: Floats, criteria: Criteria, weights: Floats | None = None) -> Figures:
    """Compare two models.

    :param before: The measure of the model in use, ``[queries]``; ``after`` of the candidate.
    :param weights: How much each query counts, ``[queries]``; their mean becomes 1.
    """
    shares = np.ones(len(before)) if weights is None else weights / weights.mean()
    raw = after - before
    differences = np.where(np.abs(raw) < _SAME, 0.0, raw) * shares
    low, high = intervals(differences[:, None], seed=criteria.seed)[0]
    # So many that a p-value well below alpha can come out.
    draws = min(MOST_DRAWS, max(DRAWS, math.ceil(20 / criteria.alpha)))
    return Figures(
        dataset=dataset,
        measure=criteria.measure,
        queries=len(differences),
        before=float((before * shares).mean()),
        after=float((after * shares).mean()),
        difference=float(differences.mean()),
        interval=(float(low), float(high)),
        deviation=float(differences.std(ddof=1)) if len(differences) > 1 else 0.0,
        p=float(permutation_p(differences[:, None], draws=draws, seed=criteria.seed)[0]),
        won=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        tied=int((differences == 0).sum()),
    )


def fewest_queries(alpha: float) -> int:
    """With fewer queries no result is significant: all n differences of one sign have p = 2 / 2 ** n."""
    return math.floor(1 - math.log2(alpha)) + 1


@dataclass(frozen=True)
class Decision:
    """Whether the candidate was promoted, and why.

    :param reasons: In sentences: of the data, then of the guard.
    :param data: Figures on the held-out data; ``guard`` on the guard set, ``None`` if none was asked.
    :param queries_needed: If there are too few queries to tell: about how many it would take.
    :param detectable: The smallest difference that the data would have shown.
    :param version: What the registry calls the candidate now; ``None`` if it was not promoted or there is no registry.
    :param candidate: What it is: name and digest; likewise ``against``.
    :param trained_on: Queries of the data that the candidate was trained on.
    :param budget: In a round of :func:`.learning.learn`: what it may spend of alpha.
    """

    promoted: bool
    reasons: tuple[str, ...]
    data: Figures
    guard: Figures | None
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
        """Write it as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as stream:
            stream.write(json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")


def judge(data: Figures, guard: Figures | None, criteria: Criteria) -> tuple[bool, tuple[str, ...], int | None]:
    """Decide from the figures.

    :returns: Whether to promote, why, and how many queries it would take to tell, if these are too few.
    """
    better, first, needed = _of_data(data, criteria)
    safe, second = (True, ()) if guard is None else _of_guard(guard, criteria)
    return better and safe, (first, *second), needed


def _of_data(found: Figures, criteria: Criteria) -> tuple[bool, str, int | None]:
    told = (
        f"{found.measure} {found.before:.4f} -> {found.after:.4f} ({found.difference:+.4f}, "
        f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}) on {found.queries} queries of {found.dataset}, "
        f"p = {found.p:.4f}"
    )
    if found.difference > 0 and found.p < criteria.alpha:
        return True, f"Better: {told}.", None
    if not found.won and not found.lost:
        return False, f"The same: no query of {found.queries} of {found.dataset} is ranked better or worse.", None
    if found.difference <= 0:
        said = "Worse" if found.p < criteria.alpha else "Not better"
        return False, f"{said}: {told}.", None
    needed = found.queries_needed(criteria)
    assert needed is not None  # for the type checker: the difference is above 0
    needed = max(needed, found.queries + 1)
    return (
        False,
        f"Too few queries to tell: {told}, which is not below {criteria.alpha:g}. {found.queries} queries show a "
        f"difference of {found.detectable(criteria):.4f} or more; for one as it seems to be, about {needed} would be "
        f"needed (power {criteria.power:.0%}).",
        needed,
    )


def _of_guard(found: Figures, criteria: Criteria) -> tuple[bool, tuple[str]]:
    low, high = found.interval
    told = (
        f"{found.measure} {found.before:.4f} -> {found.after:.4f} ({found.difference:+.4f}, {low:+.4f} to {high:+.4f}) "
        f"on {found.queries} queries of {found.dataset}"
    )
    if low > -criteria.margin:
        return True, (f"General ability is kept: {told}; the lower end is above -{criteria.margin:g}.",)
    lost = "is lost" if high < 0 else "may be lost"
    return False, (f"General ability {lost}: {told}; the lower end is not above -{criteria.margin:g}.",)


def _z(criteria: Criteria) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - criteria.alpha / 2) + normal.inv_cdf(criteria.power)
