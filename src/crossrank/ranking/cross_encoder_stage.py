"""A cross-encoder, or any other model that scores pairs, as a stage."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, StageError
from crossrank.pairs import PairScores
from crossrank.progress import progress_of
from crossrank.ranking.deadline import Deadline, DeadlineThreads
from crossrank.ranking.stage import Context, PairScorer, Stage, StageScores
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.long_documents import LongDocuments, LongScores, score_long
from crossrank.scoring.registry_model import RegistryModel
from crossrank.validation import check_counts, check_threshold, check_top_k

# Facts of a model that do not change its scores. Its identity already covers the files.
_NOT_SCORES = ("model", "folder", "revision", "document_cache")

# With a deadline, a chunk takes at most this share of the remaining time, so that a low estimate does little harm.
_SHARE = 0.25
# A document is started only if this many times its estimated time is left.
_RESERVE = 1.25
# The most characters of a chunk. Larger chunks are not faster.
_CHUNK_CHARACTERS = 32_000
# A document counts as at least this many characters, because of the special tokens and the query.
_MIN_CHARACTERS = 100
# The most characters of a token in most texts.
_CHARACTERS_PER_TOKEN = 5


class CrossEncoderStage:
    """Scores with a :class:`~crossrank.scoring.cross_encoder.CrossEncoder`.

    With a deadline it scores as many documents as fit, starting with the first, and always returns in time: a thread
    scores small chunks, whose size depends on how long the last ones took. Unfinished chunks are dropped. A model that
    is still loading continues to load, for the next call.

    :param model: A name on the hub, a folder, ``None`` for the bundled model, or a model: a ``CrossEncoder``; a
        ``RegistryModel``, whose current version is used in each call; or any object whose ``score(pairs)`` returns
        :class:`~crossrank.pairs.PairScores`.
    :param keep: How many documents to pass on, best first; by default all.
    :param threshold: The lowest score that a document needs to be passed on.
    :param name: What the stage is called in results.
    :param batch_size: The most pairs of one forward pass; by default as many as fit a budget of tokens.
    :param long_documents: What to do with documents that do not fit: ``"truncate"``, ``"first"``, ``"max"``,
        ``"mean_top_k"``, a :class:`~crossrank.scoring.long_documents.LongDocuments`, or its settings by name. All but
        ``"truncate"`` also report each document's best passage.
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
            raise InputError(f"{', '.join(settings)} can't be set on a model object. Set it where the model is made.")
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

    @property
    def takes_ids(self) -> bool:
        """Whether a document may be the id of a prepared one."""
        prepared = isinstance(self.model, CrossEncoder) and self.model.prepared is not None
        return prepared and self.long_documents.strategy == "truncate"

    def __repr__(self) -> str:
        return f"CrossEncoderStage({self.model!r}, keep={self.keep}, threshold={self.threshold})"

    def warm_up(self) -> None:
        """Load the model and run it once.

        :raises ModelError: If it can't be loaded.
        """
        self._current().score([("warm", "up")])

    def fingerprint(self) -> str | None:
        """Describe what the scores depend on, besides the texts; ``None`` if unknown. Loads the model."""
        model = self._current()
        if not isinstance(model, CrossEncoder):
            return None
        info = {key: value for key, value in model.info().items() if key not in _NOT_SCORES}
        if info["activation"] == "custom":
            return None  # the caller's function may do anything
        return repr((sorted((key, repr(value)) for key, value in info.items()), model.label, self.long_documents))

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents.

        :raises InputError: If the model has several labels and no ``label`` was chosen.
        :raises ModelError: If the model can't be loaded.
        :raises StageError: If the model's scores are NaN.
        """
        if context.deadline.is_limited:
            chunks = self._score_within(query, documents, context)
        else:
            with progress_of(len(documents), None) as progress:
                chunks = [self._score(self._current(), query, documents, context.cancelled, progress=progress)]
        return self._joined(chunks, len(documents), context.deadline)

    def _current(self) -> PairScorer:
        """The model for one call. A registry may have another version for the next call."""
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
                raise StageError("the call was cancelled or its time is up")

        pairs = [(query, text) for text in documents]
        if not isinstance(model, CrossEncoder):
            result = model.score(pairs)
        elif self.long_documents.strategy == "truncate":
            result = model.score(pairs, batch_size=self._batch_size, show_progress_bar=check_stops)
        else:
            result = score_long(
                model, pairs, self.long_documents, batch_size=self._batch_size, show_progress_bar=check_stops
            )
        if len(result.scores) != len(documents):
            raise StageError(
                f"the model returned {len(result.scores)} scores for {len(documents)} documents. Correct the model",
                stage=self.name,
            )
        if result.relevance is None:
            raise InputError(
                f"{self.name}: the model has {result.logits.shape[1]} labels, so there is no single score to rank by. "
                "Choose the one that means relevant: CrossEncoderStage(..., label=...)."
            )
        if bad := np.count_nonzero(np.isnan(result.scores) | np.isnan(result.relevance)):
            raise StageError(
                f"the model's score is NaN for {bad} of {len(documents)} documents. Its weights or its config.json are "
                "damaged; get the model again",
                stage=self.name,
            )
        return result

    def _score_within(self, query: str, documents: Sequence[str], context: Context) -> list[PairScores]:
        """Score in chunks until the time is up, and return the chunks that were scored."""
        chunks: list[PairScores] = []
        stop = threading.Event()

        def work() -> None:
            model = self._current()
            if isinstance(model, CrossEncoder):
                # Reading max_length loads the model.
                self._estimate.max_length = self.long_documents.most_tokens(model.max_length)
            done = 0
            while done < len(documents) and not stop.is_set():
                count = self._estimate.fitting(documents[done:], context.deadline.remaining())
                if not count:
                    break
                chunk = documents[done : done + count]
                result = self._score(model, query, chunk, stop, context.cancelled)
                self._estimate.learn(chunk, result.seconds)
                chunks.append(result)
                done += count

        try:
            self._threads.run_within(context.deadline, work)
        finally:
            stop.set()
        return list(chunks)  # the thread may add more

    def _joined(self, chunks: list[PairScores], documents: int, deadline: Deadline) -> StageScores:
        """Join the chunks to one result for all documents. Documents in no chunk were not scored."""
        scored = sum(len(chunk.scores) for chunk in chunks)

        def column(name: str, fill: float) -> NDArray[Any]:
            return np.concatenate([*(getattr(chunk, name) for chunk in chunks), np.full(documents - scored, fill)])

        query_cut, document_cut = column("query_tokens_cut", 0), column("document_tokens_cut", 0)
        windows = [chunk for chunk in chunks if isinstance(chunk, LongScores)]
        notes = []
        left_out = np.zeros(0)
        if windows and self.long_documents.strategy in ("max", "mean_top_k"):
            left_out = np.concatenate([chunk.windows_left_out for chunk in windows])
        if count := np.count_nonzero(left_out):
            some = "1 document" if count == 1 else f"{count} documents"
            notes.append(f"{left_out.sum():.0f} windows of {some} were not read (max_windows)")
        elif count := np.count_nonzero(document_cut):
            notes.append(f"{count} of {documents} documents were cut at the end, by {document_cut.sum()} tokens in all")
        if count := np.count_nonzero(query_cut):
            notes.append(f"in {count} the query was cut, by up to {query_cut.max()} tokens")
        if prepared := sum(chunk.documents_prepared for chunk in chunks):
            notes.append(f"prepared: {prepared} of {sum(chunk.documents for chunk in chunks)}")
        passages = [passage for chunk in windows for passage in chunk.passages] + [None] * (documents - scored)
        late = f"within {deadline.seconds} s {scored} of {documents} documents could be scored"
        return StageScores(
            scores=column("scores", np.nan),
            relevance=column("relevance", np.nan),
            kind=chunks[-1].kind if chunks else "unscored",
            tokens=sum(chunk.tokens for chunk in chunks),
            pairs_cut=int(np.count_nonzero(query_cut + document_cut)),
            cut=query_cut + document_cut > 0,
            passages=passages if windows else None,
            notes=notes,
            degraded=late if scored < documents else None,
        )


def as_stage(given: Any, where: str) -> Stage:
    """Return a stage, or wrap a model as one.

    :param where: Its name in messages.
    :raises InputError: If it is neither a stage nor a model.
    """
    lacks = [name for name in ("name", "keep", "threshold", "score", "warm_up") if not hasattr(given, name)]
    if isinstance(given, PairScorer) and "keep" in lacks and not isinstance(given, type):
        return CrossEncoderStage(given)
    if lacks or isinstance(given, type):
        raise InputError(
            f"{where} is {given!r}, not a stage: it has no {', '.join(lacks) or 'instance'}. Give a "
            "CrossEncoderStage, another stage, or an object with the members of crossrank.Stage."
        )
    stage: Stage = given
    return stage


class ThroughputEstimate:
    """Estimates the seconds for each character from the chunks so far. Threads may share one object.

    The estimate rises at once, but falls only by half of the difference: other programs may slow down the processor at
    any time, and the chunk after a slow one is often slow too.

    :ivar max_length: The most tokens that are read of a document. A longer document takes no more time.
    """

    def __init__(self) -> None:
        self.max_length = 512
        self._seconds_per_character: float | None = None

    def fitting(self, documents: Sequence[str], seconds: float) -> int:
        """How many documents to score next, starting with the first; 0 if there is no time for one."""
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
        """Learn from how long a chunk took."""
        seen, rate = seconds / sum(map(self._size, documents)), self._seconds_per_character
        self._seconds_per_character = seen if rate is None else max(seen, (rate + seen) / 2)

    def _size(self, document: str) -> int:
        return min(max(len(document), _MIN_CHARACTERS), _CHARACTERS_PER_TOKEN * self.max_length)
