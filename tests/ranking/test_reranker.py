"""What a ranking is, whatever the stages, the documents and the failures."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import texts
from crossrank import (
    CrossEncoder,
    CrossEncoderStage,
    CrossRankError,
    FirstStage,
    FirstThatWorks,
    InputError,
    MemoryCache,
    MissingExtraError,
    ModelNotFoundError,
    ModelRegistry,
    PairScores,
    Ranking,
    RegistryModel,
    Reranker,
    StageError,
)
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.stage import Context, StageScores
from crossrank.ranking.testing import FailingStage, FixedScores, SlowStage

QUERY = texts.pairs(1)[0][0]
TEXTS = [passage[:200] for _, passage in texts.pairs(12)]
few = settings(max_examples=60, deadline=None, derandomize=True)
score = st.one_of(st.just(float("nan")), st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.floats(-1e6, 1e6))


@pytest.fixture(scope="module")
def box() -> CrossEncoder:
    return CrossEncoder().load()


# ---- what always holds


@few
@given(
    rows=st.lists(st.tuples(score, score, st.one_of(st.none(), st.floats(0, 1))), max_size=12),
    keeps=st.tuples(*[st.one_of(st.none(), st.integers(1, 8))] * 3),
    thresholds=st.tuples(*[st.one_of(st.none(), st.floats(-2, 2))] * 3),
    failing=st.sets(st.integers(0, 1)),
    on_error=st.sampled_from(["keep_order", "next_stage"]),
)
def test_a_ranking_is_a_sorted_part_of_the_documents(
    rows: list[Any], keeps: Any, thresholds: Any, failing: set[int], on_error: str
) -> None:
    documents = [{"text": str(i), "score": first} for i, (_, _, first) in enumerate(rows)]
    before = json.dumps(documents)
    stages: list[Any] = [
        FailingStage(keep=keeps[j], threshold=thresholds[j])
        if j in failing
        else FixedScores({str(i): row[j] for i, row in enumerate(rows)}, keep=keeps[j], threshold=thresholds[j])
        for j in range(2)
    ]
    ranking = Reranker(stages, on_error=on_error, threshold=thresholds[2], top_k=keeps[2]).rank("q", documents)
    assert json.dumps(documents) == before
    positions = [ranked.first_stage_position for ranked in ranking]
    assert len(set(positions)) == len(positions)
    assert all(ranked.document is documents[ranked.first_stage_position] for ranked in ranking)
    assert [ranked.rank for ranked in ranking] == list(range(1, len(ranking) + 1))
    assert len(ranking) <= min([len(rows), *(keep for keep in keeps if keep)])
    assert json.loads(json.dumps(ranking.to_dict(), allow_nan=False))["candidates"] == len(rows)
    ran = [stage.name for stage in ranking.stages]
    for stage in ranking.stages:
        # Names are numbered, and a failing stage has a name of its own.
        threshold = stages[1 if stage.name == "fixed-2" or 0 in failing else 0].threshold
        assert all(threshold is None or row.scores.get(stage.name, threshold) >= threshold for row in ranking)
        assert stage.kept <= stage.documents
    if ran:
        last = [ranked.scores.get(ran[-1]) for ranked in ranking]
        there = [value for value in last if value is not None]
        assert there == sorted(there, reverse=True)
        assert last[: len(there)] == there  # those that were not scored stand behind
    if rows and failing:
        assert ranking.degraded
    assert ranking.degraded == (ranking.reason is not None)


@settings(few, max_examples=10)
@given(picks=st.lists(st.sampled_from(TEXTS[:6]), min_size=1, max_size=10))
def test_the_box_ranks_as_its_logits_say(picks: list[str], box: CrossEncoder) -> None:
    ranking = Reranker(box).rank(QUERY, picks)
    assert [ranked.first_stage_position for ranked in ranking] == [row["corpus_id"] for row in box.rank(QUERY, picks)]
    alone = Reranker(box).rank(QUERY, picks[:1])
    same = next(ranked for ranked in ranking if ranked.first_stage_position == 0)
    assert alone[0].score == pytest.approx(same.score, abs=0.02)
    assert Reranker(box).rank_many([QUERY, QUERY], [picks, picks[:1]])[0].documents == ranking.documents


def test_ties_go_to_the_first_stage_and_then_to_the_position() -> None:
    documents = [("a", 0.1), ("b", 0.9), ("c", 0.9), ("d", None)]
    given = [{"text": text, "score": score} for text, score in documents]
    same = FixedScores(lambda query, text: 1.0)
    assert [ranked.text for ranked in Reranker(same).rank("q", given)] == ["b", "c", "a", "d"]
    # In later stages by the order that the one before gave, so that a coarse judge does not undo it.
    first = FixedScores({"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0}, name="first")
    assert [ranked.text for ranked in Reranker([first, same]).rank("q", given)] == ["a", "d", "c", "b"]


def test_relevance_decides_where_scores_are_rounded_to_ties() -> None:
    class Saturated:
        name, keep, threshold = "saturated", None, None

        def warm_up(self) -> None: ...

        def score(self, query: str, documents: list[str], context: Context) -> StageScores:
            raw = np.arange(len(documents), dtype=np.float64) + 40
            return StageScores(1 / (1 + np.exp(-raw)), kind="sigmoid", relevance=raw)

    ranking = Reranker(Saturated()).rank("q", ["a", "b", "c"])
    assert ranking.documents == ["c", "b", "a"]
    assert {ranked.score for ranked in ranking} == {1.0}


def test_no_documents_are_a_ranking() -> None:
    stage = FixedScores({})
    ranking = Reranker(stage, threshold=0.5).rank("q", [])
    assert isinstance(ranking, Ranking)
    assert (len(ranking), ranking.degraded, stage.calls) == (0, False, [])
    assert [skipped.reason for skipped in ranking.skipped] == ["no documents are left"]


def test_nothing_loads_before_the_first_call(tmp_path: Any) -> None:
    reranker = Reranker(CrossEncoderStage(tmp_path / "not-there"), on_error="keep_order")
    ranking = reranker.rank("q", ["a", "b"])
    assert ranking.documents == ["a", "b"]
    assert "not-there" in str(ranking.reason)
    with pytest.raises(ModelNotFoundError, match="not-there"):
        reranker.warm_up()


def test_the_account_adds_up(box: CrossEncoder) -> None:
    long = "word " * 2000
    ranking = Reranker([CrossEncoderStage(box, keep=2), CrossEncoderStage(box, keep=1)]).rank(QUERY, [long, *TEXTS[:3]])
    assert [stage.name for stage in ranking.stages] == ["cross-encoder", "cross-encoder-2"]
    assert [(stage.documents, stage.scored, stage.kept) for stage in ranking.stages] == [(4, 4, 2), (2, 2, 1)]
    expected = box.score([(QUERY, text) for text in (long, *TEXTS[:3])])
    assert ranking.stages[0].pairs_cut == expected.pairs_cut == 1
    assert ranking.stages[0].tokens == expected.tokens
    assert list(ranking[0].scores) == ["cross-encoder", "cross-encoder-2"]
    assert ranking.tokens == sum(stage.tokens for stage in ranking.stages)


# ---- failures


def test_on_error() -> None:
    second = FixedScores({"a": 1.0, "b": 2.0, "c": 3.0})
    for on_error, order, skipped in (
        ("keep_order", ["a", "b"], ["failing", "fixed"]),
        ("next_stage", ["b", "a"], ["failing"]),
    ):
        ranking = Reranker([FailingStage(keep=2), second], on_error=on_error).rank("q", ["a", "b", "c"])
        assert ranking.documents == order
        assert [stage.name for stage in ranking.skipped] == skipped
        assert ranking.reason == "failing: this stage fails on purpose"
    with pytest.raises(StageError, match="failing: this stage fails on purpose") as raised:
        Reranker([FailingStage(), second]).rank("q", ["a"])
    assert (raised.value.stage, raised.value.retryable) == ("failing", True)


@pytest.mark.parametrize("error", [InputError("the caller's"), MissingExtraError("a package")])
def test_the_callers_mistakes_are_raised_whatever_happens(error: Exception) -> None:
    reranker = Reranker(FailingStage(error=error), on_error="keep_order")
    for _ in range(7):
        with pytest.raises(type(error), match=str(error)):
            reranker.rank("q", ["a"])
    assert reranker.breakers["failing"].state == "closed"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), OSError("no disk"), ZeroDivisionError("0")])
def test_any_other_failure_leaves_the_order(error: Exception) -> None:
    ranking = Reranker(FailingStage(error=error), on_error="keep_order").rank("q", ["a", "b"])
    assert ranking.documents == ["a", "b"]
    assert ranking.reason == f"failing: {type(error).__name__}: {error}"


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((2, 1)), None])
def test_a_stage_that_breaks_its_word_fails(scores: Any) -> None:
    class Wrong(FixedScores):
        def score(self, query: str, documents: Any, context: Context) -> Any:
            return scores if scores is None else StageScores(scores, kind="wrong")

    with pytest.raises(StageError, match="Correct the stage"):
        Reranker(Wrong({})).rank("q", ["a", "b"])


def test_a_breaker_opens_probes_and_closes() -> None:
    now = [0.0]
    stage = FailingStage(times=4)
    reranker = Reranker(stage, on_error="keep_order", breaker=lambda: CircuitBreaker(3, 10, clock=lambda: now[0]))
    breaker = reranker.breakers["failing"]
    states = []
    for step in (0, 0, 0, 0, 11, 5, 6, 0):
        now[0] += step
        ranking = reranker.rank("q", ["a", "bb"])
        states.append((stage.calls, breaker.state, ranking.degraded))
    assert states == [
        (1, "closed", True),
        (2, "closed", True),
        (3, "open", True),
        (3, "open", True),  # not asked
        (4, "open", True),  # the probe failed
        (4, "open", True),
        (5, "closed", False),  # the next one worked
        (6, "closed", False),
    ]


def test_only_one_call_probes() -> None:
    now = [0.0]
    breaker = CircuitBreaker(1, 10, clock=lambda: now[0])
    assert breaker.allow()
    breaker.failed()
    assert (breaker.allow(), breaker.retry_in) == (False, 10)
    now[0] = 10
    assert breaker.state == "half-open"
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: breaker.allow(), range(40))) == 1
    breaker.released()
    assert breaker.allow()


def test_the_first_that_works() -> None:
    second = FixedScores({"a": 1.0, "b": 2.0})
    either = Reranker(FirstThatWorks([FailingStage(times=1), second]))
    ranking = either.rank("q", ["a", "b"])
    assert (ranking.documents, ranking.degraded) == (["b", "a"], True)
    ranking = either.rank("q", ["a", "bb"])
    assert (ranking.documents, ranking.degraded, len(second.calls)) == (["bb", "a"], False, 1)
    with pytest.raises(StageError, match=r"failing failed \(this stage fails on purpose\); failing failed"):
        Reranker(FirstThatWorks([FailingStage(), FailingStage()])).rank("q", ["a"])


# ---- many at a time


def test_threads_get_what_one_gets(box: CrossEncoder) -> None:
    reranker = Reranker(box)
    jobs = [(query, TEXTS[: 3 + i % 5]) for i, (query, _) in enumerate(texts.pairs(16))]
    expected = [reranker.rank(*job).documents for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda job: reranker.rank(*job).documents, jobs)) == expected


def test_arank_is_rank_and_leaves_the_loop_free(box: CrossEncoder) -> None:
    class Waiting(FixedScores):
        async def ascore(self, query: str, documents: Any, context: Context) -> StageScores:
            await asyncio.sleep(0.05)
            return self.score(query, documents, context)

    async def main() -> None:
        reranker = Reranker([box, Waiting(lambda query, text: float(len(text)), name="waiting")])
        alone = reranker.rank(QUERY, TEXTS)
        ticks = 0
        task = asyncio.gather(*(reranker.arank(QUERY, TEXTS) for _ in range(5)))
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        for ranking in await task:
            assert ranking.documents == alone.documents
        assert ticks > 5

    asyncio.run(main())


def test_a_failure_in_arank_is_kept_to_its_order() -> None:
    ranking = asyncio.run(Reranker(FailingStage(), on_error="keep_order").arank("q", ["a", "b"]))
    assert (ranking.documents, ranking.reason) == (["a", "b"], "failing: this stage fails on purpose")


def test_cancelling_arank_stops_the_work(box: CrossEncoder) -> None:
    slow = SlowStage(0.01)
    counted = _Counting(box)

    async def main(stage: Any) -> None:
        task = asyncio.ensure_future(Reranker(stage).arank(QUERY, TEXTS * 200))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.perf_counter()
    for stage in (slow, counted):
        asyncio.run(main(stage))
    assert time.perf_counter() - started < 5
    after = slow.scored
    time.sleep(0.1)
    assert slow.scored == after < 100
    assert counted.ended.wait(10)
    assert counted.failure is not None
    assert "was cancelled" in counted.failure


class _Counting(CrossEncoderStage):
    """Tells how the real stage ended."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__(model)
        self.ended = threading.Event()
        self.failure: str | None = None

    def score(self, query: str, documents: Any, context: Context) -> StageScores:
        try:
            # Distinct texts, so that there is work for seconds.
            return super().score(query, [f"{i} {text}" for i, text in enumerate(documents)], context)
        except StageError as error:
            self.failure = str(error)
            raise
        finally:
            self.ended.set()


