"""Back in time: also beside programs that take the processor away."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from crossrank import CrossEncoder, CrossEncoderStage, InputError, MemoryCache, Reranker
from crossrank.ranking.cross_encoder_stage import ThroughputEstimate
from crossrank.ranking.deadline import Deadline, DeadlineThreads
from crossrank.ranking.testing import FixedScores, SlowStage

QUERY = texts.pairs(1)[0][0]
# Distinct, and of all lengths: none is scored for free.
TEXTS = [f"{i}. {passage[: 40 + 37 * i % 900]}" for i, (_, passage) in enumerate(texts.pairs(60) * 8)]
MOST_OVER = 1.1


@pytest.fixture(scope="module")
def reranker(minilm_checkpoint: Path) -> Iterator[Reranker]:
    # Slow enough that no machine scores all of it in a second.
    made = Reranker(CrossEncoderStage(minilm_checkpoint, precision="float32")).warm_up()
    made.rank(QUERY, TEXTS[:20], deadline=2)
    # The million objects of torch, which made the checkpoint, are no part of what is timed: collecting them takes
    # Python half a second on a busy machine, whenever it chooses to.
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()


@pytest.fixture
def hog() -> Iterator[None]:
    """Twice as many busy processes as there are processors."""
    count = 2 * len(os.sched_getaffinity(0))
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(9999))"]) for _ in range(count)]
    time.sleep(0.2)
    yield
    for one in hogs:
        one.kill()
        one.wait()


def in_time(reranker: Reranker, seconds: float) -> list[int]:
    """Rank a few times, and say how many documents were scored each time."""
    counts = []
    for _ in range(5):
        started = time.perf_counter()
        ranking = reranker.rank(QUERY, TEXTS, deadline=seconds)
        took = time.perf_counter() - started
        assert took <= seconds * MOST_OVER, f"{took:.3f} s for {seconds} s, {ranking.scored} scored"
        assert len(ranking) == len(TEXTS)
        assert ranking.degraded
        assert (
            ranking.reason
            == f"cross-encoder: within {seconds} s {ranking.scored} of {len(TEXTS)} documents could be scored"
        )
        positions = [ranked.first_stage_position for ranked in ranking]
        # The first ones were scored, and stand in front in a new order; the rest follow in the order they had.
        assert sorted(positions[: ranking.scored]) == list(range(ranking.scored))
        assert positions[ranking.scored :] == list(range(ranking.scored, len(TEXTS)))
        assert [ranked.kind for ranked in ranking] == ["sigmoid"] * ranking.scored + ["unscored"] * (
            len(TEXTS) - ranking.scored
        )
        counts.append(ranking.scored)
    return counts


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_never_more_than_a_tenth_over(reranker: Reranker, seconds: float) -> None:
    assert max(in_time(reranker, seconds)) > 0


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_nor_on_a_busy_machine(reranker: Reranker, seconds: float, hog: None) -> None:
    counts = in_time(reranker, seconds)
    # In less than a second a machine this busy may not get to anything.
    assert max(counts) > 0 or seconds < 1


def test_what_is_scored_in_time_has_the_usual_scores(reranker: Reranker) -> None:
    part = reranker.rank(QUERY, TEXTS, deadline=0.5)
    stage: Any = reranker.stages[0]
    expected = stage.model.score([(QUERY, ranked.text) for ranked in part[: part.scored]]).scores
    np.testing.assert_allclose([ranked.score for ranked in part[: part.scored]], expected, atol=1e-5)


def test_enough_time_scores_all(reranker: Reranker) -> None:
    ranking = reranker.rank(QUERY, TEXTS[:8], deadline=60)
    assert (ranking.scored, ranking.degraded) == (8, False)
    assert ranking.documents == reranker.rank(QUERY, TEXTS[:8]).documents


class SlowlyLoading(CrossEncoder):
    """As a large model on a slow disk."""

    @property
    def max_length(self) -> int:
        time.sleep(1.0)
        return super().max_length

    def info(self) -> Any:
        time.sleep(1.0)
        return super().info()


@pytest.mark.parametrize("cache", [None, MemoryCache()])
def test_a_model_that_loads_too_long_is_not_waited_for(cache: MemoryCache | None) -> None:
    cold = Reranker(CrossEncoderStage(SlowlyLoading()), deadline=0.2, cache=cache)
    started = time.perf_counter()
    ranking = cold.rank(QUERY, TEXTS[:5])
    assert time.perf_counter() - started < 0.2 * MOST_OVER
    assert (ranking.scored, ranking.documents) == (0, TEXTS[:5])
    assert asyncio.run(cold.arank(QUERY, TEXTS[:5])).degraded


class LoadingForSeconds(CrossEncoder):
    """As a large model on a slow disk, for every call that comes before it is loaded."""

    loaded = threading.Event()

    def _wait(self) -> None:
        self.loaded.wait(20)

    @property
    def max_length(self) -> int:
        self._wait()
        return super().max_length

    def info(self) -> Any:
        self._wait()
        return super().info()


@pytest.mark.parametrize("cache", [None, MemoryCache()])
def test_calls_that_do_not_wait_leave_few_threads(cache: MemoryCache | None) -> None:
    model = LoadingForSeconds()
    model.loaded.clear()
    reranker = Reranker(CrossEncoderStage(model), deadline=0.01, cache=cache)
    before = threading.active_count()
    try:
        for _ in range(100):
            assert reranker.rank(QUERY, TEXTS[:2]).degraded
        assert threading.active_count() - before <= 2 * max(8, 2 * (os.cpu_count() or 1))
    finally:
        model.loaded.set()
    assert not reranker.rank(QUERY, TEXTS[:2], deadline=60).degraded


def test_a_stage_behind_the_deadline_is_skipped() -> None:
    second = FixedScores({}, keep=1)
    ranking = Reranker([SlowStage(0.02, keep=3), second], deadline=0.1).rank("q", ["a" * i for i in range(50)])
    assert ranking.degraded
    if not second.calls:
        assert ranking.skipped[0].reason == "the deadline of 0.1 s had passed"
        assert len(ranking) == 1


def test_one_deadline_for_many_queries() -> None:
    stage = SlowStage(0.01)
    started = time.perf_counter()
    rankings = Reranker(stage).rank_many(["q"] * 20, [["a", "bb"]] * 20, deadline=0.2)
    assert time.perf_counter() - started < 0.2 + 0.1
    assert len(rankings) == 20
    assert not rankings[0].degraded
    assert rankings[-1].degraded
    assert rankings[-1].documents == ["a", "bb"]


# ---- its parts


def test_deadline_counts_down() -> None:
    now = [5.0]
    deadline = Deadline(2, clock=lambda: now[0])
    assert (deadline.remaining(), deadline.expired, deadline.timeout(1), deadline.timeout(9)) == (2, False, 1, 2)
    now[0] = 8
    assert (deadline.remaining(), deadline.expired, deadline.elapsed()) == (0, True, 3)
    now[0] = 5.5
    assert (deadline.reserving(0.5).remaining(), deadline.remaining()) == (1, 1.5)
    endless = Deadline()
    assert (endless.is_limited, endless.expired, endless.timeout(), endless.timeout(3)) == (False, False, None, 3)
    for wrong in (0, -1, float("nan"), "1", True):
        with pytest.raises(InputError, match="deadline="):
            Deadline(wrong)  # type: ignore[arg-type]


def test_run_within_gives_what_was_done_in_time() -> None:
    end = threading.Event()
    assert DeadlineThreads().run_within(Deadline(30), lambda: 3) == 3
    assert DeadlineThreads().run_within(Deadline(0.01), lambda: end.wait(30)) is None
    end.set()
    with pytest.raises(ZeroDivisionError):
        DeadlineThreads().run_within(Deadline(30), lambda: 1 // 0)


def test_pace_rises_at_once_and_falls_slowly() -> None:
    pace = ThroughputEstimate()
    documents = ["x" * 1000] * 100
    assert pace.fitting(documents, 1.0) == 1  # nothing is known yet
    pace.learn(documents[:1], 0.01)
    assert pace.fitting(documents, 1.0) in (24, 25)  # a quarter of the time
    pace.learn(documents[:10], 1.0)
    assert pace.fitting(documents, 1.0) == 2
    assert pace.fitting(documents, 0.1) == 0
    pace.learn(documents[:10], 0.1)  # 0.055 s each
    assert pace.fitting(documents, 1.0) == 4
    assert pace.fitting(documents, 0.06) == 0
    assert pace.fitting(documents, 0.0) == 0
    assert pace.fitting([], 1.0) == 0
