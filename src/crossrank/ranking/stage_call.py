"""Calls one stage of a pipeline through its circuit breaker, and only for texts whose scores are not cached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, MissingExtraError, StageError
from crossrank.pairs import PreparedId
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache.score_cache import CachedScore, ScoreCache, join_scores, key_of, split_scores
from crossrank.ranking.deadline import Deadline, DeadlineThreads
from crossrank.ranking.stage import AsyncStage, CacheableStage, Context, Stage, StageScores

T = TypeVar("T")
# Runs a slow function: :func:`run_here`, or ``asyncio.to_thread``, which keeps the event loop free.
Runner = Callable[[Callable[[], Any]], Awaitable[Any]]


async def run_here(work: Callable[[], T]) -> T:
    """Run a function in the calling thread. A coroutine that uses only this runner never waits."""
    return work()


class StageCall:
    """A stage with its cache and its circuit breaker.

    :param name: The stage's name in this pipeline.
    :param cache: Where scores are kept between calls; ``None`` for no cache.
    :param breaker: Is told how each call ended; ``None`` for no breaker.
    """

    def __init__(self, name: str, stage: Stage, cache: ScoreCache | None, breaker: CircuitBreaker | None) -> None:
        self.name, self.stage = name, stage
        self.breaker = breaker
        self._cache = cache
        self._threads = DeadlineThreads()  # the fingerprint may load a model

    async def scores(
        self, query: str, texts: Sequence[str], context: Context, run: Runner
    ) -> tuple[StageScores, int | None]:
        """Get the scores of all texts: from the cache where they are known, else from the stage.

        :returns: The scores, and how many came from the cache; ``None`` if no cache was used.
        :raises StageError: If the scores of the stage can't be used, or its breaker is open.
        """
        stage, cache, fingerprint = self.stage, self._cache, None
        everything = list(range(len(texts)))
        by_id = any(isinstance(text, PreparedId) for text in texts)  # the text of an id may change
        if cache is not None and not by_id and isinstance(stage, CacheableStage):
            fingerprint = await run(lambda: self._threads.run_within(context.deadline, stage.fingerprint))
        if cache is None or fingerprint is None or not isinstance(stage, CacheableStage):
            return await self._ask(query, texts, context, everything, run), None
        # 1) Look up the known scores.
        keys = [key_of(fingerprint, query, text) for text in texts]
        values = await run(lambda: cache.get_many(keys))
        unpacked = {i: CachedScore.unpack(value) for i, value in enumerate(values) if value is not None}
        rows = {i: row for i, row in unpacked.items() if row is not None}
        hits, known_cut = len(rows), sum(row.cut for row in rows.values())
        unknown = [i for i in everything if i not in rows]
        # 2) Ask the stage for the others.
        fresh = await self._ask(query, texts, context, unknown, run) if unknown else None
        if fresh is not None and stage.fingerprint() != fingerprint:
            # The stage changed its model meanwhile. One ranking can't mix the scores of two models.
            return (await self._ask(query, texts, context, everything, run) if rows else fresh), None
        # 3) Keep the new scores.
        if fresh is not None:
            new = {i: row for i, row in zip(unknown, split_scores(fresh), strict=True) if not np.isnan(row.score)}
            await run(lambda: cache.put_many({keys[i]: row.pack() for i, row in new.items()}))
            rows |= new
        return join_scores(rows, len(texts), fresh, known_cut), hits

    async def _ask(
        self, query: str, texts: Sequence[str], context: Context, rows: list[int], run: Runner
    ) -> StageScores:
        """Get the scores of some of the texts from the stage, and tell the breaker how the call ended."""
        stage, breaker = self.stage, self.breaker
        if breaker is not None and not breaker.allow():
            last = f" (the last: {breaker.last_failure})" if breaker.last_failure else ""
            raise StageError(
                f"its circuit breaker is {breaker.state} after {breaker.failures} failures in a row{last}; the next "
                f"try is in {breaker.retry_in:.0f} s",
                retryable=True,
                stage=self.name,
            )
        if len(rows) < len(texts):
            texts, context = [texts[i] for i in rows], context.of(np.array(rows, np.int64))
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
                raise StageError(error.reason, retryable=error.retryable, stage=self.name) from error
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