# ---- what can't be used


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": []}, "stages is empty"),
        ({"stages": [FixedScores({}), "gpt"]}, r"stages\[1\] is 'gpt', not a stage"),
        ({"stages": FixedScores}, "not a stage"),
        ({"on_error": "ignore"}, "raise, keep_order, next_stage"),
        ({"deadline": 0}, "deadline=0 is not a number of seconds above 0"),
        ({"deadline": "1"}, "deadline='1' is not a number"),
        ({"top_k": 0}, "top_k=0 is not a positive integer"),
        ({"threshold": float("nan")}, "threshold=nan is not a finite number"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Reranker(**settings)


def test_calls_that_cannot_be_used() -> None:
    reranker = Reranker(FixedScores({}))
    with pytest.raises(InputError, match="query is 3"):
        reranker.rank(3, ["a"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_k=0"):
        reranker.rank("q", ["a"], top_k=0)
    with pytest.raises(InputError, match="2 queries and 1 lists"):
        reranker.rank_many(["q", "r"], [["a"]])


# ---- what callers and stages may get wrong


class Said:
    """A stage that gives what it is told."""

    name, keep, threshold = "said", None, None

    def __init__(self, said: Any) -> None:
        self.said = said

    def warm_up(self) -> None: ...

    def score(self, query: str, documents: Any, context: Context) -> StageScores:
        return StageScores(self.said, kind="said", relevance=self.said)


def test_a_stage_may_give_lists() -> None:
    ranking = Reranker(Said([1, None, 2])).rank("q", ["a", "b", "c"])
    assert (ranking.documents, ranking[0].score, ranking[2].score) == (["c", "a", "b"], 2.0, None)
    ranking = Reranker(Said(["low", "high"]), on_error="keep_order").rank("q", ["a", "b"])
    assert ranking.documents == ["a", "b"]
    assert "its scores are not numbers" in str(ranking.reason)


def test_the_first_that_works_takes_models_and_nothing_else(box: CrossEncoder) -> None:
    ranking = Reranker(FirstThatWorks([FailingStage(), box])).rank(QUERY, TEXTS[:3])
    assert ranking.documents == Reranker(box).rank(QUERY, TEXTS[:3]).documents
    with pytest.raises(InputError, match=r"stages\[0\] is 'model', not a stage"):
        FirstThatWorks(["model"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="is not a list"):
        FirstThatWorks(FailingStage())  # type: ignore[arg-type]


def test_settings_of_the_wrong_kind_are_told_at_once() -> None:
    with pytest.raises(InputError, match=r"cache='scores\.sqlite' is not a cache"):
        Reranker(cache="scores.sqlite")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="breaker=3"):
        Reranker(breaker=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_size=0"):
        CrossEncoderStage(batch_size=0)


def test_queries_and_documents_out_of_generators() -> None:
    many = Reranker(FixedScores(lambda _, text: len(text)))
    rankings = many.rank_many((query for query in "qr"), (iter(documents) for documents in (["a", "bb"], [])))
    assert [ranking.documents for ranking in rankings] == [["bb", "a"], []]


# ---- scores that are missing


def test_a_threshold_lets_through_only_what_has_a_score() -> None:
    stage = FixedScores({"a": 0.9, "b": 0.1})
    ranking = Reranker(stage, threshold=0.5).rank("q", ["a", "b", "unscored"])
    assert (ranking.documents, ranking.degraded) == (["a"], True)
    within = FixedScores({"a": 0.9, "b": 0.1}, threshold=0.5)
    assert Reranker(within).rank("q", ["a", "b", "unscored"]).documents == ["a"]


def test_a_threshold_without_any_score_is_told() -> None:
    for stage in (FixedScores({}), FailingStage(name="fixed")):
        ranking = Reranker(stage, threshold=0.5, on_error="keep_order").rank("q", ["a", "b"])
        assert ranking.documents == ["a", "b"]
        assert "threshold=0.5 was not applied: fixed scored no document" in str(ranking.reason)


def test_nan_from_a_model_is_an_error_and_no_order(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        weights[name] = np.full_like(weights[name], np.nan) if "classifier" in name else weights[name]
    save_file(weights, folder / "model.safetensors")
    for options in ({}, {"deadline": 30.0}):
        with pytest.raises(CrossRankError, match="NaN"):
            Reranker(CrossEncoderStage(folder), threshold=0.5, **options).rank(QUERY, TEXTS[:2])
    ranking = Reranker(CrossEncoderStage(folder), threshold=0.5, on_error="keep_order").rank(QUERY, TEXTS[:2])
    assert "NaN" in str(ranking.reason)

    class Half(FixedScores):
        def score(self, query: str, documents: Any, context: Context) -> StageScores:
            return StageScores(np.ones(2), kind="half", relevance=np.array([1.0, np.nan]))

    with pytest.raises(StageError, match="relevance of 1 scored documents is NaN"):
        Reranker(Half({})).rank("q", ["a", "b"])


# ---- models of all kinds


class Lengths:
    """A model of one's own: the longer a document the better."""

    def score(self, pairs: Any) -> PairScores:
        logits = np.array([[len(document)] for _, document in pairs], np.float32)
        none = np.zeros(len(pairs), np.int64)
        return PairScores(logits[:, 0].astype(float), logits, logits[:, 0].astype(float), "length", none, none, 0, 0.01)


def test_any_model_that_scores_pairs_is_a_stage(tiny_bert: Path, tmp_path: Path) -> None:
    assert Reranker(Lengths()).rank("q", ["a", "ccc", "bb"]).documents == ["ccc", "bb", "a"]
    within = Reranker(CrossEncoderStage(Lengths(), keep=1), cache=MemoryCache()).warm_up()
    assert within.rank("q", ["a", "ccc", "bb"], deadline=30).documents == ["ccc"]
    assert Reranker(FirstThatWorks([Lengths()])).rank("q", ["a", "bb"]).documents == ["bb", "a"]
    registry = ModelRegistry(tmp_path / "registry")
    registry.switch(registry.publish(tiny_bert))
    settings = {"precision": "float32"}
    expected = Reranker(CrossEncoder(tiny_bert, **settings)).rank(QUERY, TEXTS)
    model = RegistryModel(registry.folder, **settings)
    for stages in (model, [CrossEncoderStage(model)], FirstThatWorks([model])):
        ranking = Reranker(stages).warm_up().rank(QUERY, TEXTS)
        assert ranking.documents == expected.documents
        assert [row.score for row in ranking] == pytest.approx([row.score for row in expected], abs=1e-6)
    assert Reranker(CrossEncoderStage(model, long_documents="max")).rank(QUERY, TEXTS)[0].passage is not None
    with pytest.raises(InputError, match="long_documents and batch_size are for a CrossEncoder"):
        CrossEncoderStage(Lengths(), long_documents="max")
    with pytest.raises(InputError, match="max_length can't be set on a model object"):
        CrossEncoderStage(model, max_length=9)


@pytest.mark.parametrize("deadline", [None, 30])
def test_a_model_with_too_many_scores_is_an_error(deadline: float | None) -> None:
    class Doubling(Lengths):
        def score(self, pairs: Any) -> PairScores:
            return super().score([*pairs, *pairs])

    with pytest.raises(StageError, match=r"the model returned \d scores for \d documents"):
        Reranker(Doubling()).rank("q", ["a", "ccc", "bb"], deadline=deadline)


def test_no_fallback_is_asked_after_a_cancelled_call_or_when_the_time_is_up() -> None:
    fallback = FixedScores({})
    cancelled = Context()
    cancelled.cancelled.set()
    late = Context(deadline=Deadline(1e-9))
    for context, why in ((cancelled, "the call was cancelled"), (late, "the time was up")):
        with pytest.raises(StageError, match=f"{why} before fixed could run"):
            FirstThatWorks([FailingStage(), fallback]).score("q", ["a"], context)
    assert fallback.calls == []


def test_rerankers_can_be_copied_and_pickled() -> None:
    stages = [FixedScores({"a": 1.0, "b": 2.0}), FirstStage(fusion="reciprocal_rank"), FirstThatWorks([Lengths()])]
    reranker = Reranker(stages, text="{text}", cache=MemoryCache(), deadline=30)
    documents = [{"text": "a"}, {"text": "b"}]
    expected = reranker.rank("q", documents)
    for copied in (copy.deepcopy(reranker), pickle.loads(pickle.dumps(reranker))):
        ranking = copied.rank("q", documents)
        assert [row.score for row in ranking] == [row.score for row in expected]
        assert copied.breakers["fixed"].state == "closed"


def test_a_very_long_deadline_is_a_deadline() -> None:
    assert Reranker(CrossEncoderStage(Lengths()), deadline=1e10).rank("q", ["a", "bb"]).documents == ["bb", "a"]
