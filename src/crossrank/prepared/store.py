"""The files of prepared documents: append-only segments and a directory in SQLite.

::

    prepared/
      directory.sqlite     the model; for each document: id, digest of the text, segment, position, checksum
      segment-000001.bin   documents' states, one after the other
      writer.lock

A document is appended to the last segment and synced to disk before the directory's transaction records it. So a killed
writer leaves at most some unused bytes. A reader's transaction stays open until ``refresh``, so it sees one state of
the directory. A position in a segment is never written twice: what a reader has mapped doesn't change, even when a
compaction has deleted the file.
"""

from __future__ import annotations

import mmap
import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from crossrank.checkpoint.locks import FileLock
from crossrank.errors import PreparedError
from crossrank.forks import never_release_after_fork, renew_lock_after_fork, reopen_after_fork

FORMAT = 1
DIRECTORY = "directory.sqlite"
# A segment of this size takes no more documents.
SEGMENT_BYTES = 1 << 30
# For how long a second writer waits for the first.
_WAIT = 10.0
_SEGMENT = re.compile(r"segment-(\d+)\.bin")
# Bytes that a compaction copies at a time.
_COPIED = 16 << 20
_KEPT = "What was added before stays; the same command goes on from there."

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL, segment INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
    tokens INTEGER NOT NULL, tokens_cut INTEGER NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_digest ON documents (digest);
