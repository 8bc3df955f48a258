"""Each warning with a made case that shows it and one that does not; the depth curve with planted shapes."""

from __future__ import annotations

import numpy as np
import pytest

from crossrank.evaluation.depth import depth_curve, depths_up_to
from crossrank.evaluation.findings import findings
from crossrank.evaluation.result import System
from crossrank.evaluation.significance import compare_all

QUERIES = 60


def system(name: str, values: np.ndarray, **facts: int) -> System:
    return System(name, "cross-encoder", {"nDCG@10": values}, {"nDCG@10": (0.0, 1.0)}, {}, **{"pairs": 1000, **facts})


def codes(gain: np.ndarray, *, scores=None, relevant=None, probabilities=True, **facts: int) -> list[str]:
    random = np.random.default_rng(0)
    before = np.full(len(gain), 0.4)
    first, after = system("BM25", before), system("model", before + gain, **facts)
    [comparison] = compare_all([("BM25", first.values), ("model", after.values)], ["nDCG@10"])
    if relevant is None:
        relevant = np.arange(1000) < 100
    if scores is None:  # the relevant ones high, the others low
        scores = np.where(relevant, random.uniform(0.4, 0.95, 1000), random.uniform(0.0, 0.5, 1000))
    return [f.code for f in findings(after, first, comparison, scores, relevant, probabilities=probabilities)]


BETTER = np.random.default_rng(1).normal(0.1, 0.05, QUERIES)


def test_nothing_to_say_of_a_good_model():
    assert codes(BETTER) == []


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (np.tile([0.1, -0.1], 30), ["no-gain"]),
        (np.zeros(QUERIES), ["no-gain"]),
        (-BETTER, ["worse"]),
    ],
)
def test_not_better_than_the_first_stage(gain, expected):
    assert codes(gain) == expected


def test_scores_at_the_ends_of_the_scale():
    relevant = np.arange(1000) < 100
    spread = np.random.default_rng(2).uniform(0, 1, 1000)
    at_one = np.where(np.arange(1000) % 10 < 8, 0.999, spread)
    at_zero = np.where(np.arange(1000) % 10 < 8, 0.001, spread)
    # Of irrelevant documents, most near 0 is as it should be.
    good = np.where(relevant, 0.5 + spread / 2.1, 0.001)
    found = [codes(BETTER, scores=one, relevant=relevant) for one in (at_one, at_zero, good)]
    assert found == [["scores-pile-up"], ["scores-pile-up"], []]


def test_scores_in_a_narrow_band():
    band = 0.5 + 0.01 * np.random.default_rng(3).uniform(-1, 1, 1000)
    assert codes(BETTER, scores=band) == ["narrow-band"]
    assert codes(BETTER, scores=band, probabilities=False) == ["narrow-band"]
    assert codes(BETTER, scores=100 * band, probabilities=False) == []


def test_many_cut_and_many_ties():
    assert codes(BETTER, pairs_cut=300, ties=200) == ["many-cut", "many-ties"]
    assert codes(BETTER, pairs_cut=50, ties=20) == []


def test_a_few_queries_make_all_of_the_gain():
    few = np.where(np.arange(QUERIES) < 3, 0.6, -0.005)
    assert "few-queries" in codes(few)
    assert "few-queries" not in codes(BETTER)


# ---- depth


def curve(means: list[float], *, noise: float = 0.02, first: float = 0.4):
    random = np.random.default_rng(4)
    own = random.normal(0, 0.1, 200)
    values = np.array([mean + own + random.normal(0, noise, 200) for mean in means])
    depths = depths_up_to(100)
    return depth_curve("model", "nDCG@10", depths, values, first + own, [d * 0.5 for d in depths])


def test_depths():
    assert depths_up_to(100) == [5, 10, 20, 50, 100]
    assert depths_up_to(30) == [5, 10, 20, 30]
    assert depths_up_to(3) == [3]
    assert depths_up_to(0) == []


def test_more_candidates_stop_helping():
    found = curve([0.5, 0.6, 0.7, 0.7, 0.7])
    assert (found.best, found.harmful_after) == (20, None)
    assert "Re-rank the first 20" in found.advice
    assert "20% of the time" in found.advice
    assert [point.milliseconds for point in found.points] == [2.5, 5, 10, 25, 50]


def test_more_candidates_hurt():
    found = curve([0.5, 0.7, 0.65, 0.6, 0.55])
    assert (found.best, found.harmful_after) == (10, 10)
    assert "More than 10 makes it worse" in found.advice


def test_more_candidates_always_help():
    found = curve([0.45, 0.5, 0.55, 0.6, 0.65])
    assert (found.best, found.harmful_after) == (100, None)
    assert "may help further" in found.advice


def test_re_ranking_brings_nothing():
    found = curve([0.39, 0.38, 0.37, 0.36, 0.35])
    assert "At no depth" in found.advice
    assert found.harmful_after == 5


def test_too_few_queries_to_tell_the_depths_apart_is_said():
    swings = np.tile([0.3, -0.3], 6)
    values = np.array([0.45 + swings, *np.full((4, 12), 0.5)])
    found = depth_curve("model", "nDCG@10", depths_up_to(100), values, np.full(12, 0.2), [1, 2, 3, 4, 5])
    assert found.best == 5
    assert "favour a larger depth" in found.advice
    assert "favour a larger depth" not in curve([0.5, 0.6, 0.7, 0.7, 0.7]).advice
