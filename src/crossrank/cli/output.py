"""Rankings -> terminals and pipes: a table for people, tabs and JSON for programs."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from crossrank.cli.terminal import (
    BOLD,
    DIM,
    GREEN,
    RED,
    aligned,
    can_write,
    columns,
    complain,
    cut,
    for_eyes,
    one_line,
    remark,
    styled,
    to_json,
)
from crossrank.data.streams import Document
from crossrank.data.text_lines import RowError

if TYPE_CHECKING:
    from crossrank.pairs import PairScores
    from crossrank.ranking.ranked_documents import RankedDocument, Ranking
    from crossrank.scoring.cross_encoder import CrossEncoder

# A terminal that reports a smaller width is assumed to be wrong.
_NARROWEST = 40


@dataclass(frozen=True)
class Row:
    """A ranked document with its input.

    :param ranked: The document in the ranking.
    :param document: The document in the input.
    """

    ranked: RankedDocument
    document: Document

    @property
    def score(self) -> float:
        """Its score; NaN if it has none."""
        return math.nan if self.ranked.score is None else self.ranked.score

    @property
    def moved(self) -> int:
        """Places gained (above 0) or lost, compared with the order of the input."""
        return self.ranked.first_stage_position + 1 - self.ranked.rank


# ---- rankings


def write_table(rows: Sequence[Row], *, name_files: bool) -> None:
    """Write a ranking for the terminal, one line per document, cut to its width.

    :param name_files: Whether each line says which file its document is from.
    """
    out = sys.stdout
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    cells = []
    for row in rows:
        style = GREEN if row.moved > 0 else RED if row.moved else DIM
        score, move = styled(f"{row.score:.4f}", BOLD, out), styled(_moved(row.moved, out), style, out)
        file = [styled(cut(for_eyes(row.document.line.file), width // 4), DIM, out)] if name_files else []
        cells.append([str(row.ranked.rank), score, move, *file])
    facts = aligned(cells, right=(0, 1))
    left = width - max(map(columns, facts), default=0) - 2
    texts = [cut(for_eyes(row.document.text[slice(*row.ranked.passage or (None,))]), left) for row in rows]
    for line in aligned(list(zip(facts, texts, strict=True))):
        print(line)


def write_tabs(rows: Iterable[Row]) -> None:
    """Write a ranking for programs: rank, score, places moved, file, line and text, separated by tabs."""
    for row in rows:
        line = row.document.line
        moved = f"{row.moved:+d}" if row.moved else "0"
        place = (moved, one_line(line.file), line.number)
        print(row.ranked.rank, repr(row.score), *place, one_line(row.document.text), sep="\t")


def write_json(rows: Iterable[Row], pipeline: Ranking | None) -> None:
    """Write a ranking as JSON, one object per line.

    :param pipeline: The ranking, to add to each row what the stages did.
    """
    for row in rows:
        line, facts = row.document.line, row.ranked.to_dict()
        shown: dict[str, Any] = {
            "rank": row.ranked.rank,
            "score": facts["score"],
            "kind": None if row.ranked.score is None else row.ranked.kind,
            "corpus_id": row.ranked.first_stage_position,
            "moved": row.moved,
            "file": line.file,
            "line": line.number,
        }
        if row.ranked.passage or pipeline is not None:
            shown["passage"] = facts["passage"]
        if pipeline is not None:
            shown |= {"stage_scores": facts["scores"], "stage_kinds": facts["kinds"], "details": facts["details"]}
            shown |= {"degraded": pipeline.degraded, "reason": pipeline.reason}
        shown |= {"document": json.loads(line.text)} if row.document.is_record else {"text": row.document.text}
        print(to_json(shown))


def _moved(places: int, out: TextIO) -> str:
    up, down = ("↑", "↓") if can_write("↑↓", out) else ("+", "-")
    return f"{up}{places}" if places > 0 else f"{down}{-places}" if places else "="


# ---- facts


class Report:
    """The facts about scored pairs and bad lines, for standard error."""

    def __init__(self) -> None:
        self._pairs = self._tokens = self._skipped = 0
        self._documents_cut = self._document_tokens_cut = self._queries_cut = self._query_tokens_cut = 0
        self._prepared = self._documents = 0
        self._seconds = 0.0
        self._first: RowError | None = None

    def add(self, result: PairScores) -> None:
        """Count pairs that were scored."""
        self._pairs += len(result.scores)
        self._tokens += result.tokens
        self._prepared += result.documents_prepared
        self._documents += result.documents
        self._seconds += result.seconds
        self._documents_cut += int((result.document_tokens_cut > 0).sum())
        self._document_tokens_cut += int(result.document_tokens_cut.sum())
        self._queries_cut += int((result.query_tokens_cut > 0).sum())
        self._query_tokens_cut = max(self._query_tokens_cut, int(result.query_tokens_cut.max(initial=0)))

    def skip(self, line: RowError) -> None:
        """Count a line that was left out."""
        self._skipped += 1
        self._first = self._first or line

    def tell(self, model: CrossEncoder) -> None:
        """Warn about left-out lines and cut texts; on a terminal, also print how much was scored."""
        self.tell_skipped()
        if self._documents_cut or self._queries_cut:
            complain("warning", f"{self._cuts()}. {limit_of(model)}")
        speed = f" ({self._pairs / self._seconds:.0f} per second)" if self._seconds > 1 else ""
        if model.prepared is not None:
            remark(f"prepared: {self._prepared} of {self._documents}")
        remark(
            f"{self._pairs} pair{'s' * (self._pairs != 1)}, {self._tokens} tokens, {self._seconds * 1000:.0f} ms{speed}"
        )

    def tell_skipped(self) -> None:
        """Warn about lines that were left out."""
        if self._first is not None:
            lines = "1 line that can't be used was" if self._skipped == 1 else f"{self._skipped} bad lines were"
            complain("warning", f"{lines} left out; the first is {self._first.place}: {self._first.reason}.")

    def _cuts(self) -> str:
        parts = []
        if self._documents_cut:
            of = f"{self._documents_cut} of {self._pairs} pairs"
            parts.append(f"{of} were cut at the end, by {self._document_tokens_cut} tokens in all")
        if self._queries_cut:
            parts.append(f"in {self._queries_cut} the query was cut, by up to {self._query_tokens_cut} tokens")
        return "; ".join(parts)


def limit_of(model: CrossEncoder) -> str:
    """Describe how much a model reads, and what to do about longer texts."""
    info = model.info()
    limit, usable = info["max_length"], info["usable_length"]
    remedy = (
        f"--max-length goes up to {usable}" if limit < usable else "split long texts, or use a model that reads more"
    )
    return f"The model reads {limit} tokens: {remedy}."
