"""Score caches in an SQLite database: in memory, or in a file that several processes may share."""

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

# Seconds to wait while another process writes; after that the call continues without the cache.
_PATIENCE = 0.2
# The time of use is updated only if it is older than this, in seconds, so that most reads write nothing.
_USED = 60
# Keys or rows in one statement: old versions of SQLite allow 999 values.
_CHUNK = 500
_LAYOUT = """
CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS scores_used ON scores (used);
"""


class _SqliteCache:
    """Scores in a database, which threads may share. An error in it never fails a ranking; see :class:`DiskCache`."""

    def __init__(self, database: str, max_bytes: int) -> None:
        check_counts(max_bytes=max_bytes)
        self._database = database
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._hits = self._misses = self._evictions = self._errors = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Look up values; ``None`` for each one that is missing."""
        found: dict[bytes, bytes] = {}
        with self._counting_errors(), self._open() as database:
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
        """Keep values; if there is no room, the least recently used ones are deleted."""
        rows = [(key, value, time.time()) for key, value in items.items()]
        for start in range(0, len(rows), _CHUNK):
            with self._counting_errors(), self._open() as database:
                database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows[start : start + _CHUNK])
                self._make_room(database)

    @property
    def stats(self) -> CacheStats:
        """Figures of its use by this process so far, and its size."""
        entries = size = 0
        with self._counting_errors(), self._open() as database:
            entries = database.execute("SELECT count(*) FROM scores").fetchone()[0]
            size = _size(database)
        with self._lock:
            return CacheStats(self._hits, self._misses, entries, size, self._evictions, self._errors)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _make_room(self, database: sqlite3.Connection) -> None:
        while (size := _size(database)) > self._max_bytes:
            entries = database.execute("SELECT count(*) FROM scores").fetchone()[0]
            if not entries:
                break
            # Delete slightly more than needed, so that not every call has to make room.
            count = min(entries, int(entries * (1 - 0.9 * self._max_bytes / size)) + 1)
            database.execute("DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY used LIMIT ?)", (count,))
            self._evictions += count

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction, on a connection of this process: SQLite's connections do not survive a fork."""
        with self._lock:
            if self._connection is None or self._process != os.getpid():
                connection = sqlite3.connect(self._database, timeout=_PATIENCE, check_same_thread=False)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = OFF")  # scores lost in a crash are computed again
                connection.executescript(_LAYOUT)
                self._connection, self._process = connection, os.getpid()
            with self._connection:
                yield self._connection

    @contextmanager
    def _counting_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error:
            with self._lock:
                self._errors += 1


class MemoryCache(_SqliteCache):
    """Scores in this process's memory. Closing it deletes them.

    :param max_bytes: The most memory that the scores may take.
    :raises InputError: If it is not a positive integer.
    """

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        super().__init__(":memory:", max_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, for instance in another process, starts empty.
        return type(self), (self._max_bytes,)


class DiskCache(_SqliteCache):
    """Scores in an SQLite file. Threads and processes may share it.

    If the file is locked, full or damaged, rankings continue without it, and ``stats.errors`` counts the errors.

    :param path: The file; missing folders are made.
    :param max_bytes: The largest size of the file; SQLite's log takes a few megabytes more.
    :raises InputError: If the limit is not a positive integer, or the file can't be opened as a cache.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = 1 << 30) -> None:
        super().__init__(os.fspath(path), max_bytes)
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_other_programs_file()
            with self._open() as database:
                database.execute("SELECT key, value, used FROM scores LIMIT 1").fetchone()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise InputError(
                f"{str(self.path)!r} can't be used as a score cache: {error}. Give another file, or delete this one."
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, for instance in another process, opens the file itself.
        return type(self), (self.path, self._max_bytes)

    def _refuse_other_programs_file(self) -> None:
        """Check, without writing, that the file has no other tables than ours."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - {"scores"}:
            raise sqlite3.DatabaseError("it is a database of another program")


def _size(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {fact}").fetchone()[0] for fact in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
