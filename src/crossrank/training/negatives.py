"""Hard negatives: documents that a search puts high for a query though nobody judged them relevant.

Many of these are relevant all the same, and a model that is taught otherwise gets worse. Three guards, all of them
usual (Qu et al. 2021, RocketQA, arXiv 2010.08191, for the cross-encoder; Moreira et al. 2024, NV-Retriever, arXiv
2407.15831, for the margin relative to the positive's score):

- a window of ranks: the first few of a ranking are the likeliest false negatives, those far down are too easy;
- a margin: a document scored as high as the positive, or nearly, is left out;
- optionally a cross-encoder, whose score may not come near the positive's either.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.data.bm25 import Bm25, best
from crossrank.data.judgements import Group
from crossrank.errors import InputError
from crossrank.training.checks import same_query

Floats = NDArray[np.float64]
METHODS = ("bm25", "bi-encoder", "both")


@dataclass(frozen=True)
class Mining:
    """How negatives are chosen.

    :param method: What ranks the corpus.
    :param count: Negatives for each query (of each method).
    :param first: The first rank that is taken, counted from 1 among the documents that are not judged.
    :param last: The last.
    :param margin: A negative's score may be at most this share of the lowest positive's, where that is above 0;
        ``inf`` sets no limit, for data in which all that is relevant is judged.
    :param filter_margin: With a cross-encoder: by how much, in logits, the positive has to be above a negative.
    """

    method: str = "bm25"
    count: int = 4
    first: int = 3
    last: int = 50
    margin: float = 0.95
    filter_margin: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method={self.method!r} is not known. Take one of {', '.join(METHODS)}.")
        if not 1 <= self.first <= self.last:
            raise InputError(
                f"The window of ranks is {self.first} to {self.last}. Give a first of 1 or more, and a last."
            )
        if self.count < 1:
            raise InputError(f"count={self.count} is below 1. Take one negative or more for each query.")
        if not math.isfinite(self.filter_margin):
            raise InputError(f"filter_margin={self.filter_margin} is no number of logits. Take 1, for instance.")
        if not (0 < self.margin <= 1 or self.margin == math.inf):
            raise InputError(
                f"margin={self.margin} is outside 0 to 1: it is a share of a positive's score. Give inf for no limit."
            )


@dataclass
class MiningReport:
    """What was mined, and what was left out and why.

    :param beyond: Documents from below the window, where too little of it was below the positive.
    :param too_near: Documents scored too near a positive (or above it) by what ranks the corpus.
    :param filtered: Documents that the cross-encoder put too near a positive.
    """

    queries: int = 0
    without_positive: int = 0
    without_negatives: int = 0
    triplets: int = 0
    too_near: int = 0
    beyond: int = 0
    filtered: int = 0
    fewer: int = 0


@dataclass(frozen=True)
class Mined:
    """A query with its positives, its judged negatives and the mined ones."""

    query: str
    positives: list[str]
    negatives: list[str]


Ranker = Callable[[str], Floats]


def bm25_ranker(corpus: Sequence[str]) -> Ranker:
    """BM25's scores of all documents for a query.

    :raises MissingExtraError: If bm25s is not installed.
    """
    return Bm25(corpus).scores


def bi_encoder_ranker(model: Any, corpus: Sequence[str], queries: Sequence[str]) -> Ranker:
    """Cosines of all documents with a query.

    :param model: A :class:`crossrank.scoring.bi_encoder.BiEncoder`.
    :param queries: All that will be asked, embedded at once.
    """
    documents = np.asarray(model.encode(corpus, role="document"))
    asked = dict(zip(queries, np.asarray(model.encode(list(queries), role="query")), strict=True))
    return lambda query: (documents @ asked[query]).astype(np.float64)


def mine(
    groups: Sequence[Group],
    corpus: Sequence[str],
    rankers: Sequence[Ranker],
    settings: Mining,
    *,
    logits_of: Callable[[list[tuple[str, str]]], NDArray[Any]] | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[list[Mined], MiningReport]:
    """Find negatives for each query that has a positive.

    :param corpus: Distinct documents.
    :param rankers: What ranks the corpus, one or more.
    :param logits_of: A cross-encoder's, to filter by.
    :param progress: Is told how many more queries are done.
    :returns: The queries for which some were found or judged, and what was left out.
    """
    report = MiningReport()
    place = {text: i for i, text in enumerate(corpus)}
    of_query: dict[str, set[str]] = {}
    for group in groups:
        of_query.setdefault(same_query(group.query), set()).update(one.document for one in group.judged)
    mined: list[Mined] = []
    for group in groups:
        progress(1)
        report.queries += 1
        positives = [one.document for one in group.positives]
        if not positives:
            report.without_positive += 1
            continue
        judged = of_query[same_query(group.query)]
        found: dict[str, None] = {}
        for ranker in rankers:
            window = _window(group.query, positives, judged, corpus, place, ranker(group.query), settings, report)
            if logits_of is not None:
                window = _filtered(group.query, positives, window, logits_of, settings, report)
            chosen = random.Random(f"{settings.seed}\n{group.query}")
            found.update(
                dict.fromkeys(window if len(window) <= settings.count else chosen.sample(window, settings.count))
            )
            report.fewer += len(window) < settings.count
        negatives = list(dict.fromkeys([*(one.document for one in group.negatives), *found]))
        if not negatives:
            report.without_negatives += 1
            continue
        mined.append(Mined(group.query, positives, negatives))
        report.triplets += len(positives) * len(negatives)
    return mined, report


def _window(
    query: str,
    positives: Sequence[str],
    judged: set[str],
    corpus: Sequence[str],
    place: dict[str, int],
    scores: Floats,
    settings: Mining,
    report: MiningReport,
) -> list[str]:
    """Unjudged documents that score clearly below the query's positives: of the window, or else the next ones."""
    known = [scores[place[text]] for text in positives if text in place]
    lowest = min(known, default=0.0)
    # A positive that the ranker does not find says nothing of what it finds.
    limit = settings.margin * lowest if lowest > 0 else np.inf
    unjudged = [i for i in best(scores, len(scores)) if corpus[i] not in judged]
    window = unjudged[settings.first - 1 : settings.last]
    below = [i for i in window if scores[i] <= limit]
    report.too_near += len(window) - len(below)
    if len(below) < settings.count:
        # The positive stands so far down that nearly all of the window is above it. Without what comes below it, the
        # queries that most need training would drop out.
        further = [i for i in unjudged[settings.last :] if scores[i] <= limit][: settings.count - len(below)]
        report.beyond += len(further)
        below += further
    return [corpus[i] for i in below]


def _filtered(
    query: str,
    positives: Sequence[str],
    window: Sequence[str],
    logits_of: Callable[[list[tuple[str, str]]], NDArray[Any]],
    settings: Mining,
    report: MiningReport,
) -> list[str]:
    logits = np.asarray(logits_of([(query, text) for text in [*positives, *window]]), np.float64)
    limit = logits[: len(positives)].min() - settings.filter_margin
    kept = [text for text, logit in zip(window, logits[len(positives) :], strict=True) if logit <= limit]
    report.filtered += len(window) - len(kept)
    return kept
