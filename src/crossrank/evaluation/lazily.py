"""Mappings that keep arrays and read texts on demand, so that a large evaluation stays small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.data.corpus import Corpus
from crossrank.evaluation.result import Shown


class Texts(Mapping[str, str]):
    """Texts of some documents of a corpus.

    :param numbers: Which.
    """

    def __init__(self, corpus: Corpus, numbers: NDArray[np.int32]) -> None:
        self._corpus = corpus
        self._numbers = frozenset(numbers.tolist())

    def __getitem__(self, name: str) -> str:
        if (number := self._corpus.index.get(name)) is None or number not in self._numbers:
            raise KeyError(name)
        return self._corpus.text(number)

    def __iter__(self) -> Iterator[str]:
        return (self._corpus.ids[number] for number in sorted(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)


class Tops(Mapping[str, Sequence[Shown]]):
    """Each query's first documents.

    :param queries: Query -> its number.
    :param documents: ``[queries, most]``, numbers in the corpus, -1 where there are fewer.
    :param scores: ``[queries, most]``.
    """

    def __init__(
        self,
        queries: Mapping[str, int],
        ids: Sequence[str],
        qrels: Mapping[str, Mapping[str, int]],
        documents: NDArray[np.int32],
        scores: NDArray[np.float64],
    ) -> None:
        self._queries, self._ids, self._qrels = queries, ids, qrels
        self.documents, self._scores = documents, scores

    def __getitem__(self, query: str) -> list[Shown]:
        row = self._queries[query]
        judged = self._qrels.get(query, {})
        return [
            Shown(self._ids[number], float(score), judged.get(self._ids[number]))
            for number, score in zip(self.documents[row].tolist(), self._scores[row], strict=True)
            if number >= 0
        ]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)
