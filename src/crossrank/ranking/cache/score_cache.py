"""What every score cache shares: the key of a pair, what is kept of a score, and the protocol of a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from crossrank.ranking.stage import Passage, StageScores

# Changes when what is kept, or how it is made, does: nothing that an older version kept is then found.
FORMAT = "crossrank-scores-1"


def key_of(fingerprint: str, query: str, text: str) -> bytes:
    """The key of a pair's score: SHA-256 of the parts, each with its length before it."""
    digest = hashlib.sha256()
    for part in (FORMAT, fingerprint, query, text):
        # JSON may carry lone surrogates, and two texts that differ only there are two texts.
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


@dataclass(frozen=True)
class CacheStats:
    """How a cache has served.

    :param hits: Scores that were asked for and there.
    :param misses: Scores that were asked for and not there.
    :param entries: Scores that are there now.
    :param bytes: What they take.
    :param evictions: Scores that had to make room.
    :param errors: Times that the store could not be read or written, and was passed over.
    """

    hits: int
    misses: int
    entries: int
    bytes: int
    evictions: int
    errors: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Hits of all that was asked for; ``None`` where nothing was."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class ScoreCache(Protocol):
    """Where scores are kept. May be used from many threads; never raises for want of room or a store."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Look up values; ``None`` for each that is not there."""
        ...

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep values; the least recently used make room."""
        ...

    @property
    def stats(self) -> CacheStats:
        """How it has served."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


@dataclass(frozen=True)
class CachedScore:
    """What is kept of a document: its part of :class:`~crossrank.ranking.stage.StageScores`."""

    score: float
    relevance: float | None
    kind: str
    cut: bool = False
    passage: Passage | None = None
    details: Mapping[str, Any] | None = None

    def pack(self) -> bytes:
        """As bytes; floats come back as they are."""
        return json.dumps([self.score, self.relevance, self.kind, self.cut, self.passage, self.details]).encode()

    @classmethod
    def unpack(cls, value: bytes) -> CachedScore | None:
        """From bytes; ``None`` where they are damaged, and the score is to be made again."""
        try:
            score, relevance, kind, cut, passage, details = json.loads(value)
            score, relevance = float(score), None if relevance is None else float(relevance)
            return cls(score, relevance, kind, cut, None if passage is None else (passage[0], passage[1]), details)
        except (ValueError, TypeError, IndexError, KeyError):
            return None

    @classmethod
    def rows(cls, scores: StageScores) -> Iterator[CachedScore]:
        """Take a stage's scores apart."""
        for i, score in enumerate(scores.scores):
            yield cls(
                score=float(score),
                relevance=None if scores.relevance is None else float(scores.relevance[i]),
                kind=scores.kind,
                cut=scores.cut is not None and bool(scores.cut[i]),
                passage=None if scores.passages is None else scores.passages[i],
                details=None if scores.details is None else scores.details[i],
            )

    @staticmethod
    def join(rows: Mapping[int, CachedScore], documents: int, fresh: StageScores | None, known_cut: int) -> StageScores:
        """Put a stage's scores together from known and fresh ones; what is not among the rows is not scored.

        :param rows: By position.
        :param documents: How many documents there are.
        :param fresh: What the stage said of those that were not known, with the facts of the whole.
        :param known_cut: How many of the known ones were cut.
        """
        scores, relevance = np.full((2, documents), np.nan)
        for i, row in rows.items():
            scores[i] = row.score
            relevance[i] = row.score if row.relevance is None else row.relevance
        kinds = [row.kind for row in rows.values()]
        listed = [rows.get(i) for i in range(documents)]
        passages = [None if row is None else row.passage for row in listed]
        details = [{} if row is None or row.details is None else row.details for row in listed]
        return StageScores(
            scores=scores,
            relevance=relevance,
            kind=fresh.kind if fresh is not None and not kinds else kinds[0],
            tokens=0 if fresh is None else fresh.tokens,
            pairs_cut=known_cut + (0 if fresh is None else fresh.pairs_cut),
            cost=None if fresh is None else fresh.cost,
            notes=() if fresh is None else fresh.notes,
            degraded=None if fresh is None else fresh.degraded,
            passages=passages if any(passages) else None,
            details=details if any(details) else None,
        )
