"""Mining on a corpus whose ranking is plain to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossrank.data.bm25 import Bm25
from crossrank.data.judgements import Judgement, grouped
from crossrank.errors import InputError
from crossrank.training.negatives import Mining, mine

CORPUS = [f"document {i}" for i in range(20)]
# Document 0 is on top, 19 at the end.
SCORES = np.linspace(20, 1, 20)
GROUPS = grouped([Judgement("q", "document 2", 1), Judgement("q", "document 5", 0), Judgement("lost", "document 1", 0)])


def mined(**settings: Any) -> tuple[list[str], Any]:
    made, report = mine(GROUPS, CORPUS, [lambda query: SCORES], Mining(**settings))
    [one] = made
    assert (one.query, one.positives) == ("q", ["document 2"])
    assert one.negatives[0] == "document 5", "what was judged stays"
    return one.negatives[1:], report


def test_window_and_margin() -> None:
    # Not judged, from the top: 0, 1, 3, 4, 6, 7, ... The third to the sixth of them: 3, 4, 6, 7.
    # The positive has 18, so that a margin of 0.9 lets through what has at most 16.2: from 4 (16) on.
    found, report = mined(first=3, last=6, margin=0.9, count=3)
    assert found == ["document 4", "document 6", "document 7"]
    assert (report.too_near, report.beyond, report.fewer, report.without_positive, report.queries) == (1, 0, 0, 1, 2)
    # Too few in the window: the next below it.
    found, report = mined(first=3, last=6, margin=0.9, count=5)
    assert found == ["document 4", "document 6", "document 7", "document 8", "document 9"]
    assert report.beyond == 2
    found, report = mined(first=3, last=6, margin=0.9, count=50)
    assert (len(found), report.fewer) == (15, 1)
    found, report = mined(first=1, last=3, margin=float("inf"), count=3)
    assert (found, report.too_near) == (["document 0", "document 1", "document 3"], 0)


def test_count_is_drawn_from_the_window_by_the_seed() -> None:
    first = [mined(first=1, last=15, margin=0.95, count=3, seed=seed)[0] for seed in range(5)]
    assert all(len(set(found)) == 3 for found in first)
    assert len({tuple(found) for found in first}) > 1
    assert mined(first=1, last=15, margin=0.95, count=3, seed=4)[0] == first[4]
    allowed = {f"document {i}" for i in range(3, 20)} - {"document 5"}
    assert all(set(found) <= allowed for found in first)


def test_a_cross_encoder_has_a_say() -> None:
    def logits(pairs: list[tuple[str, str]]) -> Any:
        return np.array(
            [4.0 if text in ("document 2", "document 6") else 3.5 if text == "document 7" else 0 for _, text in pairs]
        )

    made, report = mine(
        GROUPS, CORPUS, [lambda query: SCORES], Mining(first=3, last=6, margin=0.9, count=3), logits_of=logits
    )
    assert made[0].negatives == ["document 5", "document 4"]
    assert report.filtered == 2


def test_the_same_query_in_other_letters_protects_its_documents() -> None:
    groups = grouped([Judgement("q", "document 2", 1), Judgement(" Q ", "document 9", 1)])
    made, _ = mine(groups, CORPUS, [lambda query: SCORES], Mining(first=1, last=19, count=19))
    assert all("document 9" not in one.negatives and "document 2" not in one.negatives for one in made)


def test_bm25_finds_what_shares_rare_words() -> None:
    corpus = ["the wing of an aircraft", "wing flutter at supersonic speed", "boiling an egg", "the egg of a hen"]
    ranker = Bm25(corpus).scores
    assert np.argmax(ranker("supersonic flutter")) == 1
    groups = grouped([Judgement("aircraft wing", corpus[0], 1)])
    made, _ = mine(groups, corpus, [ranker], Mining(first=1, last=3, margin=1))
    assert made[0].negatives == [corpus[1]]


def test_a_bi_encoder_ranks_by_meaning() -> None:
    from bodies import minilm
    from crossrank.scoring.bi_encoder import BiEncoder
    from crossrank.training.negatives import bi_encoder_ranker

    corpus = ["How to cook rice", "Preparing a bowl of steamed grains", "The speed of sound"]
    ranker = bi_encoder_ranker(BiEncoder(minilm()), corpus, ["boiling rice"])
    assert list(np.argsort(-ranker("boiling rice"))) == [0, 1, 2]


@pytest.mark.parametrize(
    "wrong", [{"method": "luck"}, {"first": 9, "last": 3}, {"count": 0}, {"margin": 95}, {"margin": float("nan")}]
)
def test_settings_of_no_use(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Mining(**wrong)
