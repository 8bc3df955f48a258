"""One call of a :class:`~crossrank.ranking.reranker.Reranker`: its documents, their order, and how it came about."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, MissingExtraError, StageError
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache.score_cache import CachedScore, ScoreCache, join_scores, key_of, split_scores
from crossrank.ranking.deadline import Deadline, DeadlineThreads
from crossrank.ranking.documents import Candidate
from crossrank.ranking.ranked_documents import RankedDocument, Ranking, SkippedStage, StageRun
from crossrank.ranking.stage import AsyncStage, CacheableStage, Context, Stage, StageScores

T = TypeVar("T")
Indices = NDArray[np.int64]
# Runs a slow function: :func:`run_here`, or ``asyncio.to_thread``, which keeps the event loop free.
Runner = Callable[[Callable[[], Any]], Awaitable[Any]]

# The share of a deadline that stages can't use, and the seconds for each document: sorting and building the result
# take time, and on a busy machine so does getting the processor back.
_RESERVED_SHARE = 0.05
_RESERVED_FOR_DOCUMENT = 4e-5


async def run_here(work: Callable[[], T]) -> T:
    """Run a function in the calling thread. A coroutine that uses only this runner never waits."""
    return work()


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


async def score_stage(
    name: str,
    stage: Stage,
    query: str,
    texts: Sequence[str],
    context: Context,
    *,
    cache: ScoreCache | None,
    breaker: CircuitBreaker | None,
    threads: DeadlineThreads,
    run: Runner,
) -> tuple[StageScores, int | None]:
    """Get the scores of all texts: from the cache where they are known, else from the stage.

    :param name: The stage's name in this pipeline.
    :param threads: Where the fingerprint is computed, which may load a model.
    :returns: The scores, and how many came from the cache; ``None`` if the cache was not asked.
    :raises StageError: If the scores of the stage can't be used, or its breaker is open.
    """
    everything = list(range(len(texts)))
    if cache is None or not isinstance(stage, CacheableStage):
        return await _ask(name, stage, query, texts, context, everything, breaker, run), None
    # 1) Look up the known scores.
    fingerprint = await run(lambda: threads.run_within(context.deadline, stage.fingerprint))
    if fingerprint is None:
        return await _ask(name, stage, query, texts, context, everything, breaker, run), None
    keys = [key_of(fingerprint, query, text) for text in texts]
    values = await run(lambda: cache.get_many(keys))
    unpacked = {i: CachedScore.unpack(value) for i, value in enumerate(values) if value is not None}
    known = {i: row for i, row in unpacked.items() if row is not None}
    unknown = [i for i in everything if i not in known]
    # 2) Ask the stage for the others.
    fresh = await _ask(name, stage, query, texts, context, unknown, breaker, run) if unknown else None
    if fresh is not None and stage.fingerprint() != fingerprint:
        # The stage changed its model meanwhile. One ranking can't mix the scores of two models.
        return (await _ask(name, stage, query, texts, context, everything, breaker, run) if known else fresh), None
    # 3) Keep the new scores.
    rows = dict(known)
    if fresh is not None:
        new = {i: row for i, row in zip(unknown, split_scores(fresh), strict=True) if not np.isnan(row.score)}
        await run(lambda: cache.put_many({keys[i]: row.pack() for i, row in new.items()}))
        rows |= new
    return join_scores(rows, len(texts), fresh, sum(row.cut for row in known.values())), len(known)


async def _ask(
    name: str,
    stage: Stage,
    query: str,
    texts: Sequence[str],
    context: Context,
    rows: list[int],
    breaker: CircuitBreaker | None,
    run: Runner,
) -> StageScores:
    """The stage's own scores of some of the texts. The breaker learns how the call went."""
    if breaker is not None and not breaker.allow():
        raise StageError(
            f"its circuit breaker is {breaker.state} after {breaker.failures} failures in a row"
            f"{f' (the last: {breaker.last_failure})' if breaker.last_failure else ''}; "
            f"the next try is in {breaker.retry_in:.0f} s",
            retryable=True,
            stage=name,
        )
    if len(rows) < len(texts):
        chosen = np.array(rows, np.int64)
        texts = [texts[i] for i in rows]
        context = replace(
            context,
            first_stage=None if context.first_stage is None else context.first_stage[chosen],
            positions=None if context.positions is None else context.positions[chosen],
            earlier={name: _scores_of(scores, chosen) for name, scores in context.earlier.items()},
        )
    try:
        if run is not run_here and isinstance(stage, AsyncStage):
            scores = await stage.ascore(query, texts, context)
        else:
            scores = await run(lambda: stage.score(query, texts, context))
        scores = checked(scores, len(rows))
    except BaseException as error:
        if breaker is not None:
            # A wrong argument, a cancelled call and a deadline that is too short say nothing about the stage.
            by_caller = not isinstance(error, Exception) or isinstance(error, (InputError, MissingExtraError))
            if by_caller or context.cancelled.is_set() or is_late(error, context.deadline):
                breaker.released()
            else:
                breaker.failed(reason_of(error))
        if isinstance(error, StageError) and error.stage is None:
            raise StageError(error.reason, retryable=error.retryable, stage=name) from error
        raise
    if breaker is not None:
        breaker.succeeded()
    return scores


def is_late(error: BaseException, deadline: Deadline) -> bool:
    """Whether a stage failed because the deadline has passed."""
    return isinstance(error, StageError) and error.retryable and deadline.expired


def reason_of(error: BaseException) -> str:
    """A failure in a few words."""
    return error.reason if isinstance(error, StageError) else f"{type(error).__name__}: {error}"


