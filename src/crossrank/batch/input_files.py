"""The input of a job: a file, a folder, a glob or a cloud address -> files, and files -> parts of bounded size."""

from __future__ import annotations

import fnmatch
import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from crossrank.errors import InputError

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
# If the job is stopped, the work on one part is lost: at most a few minutes.
PART_PAIRS = 20_000
PART_BYTES = 8 << 20
_READ = 1 << 20


@dataclass(frozen=True)
class InputFile:
    """One file.

    :param path: Its path in its file system.
    :param size: Bytes.
    :param changed: Time of the last change, in nanoseconds since 1970; 0 if unknown.
    """

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, info: Any) -> InputFile:
        """Read what pyarrow knows of a file."""
        return cls(info.path, info.size, 0 if info.mtime_ns is None else int(info.mtime_ns))

    @property
    def compressed(self) -> bool:
        """Whether it is a gzip file."""
        return self.path.endswith(".gz")

    @property
    def format(self) -> str:
        """``parquet``, ``jsonl``, ``csv`` or ``tsv``, from its name."""
        return FORMATS[posixpath.splitext(self.path.removesuffix(".gz"))[1].lower()]


@dataclass(frozen=True)
class Part:
    """A piece of one file: the unit that is scored, written and recorded.

    :param number: Its position in the job, from 0.
    :param path: The file.
    :param format: The file's format.
    :param start: The first byte; for Parquet, the first row.
    :param end: The end (exclusive) in bytes or rows; -1 for a whole compressed file.
    """

    number: int
    path: str
    format: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"part-{self.number:05d}"


def file_system(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    An address is a local path, or one such as ``s3://bucket/key`` or ``gs://...``. Protocols that pyarrow does not know
    are opened with fsspec.

    :raises InputError: If neither knows the protocol, or a package is missing.
    """
    protocol, found, _ = address.partition("://")
    if not found:
        return pa.fs.LocalFileSystem(), str(Path(address).expanduser().absolute())
    if protocol not in ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss"):
        try:
            import fsspec

            inner, path = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"{address!r}: no file system for {protocol}:// was found. Install its fsspec package ({error})."
            ) from error
        return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(inner)), str(path)
    try:
        system, path = pa.fs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, OSError, NotImplementedError) as error:
        raise InputError(f"{address!r} can't be opened: {error}.") from error
    return system, str(path)


def find_files(address: str) -> tuple[Any, list[InputFile]]:
    """Find the files of an input: one file, a folder, or a glob; sorted by path.

    In folders, hidden files and names that start with ``_`` are skipped.

    :raises InputError: If there is nothing, or the format of a file is unknown.
    """
    plain = address.partition("://")[2] or address
    magic = any(mark in plain for mark in "*?[")
    if magic:
        head = address[: min(address.index(mark) for mark in "*?[" if mark in address)]
        system, base = file_system(head[: head.rfind("/") + 1] or ".")
        pattern = posixpath.join(base, address[head.rfind("/") + 1 :])
    else:
        system, base = file_system(address)
    info = system.get_file_info(base)
    if info.type == pa.fs.FileType.NotFound:
        raise InputError(f"{address!r} does not exist. Check the path.")
    if info.type == pa.fs.FileType.File:
        if not _is_read(info.path):
            raise InputError(
                f"{address!r} has an unknown format. Give a file that ends in {', '.join(FORMATS)} "
                "(all but Parquet also with .gz)."
            )
        return system, [InputFile.of(info)]
    inside = system.get_file_info(pa.fs.FileSelector(base, recursive=True))
    names = [one for one in inside if one.type == pa.fs.FileType.File and _is_read(one.path)]
    if magic:
        names = [one for one in names if fnmatch.fnmatchcase(one.path, pattern)]
    else:
        names = [one for one in names if not re.search(r"(^|/)[_.]", one.path[len(base) :])]
    if not names:
        raise InputError(f"{address!r} has no file that ends in {', '.join(FORMATS)}.")
    files = sorted((InputFile.of(one) for one in names), key=lambda file: file.path)
    formats = {file.format for file in files}
    if len(formats) > 1:
        raise InputError(f"{address!r} has files of several formats: {', '.join(sorted(formats))}. Give one at a time.")
    return system, files


def split(system: Any, files: list[InputFile], *, pairs: int = PART_PAIRS, size: int = PART_BYTES) -> Iterator[Part]:
    """Split files into parts; the same files give the same parts.

    JSON lines and CSV are split at the end of a row, Parquet by rows. A compressed file is one part, because it can
    only be read from its start.

    :param pairs: The most pairs of a part of Parquet, unless a single row has more.
    :param size: Approximate bytes of a part of JSON lines or CSV.
    """
    number = 0
    for file in files:
        if file.format == "parquet":
            ranges = _row_ranges(system, file, pairs)
        elif file.compressed:
            ranges = iter([(0, -1)])
        else:
            ranges = _byte_ranges(system, file, size, quoted=file.format != "jsonl")
        for start, end in ranges:
            yield Part(number, file.path, file.format, start, end)
            number += 1


def _row_ranges(system: Any, file: InputFile, pairs: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows, sized by the number of values in the longest column, which are the documents of lists."""
    metadata = pq.read_metadata(file.path, filesystem=system)
    start = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        values = max((group.column(i).num_values for i in range(group.num_columns)), default=0)
        weight = max(values / pairs, group.total_byte_size / (8 * PART_BYTES), 1e-9)
        pieces = max(1, min(group.num_rows, round(weight)))
        for piece in range(pieces):
            first, last = group.num_rows * piece // pieces, group.num_rows * (piece + 1) // pieces
            if last > first:
                yield start + first, start + last
        start += group.num_rows


def _byte_ranges(system: Any, file: InputFile, size: int, *, quoted: bool) -> Iterator[tuple[int, int]]:
    """Ranges of bytes that start and end with a row. In CSV a line end within quotes does not end a row."""
    with system.open_input_file(file.path) as raw:
        source = io.BufferedReader(raw, _READ)
        start = 0
        if not quoted:
            while start < file.size:
                end = _end_of_line(source, min(start + size, file.size))
                yield start, end
                start = end
            return
        # Quotes are doubled within quotes, so a row ends where their number is even.
        odd, position, header = False, 0, True
        for line in source:
            odd ^= line.count(b'"') % 2 == 1
            position += len(line)
            if odd:
                continue
            if header:
                header, start = False, position
            elif position - start >= size:
                yield start, position
                start = position
        if start < file.size:
            yield start, file.size


def _end_of_line(source: io.BufferedReader, position: int) -> int:
    """The first byte after the line that contains ``position - 1``."""
    source.seek(position - 1)
    while (piece := source.readline(_READ)) and not piece.endswith(b"\n"):
        pass
    return source.tell()


def _is_read(path: str) -> bool:
    bare = path.removesuffix(".gz")
    suffix = posixpath.splitext(bare)[1].lower()
    return suffix in FORMATS and not (bare != path and suffix == ".parquet")
