"""The result against its base: the figures of each part, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from crossrank.data.judgements import Group, Judgement
from crossrank.training.held_out import HeldOutComparison, Scorer, compare_held_out

# nDCG@10 of one relevant document at the second place.
SECOND = 1 / math.log2(3)


def group(query: str, **labels: float) -> Group:
    return Group(query, tuple(Judgement(query, document, label) for document, label in labels.items()))


def scorer(**scores: float) -> Scorer:
    """Score by document."""
    return lambda pairs: np.array([scores[document] for _, document in pairs])


GROUPS = [
    group("one", a=1.0, b=0.0),
    group("two", c=0.7, d=0.2),
    group("three", e=1.0, f=0.0),
    # It can't be ranked well or badly, so that it is in no part.
    group("four", g=1.0, h=1.0),
]
# The base has all relevant documents second, the result those of the first two queries first.
BASE = scorer(a=0, b=1, c=0, d=1, e=0, f=1, g=0, h=1)
RESULT = scorer(a=1, b=0, c=1, d=0, e=0, f=1, g=0, h=1)


def compared(*learnt: str) -> HeldOutComparison:
    return compare_held_out(GROUPS, result=RESULT, base=BASE, learnt=set(learnt))


def gains(found: HeldOutComparison) -> Mapping[str, tuple[int, float]]:
    return {name: (part.queries, pytest.approx(part.difference)) for name, part in found.parts.items()}


def test_gains_on_documents_that_were_relevant_in_training_are_reported_apart() -> None:
    # "two": a label of 0.7 against 0.2, the gain is not that of a single relevant document.
    ideal, other = 0.7 + 0.2 * SECOND, 0.2 + 0.7 * SECOND
    of_two = 1 - other / ideal
    assert gains(compared("a", "e")) == {"learnt": (2, (1 - SECOND) / 2), "new": (1, of_two)}
    assert gains(compared("c", "g")) == {"learnt": (1, of_two), "new": (2, (1 - SECOND) / 2)}


def test_a_document_that_is_not_relevant_for_the_query_is_no_memory() -> None:
    assert gains(compared("b", "d", "f")) == {"new": (3, compared().systems["base"].comparison.difference)}


def test_a_part_without_queries_is_not_there() -> None:
    assert set(compared("a", "c", "e").parts) == {"learnt"}


def test_the_parts_make_up_the_whole() -> None:
    found = compared("a")
    whole = sum(part.queries * part.difference for part in found.parts.values()) / found.queries
    assert whole == pytest.approx(found.systems["base"].comparison.difference)
    assert found.as_dict()["by_documents"]["learnt"]["queries"] == 1
