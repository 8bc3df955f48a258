"""One call of a :class:`~crossrank.ranking.reranker.Reranker`: its documents, their order, and how it came about."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, MissingExtraError, StageError
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache.score_cache import CachedScore, ScoreCache, key_of
from crossrank.ranking.deadline import Deadline, DeadlineThreads
from crossrank.ranking.documents import Candidate
from crossrank.ranking.ranked_documents import RankedDocument, Ranking, SkippedStage, StageRun
from crossrank.ranking.stage import AsyncStage, CacheableStage, Context, Passage, Stage, StageScores

T = TypeVar("T")
Indices = NDArray[np.int64]

# The share of a deadline that is kept from the stages, and the seconds for each document: sorting and building the
# result take time too, and so does getting the processor back on a busy machine.
_RESERVED_SHARE = 0.05
_RESERVED_FOR_DOCUMENT = 4e-5


# ---- who does the work: the calling thread, or an event loop


class Runner(Protocol):
    """Runs what may take long."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function."""
        ...

    async def score(self, stage: Stage, query: str, texts: Sequence[str], context: Context) -> StageScores:
        """Run a stage."""
        ...


class InThisThread:
    """Runs everything in the calling thread, so that its coroutines never wait; see :func:`run_to_end`."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function."""
        return work()

    async def score(self, stage: Stage, query: str, texts: Sequence[str], context: Context) -> StageScores:
        """Run a stage."""
        return stage.score(query, texts, context)


class InEventLoop:
    """Keeps the event loop free: awaits stages that are asynchronous, and runs everything else in a thread."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function."""
        return await asyncio.to_thread(work)

    async def score(self, stage: Stage, query: str, texts: Sequence[str], context: Context) -> StageScores:
        """Run a stage."""
        if isinstance(stage, AsyncStage):
            return await stage.ascore(query, texts, context)
        return await asyncio.to_thread(stage.score, query, texts, context)


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise RuntimeError("The coroutine waits for something; run it in an event loop.")


# ---- one stage


class StageCall:
    """One stage's scores in one call: from the cache where they are known, else from the stage.

    :param name: The stage's name in this pipeline.
    :param stage: The stage.
    :param query: The query.
    :param texts: ``[documents]``, what the stage reads.
    :param context: Of these texts.
    :param cache: Where scores are kept; ``None`` for nowhere.
    :param breaker: The stage's circuit breaker; ``None`` for none.
    :param threads: Where a fingerprint that takes long, because it loads a model, is computed.
    :ivar cache_hits: How many scores came from the cache; ``None`` if the cache was not asked.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        query: str,
        texts: Sequence[str],
        context: Context,
        *,
        cache: ScoreCache | None,
        breaker: CircuitBreaker | None,
        threads: DeadlineThreads,
    ) -> None:
        self.name, self.stage, self.query, self.texts, self.context = name, stage, query, texts, context
        self.cache_hits: int | None = None
        self._cache, self._breaker, self._threads = cache, breaker, threads

    async def scores(self, runner: Runner) -> StageScores:
        """Scores of all texts.

        :raises StageError: If the stage gives none that can be used, or its breaker is open.
        """
        stage, cache, everything = self.stage, self._cache, list(range(len(self.texts)))
        if cache is None or not isinstance(stage, CacheableStage):
            return await self._ask_stage(everything, runner)
        # 1) Look up what is known.
        fingerprint = await runner.run(lambda: self._threads.run_within(self.context.deadline, stage.fingerprint))
        if fingerprint is None:
            return await self._ask_stage(everything, runner)
        keys = [key_of(fingerprint, self.query, text) for text in self.texts]
        values = await runner.run(lambda: cache.get_many(keys))
        unpacked = {i: CachedScore.unpack(value) for i, value in enumerate(values) if value is not None}
        known = {i: row for i, row in unpacked.items() if row is not None}
        unknown = [i for i in everything if i not in known]
        # 2) Ask the stage for the rest.
        fresh = await self._ask_stage(unknown, runner) if unknown else None
        if fresh is not None and stage.fingerprint() != fingerprint:
            # The stage changed its model meanwhile. Scores of two models can't stand in one ranking.
            return fresh if not known else await self._ask_stage(everything, runner)
        # 3) Keep what is new.
        self.cache_hits = len(known)
        rows = dict(known)
        if fresh is not None:
            new = {i: row for i, row in zip(unknown, CachedScore.rows(fresh), strict=True) if not np.isnan(row.score)}
            await runner.run(lambda: cache.put_many({keys[i]: row.pack() for i, row in new.items()}))
            rows |= new
        return CachedScore.join(rows, len(self.texts), fresh, sum(row.cut for row in known.values()))

    async def _ask_stage(self, rows: list[int], runner: Runner) -> StageScores:
        """The stage's own scores of some of the texts; the breaker sees how it goes."""
        breaker = self._breaker
        if breaker is not None and not breaker.allow():
            raise StageError(
                f"its circuit breaker is {breaker.state} after {breaker.failures} failures in a row"
                f"{f' (the last: {breaker.last_failure})' if breaker.last_failure else ''}; "
                f"the next try is in {breaker.retry_in:.0f} s",
                retryable=True,
                stage=self.name,
            )
        context = self.context if len(rows) == len(self.texts) else _context_of(self.context, np.array(rows, np.int64))
        try:
            scores = await runner.score(self.stage, self.query, [self.texts[i] for i in rows], context)
            scores = checked(scores, len(rows))
        except BaseException as error:
            if breaker is not None:
                if self._says_nothing_of_the_stage(error):
                    breaker.released()
                else:
                    breaker.failed(reason_of(error))
            if isinstance(error, StageError) and error.stage is None:
                raise StageError(error.reason, retryable=error.retryable, stage=self.name) from error
            raise
        if breaker is not None:
            breaker.succeeded()
        return scores

    def _says_nothing_of_the_stage(self, error: BaseException) -> bool:
        """Whether the caller is the reason for a failure: a wrong argument, a cancelled call, too short a deadline."""
        by_caller = not isinstance(error, Exception) or isinstance(error, (InputError, MissingExtraError))
        return by_caller or self.context.cancelled.is_set() or is_late(error, self.context.deadline)


