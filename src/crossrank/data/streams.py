"""Read documents and pairs line by line from files and standard input.

A line that can't be used is given as a value, a :class:`RowError`, so that the caller decides whether to stop.
"""

from __future__ import annotations

import codecs
import os
import select
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from crossrank.data.text_lines import TEXT_FIELDS, LineError, Place, RowError, cut, document_id, json_kind, record
from crossrank.errors import InputError, did_you_mean
from crossrank.pairs import PreparedId

# A file without line ends, such as a disk image, must not fill the memory.
LONGEST_LINE = 64 << 20

_BLOCK = 1 << 16
# How many seconds standard input may be silent before the lines so far are processed. A producer that writes as fast as
# it can never pauses that long.
_SILENCE = 0.01
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """A line of text, without its end.

    :param file: The file as it was named, ``"-"`` for standard input.
    :param number: Counted from 1.
    """

    file: str
    number: int
    text: str

    @property
    def is_blank(self) -> bool:
        """Whether it contains only white space."""
        return not self.text.strip()


@dataclass(frozen=True)
class Document:
    """A document to rank.

    :param text: The text to score.
    :param is_record: Whether the line is a JSON object rather than the text itself.
    """

    line: Line
    text: str
    is_record: bool


@dataclass(frozen=True)
class Pair:
    """A pair to score, and the number of its line."""

    number: int
    query: str
    document: str


class Pause:
    """No more input for now: lines collected so far should be processed."""


def read_documents(
    name: str, form: str | None, field: str | None, *, ids: bool = False
) -> Iterator[Document | RowError]:
    """Read a file with one document per line. Blank lines are ignored.

    :param name: A file, or ``"-"``.
    :param form: ``"lines"`` or ``"jsonl"``; ``None`` decides by the file's extension, and on standard input by its
        start.
    :param field: The field of a JSON object that holds the text; ``None`` tries :data:`TEXT_FIELDS`.
    :param ids: Take the id of a JSON object that has no text, as a :class:`~crossrank.pairs.PreparedId`.
    :raises InputError: If there is no such file.
    """
    fields = (field,) if field else TEXT_FIELDS
    for line in read_lines(name):
        if isinstance(line, RowError):
            yield line
        elif isinstance(line, Line) and not line.is_blank:
            form = form or _form_of(line, "lines")
            try:
                text = line.text if form != "jsonl" else _text_or_id(line, fields, ids=ids)
            except RowError as bad:
                yield bad
            else:
                yield Document(line, text, is_record=form == "jsonl")


def read_pairs(name: str, form: str | None, query: str, document: str) -> Iterator[Pair | Line | RowError | Pause]:
    """Read a file with one pair per line. Blank lines are given as lines.

    :param name: A file, or ``"-"``.
    :param form: ``"tsv"`` or ``"jsonl"``; ``None`` decides by the file's extension, and on standard input by its start.
    :param query: The field of a JSON object that holds the query.
    :param document: The field that holds the document.
    :raises InputError: If there is no such file.
    """
    for line in read_lines(name):
        if not isinstance(line, Line) or line.is_blank:
            yield line
            continue
        form = form or _form_of(line, "tsv")
        try:
            yield _json_pair(line, query, document) if form == "jsonl" else _tab_pair(line)
        except RowError as bad:
            yield bad


def read_lines(name: str) -> Iterator[Line | RowError | Pause]:
    r"""Read lines of UTF-8, with or without a byte order mark, that end in ``\n`` or ``\r\n``.

    :raises InputError: If there is no such file, or a line is longer than :data:`LONGEST_LINE`.
    """
    with _open(name) as stream:
        number = 0
        for raw in _raw_lines(stream, name):
            if isinstance(raw, Pause):
                yield raw
            else:
                number += 1
                yield _decoded(name, number, raw)


