"""A cross-encoder, or any other model that scores pairs, as a stage."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crossrank.errors import InputError, StageError
from crossrank.progress import progress_of
from crossrank.ranking.deadline import DeadlineThreads
from crossrank.ranking.stage import Context, PairScorer, Passage, Stage, StageScores
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.long_documents import LongDocuments, LongScores, score_long
from crossrank.scoring.registry_model import RegistryModel
from crossrank.types import PairScores
from crossrank.validation import check_counts, check_threshold, check_top_k

# Facts of a model that its scores do not depend on. Its identity stands for the files, wherever they are.
_NOT_SCORES = ("model", "folder", "revision", "document_cache")

# How chunks are sized within a deadline. A chunk takes at most this share of the time that is left, so that an estimate
# that was too low is noticed in time.
_SHARE = 0.25
# A document is begun only if this many times its estimate is left.
_RESERVE = 1.25
# Characters of a chunk: above that a forward pass is full, and larger chunks gain nothing.
_CHUNK_CHARACTERS = 32_000
# A document counts as at least this many characters: there are special tokens, and the query beside it.
_MIN_CHARACTERS = 100
# Characters of a token, at most, in most texts.
_CHARACTERS_PER_TOKEN = 5


class CrossEncoderStage:
    """Scores with a :class:`~crossrank.scoring.cross_encoder.CrossEncoder`.

    Within a deadline it scores as many documents as fit, from the first on, and returns in time whatever happens: the
    work is done in a thread of its own, in small chunks whose size follows from how long the last ones took. What is
    not done when the time is up does not count. A model that is still loading goes on loading, for the next call.

    :param model: A name on the hub, a folder, ``None`` for the bundled model, or a model: a ``CrossEncoder``, a
        ``RegistryModel``, whose version in use is taken at the start of each call, or any object whose
        ``score(pairs)`` returns :class:`~crossrank.types.PairScores`.
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
        model: str | os.PathLike[str] | PairScorer | None = None,
        *,
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "cross-encoder",
        batch_size: int | None = None,
        long_documents: str | Mapping[str, Any] | LongDocuments = "truncate",
        **settings: Any,
    ) -> None:
        check_top_k(keep, "keep")
        check_threshold(threshold)
        check_counts(batch_size=batch_size)
        is_model = isinstance(model, PairScorer) and not isinstance(model, type)
        if is_model and settings:
            raise InputError(f"{', '.join(settings)} can't be set on a model that exists already. Set it there.")
        self.name = name
        self.keep = keep
        self.threshold = threshold
        self.model: PairScorer = model if is_model else CrossEncoder(model, lazy=True, **settings)  # type: ignore[arg-type, assignment]
        self.long_documents = LongDocuments.of(long_documents)
        is_own = isinstance(self.model, (CrossEncoder, RegistryModel))
        if not is_own and (self.long_documents.strategy != "truncate" or batch_size is not None):
            raise InputError(
                f"long_documents and batch_size are for a CrossEncoder or a RegistryModel, not for {self.model!r}."
            )
        self._batch_size = batch_size
        self._estimate = ThroughputEstimate()
        self._threads = DeadlineThreads()

    def __repr__(self) -> str:
        return f"CrossEncoderStage({self.model!r}, keep={self.keep}, threshold={self.threshold})"

    def warm_up(self) -> None:
        """Load the model and run it once.

        :raises ModelError: If it can't be loaded.
        """
        self._current().score([("warm", "up")])

    def fingerprint(self) -> str | None:
        """Everything that the scores depend on besides the texts. Loads the model; ``None`` if that is not known."""
        model = self._current()
        if not isinstance(model, CrossEncoder):
            return None
        info = {key: value for key, value in model.info().items() if key not in _NOT_SCORES}
        if info["activation"] == "custom":
            return None  # nobody knows what the caller's own function does
        return repr((sorted((key, repr(value)) for key, value in info.items()), model.label, self.long_documents))

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents.

        :raises InputError: If the model has several labels and none is named.
        :raises ModelError: If the model can't be loaded.
        :raises StageError: If the model's scores are NaN.
        """
        results = _Results(len(documents), reads_windows=self.long_documents.strategy in ("max", "mean_top_k"))
        if context.deadline.is_limited:
            self._score_within(query, documents, context, results)
        else:
            with progress_of(len(documents), None) as progress:
                scores = self._score(self._current(), query, documents, context.cancelled, progress=progress)
            results.add(0, scores)
        return results.joined(context)

    def _current(self) -> PairScorer:
        """The model for one call: a registry's may be another in the next."""
        return self.model.current() if isinstance(self.model, RegistryModel) else self.model

    def _score(
        self,
        model: PairScorer,
        query: str,
        documents: Sequence[str],
        *stops: threading.Event,
        progress: Callable[[int], object] = lambda done: None,
    ) -> PairScores:
        def check_stops(done: int) -> None:
            progress(done)
            if any(stop.is_set() for stop in stops):
                raise _StoppedError("nobody waits for the answer any more")

        pairs = [(query, text) for text in documents]
        if not isinstance(model, CrossEncoder):
            result = model.score(pairs)
        elif self.long_documents.strategy == "truncate":
            result = model.score(pairs, batch_size=self._batch_size, show_progress_bar=check_stops)
        else:
            result = score_long(
                model, pairs, self.long_documents, batch_size=self._batch_size, show_progress_bar=check_stops
            )
        if result.relevance is None:
            raise InputError(
                f"{self.name}: the model has {result.logits.shape[1]} labels, so there is no single score to rank by. "
                "Name the one that means relevant: CrossEncoderStage(..., label=...)."
            )
        if bad := np.count_nonzero(np.isnan(result.scores) | np.isnan(result.relevance)):
            raise StageError(
                f"the model's score is NaN for {bad} of {len(documents)} documents. Its weights or its config.json are "
                "damaged; get the model again",
                stage=self.name,
            )
        return result

    def _score_within(self, query: str, documents: Sequence[str], context: Context, results: _Results) -> None:
        stop = threading.Event()

        def work() -> None:
            model = self._current()
            if isinstance(model, CrossEncoder):
                # The most that is read of a document. Asking for it loads the model.
                self._estimate.max_length = self.long_documents.most_tokens(model.max_length)
            done = 0
            while done < len(documents) and not stop.is_set():
                count = self._estimate.fitting(documents[done:], context.deadline.remaining())
                if not count:
                    break
                chunk = documents[done : done + count]
                result = self._score(model, query, chunk, stop, context.cancelled)
                self._estimate.learn(chunk, result.seconds)
                results.add(done, result)
                done += count

        try:
            self._threads.run_within(context.deadline, work)
        finally:
            stop.set()


