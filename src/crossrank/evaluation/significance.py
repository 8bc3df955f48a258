"""Significance of differences: paired permutation test, Holm's correction, bootstrap intervals.

- Permutation test with random sign flips: R. A. Fisher, The Design of Experiments (1935), section 21; for retrieval
  M. D. Smucker, J. Allan, B. Carterette, A comparison of statistical significance tests for IR evaluation (CIKM 2007).
- The sampled p-value includes the observed difference, so it is never 0: B. Phipson, G. K. Smyth, Permutation p-values
  should never be zero (2010).
- Correction: S. Holm, A simple sequentially rejective multiple test procedure (1979).
- Interval: B. Efron, the percentile bootstrap (1979), over queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.result import PairedComparison

Floats = NDArray[np.float64]

# Smaller differences of a measure are rounding errors.
SAME = 1e-9

DRAWS = 10_000
RESAMPLES = 2_000
TEST = "two-sided paired permutation test (random sign flips), Holm's correction over all pairs of systems"
# Up to this many nonzero differences, all sign flips are computed: at most 2 ** 13 = 8192.
EXACT = 13
_ENTRIES = 1 << 21  # of a matrix of draws, which bounds the memory


def tests_with(seed: int) -> dict[str, object]:
    """Describe the test and the intervals, for the settings of an evaluation."""
    interval = f"95 %, percentile bootstrap over queries, {RESAMPLES} resamples"
    return {"seed": seed, "test": TEST, "draws": DRAWS, "interval": interval}


def permutation_p(differences: Floats, *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Two-sided p-values of the hypothesis that each difference is as likely to be positive as negative.

    :param differences: ``[queries, tests]``.
    :returns: ``[tests]``; exact if at most 13 differences are not 0, otherwise by ``draws`` random flips.
    """
    queries, tests = differences.shape
    p = np.ones(tests)
    observed = np.abs(differences.sum(0))
    # Sums of the same numbers in another order may differ in the last digits.
    limit = observed - 1e-12 * np.maximum(np.abs(differences).sum(0), 1e-300)
    few = (differences != 0).sum(0) <= EXACT
    for test in np.flatnonzero(few):
        p[test] = _exact(differences[:, test], limit[test])
    if not few.all():
        many = ~few
        extreme = np.zeros(int(many.sum()))
        for signs in _signs(queries, draws, seed):
            extreme += (np.abs(signs @ differences[:, many]) >= limit[many]).sum(0)
        p[many] = (extreme + 1) / (draws + 1)
    return p


def holm(p: Floats) -> Floats:
    """Correct p-values for multiple tests: ``[tests]``, each at least as large as before and at most 1."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def intervals(values: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """95 % intervals of the mean, by resampling queries.

    :param values: ``[queries, columns]``; all columns share the resamples.
    :returns: ``[columns, 2]``, the 2.5 and 97.5 percentiles of the means.
    """
    queries = len(values)
    random = np.random.default_rng(seed)
    means = []
    for rows in _rows(queries, resamples):
        drawn = random.integers(0, queries, (rows, queries)) + np.arange(rows)[:, None] * queries
        weights = np.bincount(drawn.ravel(), minlength=rows * queries).reshape(rows, queries)
        means.append(weights @ values / queries)
    bounds: NDArray[np.float64] = np.quantile(np.concatenate(means), (0.025, 0.975), axis=0).T
    return bounds


def _exact(differences: Floats, limit: float) -> float:
    nonzero = differences[differences != 0]
    flips = np.arange(1 << len(nonzero))[:, None] >> np.arange(len(nonzero)) & 1
    return float((np.abs((1.0 - 2.0 * flips) @ nonzero) >= limit).mean())


def _signs(queries: int, draws: int, seed: int) -> Iterator[Floats]:
    random = np.random.default_rng(seed)
    for rows in _rows(queries, draws):
        bits = np.unpackbits(random.integers(0, 256, (rows, -(-queries // 8)), np.uint8), axis=1, count=queries)
        yield 1.0 - 2.0 * bits.astype(np.float64)


def _rows(queries: int, draws: int) -> Iterator[int]:
    most = max(1, _ENTRIES // max(1, queries))
    for start in range(0, draws, most):
        yield min(most, draws - start)


def mean_intervals(values: Mapping[str, Floats], *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the means of each measure."""
    ends = intervals(np.stack(list(values.values()), axis=1), seed=seed)
    return {measure: (float(low), float(high)) for measure, (low, high) in zip(values, ends, strict=True)}


def compare_all(
    systems: Sequence[tuple[str, Mapping[str, Floats]]],
    measures: Sequence[str],
    *,
    dataset: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> list[PairedComparison]:
    """Compare every two systems on every measure: the later one in the list against the earlier one.

    :param systems: Names, and measure -> ``[queries]``.
    """
    pairs = list(combinations(systems, 2))
    if not pairs:
        return []
    tests = [(measure, before, after) for measure in measures for before, after in pairs]
    differences = np.stack([after[1][measure] - before[1][measure] for measure, before, after in tests], axis=1)
    differences[np.abs(differences) < SAME] = 0.0
    p = permutation_p(differences, draws=draws, seed=seed)
    corrected = np.concatenate([holm(row) for row in p.reshape(len(measures), len(pairs))])
    ends = intervals(differences, seed=seed)
    return [
        PairedComparison(
            before=before[0],
            after=after[0],
            measure=measure,
            queries=len(d),
            means=(float(before[1][measure].mean()), float(after[1][measure].mean())),
            difference=float(d.mean()),
            interval=(float(ends[i, 0]), float(ends[i, 1])),
            deviation=float(d.std(ddof=1)) if len(d) > 1 else 0.0,
            p=float(p[i]),
            p_corrected=float(corrected[i]),
            won=int((d > 0).sum()),
            lost=int((d < 0).sum()),
            tied=int((d == 0).sum()),
            dataset=dataset,
        )
        for i, ((measure, before, after), d) in enumerate(zip(tests, differences.T, strict=True))
    ]