def is_late(error: BaseException, deadline: Deadline) -> bool:
    """Whether a stage failed because the call's own time was up."""
    return isinstance(error, StageError) and error.retryable and deadline.expired


def reason_of(error: BaseException) -> str:
    """A failure in a few words."""
    return error.reason if isinstance(error, StageError) else f"{type(error).__name__}: {error}"


def checked(scores: StageScores | None, documents: int) -> StageScores:
    """Return scores that are as many as the documents.

    :raises StageError: If they are not.
    """
    if not isinstance(scores, StageScores):
        raise StageError(f"it returned {type(scores).__name__}, not StageScores. Correct the stage.")
    numbers: dict[str, NDArray[np.float64]] = {}
    for name, values in (("scores", scores.scores), ("relevance", scores.relevance)):
        if values is None:
            continue
        try:
            numbers[name] = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise StageError(f"its {name} are not numbers: {error}. Correct the stage.") from error
        if numbers[name].shape != (documents,):
            raise StageError(
                f"its {name} have the shape {numbers[name].shape} for {documents} documents. Correct the stage."
            )
    if "relevance" in numbers and (wrong := np.isnan(numbers["relevance"]) & ~np.isnan(numbers["scores"])).any():
        raise StageError(f"the relevance of {np.count_nonzero(wrong)} scored documents is NaN. Correct the stage.")
    for what, listed in (("passages", scores.passages), ("details", scores.details)):
        if listed is not None and len(listed) != documents:
            raise StageError(f"it returned {len(listed)} {what} for {documents} documents. Correct the stage.")
    return replace(scores, scores=numbers["scores"], relevance=numbers.get("relevance"))


def _context_of(context: Context, rows: Indices) -> Context:
    """The context of some of the documents."""
    return replace(
        context,
        first_stage=None if context.first_stage is None else context.first_stage[rows],
        positions=None if context.positions is None else context.positions[rows],
        earlier={name: _scores_of(scores, rows) for name, scores in context.earlier.items()},
    )


def _scores_of(scores: StageScores, rows: Indices) -> StageScores:
    """What a stage says of some of the documents, without what it says of all of them together."""
    return StageScores(
        scores=scores.scores[rows],
        kind=scores.kind,
        relevance=None if scores.relevance is None else scores.relevance[rows],
        passages=None if scores.passages is None else [scores.passages[i] for i in rows],
        details=None if scores.details is None else [scores.details[i] for i in rows],
    )


# ---- all stages


