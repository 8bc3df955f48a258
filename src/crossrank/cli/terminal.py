"""Standard streams, messages, colours and columns of all commands."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import unicodedata
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder

BOLD, DIM, GREEN, RED, YELLOW, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
_KINDS = {"error": BOLD + RED, "warning": BOLD + YELLOW}
_STYLE = re.compile(r"\x1b\[\d+m")
# Characters that change the direction of writing, so that a terminal shows the text after them in another order.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


# ---- streams


def open_closed_streams() -> None:
    """Open the standard streams that this process was started without, as with ``>&-``.

    Otherwise the next file that is opened gets the free descriptor, and messages or results are written to it. Reading
    the new standard input and writing the new standard output are errors. Messages to a closed standard error are
    dropped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        with suppress(OSError):
            os.close(number)
        # A new descriptor gets the lowest free number, which is this one.
        os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_WRONLY)
        stream = open(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def prepare_streams() -> None:
    """Make standard output accept any text: UTF-8 in a pipe, and escapes for characters that can't be written."""
    # A lone surrogate, which JSON may contain, is written as its JSON escape.
    encoding = None if sys.stdout.isatty() else "utf-8"
    sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]


def drop_output() -> None:
    """Discard the rest of standard output, so that the exit doesn't fail on it."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def describe(error: OSError) -> str:
    """Describe an error of the operating system; Python doesn't name the file when a write fails."""
    if error.filename is None and error.errno is not None:
        closed = error.errno == errno.EBADF
        return f"Can't use a standard stream: {'it is closed' if closed else os.strerror(error.errno)}."
    return str(error)


# ---- messages


def complain(kind: str, message: str) -> None:
    """Write a line to standard error.

    :param kind: ``"error"``, ``"warning"``, ``"note"`` or ``"interrupted"``.
    """
    with suppress(OSError):
        print(f"crossrank: {styled(kind, _KINDS.get(kind, ''), sys.stderr)}: {for_eyes(message)}", file=sys.stderr)


def remark(message: str) -> None:
    """Write a line to standard error if it is a terminal."""
    if sys.stderr.isatty():
        print(styled(one_line(message), DIM, sys.stderr), file=sys.stderr)


def remark_prepared(model: CrossEncoder) -> None:
    """On a terminal, say how many documents of all calls were found among the prepared ones."""
    if model.prepared is not None:
        facts = model.info()["document_cache"]
        documents = facts["prepared"] + facts["hits"] + facts["misses"]
        remark(f"prepared: {facts['prepared']} of {documents}")


def to_json(value: Any) -> str:
    """Write a value as JSON on one line: letters unchanged, invisible and control characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


# ---- text


def one_line(text: str) -> str:
    """Put a text on one line that can't control a terminal: control characters become spaces."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text).strip()


def for_eyes(text: str) -> str:
    """Put a text on one line that can neither control a terminal nor change the direction of writing."""
    return "".join(c for c in one_line(text) if c not in _TURNS)


def is_plain(out: TextIO) -> bool:
    """Whether a stream gets no colours: it is not a terminal, or NO_COLOR is set (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not out.isatty()


def styled(text: str, style: str, out: TextIO) -> str:
    """Put a text in a style such as :data:`BOLD`, where the stream shows styles."""
    return text if not style or is_plain(out) else f"{style}{text}{_PLAIN}"


def can_write(text: str, out: TextIO) -> bool:
    """Whether a stream's encoding has these characters."""
    try:
        text.encode(out.encoding)
    except UnicodeEncodeError:
        return False
    return True


def cut(text: str, width: int) -> str:
    """Cut a text to a number of terminal columns."""
    if columns(text) <= width:
        return text
    end = "…" if can_write("…", sys.stdout) else "..."
    kept, used = [], len(end)
    for character in text:
        used += columns(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + end


def columns(text: str) -> int:
    """Count the terminal columns of a text: East Asian letters take two, combining accents and styles none."""
    text = _STYLE.sub("", text)
    if text.isascii():
        return len(text)
    seen = (c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in seen)


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Align the cells of a table, two spaces apart.

    :param rows: Rows with the same number of cells.
    :param right: Columns that are aligned to the right, from 0.
    """
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]

    def padded(i: int, cell: str) -> str:
        space = " " * (widths[i] - columns(cell))
        return space + cell if i in right else cell + space

    return ["  ".join(padded(i, cell) for i, cell in enumerate(row)).rstrip() for row in rows]
