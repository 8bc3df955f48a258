"""Candidates of many queries in three arrays: twelve bytes per pair and no Python objects."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank.data.text_lines import LineError, Notes, Place

DUPLICATES = "candidates given twice for a query (the better rank was kept)"
AGAINST = "candidates whose rank and score disagree (the score was used)"
EXCLUDED = "candidates that the collection excludes for their query"


@dataclass(frozen=True)
class Candidates:
    """The candidates of a first stage, best first.

    :param documents: ``[pairs]``, numbers of documents in the corpus.
    :param scores: ``[pairs]``, scores of the first stage; never rising within a query.
    :param starts: ``[queries + 1]``, where the candidates of each query begin.
    """

    documents: NDArray[np.int32]
    scores: NDArray[np.float64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.starts) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of candidates of each query; ``[queries]``."""
        return np.diff(self.starts)

    def of(self, query: int) -> slice:
        """The slice of the arrays with the candidates of a query."""
        return slice(int(self.starts[query]), int(self.starts[query + 1]))

    def chosen(self, queries: Sequence[int]) -> Candidates:
        """Keep these queries, in this order."""
        pieces = [self.of(query) for query in queries]
        empty = np.empty(0)
        return Candidates(
            np.concatenate([self.documents[piece] for piece in pieces] or [empty.astype(np.int32)]),
            np.concatenate([self.scores[piece] for piece in pieces] or [empty]),
            np.cumsum([0, *(piece.stop - piece.start for piece in pieces)], dtype=np.int64),
        )


class CandidateRows:
    """Collects candidates in any order; :meth:`build` sorts them.

    They are sorted by score, highest first, then by rank, lowest first, then by the order in which they were added.
    """

    def __init__(self) -> None:
        self._queries, self._documents = array("i"), array("i")
        self._scores, self._ranks = array("d"), array("d")
        self._lines = array("q")
        self._path: Path | None = None

    def add(self, query: int, document: int, score: float, rank: float, place: Place) -> None:
        """Add a candidate. All must come from one file."""
        self._path = place.path
        self._lines.append(place.number)
        self._queries.append(query)
        self._documents.append(document)
        self._scores.append(score)
        self._ranks.append(rank)

    def __len__(self) -> int:
        return len(self._queries)

    def build(self, queries: int, notes: Notes) -> Candidates:
        """Sort the candidates and drop repeated ones.

        :param queries: The number of queries, including those without candidates.
        :raises LineError: If the scores look like ranks.
        """
        query, document = np.frombuffer(self._queries, np.int32), np.frombuffer(self._documents, np.int32)
        score, rank = np.frombuffer(self._scores, np.float64), np.frombuffer(self._ranks, np.float64)
        if not len(query):
            return Candidates(document.copy(), score.copy(), np.zeros(queries + 1, np.int64))
        if self._path is not None and _are_ranks(query, rank, score):
            reason = "the scores count 1, 2, 3, ... from the first line of each query to its last, like ranks"
            remedy = "A higher score is better. Check the order of the columns."
            raise LineError(Place(self._path, self._lines[-1]), reason, remedy)
        order = np.lexsort((rank, -score, query))
        query, document, score, rank = query[order], document[order], score[order], rank[order]
        lines = np.frombuffer(self._lines, np.int64)[order]
        same = query[1:] == query[:-1]
        against = same & (rank[1:] < rank[:-1])
        self._note(notes, AGAINST, lines[1:][against])
        pair = query.astype(np.int64) << 32 | document
        _, first = np.unique(pair, return_index=True)
        self._note(notes, DUPLICATES, np.delete(lines, first))
        kept = np.sort(first)
        starts = np.searchsorted(query[kept], np.arange(queries + 1))
        return Candidates(document[kept].copy(), score[kept].copy(), starts.astype(np.int64))

    def _note(self, notes: Notes, what: str, lines: NDArray[np.int64]) -> None:
        if len(lines) and self._path is not None:
            notes.add(what, Place(self._path, int(lines.min())), len(lines))


def _are_ranks(query: NDArray[np.int32], rank: NDArray[np.float64], score: NDArray[np.float64]) -> bool:
    """Whether scores count up like ranks, so that the order would be reversed; each ``[lines]``.

    In a file that is sorted from the last rank to the first, scores may rise like this too, but its ranks count down.
    """
    lines = np.arange(len(query))
    begins = np.append(True, query[1:] != query[:-1])
    ends = np.append(begins[1:], True)
    position = lines - np.maximum.accumulate(np.where(begins, lines, 0))
    counts_up = np.array_equal(score, position) or np.array_equal(score, position + 1)
    counts_down = np.isin(rank[ends], (0, 1)).all() and (np.diff(rank)[~begins[1:]] == -1).all()
    return bool(counts_up and position.max() >= 2 and not counts_down)
