"""Texts of documents by number, in memory or read from their file on demand."""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from crossrank.data.text_lines import (
    LineError,
    Notes,
    Place,
    decoded,
    identifier,
    numbered,
    parquet_rows,
    record,
    text_of,
)
from crossrank.errors import InputError

DUPLICATES = "documents given twice with the same text (the first was kept)"


class Corpus(Protocol):
    """Documents in a fixed order.

    :param ids: Their identifiers.
    :param index: Identifier -> its place in ``ids``.
    :param digest: Changes when a text changes.
    """

    ids: list[str]
    index: dict[str, int]
    digest: str

    def text(self, number: int) -> str:
        """The text of one document: title and text with a space between."""


class MemoryCorpus:
    """Texts that are in memory.

    :param texts: Identifier -> text.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.ids = list(texts)
        self.index = {name: number for number, name in enumerate(self.ids)}
        self._texts = list(texts.values())
        hashed = hashlib.sha256()
        for name, text in texts.items():
            hashed.update(f"{len(name)} {len(text)} {name}{text}".encode("utf-8", "surrogatepass"))
        self.digest = hashed.hexdigest()

    def text(self, number: int) -> str:
        """The text of one document."""
        return self._texts[number]


class FileCorpus:
    """A ``corpus.jsonl`` file. Memory holds only identifiers and line offsets; texts are read on demand.

    :param path: A file with a JSON object ``{"_id", "title", "text"}`` per line.
    :param notes: Where repeated documents are counted.
    :raises InputError: If a line can't be used, or an identifier has two different texts.
    """

    def __init__(self, path: Path, notes: Notes) -> None:
        self.path = path
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self._starts = array("q")
        self._numbers = array("l")
        self._lock = threading.Lock()
        hashed = hashlib.sha256()
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} can't be read: {error.strerror}. Check the path.") from error
        start = 0
        for line_number, raw in enumerate(self._stream, start=1):
            if raw.strip():
                self._add(Place(path, line_number), raw, start, notes)
            hashed.update(raw)
            start += len(raw)
        self.digest = hashed.hexdigest()
        if not self.ids:
            raise InputError(f"{path} holds no document. Give one JSON object per line: _id, title, text.")

    def _add(self, place: Place, raw: bytes, start: int, notes: Notes) -> None:
        row = record(place, decoded(place, raw.rstrip(b"\r\n")))
        name, text = identifier(place, row), text_of(place, row)
        if (known := self.index.get(name)) is None:
            self.index[name] = len(self.ids)
            self.ids.append(name)
            self._starts.append(start)
            self._numbers.append(place.number)
            return
        here = self._stream.tell()
        if self.text(known) != text:
            raise LineError(
                place,
                f"document {name!r} has a different text than in line {self._numbers[known]}",
                "Give each document a unique identifier.",
            )
        self._stream.seek(here)
        notes.add(DUPLICATES, f"{place}: {name!r}")

    def text(self, number: int) -> str:
        """Read the text of one document from the file."""
        place = Place(self.path, self._numbers[number])
        with self._lock:
            self._stream.seek(self._starts[number])
            raw = self._stream.readline()
        return text_of(place, record(place, decoded(place, raw.rstrip(b"\r\n"))))


def read_corpus(path: Path, notes: Notes) -> Corpus:
    """Open a corpus: ``.jsonl`` is read on demand; ``.jsonl.gz`` and tab-separated ``id, text`` are loaded into memory.

    :raises InputError: If a line can't be used.
    """
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return FileCorpus(path, notes)
    return MemoryCorpus(read_texts([path], notes, "document"))


def read_texts(paths: Sequence[Path], notes: Notes, what: str) -> dict[str, str]:
    """Read queries or documents: JSON lines, Parquet, or tab-separated ``id, text``; identifier -> text.

    :param what: ``"query"`` or ``"document"``, for messages.
    :raises InputError: If a line can't be used, or an identifier has two different texts, or the file is empty.
    """
    texts: dict[str, str] = {}
    first: dict[str, Place] = {}
    for place, name, text in (each for path in paths for each in _named_texts(path, what)):
        if name not in texts:
            texts[name], first[name] = text, place
        elif texts[name] == text:
            plural = "queries" if what == "query" else "documents"
            notes.add(f"{plural} given twice with the same text (the first was kept)", f"{place}: {name!r}")
        else:
            where = f"line {first[name].number}" if first[name].path == place.path else str(first[name])
            reason = f"{what} {name!r} has a different text than in {where}"
            raise LineError(place, reason, "Give each text a unique identifier.")
    if not texts:
        raise InputError(f"{paths[0]} holds no {what}. Give one per line: a JSON object, or identifier, tab and text.")
    return texts


def _named_texts(path: Path, what: str) -> Iterator[tuple[Place, str, str]]:
    if path.suffix == ".parquet" or any(suffix in (".jsonl", ".ndjson", ".json") for suffix in path.suffixes):
        lines = ((place, record(place, line)) for place, line in numbered(path))
        for place, row in parquet_rows(path) if path.suffix == ".parquet" else lines:
            yield place, identifier(place, row), text_of(place, row)
        return
    for place, line in numbered(path):
        name, tab, text = line.partition("\t")
        if not tab:
            raise LineError(place, "it has no tab", f"Give the identifier of the {what}, a tab and its text.")
        yield place, name, text
