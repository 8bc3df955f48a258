"""Reranker: documents through stages to a ranking. The only place that sorts."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from crossrank.errors import InputError
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache import ScoreCache
from crossrank.ranking.course import ON_ERROR, Course
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage, as_stage
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.documents import DocumentReader, ScoreOf, TextOf
from crossrank.ranking.limits import check_limits
from crossrank.ranking.stage import AsyncStage, ClosableStage, Stage, StageScores
from crossrank.ranking.step import Step
from crossrank.ranking.types import Ranking
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.validation import check_text

Steps = Generator[Step, StageScores, Ranking]
T = TypeVar("T")


class Reranker:
    """Puts documents in the order of their relevance, stage by stage, and says how it was done.

    Each stage scores what the one before it let through. Documents are sorted by a stage's relevance; ties by the
    order in which they came into the stage, in the first stage by first-stage score and then by position. Only what
    passes a stage's ``threshold`` and is among its ``keep`` best goes on and is returned. Documents that a stage did
    not score (no time) stand behind those it did, in the order in which they came; a threshold does not concern them.

    Construction is cheap: nothing is loaded before the first call or :meth:`warm_up`. One object may be used from many
    threads and tasks.

    :param stages: One or more stages; ``None`` is the model in the box. A ``CrossEncoder`` is taken for a stage too.
    :param text: What stages read of a document: a function, a field's name, or a template such as
        ``"{title} ({year}): {text}"``; see :class:`~crossrank.ranking.documents.DocumentReader`.
    :param score: A document's first-stage score, higher is better: a function or a field's name.
    :param threshold: The least score of the last stage with which a document is returned.
    :param top_k: How many documents to return; by default all that the last stage keeps.
    :param on_error: What to do if a stage fails. ``"raise"`` the error; ``"keep_order"``: stop and return the order
        as it was before that stage; ``"next_stage"``: go on with the next stage. A stage that is left out still passes
        on no more than its ``keep`` documents, so that a costly stage behind it does not get all. What the caller did
        wrong is raised always: an :class:`InputError`, or a missing package.
    :param deadline: Seconds for a whole call. When they are over the best ranking so far is returned. A stage
        that failed for want of time alone is skipped, whatever ``on_error`` says.
    :param cache: Where scores are kept between calls; by default nowhere.
    :param breaker: Makes each stage's circuit breaker; ``None`` for none.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        stages: Stage | CrossEncoder | Sequence[Stage | CrossEncoder] | None = None,
        *,
        text: TextOf | None = None,
        score: ScoreOf | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        on_error: str = "raise",
        deadline: float | None = None,
        cache: ScoreCache | None = None,
        breaker: Callable[[], CircuitBreaker] | None = CircuitBreaker,
    ) -> None:
        check_limits(top_k, threshold, name="top_k")
        if on_error not in ON_ERROR:
            raise InputError(f"on_error={on_error!r} is none of {', '.join(map(repr, ON_ERROR))}.")
        Deadline(deadline)
        if breaker is not None and not callable(breaker):
            raise InputError(f"breaker={breaker!r} makes no breaker. Give CircuitBreaker, or None for none.")
        given = [CrossEncoderStage()] if stages is None else list(stages) if isinstance(stages, Iterable) else [stages]
        if not given:
            raise InputError("stages is empty. Give at least one stage, or leave it out for the model in the box.")
        self.stages = [as_stage(stage, f"stages[{i}]") for i, stage in enumerate(given)]
        self.names = _numbered([stage.name for stage in self.stages])
        self.threshold = threshold
        self.top_k = top_k
        self.on_error = on_error
        self.deadline = deadline
        if cache is not None and not (hasattr(cache, "get_many") and hasattr(cache, "put_many")):
            raise InputError(f"cache={cache!r} is no cache. Give MemoryCache() or DiskCache('scores.sqlite').")
        self.cache = cache
        self.breakers = {name: breaker() for name in self.names} if breaker else {}
        self._reader = DocumentReader(text, score)

    def __repr__(self) -> str:
        return f"Reranker([{', '.join(self.names)}], on_error={self.on_error!r}, deadline={self.deadline})"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Reranker:
        """Make one out of a TOML file; see docs/pipelines.md.

        :raises InputError: If the file can't be read or used.
        :raises MissingExtraError: If pydantic is not installed.
        """
        from crossrank.ranking.config import load_pipeline

        try:
            return cls(**load_pipeline(path))
        except InputError as error:
            if repr(os.fspath(path)) in str(error):
                raise
            raise InputError(f"{os.fspath(path)!r}: {error}") from error

    # ---- rankings

    def rank(
        self, query: str, documents: Iterable[Any], *, top_k: int | None = None, deadline: float | None = None
    ) -> Ranking:
        """Rank documents.

        :param query: One query.
        :param documents: Strings, dictionaries, or objects; see :class:`~crossrank.ranking.documents.DocumentReader`.
        :param top_k: Instead of the object's own.
        :param deadline: Instead of the object's own; seconds.
        :raises InputError: If something the caller gave can't be used.
        :raises StageError: If a stage fails and ``on_error="raise"``.
        :raises CrossRankError: Likewise, what the stage raised.
        """
        return _run(self._course(query, documents, top_k, Deadline(self.deadline if deadline is None else deadline)))

    async def arank(
        self, query: str, documents: Iterable[Any], *, top_k: int | None = None, deadline: float | None = None
    ) -> Ranking:
        """Rank documents without holding up the event loop; as :meth:`rank` otherwise.

        Cancelling it stops the work: a stage in a thread ends after the forward pass that it is in.
        """
        limit = Deadline(self.deadline if deadline is None else deadline)
        cancelled = threading.Event()
        course = self._course(query, documents, top_k, limit, cancelled)
        try:
            return await _arun(course)
        finally:
            # Where all went well nobody looks at it any more.
            cancelled.set()

    def rank_many(
        self,
        queries: Iterable[str],
        documents: Iterable[Iterable[Any]],
        *,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> list[Ranking]:
        """Rank the documents of several queries, one after the other.

        :param queries: The queries.
        :param documents: For each query its documents.
        :param top_k: Instead of the object's own, for each query.
        :param deadline: Seconds for all of them together; by default the object's own.
        :raises InputError: If there are not as many lists of documents as queries.
        """
        remedy = "Give a list of queries, and a list of documents for each."
        for name, given in (("queries", queries), ("documents", documents)):
            if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
                raise InputError(f"{name} is of type {type(given).__name__}. {remedy}")
        queries, documents = list(queries), list(documents)
        if len(queries) != len(documents):
            raise InputError(f"There are {len(queries)} queries and {len(documents)} lists of documents. {remedy}")
        limit = Deadline(self.deadline if deadline is None else deadline)
        courses = [self._course(query, given, top_k, limit) for query, given in zip(queries, documents, strict=True)]
        return [_run(course) for course in courses]

    def _course(
        self,
        query: str,
        documents: Iterable[Any],
        top_k: int | None,
        deadline: Deadline,
        cancelled: threading.Event | None = None,
    ) -> Steps:
        check_text(query, "query")
        check_limits(top_k, None, name="top_k")
        before = deadline.elapsed()
        candidates = self._reader.read(documents)
        reading = deadline.elapsed() - before
        notes = [f"no document has the field {{{field}}} of text=" for field in self._reader.unknown(candidates)]
        course = Course(
            query=query,
            candidates=candidates,
            stages=dict(zip(self.names, self.stages, strict=True)),
            breakers=self.breakers,
            on_error=self.on_error,
            threshold=self.threshold,
            top_k=self.top_k if top_k is None else top_k,
            deadline=deadline,
            cancelled=cancelled or threading.Event(),
            cache=self.cache,
            notes=notes,
            reading=reading,
        )
        return course.run()

    # ---- what stages hold

    def warm_up(self) -> Reranker:
        """Make all stages ready now rather than at the first call.

        :raises CrossRankError: If one can't be.
        """
        for stage in self.stages:
            stage.warm_up()
        return self

    def close(self) -> None:
        """Let go of what stages and cache hold open. May be called twice."""
        for held in (*self.stages, self.cache):
            if isinstance(held, ClosableStage):
                held.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(course: Steps) -> Ranking:
    """Do each step where we are."""
    try:
        step = next(course)
        while True:
            try:
                scores = _whole(step)
            except BaseException as error:  # noqa: PERF203
                step = course.throw(error)
            else:
                step = course.send(scores)
    except StopIteration as end:
        ranking: Ranking = end.value
        return ranking


async def _arun(course: Steps) -> Ranking:
    """Wait for each step: of its own accord where the stage can, else in a thread."""
    try:
        step = next(course)
        while True:
            try:
                if isinstance(step.stage, AsyncStage):
                    await _in_thread(step.prepare, step.is_cached)
                    got = await step.stage.ascore(step.query, step.texts, step.context) if step.texts else None
                    scores = await _in_thread(lambda: step.finish(got), step.is_cached)  # noqa: B023
                else:
                    scores = await asyncio.to_thread(_whole, step)
            except BaseException as error:  # noqa: PERF203
                step = course.throw(error)
            else:
                step = course.send(scores)
    except StopIteration as end:
        ranking: Ranking = end.value
        return ranking


def _whole(step: Step) -> StageScores:
    step.prepare()
    return step.finish(step.stage.score(step.query, step.texts, step.context) if step.texts else None)


async def _in_thread(work: Callable[[], T], needed: bool) -> T:
    return await asyncio.to_thread(work) if needed else work()


def _numbered(names: list[str]) -> list[str]:
    """Make repeated names different: ``judge``, ``judge-2``."""
    seen: dict[str, None] = {}
    for name in names:
        number, unique = 1, name
        while unique in seen:
            number += 1
            unique = f"{name}-{number}"
        seen[unique] = None
    return list(seen)
