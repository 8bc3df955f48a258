"""Calibration and thresholds on data whose true curve is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.evaluation.calibration.curves import fit, quality, reliability
from crossrank.evaluation.calibration.threshold import lower_bound, threshold_for

Floats = NDArray[np.float64]


def logistic(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-(0.6 * z - 1.5)))


def bent(z: Floats) -> Floats:
    """A curve that no sigmoid of a line follows."""
    return np.where(z < 0, 0.1, np.minimum(0.9, 0.1 + 0.35 * z))


def drawn(
    seed: int, pairs: int, curve: Callable[[Floats], Floats]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    z = random.normal(0, 3, pairs)
    return z, random.random(pairs) < curve(z), np.arange(pairs) // 20


@pytest.mark.parametrize(("curve", "method"), [(logistic, "platt"), (bent, "isotonic")])
def test_fresh_data_is_well_calibrated(curve: Callable[[Floats], Floats], method: str) -> None:
    fitted = fit(*drawn(0, 10_000, curve))
    assert min(fitted.log_losses, key=fitted.log_losses.__getitem__) == method
    z, y, _ = drawn(1, 50_000, curve)
    probabilities = fitted.curve.apply(z)
    assert quality(probabilities, y).ece < 0.02
    assert quality(1 / (1 + np.exp(-z)), y).ece > 0.1
    assert fitted.after.ece < 0.02 < fitted.before.ece
    assert np.abs(probabilities - curve(z)).mean() < 0.02


def test_platt_finds_the_curve_and_isotonic_is_scikit_learns() -> None:
    from sklearn.isotonic import IsotonicRegression

    z, y, q = drawn(2, 20_000, logistic)
    platt = fit(z, y, q, method="platt").curve
    assert platt.slope == pytest.approx(0.6, abs=0.03)  # type: ignore[union-attr]
    assert platt.intercept == pytest.approx(-1.5, abs=0.06)  # type: ignore[union-attr]
    fresh = np.linspace(-15, 15, 1001)
    theirs = IsotonicRegression(y_min=1e-4, y_max=1 - 1e-4, out_of_bounds="clip").fit(z, y)
    assert np.abs(fit(z, y, q, method="isotonic").curve.apply(fresh) - theirs.predict(fresh)).max() < 1e-3


def test_platt_is_scikit_learns_own_calibration() -> None:
    from sklearn.calibration import _SigmoidCalibration

    z, y, q = drawn(3, 2_000, logistic)
    theirs = _SigmoidCalibration().fit(z, y.astype(float))
    fresh = np.linspace(-10, 10, 101)
    assert np.abs(fit(z, y, q, method="platt").curve.apply(fresh) - theirs.predict(fresh)).max() < 1e-4


def test_isotonic_keeps_the_order_of_scores() -> None:
    z, y, q = drawn(4, 5_000, bent)
    inside = np.unique(z)
    assert (np.diff(fit(z, y, q, method="isotonic").curve.apply(inside)) > 0).all()


def test_quality_by_hand() -> None:
    p, y = np.array([0.1, 0.1, 0.9, 0.7]), np.array([False, True, True, True])
    found = quality(p, y)
    # Bins: (.1, .1) with half of them relevant, .7 and .9 alone.
    assert found.ece == pytest.approx((2 * 0.4 + 0.3 + 0.1) / 4)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.09) / 4)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.1, 0.9, 0.7]).mean())
    assert [(point.pairs, point.observed) for point in reliability(p, y)] == [(2, 0.5), (1, 1.0), (1, 1.0)]


def test_bound_against_scipy() -> None:
    from scipy.stats import binomtest

    for hits, pairs in ((1, 10), (9, 10), (10, 10), (450, 500)):
        interval = binomtest(hits, pairs, alternative="greater").proportion_ci(0.95, "exact")
        assert lower_bound(hits, pairs, 0.05) == pytest.approx(interval.low)
    assert lower_bound(0, 10, 0.05) == 0


@pytest.mark.parametrize("target", [0.6, 0.75])
def test_stated_precision_holds_on_fresh_data(target: float) -> None:
    fresh, relevant, _ = drawn(999, 400_000, logistic)
    kept = []
    for seed in range(100):
        z, y, _ = drawn(seed, 6_000, logistic)
        threshold = threshold_for(z, y, target_precision=target)
        kept.append(relevant[fresh >= threshold.score].mean() >= target)
        assert threshold.bound >= target
        assert threshold.pairs == (z >= threshold.score).sum()
        assert threshold.observed == pytest.approx(y[z >= threshold.score].mean())
    assert sum(kept) >= 90


def test_stated_recall_holds_on_fresh_data() -> None:
    fresh, relevant, _ = drawn(999, 400_000, logistic)
    recalls = []
    for seed in range(100):
        z, y, _ = drawn(seed, 1_000, logistic)
        threshold = threshold_for(z, y, target_recall=0.9)
        recalls.append((fresh[relevant] >= threshold.score).mean())
        assert threshold.pairs == y.sum()
    assert sum(recall >= 0.9 for recall in recalls) >= 90
    assert np.mean(recalls) < 0.95  # it does not keep all to be on the safe side


def clustered(seed: int, queries: int) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Queries of which some are easy and some are hard: the pairs of one are alike."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 3, (queries, 20))
    ease = random.normal(0, 2, (queries, 1))
    return (
        z.ravel(),
        (random.random((queries, 20)) < logistic(1.5 * z + 2 * ease)).ravel(),
        np.arange(queries * 20) // 20,
    )


def all_or_nothing(random: np.random.Generator, queries: int, precision: float) -> Floats:
    """Each query has 20 pairs, all relevant or none: 20 pairs tell no more than one."""
    return (random.random(queries) < precision).astype(float)


def beta_binomial(random: np.random.Generator, queries: int, precision: float) -> Floats:
    """Queries have precisions of their own; two pairs of one query correlate by a third."""
    return random.beta(2 * precision, 2 * (1 - precision), queries)


@pytest.mark.parametrize("queries", [20, 100, 300])
@pytest.mark.parametrize("kind", [all_or_nothing, beta_binomial])
def test_the_promise_holds_for_pairs_that_depend_on_their_query(kind: Callable[..., Floats], queries: int) -> None:
    """The true precision is just below the target at every threshold, so every threshold that is granted is wrong."""
    wrong = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        share = kind(random, queries, 0.79)
        groups = np.repeat(np.arange(queries), 20)
        labels = random.random(len(groups)) < share[groups]
        with contextlib.suppress(InputError):
            threshold_for(random.normal(size=len(groups)), labels, target_precision=0.8, queries=groups)
            wrong += 1
    assert wrong <= 18  # with a chance of .05 each, more than 18 of 200 come once in 100 runs


def test_one_query_promises_nothing() -> None:
    with pytest.raises(InputError, match=r"53 \(which count as 1\) judged pairs are too few.*each of another query"):
        threshold_for(np.arange(53.0), np.ones(53), target_precision=0.9, queries=np.zeros(53))
    with pytest.raises(InputError, match=r"53 \(which count as 1\) relevant pairs are too few.*of other queries"):
        threshold_for(np.arange(53.0), np.ones(53), target_recall=0.9, queries=np.zeros(53))


def test_much_data_of_dependent_pairs_still_gives_a_threshold() -> None:
    random = np.random.default_rng(0)
    share = beta_binomial(random, 300, 0.9)
    groups = np.repeat(np.arange(300), 20)
    labels = random.random(6000) < share[groups]
    assert threshold_for(random.normal(size=6000), labels, target_precision=0.8, queries=groups).bound >= 0.8


def test_relevant_pairs_of_one_query_cannot_be_checked_on_others() -> None:
    groups = np.repeat(np.arange(10), 25)
    with pytest.raises(InputError, match="All relevant pairs are of one query"):
        fit(np.where(groups == 0, 5.0, -5.0), groups == 0, groups)
    # Of two queries they can: both are never held out at once.
    fit(np.where(groups < 2, 5.0, -5.0) + np.linspace(0, 1, 250), groups < 2, groups)


def test_pairs_of_one_query_count_less() -> None:
    fresh, relevant, _ = clustered(999, 20_000)
    held, fewer = 0, 0
    for seed in range(100):
        z, y, q = clustered(seed, 250)
        threshold = threshold_for(z, y, target_precision=0.7, queries=q)
        held += relevant[fresh >= threshold.score].mean() >= 0.7
        fewer += threshold.effective_pairs < threshold.pairs
    assert held >= 90
    assert fewer >= 90


def test_too_few_pairs_say_how_many_more() -> None:
    z, y, q = drawn(0, 20, logistic)
    # .9 ** 29 is the first power of .9 below .05.
    with pytest.raises(InputError, match=r"29 would be needed\. Judge at least 9 more"):
        threshold_for(z, y, target_precision=0.9)
    with pytest.raises(InputError, match=rf"59 are needed.*{59 - y.sum()} more relevant"):
        threshold_for(z, y, target_recall=0.95)
    z, y, q = drawn(0, 150, logistic)
    with pytest.raises(InputError, match=r"about \d+ more judged pairs are needed"):
        threshold_for(z, y, target_precision=0.8)
    flat = np.random.default_rng(0).random(5000) < 0.3
    with pytest.raises(InputError, match=r"No threshold reaches a precision of 0\.9"):
        threshold_for(np.arange(5000.0), flat, target_precision=0.9)
    with pytest.raises(InputError, match=r"relevant judged pairs are too few.*Judge \d+ more"):
        fit(z[:40], np.arange(40) < 19, q[:40])
    with pytest.raises(InputError, match="Judged pairs of 2 queries are too few"):
        fit(*(part[:40] for part in (np.arange(150.0), np.arange(150) % 2, np.arange(150) // 20)))


def test_bad_input() -> None:
    z, y, q = drawn(0, 200, logistic)
    with pytest.raises(InputError, match="one of target_precision and target_recall"):
        threshold_for(z, y)
    with pytest.raises(InputError, match="between 0 and 1"):
        threshold_for(z, y, target_precision=1.0)
    with pytest.raises(InputError, match="the same length"):
        threshold_for(z, y[1:], target_recall=0.9)
    with pytest.raises(InputError, match=r"scores\[3\] is not finite"):
        threshold_for(np.where(np.arange(200) == 3, np.nan, z), y, target_recall=0.9)
    with pytest.raises(InputError, match="score no higher"):
        fit(-z, y, q, method="platt")