class PipelineRun:
    """The documents of one call on their way through the stages.

    :param query: The query.
    :param candidates: The documents.
    :param deadline: Of the whole call.
    :param cancelled: Set when nobody waits for the answer any more.
    :param reading: Seconds that reading the documents took, a measure of how busy the machine is.
    :param notes: What the caller should know already.
    :ivar order: Indices of the candidates that are still in it, best first.
    """

    def __init__(
        self,
        query: str,
        candidates: Sequence[Candidate],
        deadline: Deadline,
        cancelled: threading.Event,
        reading: float = 0.0,
        notes: Sequence[str] = (),
    ) -> None:
        self.query, self.candidates, self.deadline, self.cancelled = query, candidates, deadline, cancelled
        self.order: Indices = np.arange(len(candidates))
        self._started = time.perf_counter()
        firsts = [candidate.first_stage_score for candidate in candidates]
        self._first_stage = np.array([np.nan if first is None else first for first in firsts], np.float64)
        # By stage: the candidates that it was given, and its scores of them.
        self._results: dict[str, tuple[Indices, StageScores]] = {}
        self._runs: list[StageRun] = []
        self._skipped: list[SkippedStage] = []
        self._reasons: list[str] = []
        self._notes = list(notes)
        seconds = deadline.seconds or 0.0
        self._reserved = min(
            seconds / 2, _RESERVED_SHARE * seconds + _RESERVED_FOR_DOCUMENT * len(candidates) + 2 * reading
        )

    @property
    def texts(self) -> list[str]:
        """What is read of the documents that are still in it, best first."""
        return [self.candidates[i].text for i in self.order]

    def context(self) -> Context:
        """What the next stage may want to know."""
        return Context(
            deadline=self.deadline.reserving(self._reserved),
            cancelled=self.cancelled,
            first_stage=self._first_stage[self.order],
            positions=self.order.copy(),
            earlier={name: self._scores_by(name) for name in self._results},
        )

    def take(self, call: StageCall, scores: StageScores, seconds: float) -> None:
        """Sort by what a stage said, and keep what passes its threshold and is among its best."""
        given, stage = self.order, call.stage
        entering = np.arange(len(given))
        scored = scores.scored
        if self._results:
            ties: tuple[NDArray[Any], ...] = (entering,)
        else:
            # NaN sorts last in NumPy, so documents without a first-stage score come behind those with one.
            ties = (entering, -self._first_stage[given])
        by_relevance = np.lexsort((*ties, -np.where(scored, scores.sort_by, 0.0)))
        places = np.concatenate([by_relevance[scored[by_relevance]], entering[~scored]])
        self._results[call.name] = (given, scores)
        count = int(np.count_nonzero(scored))
        if scores.degraded is not None:
            self._reasons.append(f"{call.name}: {scores.degraded}")
        elif count < len(given):
            self._reasons.append(f"{call.name}: {len(given) - count} of {len(given)} documents were not scored")
        self.order = given[self._passing(places, scores.scores, stage.threshold, call.name)][: stage.keep]
        self._runs.append(
            StageRun(
                name=call.name,
                documents=len(given),
                scored=count,
                kept=len(self.order),
                kind=scores.kind,
                seconds=seconds,
                tokens=scores.tokens,
                pairs_cut=scores.pairs_cut,
                cost=scores.cost,
                cache_hits=call.cache_hits,
                notes=tuple(scores.notes),
            )
        )

    def skip(self, name: str, stage: Stage, reason: str, *, degrades: bool = False) -> None:
        """Leave a stage out. Only its ``keep`` first documents go on, so that an expensive stage does not get all."""
        self._skipped.append(SkippedStage(name, reason))
        if degrades:
            self._reasons.append(f"{name}: {reason}")
        self.order = self.order[: stage.keep]

    def finish(self, last: str, threshold: float | None, top_k: int | None) -> Ranking:
        """Apply the limits of the whole pipeline.

        :param last: The name of the last stage, whose scores the threshold is for.
        """
        if threshold is not None and len(self.order):
            scores = self._scores_by(last).scores if last in self._results else np.full(len(self.order), np.nan)
            self.order = self.order[self._passing(np.arange(len(self.order)), scores, threshold, last)]
        self.order = self.order[:top_k]
        stages = {name: self._scores_by(name) for name in self._results}
        # Python's own floats: what is done for each document must not take long.
        columns = [(name, scores, scores.scores.tolist()) for name, scores in stages.items()]
        return Ranking(
            query=self.query,
            ranked=tuple(self._ranked(place, index, columns) for place, index in enumerate(self.order.tolist())),
            candidates=len(self.candidates),
            stages=tuple(self._runs),
            skipped=tuple(self._skipped),
            seconds=time.perf_counter() - self._started,
            reasons=tuple(self._reasons),
            notes=tuple(self._notes),
        )

    def _passing(self, places: Indices, scores: NDArray[np.float64], threshold: float | None, name: str) -> Indices:
        """Those of some places whose score reaches a threshold; all of them where a stage scored nothing at all."""
        if threshold is None or not len(places):
            return places
        if np.isnan(scores).all():
            reason = f"threshold={threshold} was not applied: {name} scored no document"
            if reason not in self._reasons:
                self._reasons.append(reason)
            return places
        # NaN is not above anything: what has no score does not pass.
        return places[scores[places] >= threshold]

    def _scores_by(self, name: str) -> StageScores:
        """What a stage said of the documents that are still in it, in their order."""
        given, scores = self._results[name]
        row_of = np.full(len(self.candidates), -1)
        row_of[given] = np.arange(len(given))
        return _scores_of(scores, row_of[self.order])

    def _ranked(
        self, place: int, index: int, columns: Sequence[tuple[str, StageScores, Sequence[float]]]
    ) -> RankedDocument:
        candidate = self.candidates[index]
        scores: dict[str, float] = {}
        kinds: dict[str, str] = {}
        details: dict[str, Mapping[str, Any]] = {}
        passage: Passage | None = None
        score, kind = candidate.first_stage_score, "unscored" if candidate.first_stage_score is None else "first_stage"
        for name, stage, values in columns:
            if stage.details is not None and stage.details[place]:
                details[name] = stage.details[place]
            if values[place] == values[place]:  # not NaN
                score, kind = values[place], stage.kind
                scores[name], kinds[name] = score, kind
                passage = (stage.passages[place] if stage.passages is not None else None) or passage
        return RankedDocument(
            document=candidate.document,
            text=candidate.text,
            rank=place + 1,
            score=score,
            kind=kind,
            scores=scores,
            kinds=kinds,
            first_stage_score=candidate.first_stage_score,
            first_stage_position=index,
            passage=passage,
            details=details,
        )
