"""A part of a file -> tables of bounded size, and the rows that can't be used."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crossrank.batch.input_files import InputFile, Part
from crossrank.errors import InputError

# The most rows in memory at a time, and about the most bytes.
CHUNK_ROWS = 4096
CHUNK_BYTES = 16 << 20
# The number of rows that determine the columns of JSON lines.
SCHEMA_ROWS = 2000
# A longer row is not read into memory; it is a bad row.
LONGEST_ROW = 64 << 20

csv.field_size_limit(LONGEST_ROW)


@dataclass(frozen=True)
class BadRow:
    """A row that was left out.

    :param path: The file.
    :param row: For Parquet the row in the file, from 0. For JSON lines the line and for CSV the row, from 1 after
        ``start``.
    :param start: A byte offset in the file; 0 for Parquet.
    :param reason: What is wrong, and how to correct it.
    :param content: The original row.
    """

    path: str
    row: int
    start: int
    reason: str
    content: Any

    def to_dict(self) -> dict[str, Any]:
        """Make the line for the file of bad rows."""
        return {
            "file": self.path,
            "row": self.row,
            "from_byte": self.start,
            "reason": self.reason,
            "row_as_it_was": self.content,
        }


@dataclass
class Chunk:
    """Rows that are scored together.

    :param table: The good rows.
    :param numbers: ``[rows]``, their numbers as in :class:`BadRow`.
    :param bad: The bad rows.
    :param done: The share of the part's weight.
    """

    table: pa.Table
    numbers: Sequence[int]
    bad: list[BadRow] = field(default_factory=list)
    done: int = 0


def schema_of(system: Any, files: list[InputFile]) -> pa.Schema:
    """Find the columns of all files.

    Parquet files contain them. In CSV every column is text, so that ids stay unchanged. For JSON lines the first rows
    of the first file decide.

    :raises InputError: If files differ, or the first one has no rows or can't be read.
    """
    first = files[0]
    if first.format == "parquet":
        schema: pa.Schema | None = None
        for file in files:
            try:
                own = pq.read_schema(file.path, filesystem=system).remove_metadata()
            except pa.ArrowInvalid as error:
                raise InputError(f"{file.path!r} is not a Parquet file, or it is damaged: {error}.") from error
            if schema is not None and not own.equals(schema):
                raise InputError(
                    f"{file.path!r} has different columns than {first.path!r}: {_difference(schema, own)}."
                )
            schema = own
        assert schema is not None
        return schema
    if first.format in ("csv", "tsv"):
        head = _header(system, first.path, first.format)
        for file in files[1:]:
            own_head = _header(system, file.path, file.format)
            if own_head != head:
                raise InputError(f"{file.path!r} has the columns {own_head}, but {first.path!r} has {head}.")
        return pa.schema([(name, pa.string()) for name in head])
    rows: list[dict[str, Any]] = []
    for line, _ in _lines(system, Part(0, first.path, "jsonl", 0, -1 if first.compressed else first.size)):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
        if len(rows) >= SCHEMA_ROWS:
            break
    if not rows:
        raise InputError(f"{first.path!r} has no row that is a JSON object.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    fields = []
    for name in names:
        kind = _type_of([row[name] for row in rows if row.get(name) is not None])
        fields.append((name, pa.string() if pa.types.is_null(kind) else kind))
    return pa.schema(fields)


def _type_of(values: list[Any]) -> pa.DataType:
    """The type of most values. Rows with values of another type are bad rows."""
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if len(values) == 1:  # such as a list of a number and a text, for which there is no column type
            return pa.string()
        common, _ = Counter(map(type, values)).most_common(1)[0]
        same = [value for value in values if type(value) is common]
        return _type_of(same if len(same) < len(values) else values[:1])


def read_part(system: Any, part: Part, schema: pa.Schema) -> Iterator[Chunk]:
    """Read a part in chunks.

    :raises InputError: If a Parquet file is damaged.
    """
    if part.format == "parquet":
        yield from _parquet(system, part, schema)
        return
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[BadRow] = []
    size = 0
    for number, row, length in (_json_lines if part.format == "jsonl" else _csv)(system, part, schema):
        size += length
        if isinstance(row, BadRow):
            bad.append(row)
        elif row is not None:
            rows.append(row)
            numbers.append(number)
        if len(rows) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield Chunk(pa.Table.from_pylist(rows, schema), numbers, bad, size)
            rows, numbers, bad, size = [], [], [], 0
    if rows or bad or size:
        yield Chunk(pa.Table.from_pylist(rows, schema), numbers, bad, size)


def _parquet(system: Any, part: Part, schema: pa.Schema) -> Iterator[Chunk]:
    with system.open_input_file(part.path) as source:
        file = pq.ParquetFile(source)
        position = 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if position + rows > part.start and position < part.end:
                at = position
                size = max(
                    1, min(CHUNK_ROWS, CHUNK_BYTES * rows // max(1, file.metadata.row_group(number).total_byte_size))
                )
                try:
                    for batch in file.iter_batches(batch_size=size, row_groups=[number]):
                        first, last = max(part.start, at), min(part.end, at + batch.num_rows)
                        if last > first:
                            table = pa.Table.from_batches([batch.slice(first - at, last - first)])
                            plain = table.replace_schema_metadata(None).cast(schema)
                            yield Chunk(plain, range(first, last), [], last - first)
                        at += batch.num_rows
                except (pa.ArrowInvalid, OSError) as error:
                    raise InputError(f"{part.path!r} is damaged in row group {number}: {error}.") from error
            position += rows


# The number of a row, the row (``None`` for a blank one), and its bytes.
_Row = tuple[int, dict[str, Any] | BadRow | None, int]


def _json_lines(system: Any, part: Part, schema: pa.Schema) -> Iterator[_Row]:
    columns = {field.name: field.type for field in schema}
    for number, (line, length) in enumerate(_lines(system, part), start=1):
        row: dict[str, Any] | BadRow | None = None
        if line.strip():
            row, reason = _json_row(line, columns)
            if reason:
                content = line.decode("utf-8", "replace").rstrip("\r\n")
                row = BadRow(part.path, number, part.start, reason, content)
        yield number, row, length


def _json_row(line: bytes, columns: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A row that fits the columns, or the reason why it does not."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON: {error}"
    if not isinstance(row, dict):
        return {}, f"a JSON object is expected, not {type(row).__name__}"
    for name, value in row.items():
        if name not in columns:
            return (
                {},
                f"the field {name!r} is in none of the first {SCHEMA_ROWS} rows. Add it there, with a value or null",
            )
        if value is not None:
            try:
                fits = pa.array([value], columns[name]).null_count == 0
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                fits = False
            if not fits:
                return {}, f"the field {name!r} is {type(value).__name__}; the first rows have {columns[name]}"
    return row, ""


def _csv(system: Any, part: Part, schema: pa.Schema) -> Iterator[_Row]:
    names = schema.names
    size = 0

    def text() -> Iterator[str]:
        nonlocal size
        for line, length in _lines(system, part):
            size += length
            yield line.decode("utf-8", "replace")

    reader = csv.reader(text(), delimiter="\t" if part.format == "tsv" else ",")
    if part.end < 0:
        next(reader, None)  # the header; other parts start after it
    for number in itertools.count(1):
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row: dict[str, Any] | BadRow | None = BadRow(part.path, number, part.start, str(error), None)
        else:
            row = dict(zip(names, values, strict=False)) if values else None
            if values and len(values) != len(names):
                reason = f"{len(values)} values, but the header has {len(names)} columns"
                row = BadRow(part.path, number, part.start, reason, values)
        yield number, row, size
        size = 0


def _header(system: Any, path: str, kind: str) -> list[str]:
    part = Part(0, path, kind, 0, -1)
    lines = (line.decode("utf-8-sig", "replace") for line, _ in _lines(system, part))
    head = next(csv.reader(lines, delimiter="\t" if kind == "tsv" else ","), None)
    if not head:
        raise InputError(f"{path!r} is empty. A header with the names of the columns is expected.")
    if len(set(head)) < len(head):
        raise InputError(f"{path!r} has two columns with the same name: {', '.join(head)}.")
    return head


def _lines(system: Any, part: Part) -> Iterator[tuple[bytes, int]]:
    """The lines of a part and their lengths. A line that is too long is cut, so it is not valid JSON."""
    with system.open_input_file(part.path) as source:
        source.seek(part.start)
        reader: Any = gzip.GzipFile(fileobj=source) if part.path.endswith(".gz") else io.BufferedReader(source, 1 << 20)
        left = math.inf if part.end < 0 else part.end - part.start
        while left > 0 and (line := reader.readline(LONGEST_ROW)):
            length, last = len(line), line
            while last and not last.endswith(b"\n"):
                last = reader.readline(LONGEST_ROW)
                length += len(last)
            left -= length
            yield line, length


def _difference(schema: pa.Schema, own: pa.Schema) -> str:
    for expected in schema:
        if expected.name not in own.names:
            return f"it lacks {expected.name!r}"
        found = own.field(expected.name)
        if not found.type.equals(expected.type):
            return f"{expected.name!r} is {found.type}, not {expected.type}"
    more = [name for name in own.names if name not in schema.names]
    return f"it also has {', '.join(map(repr, more))}" if more else "they are in another order"
