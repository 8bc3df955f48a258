"""What all score caches share: the key of a pair, the value that is kept, and the protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from crossrank.ranking.stage import Passage, StageScores

# Change it whenever the contents of a key or a value change, so that scores of an older version are not found.
FORMAT = "crossrank-scores-1"


def key_of(fingerprint: str, query: str, text: str) -> bytes:
    """The key of a pair's score: SHA-256 of the parts, each after its length."""
    digest = hashlib.sha256()
    for part in (FORMAT, fingerprint, query, text):
        # JSON may contain lone surrogates; texts that differ only in them must get different keys.
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


@dataclass(frozen=True)
class CacheStats:
    """Figures of a cache.

    :param hits: Scores that were found.
    :param misses: Scores that were not found.
    :param entries: Scores in the cache now.
    :param bytes: Their size.
    :param evictions: Scores that were deleted to make room.
    :param errors: How often the cache could not be read or written. Rankings then continue without it.
    """

    hits: int
    misses: int
    entries: int
    bytes: int
    evictions: int
    errors: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of lookups that were hits; ``None`` if there were none."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class ScoreCache(Protocol):
    """Keeps scores. Threads may share one object. A full or broken store raises no error."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Look up values; ``None`` for each one that is missing."""

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep values; if there is no room, the least recently used ones are deleted."""

    @property
    def stats(self) -> CacheStats:
        """Figures of its use so far."""

    def close(self) -> None:
        """Close it."""


class CachedScore(NamedTuple):
    """The value that is kept for a document: its part of :class:`~crossrank.ranking.stage.StageScores`."""

    score: float
    relevance: float | None
    kind: str
    cut: bool = False
    passage: Passage | None = None
    details: Mapping[str, Any] | None = None

    def pack(self) -> bytes:
        """Write it as bytes, without rounding."""
        return json.dumps(self).encode()

    @classmethod
    def unpack(cls, value: bytes) -> CachedScore | None:
        """Read it from bytes; ``None`` if they are damaged, so that the document is scored again."""
        try:
            score, relevance, kind, cut, passage, details = json.loads(value)
            score, relevance = float(score), None if relevance is None else float(relevance)
            return cls(score, relevance, kind, cut, None if passage is None else (passage[0], passage[1]), details)
        except (ValueError, TypeError, IndexError, KeyError):
            return None


def split_scores(scores: StageScores) -> list[CachedScore]:
    """Split a stage's scores by document."""
    nothing = [None] * len(scores.scores)
    return [
        CachedScore(score, relevance, scores.kind, cut, passage, details)
        for score, relevance, cut, passage, details in zip(
            scores.scores.tolist(),
            nothing if scores.relevance is None else scores.relevance.tolist(),
            [False] * len(nothing) if scores.cut is None else scores.cut.tolist(),
            scores.passages or nothing,
            scores.details or nothing,
            strict=True,
        )
    ]


def join_scores(
    rows: Mapping[int, CachedScore], documents: int, fresh: StageScores | None, known_cut: int
) -> StageScores:
    """Combine known and fresh scores. A document without a row is not scored.

    :param rows: By the document's position.
    :param documents: How many documents there are.
    :param fresh: The stage's result for the documents that were not known, which has the facts of the call.
    :param known_cut: How many of the known documents were cut.
    """
    kind = next((row.kind for row in rows.values()), "unscored" if fresh is None else fresh.kind)
    missing = CachedScore(np.nan, None, kind)
    listed = [rows.get(i, missing) for i in range(documents)]
    scores = np.array([row.score for row in listed])
    whole = fresh or StageScores(scores, kind)
    return replace(
        whole,
        scores=scores,
        relevance=np.array([row.score if row.relevance is None else row.relevance for row in listed]),
        kind=kind,
        pairs_cut=known_cut + whole.pairs_cut,
        cut=None,
        passages=[row.passage for row in listed] if any(row.passage for row in listed) else None,
        details=[row.details or {} for row in listed] if any(row.details for row in listed) else None,
    )
