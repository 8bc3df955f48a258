"""From figures to a decision: by hand, and against scipy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from crossrank.errors import InputError
from crossrank.evaluation.result import PairedComparison
from crossrank.training.decision import (
    Criteria,
    Decision,
    compare_models,
    detectable,
    fewest_queries,
    judge,
    queries_needed,
)

CRITERIA = Criteria()


def made(difference: float, deviation: float, queries: int, seed: int = 0) -> PairedComparison:
    """Compare models whose differences have exactly this mean and deviation."""
    drawn = np.random.default_rng(seed).normal(size=queries)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1) * deviation + difference
    return compare_models("data", np.full(queries, 0.5), 0.5 + drawn, CRITERIA)


def test_figures_by_hand() -> None:
    found = compare_models("d", np.array([0.0, 0.5, 1.0, 0.5]), np.array([1.0, 0.5, 0.5, 1.0]), CRITERIA)
    assert (*found.means, found.difference) == (0.5, 0.75, 0.25)
    assert (found.won, found.lost, found.tied) == (2, 1, 1)
    # 8 ways to flip 1, 0.5 and 0.5: sums of 2, 1 (twice), 0 and their negatives; 6 are as far from 0 as 1 is.
    assert found.p == 6 / 8
    assert found.deviation == pytest.approx(np.std([1, 0, -0.5, 0.5], ddof=1))


def test_weights_say_how_much_a_query_counts() -> None:
    before, after = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    found = compare_models("d", before, after, CRITERIA, np.array([3.0, 1.0]))
    assert found.difference == pytest.approx(0.5)
    assert found.means == (0.25, 0.75)


def test_needed_queries_have_the_power_that_is_said() -> None:
    found = made(0.02, 0.1, 60)
    needed = queries_needed(found, CRITERIA)
    # (1.959964 + 0.841621) ** 2 * 25
    assert needed == 197
    draws = np.random.default_rng(1).normal(0.02, 0.1, (4000, needed))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)
    draws = np.random.default_rng(2).normal(detectable(found, CRITERIA), 0.1, (4000, 60))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 6), (0.0625, 6), (0.01, 8)])
def test_the_fewest_queries_that_can_tell(alpha: float, fewest: int) -> None:
    def least_p(queries: int) -> float:
        return compare_models("d", np.zeros(queries), np.full(queries, 0.1), CRITERIA).p

    assert fewest_queries(alpha) == fewest
    assert least_p(fewest) < alpha <= least_p(fewest - 1)


def test_better_and_general_ability_kept() -> None:
    promoted, reasons, needed = judge(made(0.05, 0.1, 100), made(-0.001, 0.03, 300), CRITERIA)
    assert promoted
    assert needed is None
    assert [reason.partition(":")[0] for reason in reasons] == ["Better", "General ability is kept"]


@pytest.mark.parametrize(
    ("data", "guard", "said"),
    [
        ((-0.05, 0.1), (0.0, 0.01), "Worse"),
        ((-0.001, 0.1), (0.0, 0.01), "Not better"),
        ((0.01, 0.1), (0.0, 0.01), "Too few queries to decide"),
        ((0.05, 0.1), (-0.05, 0.1), "General ability is lost"),
        # Nobody knows, and so it is not promoted.
        ((0.05, 0.1), (0.0, 0.4), "General ability may be lost"),
    ],
)
def test_not_promoted(data: tuple[float, float], guard: tuple[float, float], said: str) -> None:
    promoted, reasons, needed = judge(made(*data, 100), made(*guard, 300), CRITERIA)
    assert not promoted
    assert any(reason.startswith(said) for reason in reasons)
    assert (needed is not None) == (said == "Too few queries to decide")


def test_the_same_ranking_is_not_better() -> None:
    promoted, [reason], _ = judge(compare_models("d", np.ones(9), np.ones(9), CRITERIA), None, CRITERIA)
    assert not promoted
    assert "no query of 9" in reason


def test_an_equal_candidate_passes_as_seldom_as_is_said() -> None:
    random = np.random.default_rng(0)
    tried = [
        judge(compare_models("d", np.zeros(40), random.normal(0, 0.2, 40), CRITERIA), None, CRITERIA)[0]
        for _ in range(400)
    ]
    # One in forty: half of alpha, for of those that differ by chance half are worse.
    assert 1 <= sum(tried) <= 22  # the 0.1 % and 99.9 % points of a binomial of 400 tries


def test_criteria_out_of_range() -> None:
    with pytest.raises(InputError, match=r"alpha=0\.9 is outside 1e-09 to 0\.5"):
        Criteria(alpha=0.9)


def test_the_decision_as_a_file(tmp_path: Path) -> None:
    data = made(0.05, 0.1, 100)
    decision = Decision(True, ("Better.",), data, None, None, 0.1, CRITERIA, {"name": "é"}, {}, "now")
    decision.write(tmp_path / "new" / "d.json")
    told = json.loads((tmp_path / "new" / "d.json").read_text())
    assert told["promoted"] is True
    assert told["data"]["difference"] == data.difference
    assert told["criteria"]["margin"] == CRITERIA.margin
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["d.json"]