"""
_COLUMNS = "id, digest, segment, start, size, tokens, tokens_cut, checksum"


@dataclass(frozen=True)
class Row:
    """A document in the directory."""

    id: str
    digest: bytes
    segment: int
    start: int
    size: int
    tokens: int
    tokens_cut: int
    checksum: int


class Store:
    """Reads a folder of prepared documents, and adds to it. Safe to use from many threads.

    :param folder: The folder; :meth:`create` makes it.
    :raises PreparedError: If it is not such a folder, or has a newer format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._maps: dict[int, memoryview] = {}
        self._stats: dict[str, int] | None = None
        self._checked: set[tuple[int, int]] = set()
        if not (folder / DIRECTORY).is_file():
            raise PreparedError(
                f"{str(folder)!r} holds no prepared documents. Make them with: crossrank prepare FILE -o {folder}"
            )
        self._connection = self._connect()
        try:
            self.meta: Mapping[str, str] = dict(self._connection.execute("SELECT name, value FROM meta"))
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        if int(self.meta.get("format", 0)) != FORMAT:
            raise PreparedError(
                f"{str(folder)!r} is of format {self.meta.get('format')}, this crossrank reads format {FORMAT}. "
                "Install a newer crossrank, or prepare the documents again into another folder."
            )
        self.refresh()
        self._inherited: list[sqlite3.Connection] = []
        never_release_after_fork(self)
        renew_lock_after_fork(self)
        reopen_after_fork(self)

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, str]) -> Store:
        """Create an empty folder, or open it if another process has just created it.

        :raises PreparedError: If it can't be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "writer.lock", "prepare", wait=_WAIT):
                if not (folder / DIRECTORY).exists():
                    # Under another name first, so that no process sees an incomplete directory.
                    unfinished = folder / "directory.unfinished"
                    unfinished.unlink(missing_ok=True)
                    connection = sqlite3.connect(unfinished)
                    connection.executescript("PRAGMA journal_mode = WAL;" + _TABLES)
                    connection.executemany("INSERT INTO meta VALUES (?, ?)", {**meta, "format": str(FORMAT)}.items())
                    connection.commit()
                    connection.close()
                    unfinished.rename(folder / DIRECTORY)
        except (OSError, sqlite3.Error) as error:
            raise PreparedError(f"{str(folder)!r} can't be written: {error}") from error
        return cls(folder)

    # ---- reading -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """See documents that were added and removed since.

        :raises PreparedError: If the directory is damaged.
        """
        with self._lock:
            self._stats = None
            for _ in range(5):
                there = self.segments()
                try:
                    if self._connection.in_transaction:
                        self._connection.rollback()
                    self._connection.execute("BEGIN")
                    # The transaction begins when the first row is read.
                    self._connection.execute("SELECT id FROM documents LIMIT 1").fetchone()
                except sqlite3.DatabaseError as error:
                    raise self._damaged(error) from error
                self._maps = {number: data for number in self.segments() if (data := self.mapped(number)) is not None}
                if there.keys() <= self._maps.keys():
                    break  # else a compaction came between the two: look again

    def reopen(self) -> None:
        """Open the directory again, in a child process.

        :raises PreparedError: If it can't be opened.
        """
        self._inherited.append(self._connection)  # a connection must not be closed in a child process either
        self._connection = self._connect()
        self.refresh()

    def __len__(self) -> int:
        return self.stats()["documents"]

    def by_digest(self, digest: bytes) -> Row | None:
        """Find a document by its text's digest."""
        return self._one("digest = ?", digest)

    def by_id(self, identifier: str) -> Row | None:
        """Find a document by its id."""
        return self._one("id = ?", identifier)

    def rows(self) -> Iterator[Row]:
        """All documents, in the order of their positions."""
        with self._lock:
            return iter(_all_rows(self._connection))

    def data(self, row: Row) -> memoryview | None:
        """Return a document's bytes from the mapped file, or ``None`` if they are damaged."""
        data = self._maps.get(row.segment)
        if data is None or row.start + row.size > len(data):
            # It was added since, by this process.
            data = self.mapped(row.segment)
            if data is None or row.start + row.size > len(data):
                return None
            self._maps[row.segment] = data
        found = data[row.start : row.start + row.size]
        place = (row.segment, row.start)
        # Once for each document: the checksum takes as long as a copy.
        if place not in self._checked:
            if zlib.crc32(found) != row.checksum:
                return None
            self._checked.add(place)
        return found

    def segments(self) -> dict[int, Path]:
        """Find the segments in the folder, by number."""
        paths = sorted(self.folder.iterdir())
        return {int(found[1]): path for path in paths if (found := _SEGMENT.fullmatch(path.name))}

    def segment_path(self, number: int) -> Path:
        """The path of a segment."""
        return self.folder / f"segment-{number:06d}.bin"

    def stats(self) -> dict[str, int]:
        """Count documents, tokens and bytes. It reads every row, so the result is cached until the next refresh."""
        with self._lock:
            if self._stats is None:
                count, tokens = self._connection.execute("SELECT count(*), total(tokens) FROM documents").fetchone()
                (live,) = self._connection.execute(
                    "SELECT total(size) FROM (SELECT DISTINCT segment, start, size FROM documents)"
                ).fetchone()
                segments = [path.stat().st_size for path in self.segments().values()]
                self._stats = {
                    "documents": count,
                    "tokens": int(tokens),
                    "bytes": int(live),
                    "bytes_on_disk": sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file()),
                    "bytes_unused": sum(segments) - int(live),
                    "segments": len(segments),
                }
            return dict(self._stats)

    # ---- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Become the only writer; a second one waits for ten seconds.

        :raises PreparedError: If another process has it, or the folder can't be written.
        """
        try:
            with FileLock(self.folder / "writer.lock", "prepare", wait=_WAIT):
                connection = self._connect()
                try:
                    connection.execute("PRAGMA synchronous = NORMAL")
                    # 64 MB, because the digests of new documents lie anywhere in their index.
                    connection.execute("PRAGMA cache_size = -64000")
                    yield Writer(self, connection)
                finally:
                    # Closing rolls back what is open; the last one to close tidies the write-ahead log up.
                    connection.close()
        except OSError as error:
            raise PreparedError(f"{str(self.folder)!r} can't be written: {error}. {_KEPT}") from error
        except sqlite3.DatabaseError as error:
            raise PreparedError(f"{str(self.folder / DIRECTORY)!r} can't be written: {error}. {_KEPT}") from error
        finally:
            self.refresh()

    def _connect(self) -> sqlite3.Connection:
        path = (self.folder / DIRECTORY).resolve()
        try:
            connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            connection.execute("SELECT count(*) FROM meta").fetchone()
        except sqlite3.Error as error:
            # On a disk that can't be written, a database with a write-ahead log opens only as one that never changes.
            if "malformed" in str(error) or "not a database" in str(error):
                raise self._damaged(error) from error
            try:
                connection = sqlite3.connect(
                    f"{path.as_uri()}?immutable=1", uri=True, check_same_thread=False, isolation_level=None
                )
                connection.execute("SELECT count(*) FROM meta").fetchone()
            except sqlite3.Error as again:
                raise self._damaged(again) from again
        return connection

    def _one(self, where: str, value: Any) -> Row | None:
        with self._lock:
            try:
                return _one_row(self._connection, where, value)
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error

    def mapped(self, number: int) -> memoryview | None:
        """Map the current content of a segment."""
        path = self.segment_path(number)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                known = self._maps.get(number)
                if known is not None and len(known) == size:
                    return known
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
        except FileNotFoundError:
            return None

    def _damaged(self, error: Exception) -> PreparedError:
        return PreparedError(
            f"{str(self.folder / DIRECTORY)!r} can't be read: {error}. If it is damaged, delete the folder and prepare "
            "the documents again."
        )


class Writer:
    """Adds and removes documents; made by :meth:`Store.writer`."""

    def __init__(self, store: Store, connection: sqlite3.Connection) -> None:
        self._store = store
        self._connection = connection
        self._number = max(store.segments(), default=1)

    def add(self, documents: Sequence[tuple[str, bytes, int, int, bytes]]) -> None:
        """Add documents, all or none; a document with a known id is replaced.

        :param documents: Of each: id, digest, tokens, tokens cut, and its bytes; empty bytes for a text that is there
            under another id.
        """
        rows = []
        if any(data for *_, data in documents):
            path = self._store.segment_path(self._number)
            if path.exists() and path.stat().st_size >= SEGMENT_BYTES:
                self._number += 1
                path = self._store.segment_path(self._number)
            with path.open("ab") as file:
                start = file.tell()
                places: dict[bytes, Row] = {}
                for identifier, digest, tokens, cut, data in documents:
                    if data:
                        checksum = zlib.crc32(data)
                        places[digest] = Row(identifier, digest, self._number, start, len(data), tokens, cut, checksum)
                        file.write(data)
                        start += len(data)
                file.flush()
                os.fsync(file.fileno())
        else:
            places = {}
        for identifier, digest, *_ in documents:
            row = places.get(digest) or self.by_digest(digest)
            assert row is not None  # the caller leaves out the bytes only of texts that are stored
            rows.append(astuple(replace(row, id=identifier)))
        self._write(f"INSERT OR REPLACE INTO documents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove documents, all or none; their bytes stay until a compaction."""
        self._write("DELETE FROM documents WHERE id = ?", [(identifier,) for identifier in ids])

    def by_digest(self, digest: bytes) -> Row | None:
        """Find a document by its text's digest, also among those just added."""
        return _one_row(self._connection, "digest = ?", digest)

    def compact(self, *, wasted: float = 0.5) -> None:
        """Copy the used documents out of segments with more than this share unused, and delete those segments.

        A damaged document is not copied; it will be encoded again.
        """
        live: dict[int, dict[int, list[Row]]] = {}
        for row in _all_rows(self._connection):
            live.setdefault(row.segment, {}).setdefault(row.start, []).append(row)
        for number, path in self._store.segments().items():
            places = live.get(number, {})
            size = path.stat().st_size
            if size - sum(rows[0].size for rows in places.values()) <= wasted * size:
                continue
            # A position is never written twice, so copies go into a new segment.
            self._number = max(self._number, number + 1)
            mapped = self._store.mapped(number)
            batch: list[tuple[str, bytes, int, int, bytes]] = []
            for rows in places.values():
                first = rows[0]
                data = b"" if mapped is None else bytes(mapped[first.start : first.start + first.size])
                if zlib.crc32(data) != first.checksum:
                    self.remove(row.id for row in rows)
                    continue
                # Several ids may share a position.
                batch += [
                    (row.id, row.digest, row.tokens, row.tokens_cut, b"" if row is not first else data) for row in rows
                ]
                if sum(len(document[4]) for document in batch) > _COPIED:
                    self.add(batch)
                    batch = []
            self.add(batch)
            # Windows refuses while a reader has it open; the next compaction then deletes it.
            with suppress(PermissionError):
                path.unlink()

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _one_row(connection: sqlite3.Connection, where: str, value: Any) -> Row | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM documents WHERE {where}", (value,)).fetchone()
    return None if row is None else Row(*row)


def _all_rows(connection: sqlite3.Connection) -> list[Row]:
    return [Row(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM documents ORDER BY segment, start")]
