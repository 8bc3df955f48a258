"""Reranker: documents through stages to a ranking. The only place that sorts."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from crossrank.errors import InputError, MissingExtraError
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache.score_cache import ScoreCache
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage, as_stage
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.documents import DocumentReader, ScoreOf, TextOf
from crossrank.ranking.pipeline_run import PipelineRun, run_to_end
from crossrank.ranking.ranked_documents import Ranking
from crossrank.ranking.stage import ClosableStage, PairScorer, Stage
from crossrank.ranking.stage_call import Runner, StageCall, is_late, reason_of, run_here
from crossrank.validation import check_choice, check_text, check_threshold, check_top_k


class Reranker:
    """Sorts documents by their relevance, stage by stage, and reports how it did so.

    Each stage scores the documents that the stage before it passed on. Documents are sorted by the stage's relevance.
    Ties keep their order from before the stage; in the first stage, the first-stage scores decide first. Only the
    ``keep`` best documents that pass the stage's ``threshold`` go on to the next stage or are returned. Documents that
    a stage did not score, for instance because the time was up, keep their order after the scored ones and pass no
    threshold. If a stage failed or scored nothing at all, its threshold is not applied, and ``reasons`` in the ranking
    says so.

    Construction is fast: nothing is loaded before the first call or :meth:`warm_up`. Threads and tasks may share one
    object.

    :param stages: One or more stages; ``None`` is the bundled model. A ``CrossEncoder`` can be used as a stage.
    :param text: What stages read of a document: a function, a field's name, or a template such as
        ``"{title} ({year}): {text}"``; see :class:`~crossrank.ranking.documents.DocumentReader`.
    :param score: A document's first-stage score, higher is better: a function or a field's name.
    :param threshold: The lowest score of the last stage with which a document is returned.
    :param top_k: How many documents to return; by default all that the last stage keeps.
    :param on_error: What to do if a stage fails. ``"raise"`` raises the error. ``"keep_order"`` stops and returns the
        order from before that stage. ``"next_stage"`` continues with the next stage. A failed stage still passes on no
        more than its ``keep`` documents, so that an expensive next stage does not get all of them. An
        :class:`InputError` or a missing package is always raised.
    :param deadline: Seconds for a whole call. After that time, the best ranking so far is returned. A stage that
        failed only because time ran out is skipped, whatever ``on_error`` says.
    :param cache: Where scores are kept between calls; by default nowhere.
    :param breaker: Makes each stage's circuit breaker; ``None`` for none.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        stages: Stage | PairScorer | Sequence[Stage | PairScorer] | None = None,
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
        check_top_k(top_k)
        check_threshold(threshold)
        check_choice("on_error", on_error, ("raise", "keep_order", "next_stage"))
        Deadline(deadline)  # checks it
        if breaker is not None and not callable(breaker):
            raise InputError(f"breaker={breaker!r} can't be called. Give CircuitBreaker, or None for no breakers.")
        given = [CrossEncoderStage()] if stages is None else list(stages) if isinstance(stages, Iterable) else [stages]
        if not given:
            raise InputError("stages is empty. Give at least one stage, or leave it out for the bundled model.")
        self.stages = [as_stage(stage, f"stages[{i}]") for i, stage in enumerate(given)]
        self.names = _numbered([stage.name for stage in self.stages])
        self.threshold = threshold
        self.top_k = top_k
        self.on_error = on_error
        self.deadline = deadline
        if cache is not None and not (hasattr(cache, "get_many") and hasattr(cache, "put_many")):
            raise InputError(f"cache={cache!r} is not a cache. Give MemoryCache() or DiskCache('scores.sqlite').")
        self.cache = cache
        self.breakers = {name: breaker() for name in self.names} if breaker else {}
        self._calls = [
            StageCall(name, stage, cache, self.breakers.get(name))
            for name, stage in zip(self.names, self.stages, strict=True)
        ]
        self.takes_ids = all(getattr(stage, "takes_ids", False) for stage in self.stages)
        self._reader = DocumentReader(text, score, ids=self.takes_ids)

    def __repr__(self) -> str:
        return f"Reranker([{', '.join(self.names)}], on_error={self.on_error!r}, deadline={self.deadline})"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Reranker:
        """Read a pipeline from a TOML file; see docs/pipelines.md.

        :raises InputError: If the file can't be read or used.
        """
        from crossrank.ranking.pipeline_file import load_pipeline

        arguments = load_pipeline(path)
        try:
            return cls(**arguments)
        except InputError as error:
            raise InputError(f"{os.fspath(path)!r}: {error}") from error

    # ---- rankings

    def rank(
        self, query: str, documents: Iterable[Any], *, top_k: int | None = None, deadline: float | None = None
    ) -> Ranking:
        """Rank documents.

        :param documents: Strings, dictionaries, or objects; see :class:`~crossrank.ranking.documents.DocumentReader`.
        :param top_k: Overrides the object's own.
        :param deadline: Overrides the object's own; seconds.
        :raises InputError: If an argument can't be used.
        :raises StageError: If a stage fails and ``on_error="raise"``.
        :raises CrossRankError: If a stage raises another error and ``on_error="raise"``.
        """
        run = self._read(query, documents, self._deadline(deadline))
        return run_to_end(self._rank(run, top_k, run_here))

    async def arank(
        self, query: str, documents: Iterable[Any], *, top_k: int | None = None, deadline: float | None = None
    ) -> Ranking:
        """Rank documents as :meth:`rank` does, without blocking the event loop.

        Cancelling it stops the work: a stage in a thread ends after its current forward pass.
        """
        run = self._read(query, documents, self._deadline(deadline))
        try:
            return await self._rank(run, top_k, asyncio.to_thread)
        finally:
            run.cancelled.set()  # nothing reads it after a normal end

    def rank_many(
        self,
        queries: Iterable[str],
        documents: Iterable[Iterable[Any]],
        *,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> list[Ranking]:
        """Rank the documents of several queries, one query after the other.

        :param documents: For each query its documents.
        :param top_k: For each query; overrides the object's own.
        :param deadline: Seconds for all queries together; by default the object's own.
        :raises InputError: If there are not as many lists of documents as queries.
        """
        remedy = "Give a list of queries, and a list of documents for each."
        for name, given in (("queries", queries), ("documents", documents)):
            if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
                raise InputError(f"{name} is of type {type(given).__name__}. {remedy}")
        queries, documents = list(queries), list(documents)
        if len(queries) != len(documents):
            raise InputError(f"There are {len(queries)} queries and {len(documents)} lists of documents. {remedy}")
        limit = self._deadline(deadline)
        runs = [self._read(query, given, limit) for query, given in zip(queries, documents, strict=True)]
        return [run_to_end(self._rank(run, top_k, run_here)) for run in runs]

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self.deadline if seconds is None else seconds)

    def _read(self, query: str, documents: Iterable[Any], deadline: Deadline) -> PipelineRun:
        # 1) Read the text and the first-stage score of each document.
        check_text(query, "query")
        before = deadline.elapsed()
        candidates = self._reader.read(documents)
        reading = deadline.elapsed() - before
        notes = [f"no document has the field {{{field}}} of text=" for field in self._reader.unknown(candidates)]
        return PipelineRun(query, candidates, deadline, reading, notes)

    async def _rank(self, run: PipelineRun, top_k: int | None, runner: Runner) -> Ranking:
        check_top_k(top_k)
        stop: str | None = None
        for call in self._calls:
            name, stage = call.name, call.stage
            # 2) Skip the stage if no documents are left, the pipeline was stopped, or the deadline has passed.
            if not len(run.order) or stop is not None:
                run.skip(name, stage, "no documents are left" if stop is None else stop)
                continue
            if run.deadline.expired:
                run.skip(name, stage, f"the deadline of {run.deadline.seconds} s had passed", degrades=True)
                continue
            # 3) Take known scores from the cache, and the others from the stage.
            started, context = time.perf_counter(), run.context()
            try:
                scores, cache_hits = await call.scores(run.query, run.texts, context, runner)
            except (InputError, MissingExtraError):
                raise
            except Exception as error:
                # 4) The stage failed. on_error decides what happens, unless the deadline was the reason.
                if self.on_error == "raise" and not is_late(error, context.deadline):
                    raise
                run.skip(name, stage, reason_of(error), degrades=True)
                if self.on_error == "keep_order":
                    stop = f"{name} failed, and on_error='keep_order' keeps the order from before it"
            else:
                # 5) Sort by relevance, and keep the best documents that pass the stage's threshold.
                run.sort(name, stage, scores, cache_hits, time.perf_counter() - started)
        # 6) Apply the pipeline's own threshold and top_k, and build the ranking with its report.
        return run.finish(self.names[-1], self.threshold, self.top_k if top_k is None else top_k)

    # ---- resources

    def warm_up(self) -> Reranker:
        """Load what the first call would load.

        :raises CrossRankError: If a stage can't be used.
        """
        for stage in self.stages:
            stage.warm_up()
        return self

    def close(self) -> None:
        """Close the stages and the cache. May be called twice."""
        for one in (*self.stages, self.cache):
            if isinstance(one, ClosableStage):
                one.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _numbered(names: list[str]) -> list[str]:
    """Make repeated names different: ``judge``, ``judge-2``."""
    seen: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        seen[next(unique for unique in itertools.chain([name], numbered) if unique not in seen)] = None
    return list(seen)
