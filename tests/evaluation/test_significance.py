"""Permutation test, Holm and bootstrap against scipy, exact enumeration by hand, and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from crossrank.evaluation.significance import compare_all, holm, intervals, permutation_p


def scipys(differences: np.ndarray, **settings: object) -> float:
    found = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        vectorized=True,
        **settings,
    )
    return float(found.pvalue)


@pytest.mark.parametrize("seed", range(8))
def test_equals_scipys_exact_test_on_few_queries(seed):
    random = np.random.default_rng(seed)
    differences = random.normal(0.3, 1, 4 + seed)
    # Both go through all sign flips.
    assert permutation_p(differences[:, None])[0] == pytest.approx(scipys(differences, n_resamples=np.inf), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scipys_drawn_test_on_many_queries(seed):
    random = np.random.default_rng(seed)
    differences = random.normal(0.15, 1, 100)
    ours = permutation_p(differences[:, None], draws=20_000, seed=seed)[0]
    theirs = scipys(differences, n_resamples=20_000, rng=seed)
    # Each is within about three standard errors of the true one.
    assert ours == pytest.approx(theirs, abs=3 * np.sqrt(2 * theirs * (1 - theirs) / 20_000) + 1e-4)


def test_by_hand():
    # Of the eight sign flips of (1, 2, 3) only +++ and --- reach a sum of 6: p = 2/8.
    assert permutation_p(np.array([[1.0], [2.0], [3.0]]))[0] == 0.25
    # (1, -1): all of the sums 2, 0, 0, -2 are at least 0.
    assert permutation_p(np.array([[1.0], [-1.0]]))[0] == 1.0
    # Without a difference there is nothing to find.
    assert permutation_p(np.zeros((30, 1)))[0] == 1.0


def test_zeros_change_nothing_where_all_flips_are_gone_through():
    some = np.array([0.5, 0.25, -0.125, 1.0])
    assert permutation_p(np.concatenate([some, np.zeros(50)])[:, None])[0] == permutation_p(some[:, None])[0]


def test_several_tests_at_once_are_each_as_alone():
    random = np.random.default_rng(0)
    differences = random.normal(0.1, 1, (60, 3))
    together = permutation_p(differences, seed=5)
    assert together.tolist() == [permutation_p(differences[:, [i]], seed=5)[0] for i in range(3)]


def test_no_effect_is_found_five_times_in_a_hundred():
    random = np.random.default_rng(1)
    found = permutation_p(random.normal(0, 1, (40, 1000)), draws=2000)
    assert 0.03 < (found < 0.05).mean() < 0.07


def test_all_flips_by_brute_force():
    differences = np.array([0.3, -0.1, 0.25, 0.4, 0.05])
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=5)]
    expected = np.mean([s >= abs(differences.sum()) - 1e-12 for s in sums])
    assert permutation_p(differences[:, None])[0] == expected


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 become .04 .06 .06 .06: times 4, 3, 2, 1, and never falling.
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).tolist() == []


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    random = np.random.default_rng(2)
    ends = intervals(random.beta(2, 3, (80, 400)), resamples=1000)
    assert 0.91 < ((ends[:, 0] <= 0.4) & (ends[:, 1] >= 0.4)).mean() < 0.98


def test_intervals_agree_with_scipys_percentile_bootstrap():
    values = np.random.default_rng(3).beta(2, 5, 200)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert intervals(values[:, None], resamples=4000)[0] == pytest.approx([theirs.low, theirs.high], abs=0.003)


def test_an_interval_without_0_and_a_large_p_are_explained():
    def doubt(differences, others=0):
        values = [("a", {"M": np.zeros(len(differences))}), ("b", {"M": np.array(differences)})]
        values += [(f"c{i}", {"M": np.array(differences)}) for i in range(others)]
        return compare_all(values, ["M"])[0].doubt

    # Four wins and no loss: of 16 ways to turn the signs two are as extreme, so p is .125.
    assert doubt([0.4, 0.5, 0.45, 0.5] + [0.0] * 4).startswith("Only 4 queries differ, so p can't be below 0.125")
    assert "Before the correction for several comparisons p was 0.0" in doubt([0.1] * 6 + [0.0] * 6, others=2)
    assert doubt([0.1, -0.1] * 8) == ""
    assert doubt([0.1, 0.2] * 10) == ""
