"""The course of one call through the stages: what goes on, what is left out, and the account of it.

It does no work itself. It hands out steps and takes their scores, so that whoever drives it may wait for a step in a
thread, in an event loop or not at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, MissingExtraError, StageError
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache import ScoreCache
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.documents import Candidate
from crossrank.ranking.stage import CacheableStage, Context, Passage, Stage, StageScores
from crossrank.ranking.step import CachedStep, Step
from crossrank.ranking.types import RankedDocument, Ranking, SkippedStage, StageRun

ON_ERROR = ("raise", "keep_order", "next_stage")

# Of a deadline, the share that stages do not get, and the seconds for each document: sorting what they said and writing
# it down takes time too, and so does getting the processor back on a busy machine.
_RESERVED = 0.05
_A_DOCUMENT = 4e-5

_NONE: Mapping[str, Mapping[str, Any]] = {}
Indices = NDArray[np.int64]


@dataclass
class Course:
    """One call.

    :param reading: Seconds that reading the documents took: a measure of how busy the machine is.
    :ivar order: Indices of the candidates that are still in it, best first.
    """

    query: str
    candidates: Sequence[Candidate]
    stages: Mapping[str, Stage]
    breakers: Mapping[str, CircuitBreaker]
    on_error: str
    threshold: float | None
    top_k: int | None
    deadline: Deadline
    cancelled: threading.Event
    cache: ScoreCache | None
    notes: list[str]
    reading: float = 0.0
    order: Indices = field(init=False)

    def __post_init__(self) -> None:
        self._started = 0.0
        self.order = np.arange(len(self.candidates))
        firsts = [candidate.first_stage_score for candidate in self.candidates]
        self._first_stage = np.array([np.nan if first is None else first for first in firsts], np.float64)
        self._said: dict[str, tuple[Indices, StageScores]] = {}
        self._runs: list[StageRun] = []
        self._skipped: list[SkippedStage] = []
        self._reasons: list[str] = []
        seconds = self.deadline.seconds or 0.0
        self._reserve = min(seconds / 2, _RESERVED * seconds + _A_DOCUMENT * len(self.candidates) + 2 * self.reading)

    def run(self) -> Generator[Step, StageScores, Ranking]:
        """Hand out a step for each stage, and return the ranking."""
        self._started = time.perf_counter()
        stop: str | None = None
        for name, stage in self.stages.items():
            if not len(self.order):
                self._skipped.append(SkippedStage(name, "no documents are left"))
            elif stop is not None:
                self._skip(name, stage, stop)
            elif self.deadline.expired:
                self._skip(name, stage, f"the deadline of {self.deadline.seconds} s was over", degrades=True)
            else:
                started = time.perf_counter()
                step = self._step(name, stage)
                try:
                    scores = yield from self._guarded(name, step)
                except (InputError, MissingExtraError):
                    raise
                except Exception as error:
                    if self.on_error == "raise" and not _is_late(error, step):
                        raise
                    self._skip(name, stage, _told(error), degrades=True)
                    if self.on_error == "keep_order":
                        stop = f"{name} failed, and on_error='keep_order' keeps the order from before it"
                else:
                    self._take(name, stage, step, scores, time.perf_counter() - started)
        self._finish()
        return self._ranking()

    def _step(self, name: str, stage: Stage) -> Step:
        context = Context(
            deadline=self.deadline.reserving(self._reserve),
            cancelled=self.cancelled,
            first_stage=self._first_stage[self.order],
            positions=self.order.copy(),
            earlier={earlier: self._of(earlier) for earlier in self._said},
        )
        texts = [self.candidates[i].text for i in self.order]
        if self.cache is not None and isinstance(stage, CacheableStage):
            return CachedStep(stage, self.query, texts, context, self.cache)
        return Step(stage, self.query, texts, context)

    def _guarded(self, name: str, step: Step) -> Generator[Step, StageScores, StageScores]:
        """Let the breaker see how the step goes."""
        breaker = self.breakers.get(name)
        if breaker is not None and not breaker.allow():
            raise StageError(
                f"its circuit breaker is {breaker.state} after {breaker.failures} failures in a row; "
                f"it is tried again in {breaker.retry_in:.0f} s",
                retryable=True,
                stage=name,
            )
        try:
            scores = yield step
        except BaseException as error:
            # The caller's mistake, or the caller's wish, says nothing of the stage.
            ours = not isinstance(error, Exception) or isinstance(error, (InputError, MissingExtraError))
            if breaker is not None:
                (breaker.released if ours or self.cancelled.is_set() else breaker.failed)()
            if isinstance(error, StageError) and error.stage is None:
                raise StageError(error.reason, retryable=error.retryable, stage=name) from error
            raise
        if breaker is not None:
            breaker.succeeded()
        return scores

    # ---- what goes on

    def _take(self, name: str, stage: Stage, step: Step, scores: StageScores, seconds: float) -> None:
        """Sort by what a stage said, and cut."""
        given = self.order
        entering = np.arange(len(given))
        sort_by, scored = scores.sort_by, scores.scored
        if self._said:
            ties: tuple[NDArray[Any], ...] = (entering,)
        else:
            # NaN sorts last in NumPy, so that documents without a first-stage score come behind those with one.
            ties = (entering, -self._first_stage[given])
        sorted_ones = np.lexsort((*ties, -np.where(scored, sort_by, 0.0)))
        places = np.concatenate([sorted_ones[scored[sorted_ones]], entering[~scored]])
        if stage.threshold is not None:
            places = places[~(scores.scores[places] < stage.threshold)]
        places = places[: stage.keep]
        self._said[name] = (given, scores)
        self.order = given[places]
        count = int(np.count_nonzero(scored))
        if scores.degraded is not None:
            self._reasons.append(f"{name}: {scores.degraded}")
        elif count < len(given):
            self._reasons.append(f"{name}: {len(given) - count} of {len(given)} documents were not scored")
        self._runs.append(
            StageRun(
                name=name,
                documents=len(given),
                scored=count,
                kept=len(places),
                kind=scores.kind,
                seconds=seconds,
                tokens=scores.tokens,
                pairs_cut=scores.pairs_cut,
                cost=scores.cost,
                cache_hits=step.cache_hits,
                notes=tuple(scores.notes),
            )
        )

    def _skip(self, name: str, stage: Stage, reason: str, *, degrades: bool = False) -> None:
        self._skipped.append(SkippedStage(name, reason))
        if degrades:
            self._reasons.append(f"{name}: {reason}")
        self.order = self.order[: stage.keep]

    def _finish(self) -> None:
        last = list(self.stages)[-1]
        if self.threshold is not None and last in self._said:
            self.order = self.order[~(self._of(last).scores < self.threshold)]
        elif self.threshold is not None and len(self.order):
            self.notes.append(
                f"threshold={self.threshold} was not applied: it is for scores of {last}, which gave none"
            )
        self.order = self.order[: self.top_k]

    # ---- the account

    def _of(self, name: str) -> StageScores:
        """What a stage said of the documents that are still in it."""
        given, scores = self._said[name]
        at = np.full(len(self.candidates), -1)
        at[given] = np.arange(len(given))
        here = at[self.order]
        return StageScores(
            scores=scores.scores[here],
            kind=scores.kind,
            relevance=None if scores.relevance is None else scores.relevance[here],
            passages=None if scores.passages is None else [scores.passages[i] for i in here],
            details=None if scores.details is None else [scores.details[i] for i in here],
        )

    def _ranking(self) -> Ranking:
        said = {name: self._of(name) for name in self._said}
        # Python's own floats: what is done for each document must not take long.
        columns = [(name, stage, stage.scores.tolist()) for name, stage in said.items()]
        return Ranking(
            query=self.query,
            ranked=tuple(self._ranked(place, index, columns) for place, index in enumerate(self.order.tolist())),
            candidates=len(self.candidates),
            stages=tuple(self._runs),
            skipped=tuple(self._skipped),
            seconds=time.perf_counter() - self._started,
            reasons=tuple(self._reasons),
            notes=tuple(self.notes),
        )

    def _ranked(
        self, place: int, index: int, columns: Sequence[tuple[str, StageScores, Sequence[float]]]
    ) -> RankedDocument:
        candidate = self.candidates[index]
        scores, kinds, details = {}, {}, {}
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
            candidate.document,
            candidate.text,
            place + 1,
            score,
            kind,
            scores,
            kinds,
            candidate.first_stage_score,
            index,
            passage,
            details or _NONE,
        )


def _is_late(error: Exception, step: Step) -> bool:
    """Whether a stage failed because the time was up: what there is by then is returned, as a deadline asks for."""
    return isinstance(error, StageError) and error.retryable and step.context.deadline.expired


def _told(error: Exception) -> str:
    if isinstance(error, StageError):
        return error.reason
    return f"{type(error).__name__}: {error}"
