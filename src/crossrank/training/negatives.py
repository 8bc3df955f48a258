"""Hard negatives: documents that a search ranks high for a query although nobody judged them relevant.

Many of these are relevant, and training on them as negatives makes a model worse. Three common filters (Qu
et al. 2021, RocketQA, arXiv 2010.08191, for the cross-encoder; Moreira et al. 2024, NV-Retriever, arXiv
2407.15831, for the margin relative to the positive's score):

- a window of ranks: the first few documents are the likeliest false negatives, those far down are too easy;
- a margin: documents that score nearly as high as the positive are left out;
- optionally a cross-encoder, which must also score the document clearly below the positive.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.data.bm25 import best
from crossrank.data.judgements import Group
from crossrank.errors import InputError
from crossrank.training.checks import same_query
from crossrank.validation import check_choice, check_counts, check_number

Floats = NDArray[np.float64]
METHODS = ("bm25", "bi-encoder", "both")


@dataclass(frozen=True)
class Mining:
    """Settings of mining.

    :param method: How the corpus is searched.
    :param count: Negatives per query and method.
    :param first: The first rank to take negatives from, counted from 1 among the unjudged documents.
    :param last: The last rank.
    :param margin: A negative's score may be at most this share of the lowest positive score, if that is above 0;
        ``inf`` for no limit, if every relevant document is judged.
    :param filter_margin: With a cross-encoder: by how many logits the positive must be above a negative.
    """

    method: str = "bm25"
    count: int = 4
    first: int = 3
    last: int = 50
    margin: float = 0.95
    filter_margin: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_counts(count=self.count, first=self.first, last=self.last)
        check_number("filter_margin", self.filter_margin, remedy="Use 1, for example.")
        if self.last < self.first:
            raise InputError(f"The first rank is {self.first} and the last {self.last}. Give the lower number first.")
        if not (0 < self.margin <= 1 or self.margin == math.inf):
            raise InputError(
                f"margin={self.margin} is outside 0 to 1. It is a share of a positive's score; use inf for no limit."
            )


@dataclass
class MiningReport:
    """The mined negatives, and what was left out and why.

    :param beyond: Documents taken from below the window, because too few inside it scored below the positive.
    :param too_near: Documents that the search scored above a positive or too close to it.
    :param filtered: Documents that the cross-encoder scored above a positive or too close to it.
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


def bi_encoder_ranker(model: Any, corpus: Sequence[str], queries: Sequence[str]) -> Ranker:
    """Cosines of all documents with a query.

    :param model: A :class:`crossrank.scoring.bi_encoder.BiEncoder`.
    :param queries: All queries; they are embedded in one call.
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
    :param rankers: One or more functions that score the corpus.
    :param logits_of: Scores pairs with a cross-encoder, to filter the negatives.
    :param progress: Called with the number of queries just done.
    :returns: The queries that have negatives, found or judged, and what was left out.
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
            window = _window(positives, judged, corpus, place, ranker(group.query), settings, report)
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
    positives: Sequence[str],
    judged: set[str],
    corpus: Sequence[str],
    place: dict[str, int],
    scores: Floats,
    settings: Mining,
    report: MiningReport,
) -> list[str]:
    """Return unjudged documents that score clearly below the query's positives, from the window or below it."""
    known = [scores[place[text]] for text in positives if text in place]
    lowest = min(known, default=0.0)
    # A positive that the ranker does not find sets no limit.
    limit = settings.margin * lowest if lowest > 0 else np.inf
    unjudged = [i for i in best(scores, len(scores)) if corpus[i] not in judged]
    window = unjudged[settings.first - 1 : settings.last]
    below = [i for i in window if scores[i] <= limit]
    report.too_near += len(window) - len(below)
    if len(below) < settings.count:
        # The positive is ranked so low that nearly all of the window is above it. Such queries need training most, so
        # documents from below the window are taken.
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
