"""Read lines and rows with their numbers, so that errors and counts can name the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.validation import encodable

_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
# Fields that may hold the text of a document in a JSON object; the first that exists is used.
TEXT_FIELDS = ("text", "content", "contents", "page_content", "passage", "body", "document")
# Fields that may hold its id.
ID_FIELDS = ("_id", "id", "docno")


@dataclass(frozen=True)
class Place:
    """A line of a file, for messages."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


class LineError(InputError):
    """A line of a file that can't be used.

    :param place: The file and the line, as messages show them.
    :param reason: What is wrong with it.
    :param remedy: What to do about it, in a sentence or two.
    """

    def __init__(self, place: object, reason: str, remedy: str) -> None:
        self.place, self.reason, self.remedy = str(place), reason, remedy
        super().__init__(f"{place}: {reason}. {remedy}")


class RowError(LineError):
    """A line or row that can't be used, in a file whose bad lines may be skipped.

    :param file: The file as it was named, ``"-"`` for standard input.
    :param number: The line (of Parquet: the row), counted from 1.
    """

    def __init__(self, file: str, number: int, reason: str, remedy: str) -> None:
        self.number = number
        place = f"{'standard input' if file == '-' else file}, line {number}"
        super().__init__(place, reason, f"{remedy} --skip-bad skips lines that can't be used.")

    @classmethod
    def of(cls, file: str, number: int, error: LineError) -> RowError:
        """Convert another error about a line."""
        return cls(file, number, error.reason, error.remedy)


@dataclass
class Notes:
    """Counts of what was left out or changed, with the place of the first.

    :param counts: Description -> how many.
    :param first: Description -> place and value of the first.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, where: object = None, count: int = 1) -> None:
        """Add to a count."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + count
            if where is not None:
                self.first.setdefault(what, str(where))


def numbered(path: Path) -> Iterator[tuple[Place, str]]:
    """Give each non-blank line without its line end; ``.gz`` files are decompressed.

    :raises InputError: If there is no such file, it is damaged, or a line is not UTF-8.
    """
    for place, line in all_lines(path):
        if line.strip():
            yield place, line.rstrip("\r\n")


def all_lines(path: Path) -> Iterator[tuple[Place, str]]:
    """Give each line with its line end, without a byte order mark; ``.gz`` files are decompressed.

    :raises InputError: If there is no such file, it is damaged, or a line is not UTF-8.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, but a file is needed. Name a file in it.")
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                yield Place(path, number), decoded(Place(path, number), raw)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}. Check the path.") from error
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path}, after line {number}: it can't be read ({error}). The file may be damaged: copy it again."
        ) from error


def decoded(place: Place, raw: bytes) -> str:
    """Decode a line as UTF-8, without a byte order mark."""
    try:
        return raw.decode("utf-8-sig" if place.number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} (0x{raw[error.start]:02x}) is not UTF-8"
        raise LineError(place, reason, "Convert the file, for example with: iconv -f WINDOWS-1252 -t UTF-8.") from error


def record(place: Place, line: str) -> Mapping[str, Any]:
    """Parse a line as a JSON object.

    :raises InputError: If it is not one.
    """
    remedy = "Give one JSON object per line."
    if place.number == 1 and line.lstrip().startswith("["):
        remedy += " To turn a file with one array into lines: jq -c '.[]'."
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise LineError(place, f"{cut(line)} is not JSON ({why})", remedy) from error
    if not isinstance(value, dict):
        raise LineError(place, f"{cut(line)} is {json_kind(value)}, not an object", remedy)
    return value


def parquet_rows(path: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Give each row of a Parquet file. The number in its place is that of the row.

    :raises InputError: If it can't be read.
    :raises MissingExtraError: If pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Reading Parquet")
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow has its own exceptions, which are not imported here
        raise InputError(f"{path} can't be read as Parquet ({error}). Write it again.") from error
    rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
    yield from ((Place(path, number), row) for number, row in enumerate(rows, start=1))


def json_kind(value: object) -> str:
    """Name the kind of a JSON value, with its article."""
    return _KINDS.get(type(value), "null")


def identifier(place: Place, row: Mapping[str, Any], names: tuple[str, ...] = ("_id", "id", "docno", "qid")) -> str:
    """Give the identifier of a record, which is a string or a number.

    :raises InputError: If there is none.
    """
    if (found := document_id(row, names)) is not None:
        return found
    has = ", ".join(map(repr, list(row)[:12])) or "none"
    raise LineError(
        place, f"no identifier in {' or '.join(map(repr, names))}; its fields: {has}", "Give each record an _id."
    )


def text_of(place: Place, row: Mapping[str, Any]) -> str:
    """Give the text of a record, after its title and a space if it has a title.

    :raises InputError: If there is no text, or it is not a string.
    """
    title, text = row.get("title"), next((row[name] for name in TEXT_FIELDS if name in row), None)
    if title is None:
        title = ""
    if not isinstance(text, str) or not isinstance(title, str):
        has = ", ".join(map(repr, list(row)[:12])) or "none"
        raise LineError(place, f"its text or title is missing or not a string; its fields: {has}", "Give it as 'text'.")
    return encodable(f"{title} {text}".strip())


def document_id(row: Mapping[str, Any], names: Sequence[str] = ID_FIELDS) -> str | None:
    """Give the id of a document, if it has one: a string or a whole number."""
    for name in names:
        value = row.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)
    return None


def cut(text: str, most: int = 40) -> str:
    """Give the beginning of a text, quoted."""
    return repr(text if len(text) <= most else text[:most] + "...")
