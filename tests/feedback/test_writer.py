"""The thread that writes: what waits is bounded, and nothing holds it up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crossrank.feedback.store import Ranking, Store
from crossrank.feedback.writer import Writer


def ranking(name: str, text: str = "text", query: str = "query") -> Ranking:
    return Ranking(name, query, [{"text": text}], [0], [0.5])


def test_long_texts_don_t_fill_the_memory(tmp_path: Path, until: Callable[..., None]) -> None:
    store, told = Store(f"sqlite:///{tmp_path}/f.db"), []
    other = Store(store.name)
    with other.writing():  # a long backup, say
        writer = Writer(store, characters=10_000, tell=told.append)
        taken = [writer.offer(ranking(f"r{number}", "a" * 2995)) for number in range(6)]
        assert taken == [True] * 3 + [False] * 3
        assert writer.offer(ranking("short"))
        assert "dropped" in told[0]
    until(lambda: writer.queued == 0)
    # What was written makes room.
    assert all(writer.offer(ranking(f"later{number}", "a" * 2995)) for number in range(3))
    writer.close()
    names = [one.ranking.request_id for one in store.judged(all_rankings=True)]
    assert names == ["r0", "r1", "r2", "short", "later0", "later1", "later2"]


def test_a_ranking_that_can_not_be_written_is_dropped_alone(url: str, until: Callable[..., None]) -> None:
    store, told = Store(url), []
    with Store(url).writing():
        writer = Writer(store, tell=told.append)
        bad = Ranking("bad", "query", [{"text": "text"}], [0], [object()])  # type: ignore[list-item]
        rankings = [ranking("r0"), bad, ranking("r2")]
        assert all(map(writer.offer, rankings))
    until(lambda: writer.queued == 0)
    writer.close()
    assert [one.ranking.request_id for one in store.judged(all_rankings=True)] == ["r0", "r2"]
    assert len(told) == 1
    assert told[0].startswith("A ranking can't be stored")
