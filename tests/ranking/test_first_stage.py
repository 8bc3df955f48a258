"""First-stage scores in play: against the formulas worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import zscore

from crossrank import FirstStage, InputError, Reranker, StageError
from crossrank.ranking.testing import FixedScores

DOCUMENTS = [("a", 0.9), ("b", 0.5), ("c", 0.4)]
MODEL = {"a": 0.1, "b": 0.2, "c": 0.9}


def fused(stage: FirstStage, kind: str = "sigmoid", model: dict[str, float] = MODEL) -> dict[str, float | None]:
    ranking = Reranker([FixedScores(model, kind=kind), stage]).rank("q", DOCUMENTS)
    assert ranking.stages[-1].kind == "fused"
    return {ranked.text: ranked.score for ranked in ranking}


def test_reciprocal_ranks() -> None:
    # Places in the list: a 1, b 2, c 3. After the model: c 1, b 2, a 3.
    expected = {"c": 1 / 63 + 1 / 61, "a": 1 / 61 + 1 / 63, "b": 1 / 62 + 1 / 62}
    assert fused(FirstStage(fusion="reciprocal_rank")) == pytest.approx(expected)
    expected = {"a": 0.3 / 11 + 0.7 / 13, "b": 1 / 12, "c": 0.3 / 13 + 0.7 / 11}
    assert fused(FirstStage(0.3, fusion="reciprocal_rank", k=10)) == pytest.approx(expected)
    # What the model did not score gets nothing for it.
    assert fused(FirstStage(fusion="reciprocal_rank"), model={"c": 1.0})["a"] == pytest.approx(1 / 61)


def test_weighted_sums() -> None:
    first, model = np.array([0.9, 0.5, 0.4]), np.array([0.1, 0.2, 0.9])
    expected = 0.3 * zscore(first) + 0.7 * zscore(model)
    assert fused(FirstStage(0.3)) == pytest.approx(dict(zip("abc", expected, strict=True)))
    expected = 0.3 * (first + 1) / 2 + 0.7 * model
    assert fused(FirstStage(0.3, bounds=(-1, 1))) == pytest.approx(dict(zip("abc", expected, strict=True)))
    expected = 0.3 * (first - 0.4) / 0.5 + 0.7 * (model - 0.1) / 0.8
    assert fused(FirstStage(0.3, normalisation="min-max")) == pytest.approx(dict(zip("abc", expected, strict=True)))
    expected = 0.3 * first + 0.7 * model
    assert fused(FirstStage(0.3, normalisation="none")) == pytest.approx(dict(zip("abc", expected, strict=True)))
    assert list(fused(FirstStage(1.0))) == ["a", "b", "c"]
    assert list(fused(FirstStage(0.0))) == ["c", "b", "a"]


def test_in_front_it_passes_scores_on() -> None:
    model = FixedScores(MODEL)
    ranking = Reranker([FirstStage(keep=2, threshold=0.45), model]).rank("q", [*DOCUMENTS, ("d", 0.1)])
    assert model.calls == [("q", ["a", "b"])]
    assert ranking[0].scores == {"first-stage": 0.5, "fixed": 0.2}
    assert ranking[0].kinds == {"first-stage": "first_stage", "fixed": "fixed"}


def test_missing_scores() -> None:
    with pytest.raises(StageError, match="no document has a first-stage score"):
        Reranker(FirstStage()).rank("q", ["a", "b"])
    ranking = Reranker([FixedScores(lambda query, text: 1.0), FirstStage(0.5)]).rank("q", [("a", 0.5), "b", ("c", 0.2)])
    assert ranking[0].document == "a"
    assert ranking[1].score == ranking[2].score
    assert ranking.stages[-1].notes == ("1 documents have no first-stage score",)
    with pytest.raises(StageError, match="their kind is 'grade'"):
        fused(FirstStage(0.5, bounds=(0, 1)), kind="grade")
    # A document without a score of the model has no fused one, and stands behind.
    ranking = Reranker([FixedScores({"b": 1.0}), FirstStage(0.5)]).rank("q", DOCUMENTS)
    assert (ranking.documents, ranking.scored, ranking.degraded) == (["b", "a", "c"], 1, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight": 1.5}, "weight=1.5 is not a finite number from 0 to 1"),
        ({"fusion": "rrf"}, "fusion='rrf' is not known"),
        ({"normalisation": "softmax"}, "normalisation='softmax' is not known"),
        ({"normalisation": "bounds"}, "can't be combined"),
        ({"bounds": (1, 0)}, "not a pair"),
        ({"k": 0}, "k=0 is not a positive integer"),
        ({"keep": 0}, "keep=0"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FirstStage(**settings)
