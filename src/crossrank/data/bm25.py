"""BM25 by bm25s with its defaults: candidates from a whole corpus, or scores of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.data.candidates import EXCLUDED, Candidates
from crossrank.data.corpus import Corpus
from crossrank.data.text_lines import Notes
from crossrank.optional import require
from crossrank.progress import progress_of


def bm25(
    queries: Sequence[str],
    corpus: Corpus,
    depth: int,
    *,
    excluded: Sequence[frozenset[int]] | None = None,
    notes: Notes,
    show_progress: bool | None = None,
) -> Candidates:
    """Rank a whole corpus for each query by BM25: Lucene's form, k1 = 1.5, b = 0.75, English stop words, no stemmer.

    These are bm25s's defaults. Documents that score 0 are not candidates. Equal scores keep the order of the corpus.

    :param queries: The texts of the queries.
    :param depth: The most candidates per query.
    :param excluded: For each query, numbers of documents to leave out.
    :raises MissingExtraError: If bm25s is not installed.
    """
    lexical = Bm25([corpus.text(i) for i in range(len(corpus.ids))])
    rows: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []
    with progress_of(len(queries), show_progress) as progress:
        for number, query in enumerate(queries):
            scores = lexical.scores(query)
            out = excluded[number] if excluded is not None else frozenset()
            found = [i for i in best(scores, depth + len(out)) if i not in out][:depth]
            notes.add(EXCLUDED, count=sum(scores[i] > 0 for i in out))
            rows.append((np.array(found, np.int32), scores[found].astype(np.float64)))
            progress(1)
    return Candidates(
        np.concatenate([documents for documents, _ in rows] or [np.empty(0, np.int32)]),
        np.concatenate([scores for _, scores in rows] or [np.empty(0)]),
        np.cumsum([0, *(len(documents) for documents, _ in rows)], dtype=np.int64),
    )


class Bm25:
    """An index of texts by bm25s with its defaults.

    :raises MissingExtraError: If bm25s is not installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._bm25s = require("bm25s", extra="evaluation", purpose="Candidates by BM25")
        self._count = len(texts)
        tokens = self._bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
        self._index = self._bm25s.BM25()
        self._empty = not any(len(ids) for ids in tokens.ids)
        if not self._empty:
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> NDArray[np.float64]:
        """The score of each text; ``[texts]``."""
        [words] = self._bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        if self._empty or not words:
            return np.zeros(self._count)
        return np.asarray(self._index.get_scores(words), np.float64)


def best(scores: NDArray[np.float64], most: int) -> Iterator[int]:
    """Give the positions of the highest scores above 0, best first. Equal scores keep their order."""
    if most < len(scores):
        # Include all that equal the last score that fits, so that ties are not cut at random.
        limit = np.partition(scores, len(scores) - most)[len(scores) - most]
        found = np.flatnonzero((scores >= limit) & (scores > 0))
    else:
        found = np.flatnonzero(scores > 0)
    return iter(found[np.argsort(-scores[found], kind="stable")][:most].tolist())
