"""Scores that are known already, in a file that several processes may share."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from crossrank.errors import InputError
from crossrank.ranking.cache.score_cache import CacheStats
from crossrank.validation import check_counts

# How long another process's writing is waited for, in seconds; then the cache is passed over.
_PATIENCE = 0.2
# A use is written down only where the last one is longer ago, in seconds: reading must not mean writing each time.
_USED = 60
# Keys asked for, or rows written, at a time: SQLite's oldest limit is 999 values.
_CHUNK = 500
_LAYOUT = """
CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scores_used ON scores (used);
"""


class DiskCache:
    """Scores in an SQLite file. May be used from many threads and processes.

    A store that is locked, full or damaged never fails a ranking: it is passed over, and counted in ``stats.errors``.

    :param path: The file; it and its folders are made where they are missing.
    :param max_bytes: The most that the file takes; the log that SQLite keeps beside it takes a few megabytes more.
    :raises InputError: If the limit is no positive integer, or the file can't be opened as a cache.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = 1 << 30) -> None:
        check_counts(max_bytes=max_bytes)
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._hits = self._misses = self._evictions = self._errors = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_other_programs_file()
            with self._open() as database:
                database.execute("SELECT key, value, used FROM scores LIMIT 1").fetchone()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise InputError(
                f"{str(self.path)!r} can't be used as a score cache: {error}. Name another file, or delete this one."
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, in another process for instance, opens the file itself.
        return type(self), (self.path, self._max_bytes)

    def _refuse_other_programs_file(self) -> None:
        """Look, without writing, whether the file holds other tables than ours."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - {"scores"}:
            raise sqlite3.DatabaseError("it is a database of another program")

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Look up values; ``None`` for each that is not there."""
        found: dict[bytes, bytes] = {}
        with self._passing_over(), self._open() as database:
            for start in range(0, len(keys), _CHUNK):
                some = keys[start : start + _CHUNK]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT key, value, used FROM scores WHERE key IN ({marks})", some).fetchall()
                found |= {key: value for key, value, _ in rows}
                now = time.time()
                if stale := [(now, key) for key, _, used in rows if used < now - _USED]:
                    database.executemany("UPDATE scores SET used = ? WHERE key = ?", stale)
        values = [found.get(key) for key in keys]
        hits = sum(value is not None for value in values)
        with self._lock:
            self._hits += hits
            self._misses += len(keys) - hits
        return values

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep values; the least recently used make room."""
        rows = [(key, value, time.time()) for key, value in items.items()]
        for start in range(0, len(rows), _CHUNK):
            with self._passing_over(), self._open() as database:
                database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows[start : start + _CHUNK])
                self._make_room(database)

    @property
    def stats(self) -> CacheStats:
        """How it has served this process, and what is in it."""
        entries = size = 0
        with self._passing_over(), self._open() as database:
            entries = database.execute("SELECT count(*) FROM scores").fetchone()[0]
            size = _size(database)
        with self._lock:
            return CacheStats(self._hits, self._misses, entries, size, self._evictions, self._errors)

    def close(self) -> None:
        """Close the file; it is opened again when it is used again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _make_room(self, database: sqlite3.Connection) -> None:
        while (size := _size(database)) > self._max_bytes:
            entries = database.execute("SELECT count(*) FROM scores").fetchone()[0]
            if not entries:
                break
            # As large a share as is too much, and a little more, so that not every call has to make room.
            count = min(entries, int(entries * (1 - 0.9 * self._max_bytes / size)) + 1)
            database.execute("DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY used LIMIT ?)", (count,))
            self._evictions += count

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction, on a connection of this process's own: SQLite's do not survive a fork."""
        with self._lock:
            if self._connection is None or self._process != os.getpid():
                connection = sqlite3.connect(self.path, timeout=_PATIENCE, check_same_thread=False)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = OFF")  # what is lost in a crash is scored again
                connection.executescript(_LAYOUT)
                self._connection, self._process = connection, os.getpid()
            with self._connection:
                yield self._connection

    @contextmanager
    def _passing_over(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error:
            with self._lock:
                self._errors += 1


def _size(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {fact}").fetchone()[0] for fact in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
