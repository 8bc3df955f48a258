"""Keep scores in files, so that an interrupted evaluation can continue."""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossrank.errors import InputError


@dataclass(frozen=True)
class ScoredQuery:
    """The scores that one system gave to the candidates of a query.

    :param relevance: Scores to rank by, for the first ``depth`` candidates in their order.
    :param probabilities: The scores after the model's activation; empty if they are not probabilities.
    :param cut: Number of pairs from which tokens were cut.
    :param seconds: Its share of the time of the batch.
    """

    query: str
    relevance: array[float]
    probabilities: array[float]
    cut: int
    seconds: float


class WorkFile:
    """The scores of one system on one dataset: a line of settings, then a line for each query.

    :param path: The file; its folder is created.
    :param settings: What the scores depend on.
    :param resume: Continue with existing scores.
    :raises InputError: If there are scores and ``resume`` is false, or they were made with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, object], *, resume: bool) -> None:
        self.done: dict[str, ScoredQuery] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"version": 1, **settings}, sort_keys=True)
        whole = 0
        if path.exists() and path.stat().st_size:
            if not resume and _has_scores(path):
                raise InputError(
                    f"{path} contains the scores of an earlier evaluation. Continue it with --resume, or start "
                    "again with another --work folder."
                )
            if resume:
                whole = self._read(path, json.loads(head))
        # An incomplete last line, from an interruption, is overwritten.
        self._stream = path.open("r+b" if whole else "wb")
        self._stream.truncate(whole)
        self._stream.seek(whole)
        if not whole:
            self._stream.write(head.encode() + b"\n")

    def add(self, rows: Sequence[ScoredQuery]) -> None:
        """Add scores. They are on the disk when this returns."""
        for row in rows:
            listed = {"relevance": list(row.relevance), "probabilities": list(row.probabilities)}
            self._stream.write(json.dumps({**vars(row), **listed}).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __enter__(self) -> WorkFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _read(self, path: Path, wanted: Mapping[str, object]) -> int:
        whole = 0
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                if not line.endswith(b"\n"):
                    break
                try:
                    row = json.loads(line)
                    if number:
                        numbers = {name: array("d", row[name]) for name in ("relevance", "probabilities")}
                        one = ScoredQuery(**{**row, **numbers})
                        self.done[one.query] = one
                except (ValueError, TypeError, KeyError) as error:
                    remedy = "Delete the folder, or name another with --work."
                    raise InputError(f"{path}, line {number + 1} is damaged ({error}). {remedy}") from error
                if not number and row != wanted:
                    keys = sorted(key for key in {*row, *wanted} if row.get(key) != wanted.get(key))
                    differing = "; ".join(f"{key} was {row.get(key)!r} and is {wanted.get(key)!r}" for key in keys)
                    raise InputError(
                        f"{path} was made with other settings: {differing}. "
                        "Give the same again, or name another folder with --work."
                    )
                whole += len(line)
        return whole


def _has_scores(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.readline()
        return bool(stream.readline())


def slug(text: str) -> str:
    """Turn a name into a file name or the tag of a run. If characters are replaced, a digest keeps it unique."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("/", "--")).strip("-.")
    if readable == text.replace("/", "--").replace(" ", "-"):
        return readable
    return f"{readable or 'name'}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
