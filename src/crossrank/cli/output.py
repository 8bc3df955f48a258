"""Rankings and messages -> terminals and pipes: a table for eyes, tabs and JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from crossrank.data.streams import Document, LineError

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder
    from crossrank.types import PairScores

# A terminal that says less than this about its width is not believed.
_NARROWEST = 40
_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
# They turn the direction of what follows, and so can make a terminal show something else than what is there.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@dataclass(frozen=True)
class Row:
    """A document in its new place.

    :param rank: The new place, from 1.
    :param score: As the model gives it.
    :param index: The document's position in the input, from 0, over all files.
    :param document: The document.
    :param passage: Offsets of its best part in its text, where that was looked for.
    """

    rank: int
    score: float
    index: int
    document: Document
    passage: tuple[int, int] | None = None

    @property
    def moved(self) -> int:
        """Places gained (above 0) or lost against the order of the input."""
        return self.index + 1 - self.rank


# ---- streams


def prepare_streams() -> None:
    """Make standard output take any text: in a pipe it is UTF-8, and what can't be written is escaped."""
    # A lone surrogate, which JSON may carry, comes out as its JSON escape.
    encoding = None if sys.stdout.isatty() else "utf-8"
    sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]


def complain(kind: str, message: str) -> None:
    """Say a line on standard error.

    :param kind: ``"error"``, ``"warning"`` or ``"interrupted"``.
    """
    print(f"crossrank: {kind}: {for_eyes(message)}", file=sys.stderr)


def remark(message: str) -> None:
    """Say a line to whoever sits at the terminal, if someone does."""
    if sys.stderr.isatty():
        print(_styled(one_line(message), _DIM, sys.stderr), file=sys.stderr)


# ---- rankings


