"""The probability that users look at a place, estimated from clicks in rankings with a shuffled top.

If documents are shuffled, each place has equally good documents on average, so its share of the clicks is
proportional to the probability that users look there: p(k) / p(1) is the ratio of the clicks at k and at 1 (X. Wang,
M. Bendersky, D. Metzler, M. Najork, Learning to rank with selection bias in personal search, SIGIR 2016; T. Joachims,
A. Swaminathan, T. Schnabel, Unbiased learning-to-rank with biased feedback, WSDM 2017, section 5.3). ``eta`` is that of
the latter's model p(k) = k ** -eta, by maximum likelihood. Intervals are percentiles of a bootstrap over rankings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.feedback.store import Judged

# An estimate replaces the constant if it has at least this many clicks, and its interval is at most this wide.
FEWEST_CLICKS, WIDEST = 100, 0.5
HIGHEST_ETA = 5.0
_SAMPLES, _LEVEL = 1000, 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Propensities:
    """Position bias, estimated from clicks in shuffled rankings.

    :param rankings: Shuffled rankings with known clicks.
    :param clicks: Clicks in their shuffled part.
    :param places: p(k) / p(1), from the first place; empty if the first place has no clicks.
    :param eta: How fast attention falls; ``None`` without a click.
    """

    rankings: int
    clicks: int
    places: tuple[Estimate, ...]
    eta: Estimate | None

    @property
    def enough(self) -> bool:
        """Whether ``eta`` is precise enough to be used."""
        return self.eta is not None and self.clicks >= FEWEST_CLICKS and self.eta.high - self.eta.low <= WIDEST

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "rankings": self.rankings,
            "clicks": self.clicks,
            "eta": vars(self.eta) if self.eta else None,
            "places": [vars(one) for one in self.places],
            "enough": self.enough,
        }


def estimate(judged: Iterable[Judged], *, seed: int = 0) -> Propensities:
    """Estimate from stored rankings; those that were not shuffled are ignored."""
    lengths: list[int] = []
    counts: list[Counter[int]] = []
    for one in judged:
        sessions = [judgement.clicked for judgement in one.judgements if judgement.clicked is not None]
        if one.ranking.shuffled < 2 or not sessions:
            continue
        place = {document: k for k, document in enumerate(one.ranking.shown[: one.ranking.shuffled])}
        lengths.append(len(place))
        counts.append(Counter(place[document] for clicked in sessions for document in clicked if document in place))
    if not lengths:
        return Propensities(0, 0, (), None)
    n = np.array(lengths)
    table = np.zeros((len(n), n.max()))
    for row, clicks in enumerate(counts):
        for k, count in clicks.items():
            table[row, k] = count
    return _estimate(n, table, np.random.default_rng(seed))


def _estimate(n: NDArray[Any], table: NDArray[Any], random: np.random.Generator) -> Propensities:
    total = int(table.sum())
    if total == 0:
        return Propensities(len(n), 0, (), None)
    eta, ratios = _fit(n, table, np.ones(len(n)))
    etas, sampled = [], []
    for _ in range(_SAMPLES):
        weights = np.bincount(random.integers(len(n), size=len(n)), minlength=len(n))
        drawn_eta, drawn_ratios = _fit(n, table, weights)
        etas.append(drawn_eta)
        sampled.append(drawn_ratios)
    tails = [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)]
    low, high = np.nanpercentile(etas, tails)
    places: tuple[Estimate, ...] = ()
    if np.isfinite(ratios).all():
        # A sample without a click at the first place has no ratio. This happens only with few clicks.
        lows, highs = np.nanpercentile(np.array(sampled), tails, axis=0)
        places = tuple(Estimate(*map(float, one)) for one in zip(ratios, lows, highs, strict=True))
    return Propensities(len(n), total, places, Estimate(eta, float(low), float(high)))


def _fit(n: NDArray[Any], table: NDArray[Any], weights: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """``eta``, and p(k) / p(1) of all places: NaN where that is 0 / 0 or worse."""
    logs = np.log(np.arange(1, table.shape[1] + 1))
    by_length = {int(length): weights[n == length] @ table[n == length] for length in np.unique(n)}
    # For each place, its clicks, and the clicks at the first place in rankings that are long enough to have it.
    clicks, first = np.zeros(len(logs)), np.zeros(len(logs))
    for length, summed in by_length.items():
        clicks += summed
        first[:length] += summed[0]
    ratios = np.divide(clicks, first, out=np.full(len(logs), np.nan), where=first > 0)
    if clicks.sum() == 0:
        return float("nan"), ratios

    def slope(eta: float) -> float:
        expected = 0.0
        for length, summed in by_length.items():
            seen = np.exp(-eta * logs[:length])
            expected += summed.sum() * (seen @ logs[:length]) / seen.sum()
        return expected - float(clicks @ logs)

    # The log-likelihood is concave: its slope falls with eta, and is 0 at the most likely one.
    low, high = 0.0, HIGHEST_ETA
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2, ratios