def as_stage(given: Any, where: str) -> Stage:
    """Take a stage, or a model as one.

    :param where: What it is called in messages.
    :raises InputError: If it is neither.
    """
    lacks = [name for name in ("name", "keep", "threshold", "score", "warm_up") if not hasattr(given, name)]
    if isinstance(given, PairScorer) and "keep" in lacks and not isinstance(given, type):
        return CrossEncoderStage(given)
    if lacks or isinstance(given, type):
        raise InputError(
            f"{where} is {given!r}, not a stage: it has no {', '.join(lacks) or 'object made of it'}. Give a "
            "CrossEncoderStage, another stage, or an object with the members of crossrank.Stage."
        )
    stage: Stage = given
    return stage


class _StoppedError(StageError):
    """The call was cancelled, or its time was up."""


class _Results:
    """Results of chunks, put together. What comes after :meth:`joined` is not in it."""

    def __init__(self, documents: int, *, reads_windows: bool) -> None:
        self._reads_windows = reads_windows
        self._scores = np.full(documents, np.nan)
        self._relevance = np.full(documents, np.nan)
        self._lock = threading.Lock()
        self._kind = "unscored"
        self._query_cut, self._document_cut = np.zeros((2, documents), np.int64)
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
            self._query_cut[here] = result.query_tokens_cut
            self._document_cut[here] = result.document_tokens_cut
            if isinstance(result, LongScores):
                self._passages = self._passages or [None] * len(self._scores)
                self._passages[here] = result.passages
                if self._reads_windows:
                    self._left_out[here] = result.windows_left_out

    def joined(self, context: Context) -> StageScores:
        with self._lock:
            scored, total = int(np.count_nonzero(~np.isnan(self._scores))), len(self._scores)
            cut = self._query_cut + self._document_cut > 0
            late = f"within {context.deadline.seconds} s {scored} of {total} documents could be scored"
            return StageScores(
                scores=self._scores.copy(),
                relevance=self._relevance.copy(),
                kind=self._kind,
                tokens=self._tokens,
                pairs_cut=int(np.count_nonzero(cut)),
                cut=cut,
                passages=None if self._passages is None else list(self._passages),
                notes=self._notes(),
                degraded=late if scored < total else None,
            )

    def _notes(self) -> list[str]:
        notes = []
        if count := np.count_nonzero(self._left_out):
            some = "1 document" if count == 1 else f"{count} documents"
            notes.append(f"{self._left_out.sum()} windows of {some} were not read (max_windows)")
        elif count := np.count_nonzero(self._document_cut):
            total = len(self._scores)
            notes.append(
                f"{count} of {total} documents were cut at the end, by {self._document_cut.sum()} tokens in all"
            )
        if count := np.count_nonzero(self._query_cut):
            notes.append(f"in {count} the query was cut, by up to {self._query_cut.max()} tokens")
        if self._prepared:
            notes.append(f"prepared: {self._prepared} of {self._documents}")
        return notes


class ThroughputEstimate:
    """Seconds for each character, learned from the chunks so far. May be used from many threads.

    The estimate rises at once and falls by half of the difference: other programs may take the processor away at any
    moment, and what a single slow chunk shows may be true for the next.

    :ivar max_length: The most tokens that are read of a document; longer ones take no longer.
    """

    def __init__(self) -> None:
        self.max_length = 512
        self._seconds_per_character: float | None = None

    def fitting(self, documents: Sequence[str], seconds: float) -> int:
        """How many of the documents, from the first on, to score next; 0 if there is no time for even one."""
        rate = self._seconds_per_character
        if not documents or seconds <= 0:
            return 0
        if rate is None:
            return 1
        if rate * self._size(documents[0]) * _RESERVE > seconds:
            return 0
        limit = min(_CHUNK_CHARACTERS, _SHARE * seconds / rate)
        count, used = 1, self._size(documents[0])
        while count < len(documents) and (used := used + self._size(documents[count])) <= limit:
            count += 1
        return count

    def learn(self, documents: Sequence[str], seconds: float) -> None:
        """Note how long a chunk took."""
        seen, rate = seconds / sum(map(self._size, documents)), self._seconds_per_character
        self._seconds_per_character = seen if rate is None else max(seen, (rate + seen) / 2)

    def _size(self, document: str) -> int:
        return min(max(len(document), _MIN_CHARACTERS), _CHARACTERS_PER_TOKEN * self.max_length)
