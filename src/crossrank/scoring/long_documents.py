"""Documents longer than what a model reads at once: cut into windows, each scored, and put together again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.pairs import PairScores
from crossrank.scoring.aggregation import AGGREGATIONS, aggregate, spread
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.cross_encoder_model import ActivationLike
from crossrank.tokenization.windows import Window, covered, cut_documents, locate
from crossrank.validation import (
    check_choice,
    check_counts,
    check_not_negative_integer,
    check_pairs,
    check_positive_integer,
    check_settings_names,
)

STRATEGIES = tuple(AGGREGATIONS)


@dataclass(frozen=True)
class LongDocuments:
    """What is done with documents that the model can't read at once.

    :param strategy: ``"truncate"``: read what fits, as ``CrossEncoder.score`` does. ``"first"``: read the first window,
        which ends with a sentence. ``"max"``: read all windows, the best one's score is the document's.
        ``"mean_top_k"``: read all windows, the mean of the best ones' raw scores is the document's.
    :param overlap: The least tokens that neighbouring windows share; never more than half of a window.
    :param window: The most tokens of a window; ``None`` for all the room that the query leaves. A document that fits
        whole is not cut, whatever this is.
    :param max_windows: The most windows that are read of a document; ``None`` for no limit. Of a document with more,
        evenly spread ones are read, the first and the last among them, and the others are counted.
    :param top_k: How many windows ``"mean_top_k"`` takes.
    :raises InputError: If a value can't be used.
    """

    strategy: str = "max"
    overlap: int = 64
    window: int | None = 256
    max_windows: int | None = 32
    top_k: int = 3

    def __post_init__(self) -> None:
        check_choice("long_documents", self.strategy, STRATEGIES)
        check_not_negative_integer("overlap", self.overlap)
        check_counts(window=self.window, max_windows=self.max_windows)
        check_positive_integer("top_k", self.top_k, "Leave it out for the default.")

    def most_tokens(self, max_length: int) -> int:
        """How many tokens of a document a model of that length reads at most; very many where there is no limit."""
        if self.strategy in ("truncate", "first"):
            return max_length
        most = sys.maxsize if self.max_windows is None else self.max_windows
        return most * min(max_length, self.window or max_length)

    @classmethod
    def of(cls, given: str | Mapping[str, Any] | LongDocuments) -> LongDocuments:
        """Take a strategy's name, settings by name (as a file has them), or settings as they are.

        :raises InputError: If it is none of them.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            return cls(given)  # type: ignore[arg-type]
        check_settings_names("long_documents", given, [field.name for field in fields(cls)])
        return cls(**given)


@dataclass(frozen=True)
class LongScores(PairScores):
    """Scores of whole documents, in input order, with the facts of how they were read.

    ``query_tokens_cut`` is what the query lost beside the window that left it least room, ``document_tokens_cut`` what
    stood in no window that was read.

    :param windows: ``[pairs]``, windows that were read.
    :param windows_left_out: ``[pairs]``, windows that were not, beyond ``max_windows`` or after the first.
    :param passages: For each pair the offsets ``(start, end)`` of the best window in its document, the passage to show.
    """

    windows: NDArray[np.int64]
    windows_left_out: NDArray[np.int64]
    passages: Sequence[tuple[int, int]]


def score_long(
    model: CrossEncoder,
    pairs: Sequence[Sequence[str]],
    long_documents: str | Mapping[str, Any] | LongDocuments = "max",
    *,
    batch_size: int | None = None,
    show_progress_bar: bool | Callable[[int], object] | None = None,
    activation_fn: ActivationLike | None = None,
) -> LongScores:
    """Score pairs whose documents may be longer than what the model reads at once.

    All windows of all documents are batched together, and equal ones scored once. A document that fits is one window,
    and has exactly the score that ``model.score`` gives it.

    :param model: Any model with one score for a pair.
    :param pairs: ``(query, document)`` pairs.
    :param long_documents: A strategy's name, or :class:`LongDocuments` for its settings.
    :param batch_size: The most windows of one forward pass; by default as many as fit a budget of tokens.
    :param show_progress_bar: As in ``CrossEncoder.score``; what is counted is windows.
    :param activation_fn: Instead of the model's own.
    :raises InputError: If something is not a pair of strings, or the model has several labels and none is named.
    :raises ModelError: If the model can't be loaded.
    """
    settings = LongDocuments.of(long_documents)
    texts = check_pairs(pairs)
    scale = model.scale(activation_fn)
    scale.check_single()
    encoder = model.encoder
    started = time.perf_counter()
    how = partial(model.score, batch_size=batch_size, show_progress_bar=show_progress_bar, activation_fn=activation_fn)
    if settings.strategy == "truncate":
        return _truncated(encoder.tokenizer, texts, how(texts), started)
    cut = cut_documents(encoder, texts, overlap=settings.overlap, size=settings.window)
    read = [_read(document.windows, settings) for document in cut]
    parts = [
        (query, text[window.start : window.end])
        for (query, text), windows in zip(texts, read, strict=True)
        for window in windows
    ]
    result = how(parts)
    relevance = np.zeros(0) if result.relevance is None else result.relevance
    counts = np.fromiter(map(len, read), np.int64, len(read))
    logits = np.empty((len(texts), result.logits.shape[1]), np.float32)
    query_cut, document_cut = np.zeros((2, len(texts)), np.int64)
    passages: list[tuple[int, int]] = []
    for i, (end, windows) in enumerate(zip(np.cumsum(counts), read, strict=True)):
        here = slice(end - counts[i], end)
        logits[i], best = aggregate(settings.strategy, result.logits[here], relevance[here], settings.top_k)
        passages.append((windows[best].start, windows[best].end))
        query_cut[i] = result.query_tokens_cut[here].max()
        document_cut[i] = max(cut[i].tokens - covered(windows), result.document_tokens_cut[here].sum())
    scores, relevance_of_documents = scale.apply(logits)
    return LongScores(
        scores=scores,
        logits=logits,
        relevance=relevance_of_documents,
        kind=scale.activation.kind,
        query_tokens_cut=query_cut,
        document_tokens_cut=document_cut,
        tokens=result.tokens,
        seconds=time.perf_counter() - started,
        documents=result.documents,
        documents_cached=result.documents_cached,
        documents_prepared=result.documents_prepared,
        windows=counts,
        windows_left_out=np.array([len(document.windows) for document in cut], np.int64) - counts,
        passages=passages,
    )


def _read(windows: Sequence[Window], settings: LongDocuments) -> Sequence[Window]:
    """Choose the windows of a document that are read."""
    if settings.strategy == "first":
        return windows[:1]
    most = len(windows) if settings.max_windows is None else settings.max_windows
    return [windows[i] for i in spread(len(windows), most)]


def _truncated(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], result: PairScores, started: float
) -> LongScores:
    """What the model says of the beginnings, and where they end."""
    passages = [(0, len(text)) for _, text in texts]
    cut = [int(i) for i in np.flatnonzero(result.document_tokens_cut)]
    long = list(dict.fromkeys(texts[i][1] for i in cut))
    located = dict(zip(long, locate(tokenizer, long), strict=True))
    for i in cut:
        whole = located[texts[i][1]]
        window = whole.window(0, max(0, len(whole) - int(result.document_tokens_cut[i])))
        passages[i] = (window.start, window.end)
    facts = {field.name: getattr(result, field.name) for field in fields(result)}
    return LongScores(
        **{**facts, "seconds": time.perf_counter() - started},
        windows=np.ones(len(texts), np.int64),
        windows_left_out=np.zeros(len(texts), np.int64),
        passages=passages,
    )