def count_lines(name: str) -> int | None:
    """Count the lines of a file; ``None`` for input that can be read only once."""
    if name == "-" or not Path(name).is_file():
        return None
    with Path(name).open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def _open(name: str) -> BinaryIO:
    if name == "-":
        # A copy of the descriptor, so that the process's own is not closed.
        return cast("BinaryIO", os.fdopen(os.dup(sys.stdin.fileno()), "rb"))
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name!r} is a folder. Name the files in it, such as {name.rstrip('/')}/*.txt.")
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(
            f"There is no file {name!r} (seen from {str(Path.cwd())!r}). Check the path, or give - for standard input."
        ) from error
    except OSError as error:
        raise InputError(f"{name!r} can't be read: {error.strerror}. Check its permissions.") from error


def _raw_lines(stream: BinaryIO, name: str) -> Iterator[bytes | Pause]:
    descriptor = stream.fileno()
    # On Windows select() works only for sockets. A file on disk never pauses.
    can_pause = os.name == "posix" and not stat.S_ISREG(os.fstat(descriptor).st_mode)
    beginning: list[bytes] = []  # of a line whose end has not come yet
    length = 0
    while True:
        if can_pause and not select.select([descriptor], [], [], _SILENCE)[0]:
            yield Pause()
        block = stream.read1(_BLOCK)  # type: ignore[attr-defined]  # a single read, so that nothing stays in the buffer
        if not block:
            break
        *lines, rest = block.split(b"\n")
        for line in lines:
            yield b"".join([*beginning, line])
            beginning, length = [], 0
        beginning.append(rest)
        length += len(rest)
        if length > LONGEST_LINE:
            raise InputError(
                f"{'standard input' if name == '-' else name} has a line of more than {LONGEST_LINE >> 20} MB. "
                "Give one document or pair per line."
            )
    if length:
        yield b"".join(beginning)


def _decoded(file: str, number: int, raw: bytes) -> Line | RowError:
    remedy = "Give a text file in UTF-8."
    if number == 1:
        if raw.startswith(_UTF16):
            return RowError(file, number, "the file is UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8.")
        raw = raw.removeprefix(codecs.BOM_UTF8)
    raw = raw.removesuffix(b"\r")
    if (position := raw.find(0)) >= 0:
        return RowError(file, number, f"byte {position + 1} is NUL, so this looks like a binary file", remedy)
    try:
        return Line(file, number, raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} (0x{raw[error.start]:02x}) is not UTF-8"
        return RowError(file, number, reason, f"{remedy} To convert an older file: iconv -f WINDOWS-1252 -t UTF-8.")


def _form_of(first: Line, plain: str) -> str:
    if first.file == "-":
        return "jsonl" if first.text.lstrip().startswith("{") else plain
    return "jsonl" if first.file.lower().endswith(_JSON_SUFFIXES) else plain


def _record(line: Line) -> Mapping[str, Any]:
    try:
        return record(Place(Path(line.file), line.number), line.text)
    except LineError as error:
        raise RowError.of(line.file, line.number, error) from error


def _text_or_id(line: Line, names: tuple[str, ...], *, ids: bool) -> str:
    row = _record(line)
    if ids and not any(name in row for name in names) and (identifier := document_id(row)) is not None:
        return PreparedId(identifier)
    return _field(line, row, names, "--field")


def _field(line: Line, fields: Mapping[str, Any], names: tuple[str, ...], option: str) -> str:
    for name in names:
        if isinstance(value := fields.get(name), str):
            return value
    wanted = " or ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
    wrong = next((name for name in names if name in fields), None)
    if wrong is None:
        has = ", ".join(map(repr, list(fields)[:12])) or "none"
        reason = f"it has no field {wanted}; its fields: {has}"
    else:
        reason = f"its field {wrong!r} is {json_kind(fields[wrong])}, not a string"
    guess = did_you_mean(names[0], fields) if len(names) == 1 else ""
    raise RowError(line.file, line.number, reason, f"{guess} Name the field to read with {option}.".lstrip())


def _json_pair(line: Line, query: str, document: str) -> Pair:
    fields = _record(line)
    return Pair(
        line.number,
        _field(line, fields, (query,), "--query-field"),
        _field(line, fields, (document,), "--document-field"),
    )


def _tab_pair(line: Line) -> Pair:
    columns = line.text.split("\t")
    if len(columns) != 2:
        count = f"{len(columns)} column{'s' if len(columns) > 1 else ''}"
        remedy = "Give a query, a tab and a document; use JSON lines for texts with tabs."
        raise RowError(line.file, line.number, f"{cut(line.text)} has {count}, not 2", remedy)
    return Pair(line.number, *columns)