def checked(scores: StageScores | None, documents: int) -> StageScores:
    """Return what a stage gave, as float64.

    :raises StageError: If it is not one number for each document.
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


def _scores_of(scores: StageScores, rows: Indices) -> StageScores:
    """The scores of some documents, without the facts about all of them together."""
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

    :param deadline: Of the whole call.
    :param reading: Seconds that reading the documents took, which shows how busy the machine is.
    :param notes: The first notes of the ranking.
    :ivar order: Indices of the candidates that are left, best first.
    :ivar cancelled: Set it when nobody waits for the result any more.
    """

    def __init__(
        self, query: str, candidates: Sequence[Candidate], deadline: Deadline, reading: float, notes: Sequence[str]
    ) -> None:
        self.query, self.candidates, self.deadline = query, candidates, deadline
        self.cancelled = threading.Event()
        self.order: Indices = np.arange(len(candidates))
        self._started = time.perf_counter()
        firsts = [candidate.first_stage_score for candidate in candidates]
        self._first_stage = np.array([np.nan if first is None else first for first in firsts], np.float64)
        # By stage: the candidates that it got, and its scores of them.
        self._results: dict[str, tuple[Indices, StageScores]] = {}
        self._runs: list[StageRun] = []
        self._skipped: list[SkippedStage] = []
        self._reasons: list[str] = []
        self._notes = notes
        seconds = deadline.seconds or 0.0
        reserved = _RESERVED_SHARE * seconds + _RESERVED_FOR_DOCUMENT * len(candidates) + 2 * reading
        self._reserved = min(seconds / 2, reserved)

    @property
    def texts(self) -> list[str]:
        """The texts of the documents that are left, best first."""
        return [self.candidates[i].text for i in self.order]

    def context(self) -> Context:
        """The facts for the next stage."""
        return Context(
            deadline=self.deadline.reserving(self._reserved),
            cancelled=self.cancelled,
            first_stage=self._first_stage[self.order],
            positions=self.order.copy(),
            earlier={name: self._scores_by(name) for name in self._results},
        )

    def sort(self, name: str, stage: Stage, scores: StageScores, cache_hits: int | None, seconds: float) -> None:
        """Sort by a stage's scores, and keep the ``keep`` best documents that pass its threshold."""
        given, scored = self.order, scores.scored
        entering = np.arange(len(given))
        # NaN sorts last in NumPy, so documents without a first-stage score come after those with one.
        ties: tuple[NDArray[Any], ...] = (entering,) if self._results else (entering, -self._first_stage[given])
        by_relevance = np.lexsort((*ties, -np.where(scored, scores.sort_by, 0.0)))
        places = np.concatenate([by_relevance[scored[by_relevance]], entering[~scored]])
        self._results[name] = (given, scores)
        count = int(np.count_nonzero(scored))
        if scores.degraded is not None:
            self._reasons.append(f"{name}: {scores.degraded}")
        elif count < len(given):
            self._reasons.append(f"{name}: {len(given) - count} of {len(given)} documents were not scored")
        self.order = given[self._passing(places, scores.scores, stage.threshold, name)][: stage.keep]
        self._runs.append(
            StageRun(
                name=name,
                documents=len(given),
                scored=count,
                kept=len(self.order),
                kind=scores.kind,
                seconds=seconds,
                tokens=scores.tokens,
                pairs_cut=scores.pairs_cut,
                cost=scores.cost,
                cache_hits=cache_hits,
                notes=tuple(scores.notes),
            )
        )

    def skip(self, name: str, stage: Stage, reason: str, *, degrades: bool = False) -> None:
        """Leave a stage out. Only its ``keep`` first documents go on, so that an expensive next stage does not get all.

        :param degrades: Whether the ranking is worse for it.
        """
        self._skipped.append(SkippedStage(name, reason))
        if degrades:
            self._reasons.append(f"{name}: {reason}")
        self.order = self.order[: stage.keep]

    def finish(self, last: str, threshold: float | None, top_k: int | None) -> Ranking:
        """Apply the limits of the whole pipeline, and build the ranking.

        :param last: The name of the last stage, whose scores the threshold is for.
        """
        if threshold is not None and len(self.order):
            scores = self._scores_by(last).scores if last in self._results else np.full(len(self.order), np.nan)
            self.order = self.order[self._passing(np.arange(len(self.order)), scores, threshold, last)]
        self.order = self.order[:top_k]
        stages = {name: self._scores_by(name) for name in self._results}
        # Python's own floats, because the work for each document must be fast.
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
        """The places whose score reaches a threshold; all of them if the stage scored nothing at all."""
        if threshold is None or not len(places):
            return places
        if np.isnan(scores).all():
            reason = f"threshold={threshold} was not applied: {name} scored no document"
            if reason not in self._reasons:
                self._reasons.append(reason)
            return places
        # A comparison with NaN is false, so a document without a score does not pass.
        return places[scores[places] >= threshold]

    def _scores_by(self, name: str) -> StageScores:
        """A stage's scores of the documents that are left, in their order."""
        given, scores = self._results[name]
        row_of = np.full(len(self.candidates), -1)
        row_of[given] = np.arange(len(given))
        return _scores_of(scores, row_of[self.order])

    def _ranked(
        self, place: int, index: int, columns: Sequence[tuple[str, StageScores, Sequence[float]]]
    ) -> RankedDocument:
        candidate = self.candidates[index]
        scores, kinds, details, passage = {}, {}, {}, None
        score, kind = candidate.first_stage_score, "unscored" if candidate.first_stage_score is None else "first_stage"
        for name, stage, values in columns:
            if stage.details is not None and stage.details[place]:
                details[name] = stage.details[place]
            if values[place] == values[place]:  # not NaN
                score, kind = scores[name], kinds[name] = values[place], stage.kind
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
