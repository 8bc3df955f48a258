"""The terms that BM25 would match, to compare with what a cross-encoder used."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

# Words of two letters or more, as in bm25s and scikit-learn.
_TERM = re.compile(r"(?u)\b\w\w+\b")
K1, B = 1.5, 0.75

Stem = Callable[[str], str]


@dataclass(frozen=True)
class Match:
    """A term of the query that the document has.

    :param term: In lower case, stemmed if there is a stemmer.
    :param count: How often the document has it.
    :param idf: How rare it is in the corpus; ``None`` without a corpus.
    :param weight: Its part of the BM25 score; its count without a corpus.
    :param in_query: ``(start, end)`` of each occurrence in the query.
    :param in_document: ``(start, end)`` of each occurrence in the document.
    """

    term: str
    count: int
    idf: float | None
    weight: float
    in_query: tuple[tuple[int, int], ...]
    in_document: tuple[tuple[int, int], ...]


class CorpusTerms:
    """Counts how many documents of a corpus have each term, for idf.

    :param documents: The texts; read once.
    :param stem: From a term to its stem; by default terms are not stemmed.
    """

    def __init__(self, documents: Iterable[str], *, stem: Stem | None = None) -> None:
        self.stem = stem
        self.frequencies: Counter[str] = Counter()
        self.count = tokens = 0
        for document in documents:
            found = [term for term, _ in _terms(document, stem)]
            self.frequencies.update(set(found))
            self.count += 1
            tokens += len(found)
        self.mean_length = tokens / self.count if self.count else 0.0

    def idf(self, term: str) -> float:
        """``ln(1 + (N - n + 0.5) / (n + 0.5))``: Robertson and Zaragoza 2009 with Lucene's 1 +, never below 0."""
        having = self.frequencies[term]
        return math.log(1 + (self.count - having + 0.5) / (having + 0.5))


def matches(query: str, document: str, corpus: CorpusTerms | None = None) -> list[Match]:
    """Find the terms that a query and a document share, highest weight first.

    With a corpus, the weights add up to the document's BM25 score: ``idf * tf / (tf + k1 (1 - b + b length / mean))``,
    which is Lucene's formula, with k1 = 1.5 and b = 0.75. A term that the query repeats counts as often as it occurs.

    :param corpus: Provides idf and the mean length.
    """
    stem = corpus.stem if corpus else None
    asked = _positions(query, stem)
    there = _positions(document, stem)
    length = sum(map(len, there.values()))
    found = []
    for term, in_query in asked.items():
        if term not in there:
            continue
        count, idf = len(there[term]), None
        weight = float(count)
        if corpus is not None:
            idf = corpus.idf(term)
            relative = length / corpus.mean_length if corpus.mean_length else 1.0
            weight = len(in_query) * idf * count / (count + K1 * (1 - B + B * relative))
        found.append(Match(term, count, idf, weight, tuple(in_query), tuple(there[term])))
    return sorted(found, key=lambda match: (-match.weight, match.in_query))


def _terms(text: str, stem: Stem | None) -> Iterator[tuple[str, tuple[int, int]]]:
    for match in _TERM.finditer(text):
        term = match.group().lower()
        yield stem(term) if stem else term, match.span()


def _positions(text: str, stem: Stem | None) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for term, span in _terms(text, stem):
        found.setdefault(term, []).append(span)
    return found
