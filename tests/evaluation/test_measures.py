"""Measures against values calculated by hand."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from crossrank.errors import InputError
from crossrank.evaluation.measures import DEFAULT, display_name, parse, per_query

QRELS = {"q1": {"a": 3, "b": 1, "missing": 2}, "q2": {"x": 1}, "q3": {"y": 1}}
RANKINGS = [["c", "a", "b"], [], ["z", "w", "v", "y"]]


def values(*names: str) -> dict[str, np.ndarray]:
    return per_query(parse(names), QRELS, RANKINGS.__getitem__)


def test_by_hand():
    found = values(*DEFAULT)
    best = 3 + 2 / log2(3) + 1 / log2(4)
    assert found["nDCG@10"] == pytest.approx([(3 / log2(3) + 1 / log2(4)) / best, 0, 1 / log2(5)])
    assert found["RR@10"] == pytest.approx([1 / 2, 0, 1 / 4])
    assert found["Success@1"].tolist() == [0, 0, 0]
    assert found["Success@3"].tolist() == [1, 0, 0]
    assert found["Success@10"].tolist() == [1, 0, 1]
    # The document that is in no ranking counts as missed.
    assert found["AP"] == pytest.approx([(1 / 2 + 2 / 3) / 3, 0, 1 / 4])
    assert found["R@100"] == pytest.approx([2 / 3, 0, 1])


def test_a_query_with_nothing_ranked_counts_0():
    assert all(one[1] == 0 for one in values(*DEFAULT).values())


def test_only_what_is_looked_at_is_handed_over_and_nothing_changes():
    assert values("P@2")["P@2"].tolist() == values("P@2", "AP")["P@2"].tolist() == [0.5, 0, 0]


def test_other_names():
    assert list(map(str, parse(["MRR@10", "Hit@1", "MAP", "Recall@5", "Hit@1"]))) == ["RR@10", "Success@1", "AP", "R@5"]
    assert [display_name(name) for name in ("RR@10", "Success@3", "AP", "R@100", "nDCG@10")] == [
        "MRR@10",
        "Hit@3",
        "MAP",
        "Recall@100",
        "nDCG@10",
    ]


@pytest.mark.parametrize("name", ["Hits@1", "nDCG@ten", "", "nDCG("])
def test_a_measure_that_is_none_is_named(name):
    with pytest.raises(InputError, match="is not a measure"):
        parse([name])


def test_many_queries_keep_their_order():
    qrels = {f"q{i}": {"d": 1} for i in range(1000)}
    found = per_query(parse(["RR"]), qrels, lambda i: [*(f"n{j}" for j in range(i % 7)), "d"])
    assert found["RR"] == pytest.approx([1 / (i % 7 + 1) for i in range(1000)])


def test_tools_that_read_only_numbers_measure_any_identifier():
    # gdeval, whose queries are digits: ERR of a grade 2 of at most 4 at rank 2 is (2^2 - 1) / 2^4 / 2.
    [found] = per_query(parse(["ERR@10"]), {"frage 1 \ud800": {"das da": 2}}, lambda _: ["no", "das da"]).values()
    assert found.tolist() == pytest.approx([3 / 16 / 2], abs=1e-5)
