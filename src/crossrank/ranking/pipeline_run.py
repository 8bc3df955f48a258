"""One call of a :class:`~crossrank.ranking.reranker.Reranker`: its documents, their order, and how they got it."""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.ranking.deadline import Deadline
from crossrank.ranking.documents import Candidate
from crossrank.ranking.ranked_documents import RankedDocument, Ranking, SkippedStage, StageRun
from crossrank.ranking.stage import Context, Stage, StageScores

T = TypeVar("T")
Indices = NDArray[np.int64]

# The share of a deadline that stages can't use, and the seconds for each document: sorting and building the result
# take time, and on a busy machine the thread also has to wait for the processor.
_RESERVED_SHARE = 0.05
_RESERVED_FOR_DOCUMENT = 4e-5


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise RuntimeError("The coroutine waits for something; run it in an event loop.")


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
        """Leave a stage out. Pass on only its first ``keep`` documents, because the next stage may be expensive.

        :param degrades: Whether this makes the ranking degraded.
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
        return scores.of(row_of[self.order])

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
