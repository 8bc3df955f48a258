from __future__ import annotations

import numpy as np
import pytest

from crossrank.errors import StageError
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.judge.modes import sliding_windows
from crossrank.ranking.stage import Context
from judged import DOCUMENTS, judge
from service import Asked, Reply, document_of, ranked, said, serving


def test_windows_go_from_the_back_to_the_very_front():
    assert sliding_windows(25, 20, 10) == [(5, 25), (0, 15)]
    assert sliding_windows(20, 20, 10) == [(0, 20)]
    assert sliding_windows(3, 20, 10) == [(0, 3)]
    assert sliding_windows(40, 20, 10) == [(20, 40), (10, 30), (0, 20)]
    assert sliding_windows(0, 20, 10) == []


def by_number(asked: Asked) -> Reply:
    """Puts documents that are numbers in descending order."""
    return ranked(sorted(asked.ids, key=lambda identity: -int(document_of(asked, identity))))


def test_the_best_climb_from_window_to_window():
    numbers = [str((7 * i) % 41) for i in range(41)]
    with serving(by_number) as service:
        scores = judge(service, mode="listwise", window=8, step=4).score("q", numbers)
    assert (scores.kind, scores.degraded) == ("rank", None)
    order = np.argsort(-scores.scores)
    # The best window - step are in their right places after one pass: 4 of each window move on.
    assert [numbers[row] for row in order[:4]] == ["40", "39", "38", "37"]
    assert sorted(scores.scores, reverse=True) == [1 / rank for rank in range(1, 42)]
    assert len(service.asked) == len(sliding_windows(41, 8, 4))
    assert [detail["rank"] for detail in scores.details] == np.argsort(order).__add__(1).tolist()


def test_an_empty_selection_is_an_answer():
    with serving([ranked([])]) as service:
        scores = judge(service, mode="listwise").score("q", DOCUMENTS)
    assert len(service.asked) == 1
    assert scores.degraded is None
    assert scores.scores.tolist() == [1, 1 / 2, 1 / 3]
    assert [detail["named"] for detail in scores.details] == [False] * 3
    assert any("found nothing relevant" in note for note in scores.notes)


def test_a_window_without_an_answer_keeps_its_order():
    def respond(asked):
        return said("hm") if asked.number < 2 else by_number(asked)

    with serving(respond) as service:
        asks = judge(service, mode="listwise", window=4, step=2, max_retries=1)
        scores = asks.score("q", [str(i) for i in range(6)])
    # 2..5 could not be judged; then 0..3 came as 3, 2, 1, 0.
    assert np.argsort(-scores.scores).tolist() == [3, 2, 1, 0, 4, 5]
    assert scores.degraded.startswith("1 of 2 windows could not be judged and keep their order: the answer could not")


def test_the_first_window_is_asked_for_when_time_gets_short():
    def respond(asked):
        reply = by_number(asked)
        reply.delay = 0.4
        return reply

    with serving(respond) as service:
        asks = judge(service, mode="listwise", window=4, step=2)
        asks.warm_up()
        scores = asks.score("q", [str(i) for i in range(30)], Context(deadline=Deadline(1.5)))
    order = np.argsort(-scores.scores).tolist()
    # The last window and the first one; between them as many of those before the first as there was time for.
    assert 2 <= len(service.asked) <= 4
    assert {"0", "1"} <= {document_of(service.asked[-1], identity) for identity in service.asked[-1].ids}
    assert order[0] > 2
    assert order[-4:] == [29, 28, 27, 26]
    assert "there was no time left" in scores.degraded
    assert sorted(order) == list(range(30))


def test_all_windows_failed_is_an_error():
    with serving([said("hm")]) as service, pytest.raises(StageError, match="judged nothing"):
        judge(service, mode="listwise", window=4, step=2, max_retries=0).score("q", DOCUMENTS * 3)
    assert len(service.asked) == 4
