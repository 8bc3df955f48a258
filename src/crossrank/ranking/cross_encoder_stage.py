"""A cross-encoder as a stage."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.errors import InputError, StageError
from crossrank.ranking.arguments import check_counts
from crossrank.ranking.deadline import run_within
from crossrank.ranking.limits import check_limits
from crossrank.ranking.pace import Pace
from crossrank.ranking.stage import Context, Passage, Stage, StageScores
from crossrank.scoring.activation import ACTIVATIONS
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.long_documents import LongDocuments, LongScores, score_long
from crossrank.types import PairScores


class CrossEncoderStage:
    """Scores with a :class:`~crossrank.scoring.cross_encoder.CrossEncoder`.

    Within a deadline it scores as many documents as fit, from the first on, and is back in time whatever happens: the
    work is done in a thread of its own, in small chunks that are sized by what the last ones took, and what is not
    there when the time is up does not count. A model that is still loading then goes on doing so, for the next call.

    :param model: A name on the hub, a folder, a ``CrossEncoder``, or ``None`` for the model in the box.
    :param keep: How many documents go on, best first; by default all.
    :param threshold: The least score with which a document goes on.
    :param name: What the stage is called in results.
    :param batch_size: The most pairs of one forward pass; by default as many as fit a budget of tokens.
    :param long_documents: What to do with documents that do not fit: ``"truncate"``, ``"first"``, ``"max"``,
        ``"mean_top_k"``, or :class:`~crossrank.scoring.long_documents.LongDocuments`, or its settings by name. All but
        the first also name each document's best passage.
    :param settings: For ``CrossEncoder``: ``max_length``, ``precision``, ``device`` and so on.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | CrossEncoder | None = None,
        *,
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "cross-encoder",
        batch_size: int | None = None,
        long_documents: str | Mapping[str, Any] | LongDocuments = "truncate",
        **settings: Any,
    ) -> None:
        check_limits(keep, threshold)
        check_counts(batch_size=batch_size)
        if isinstance(model, CrossEncoder) and settings:
            raise InputError(
                f"{', '.join(settings)} can't be set on a CrossEncoder that is there already. Set it there."
            )
        self.name = name
        self.keep = keep
        self.threshold = threshold
        self.model = model if isinstance(model, CrossEncoder) else CrossEncoder(model, **settings)
        self._batch_size = batch_size
        self.long_documents = LongDocuments.of(long_documents)
        self._pace = Pace()

    def __repr__(self) -> str:
        return f"CrossEncoderStage({self.model!r}, keep={self.keep}, threshold={self.threshold})"

    def warm_up(self) -> None:
        """Load the model and run it once.

        :raises ModelError: If it can't be loaded.
        """
        self.model.load().score([("warm", "up")])

    def fingerprint(self) -> str | None:
        """All that the scores depend on besides the texts. Loads the model."""
        info = {key: value for key, value in self.model.info().items() if key != "document_cache"}
        if info["activation"] not in {*ACTIVATIONS, "calibrated"}:
            return None  # a function of the caller's own: who knows what it does
        # A folder's files may change under its name; what the hub calls a commit does not.
        files = () if info["revision"] else sorted(_stamps(Path(info["folder"])))
        return repr(
            (sorted((key, repr(value)) for key, value in info.items()), files, self.model.label, self.long_documents)
        )

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents.

        :raises InputError: If the model has several labels and none is named.
        :raises ModelError: If the model can't be loaded.
        """
        parts = _Parts(len(documents))
        if context.deadline.is_limited:
            self._in_time(query, documents, context, parts)
        else:
            parts.add(0, self._score(query, documents, context.cancelled))
        return parts.joined(context)

    def _score(self, query: str, documents: Sequence[str], *stops: threading.Event) -> PairScores:
        def look(done: int) -> None:
            if any(stop.is_set() for stop in stops):
                raise _StoppedError("nobody waits for the answer any more")

        pairs = [(query, text) for text in documents]
        if self.long_documents.strategy == "truncate":
            result = self.model.score(pairs, batch_size=self._batch_size, show_progress_bar=look)
        else:
            result = score_long(
                self.model, pairs, self.long_documents, batch_size=self._batch_size, show_progress_bar=look
            )
        if result.relevance is None:
            raise InputError(
                f"{self.model.name} has {result.logits.shape[1]} labels, so there is no one score to rank by. Name the "
                "one that means relevant: CrossEncoderStage(..., label=...)."
            )
        return result

    def _in_time(self, query: str, documents: Sequence[str], context: Context, parts: _Parts) -> None:
        stop = threading.Event()

        def work() -> None:
            # What is read of a document at most. Asking for it loads the model.
            self._pace.max_length = self.long_documents.most_tokens(self.model.max_length)
            done = 0
            while done < len(documents) and not stop.is_set():
                count = self._pace.fitting(documents[done:], context.deadline.remaining())
                if not count:
                    break
                chunk = documents[done : done + count]
                result = self._score(query, chunk, stop, context.cancelled)
                self._pace.learn(chunk, result.seconds)
                parts.add(done, result)
                done += count

        try:
            run_within(context.deadline, work)
        finally:
            stop.set()


def as_stage(given: Any, where: str) -> Stage:
    """Take a stage, or a model as one.

    :param where: What it is called in messages.
    :raises InputError: If it is neither.
    """
    if isinstance(given, CrossEncoder):
        return CrossEncoderStage(given)
    lacks = [name for name in ("name", "keep", "threshold", "score", "warm_up") if not hasattr(given, name)]
    if lacks or isinstance(given, type):
        raise InputError(
            f"{where} is {given!r}, not a stage: it has no {', '.join(lacks) or 'object made of it'}. Give a "
            "CrossEncoderStage, another stage, or an object with the members of crossrank.ranking.stage.Stage."
        )
    stage: Stage = given
    return stage


def _stamps(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            yield path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns


class _StoppedError(StageError):
    """The work was given up."""


class _Parts:
    """Results of chunks, put together. What comes after :meth:`joined` is not in it."""

    def __init__(self, documents: int) -> None:
        self._scores = np.full(documents, np.nan)
        self._relevance = np.full(documents, np.nan)
        self._lock = threading.Lock()
        self._kind = "unscored"
        self._cut = np.zeros(documents, np.bool_)
        self._tokens = 0
        self._prepared = self._documents = 0
        self._passages: list[Passage | None] | None = None
        self._left_out = np.zeros(documents, np.int64)

    def add(self, start: int, result: PairScores) -> None:
        with self._lock:
            here = slice(start, start + len(result.scores))
            self._scores[here] = result.scores
            self._relevance[here] = result.scores if result.relevance is None else result.relevance
            self._kind = result.kind
            self._tokens += result.tokens
            self._prepared += result.documents_prepared
            self._documents += result.documents
            self._cut[here] = (result.query_tokens_cut + result.document_tokens_cut) > 0
            if isinstance(result, LongScores):
                self._passages = self._passages or [None] * len(self._scores)
                self._passages[here] = result.passages
                self._left_out[here] = result.windows_left_out

    def joined(self, context: Context) -> StageScores:
        with self._lock:
            scored, total = int(np.count_nonzero(~np.isnan(self._scores))), len(self._scores)
            late = f"within {context.deadline.seconds} s {scored} of {total} documents could be scored"
            return StageScores(
                scores=self._scores.copy(),
                relevance=self._relevance.copy(),
                kind=self._kind,
                tokens=self._tokens,
                pairs_cut=int(np.count_nonzero(self._cut)),
                cut=self._cut.copy(),
                passages=None if self._passages is None else list(self._passages),
                notes=self._notes(),
                degraded=late if scored < total else None,
            )

    def _notes(self) -> list[str]:
        documents = int(np.count_nonzero(self._left_out))
        if not documents:
            return []
        return [f"{int(self._left_out.sum())} windows of {documents} long documents were not read"]