def write_table(rows: Sequence[Row], *, name_files: bool) -> None:
    """Write a ranking for the terminal, a line a document, cut to its width.

    :param name_files: Whether each line says which file its document is from.
    """
    out = sys.stdout
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    ranks = [str(row.rank) for row in rows]
    scores = [f"{row.score:.4f}" for row in rows]
    moves = [_moved(row.moved, out) for row in rows]
    files = [_cut(for_eyes(row.document.line.file), width // 4) if name_files else "" for row in rows]
    rank_width, score_width, move_width, file_width = (
        max(map(_columns, cells), default=0) for cells in (ranks, scores, moves, files)
    )
    for row, rank, score, move, file in zip(rows, ranks, scores, moves, files, strict=True):
        style = _GREEN if row.moved > 0 else _RED if row.moved else _DIM
        cells = [
            rank.rjust(rank_width),
            _styled(score.rjust(score_width), _BOLD, out),
            _styled(move.ljust(move_width), style, out),
        ]
        left = width - rank_width - score_width - move_width - 2 * len(cells)
        if name_files:
            cells.append(_styled(file + " " * (file_width - _columns(file)), _DIM, out))
            left -= file_width + 2
        print("  ".join([*cells, _cut(for_eyes(row.document.text[slice(*row.passage or (None,))]), left)]))


def write_tabs(rows: Iterable[Row]) -> None:
    """Write a ranking for programs: rank, score, places moved, file, line and text, with tabs between."""
    for row in rows:
        line = row.document.line
        moved = f"{row.moved:+d}" if row.moved else "0"
        print(row.rank, repr(row.score), moved, one_line(line.file), line.number, one_line(row.document.text), sep="\t")


def write_json(rows: Iterable[Row], kind: str) -> None:
    """Write a ranking as JSON, an object a line; ``kind`` says what its scores are."""
    for row in rows:
        line = row.document.line
        whole = {"document": json.loads(line.text)} if row.document.is_record else {"text": row.document.text}
        print(
            to_json(
                {
                    "rank": row.rank,
                    "score": row.score,
                    "kind": kind,
                    "corpus_id": row.index,
                    "moved": row.moved,
                    "file": line.file,
                    "line": line.number,
                    **({"passage": row.passage} if row.passage else {}),
                    **whole,
                }
            )
        )


def to_json(value: Any) -> str:
    """Write a value as JSON in one line, with its letters as they are."""
    return json.dumps(value, ensure_ascii=False)


# ---- facts


class Report:
    """What there is to say at the end, on standard error.

    :param what: What the pairs are to the user: ``"documents"`` or ``"pairs"``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pairs = self._tokens = self._skipped = 0
        self._documents_cut = self._document_tokens_cut = self._queries_cut = self._query_tokens_cut = 0
        self._seconds = 0.0
        self._first: LineError | None = None

    def add(self, result: PairScores) -> None:
        """Take note of pairs that were scored."""
        self._pairs += len(result.scores)
        self._tokens += result.tokens
        self._seconds += result.seconds
        self._documents_cut += int((result.document_tokens_cut > 0).sum())
        self._document_tokens_cut += int(result.document_tokens_cut.sum())
        self._queries_cut += int((result.query_tokens_cut > 0).sum())
        self._query_tokens_cut = max(self._query_tokens_cut, int(result.query_tokens_cut.max(initial=0)))

    def skip(self, line: LineError) -> None:
        """Take note of a line that was left out."""
        self._skipped += 1
        self._first = self._first or line

    def tell(self, model: CrossEncoder) -> None:
        """Warn of what was left out or cut, with what can be done; on a terminal, say how much there was."""
        self.tell_skipped()
        if self._documents_cut or self._queries_cut:
            complain("warning", self._cuts(model.info()))
        speed = f" ({self._pairs / self._seconds:.0f} a second)" if self._seconds > 1 else ""
        what = self._what if self._pairs != 1 else self._what.removesuffix("s")
        remark(f"{self._pairs} {what}, {self._tokens} tokens, {self._seconds * 1000:.0f} ms{speed}")

    def tell_skipped(self) -> None:
        """Warn of lines that were left out."""
        if self._first is not None:
            lines = "1 line that can't be used was" if self._skipped == 1 else f"{self._skipped} bad lines were"
            complain("warning", f"{lines} left out; the first is {self._first.place}: {self._first.reason}.")

    def _cuts(self, info: Mapping[str, Any]) -> str:
        parts = []
        if self._documents_cut:
            of = f"{self._documents_cut} of {self._pairs} {self._what}"
            parts.append(f"{of} were cut at the end, by {self._document_tokens_cut} tokens in all")
        if self._queries_cut:
            parts.append(f"in {self._queries_cut} the query was cut, by up to {self._query_tokens_cut} tokens")
        limit, most = info["max_length"], info["usable_length"]
        remedy = (
            f"--max-length goes up to {most}" if limit < most else "split long texts, or take a model that reads more"
        )
        return f"{'; '.join(parts)}. The model reads {limit} tokens: {remedy}."


# ---- text


def one_line(text: str) -> str:
    """Make one line of a text and take the power over a terminal from it: control characters become spaces."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text).strip()


def for_eyes(text: str) -> str:
    """Make one line of a text, and let it neither steer the terminal nor turn the direction of writing."""
    return "".join(c for c in one_line(text) if c not in _TURNS)


def _moved(places: int, out: TextIO) -> str:
    up, down = ("↑", "↓") if _can_write("↑↓", out) else ("+", "-")
    return f"{up}{places}" if places > 0 else f"{down}{-places}" if places else "="


def is_plain(out: TextIO) -> bool:
    """Whether colours are not wanted, or not possible: https://no-color.org."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not out.isatty()


def _styled(text: str, style: str, out: TextIO) -> str:
    return text if is_plain(out) else f"{style}{text}{_PLAIN}"


def _can_write(text: str, out: TextIO) -> bool:
    try:
        text.encode(out.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _cut(text: str, width: int) -> str:
    """Cut a text to so many columns of a terminal."""
    if _columns(text) <= width:
        return text
    end = "…" if _can_write("…", sys.stdout) else "..."
    kept, used = [], len(end)
    for character in text:
        used += _columns(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + end


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes: letters of East Asia two, accents on their own none."""
    if text.isascii():
        return len(text)
    seen = (c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in seen)
