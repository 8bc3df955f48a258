"""A score cache in this process's memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.ranking.cache.score_cache import CacheStats
from crossrank.validation import check_counts

# Bytes of an entry besides its key and value: two objects, and a row of the table.
_OVERHEAD = 250


class MemoryCache:
    """Scores in this process's memory.

    :param max_bytes: The most memory that all entries may take, with their overhead.
    :raises InputError: If it is not a positive integer.
    """

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        check_counts(max_bytes=max_bytes)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = self._hits = self._misses = self._evictions = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, for instance in another process, starts empty.
        return type(self), (self._max_bytes,)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Look up values; ``None`` for each one that is missing."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for key, value in zip(keys, found, strict=True):
                if value is not None:
                    self._entries.move_to_end(key)
            hits = sum(value is not None for value in found)
            self._hits += hits
            self._misses += len(keys) - hits
        return found

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep values; if there is no room, the least recently used ones are deleted."""
        with self._lock:
            for key, value in items.items():
                old = self._entries.pop(key, None)
                self._bytes += _size(key, value) - (0 if old is None else _size(key, old))
                self._entries[key] = value
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._entries.popitem(last=False))
                self._evictions += 1

    @property
    def stats(self) -> CacheStats:
        """Figures of its use so far."""
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._entries), self._bytes, self._evictions)

    def close(self) -> None:
        """Delete all entries."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD
