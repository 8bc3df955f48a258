"""How long scoring takes, learnt while it runs: how many documents fit into the time that is left."""

from __future__ import annotations

import threading
from collections.abc import Sequence

# A chunk takes at most this share of what is left, so that an estimate that was too low is found out in time.
_SHARE = 0.25
# What is left must be this many times the estimate for a document to be begun.
_RESERVE = 1.25
# Characters of a chunk: from there on a forward pass is full, and larger chunks win nothing.
_MOST = 32_000
# A document counts at least so many characters: there are special tokens and the query beside it.
_LEAST = 100
# Characters of a token, at most, in most texts.
_TOKEN = 5


class Pace:
    """Seconds a character, from the chunks so far. May be used from many threads.

    The estimate rises at once and falls by half of the difference: other programs may take the processor away at any
    moment, and what a single slow chunk says may be true for the next.

    :ivar max_length: The most tokens that are read of a document; more of it costs nothing.
    """

    def __init__(self) -> None:
        self.max_length = 512
        self._lock = threading.Lock()
        self._rate: float | None = None

    def fitting(self, documents: Sequence[str], seconds: float) -> int:
        """How many of the documents, from the first on, to score next; 0 where there is no time for even one."""
        with self._lock:
            rate = self._rate
        if not documents or seconds <= 0:
            return 0
        if rate is None:
            return 1
        if rate * self._size(documents[0]) * _RESERVE > seconds:
            return 0
        room = min(_MOST, _SHARE * seconds / rate)
        count, used = 1, self._size(documents[0])
        while count < len(documents) and (used := used + self._size(documents[count])) <= room:
            count += 1
        return count

    def learn(self, documents: Sequence[str], seconds: float) -> None:
        """Take note of what a chunk took."""
        seen = seconds / sum(map(self._size, documents))
        with self._lock:
            self._rate = seen if self._rate is None else max(seen, (self._rate + seen) / 2)

    def _size(self, document: str) -> int:
        return min(max(len(document), _LEAST), _TOKEN * self.max_length)
