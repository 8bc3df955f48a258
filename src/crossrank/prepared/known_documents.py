"""Known documents of a model: those it encoded most recently, and those prepared on disk."""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable, Mapping
from typing import Any

from crossrank.errors import InputError
from crossrank.forks import renew_lock_after_fork
from crossrank.prepared.documents import PreparedDocuments
from crossrank.tokenization.split_encoder import ReadText
from crossrank.tokenization.text_cache import TextCache

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class KnownDocuments:
    """States of documents, from memory or from disk; see :class:`~crossrank.tokenization.split_encoder.KnownTexts`.

    :param max_bytes: Memory limit for the states of recently encoded documents; 0 keeps none.
    :param prepared: Documents that were prepared on disk.
    """

    def __init__(self, max_bytes: int, prepared: PreparedDocuments | None = None) -> None:
        self.cache = TextCache(max_bytes)
        self.prepared = prepared
        self._hits = self._prepared_hits = self._misses = 0
        self._lock = threading.Lock()
        renew_lock_after_fork(self)

    def find(self, text: Hashable) -> ReadText | None:
        """Return a document's states, or ``None`` if it must be encoded."""
        found = None if self.prepared is None else self.prepared.find(text)
        return self.cache.find(text) if found is None else found

    def keep(self, text: Hashable, read: ReadText) -> None:
        """Keep the states of a document that was just encoded."""
        self.cache.keep(text, read)

    def count(self, documents: int = 0, documents_cached: int = 0, documents_prepared: int = 0) -> None:
        """Count the documents of a call."""
        with self._lock:
            self._hits += documents_cached
            self._prepared_hits += documents_prepared
            self._misses += documents - documents_cached - documents_prepared

    def facts(self) -> Mapping[str, Any]:
        """Return the size of the cache, its hits and its misses."""
        return {
            "max_bytes": self.cache.max_bytes,
            "bytes": self.cache.bytes,
            "documents": len(self.cache),
            "hits": self._hits,
            "prepared": self._prepared_hits,
            "misses": self._misses,
        }


def parse_bytes(name: str, value: Any) -> int:
    """Read an amount of memory: a number of bytes, or a text such as ``"256MB"`` or ``"1.5 GB"``.

    :raises InputError: If it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", value, re.I) if isinstance(value, str) else None
    if match is not None:
        unit = match[2].upper()
        return int(float(match[1]) * _UNITS[unit if unit in _UNITS else f"{unit}B"])
    raise InputError(f"{name}={value!r} is not an amount of memory. Give one such as '256MB', a number of bytes, or 0.")
