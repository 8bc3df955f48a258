"""Read and write rankings and judgements: TREC's formats, and the tab-separated tables of BEIR.

The formats are those of trec_eval's README (https://github.com/usnistgov/trec_eval). In a run the score decides, not
the rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.data.in_memory import GRADE_COLUMNS, SCORE_COLUMNS, by_query
from crossrank.data.text_lines import LineError, Notes, Place, cut, numbered, parquet_rows
from crossrank.errors import InputError

Qrels = dict[str, dict[str, int]]

NEGATIVE = "judgements with a negative grade (treated as not relevant)"
REPEATED = "judgements given twice with the same grade (the first was kept)"

# Tools that ir-measures uses keep a counter for each grade up to the highest. Larger numbers are mistakes.
HIGHEST_GRADE = 10_000

_RUN_ORDER = "The columns of a run are: query, Q0, document, rank, score, tag."


@dataclass(frozen=True)
class RunRow:
    """A line of a run or of a table of candidates."""

    place: Place
    query: str
    document: str
    rank: float
    score: float


def read_run(path: Path) -> Iterator[RunRow]:
    """Read a TREC run, ``query Q0 document rank score tag``.

    :raises InputError: If a line can't be used, the columns look swapped, or there is no line.
    """
    empty = True
    for place, line in numbered(path):
        columns = line.split()
        if len(columns) not in (5, 6):
            raise LineError(place, f"{cut(line)} has {len(columns)} columns, not 6", _RUN_ORDER)
        query, _, document, rank, score = columns[:5]
        if document == "Q0":
            raise LineError(place, "column 3 should be the document, but is 'Q0'", _RUN_ORDER)
        if not _is_integer(rank):
            hint = " and column 5 an integer: rank and score look swapped" if _is_integer(score) else ""
            raise LineError(place, f"column 4 should be the rank, but is {cut(rank)}{hint}", _RUN_ORDER)
        empty = False
        yield RunRow(place, query, document, int(float(rank)), number(place, score, "column 5, the score,"))
    if empty:
        raise InputError(f"{path} is empty: it contains no ranking. {_RUN_ORDER}")


def read_table(path: Path) -> Iterator[RunRow]:
    """Read candidates, tab-separated with a header: ``query-id corpus-id [rank] [score]``.

    Without a score the rank decides; without either, the order of the lines.

    :raises InputError: If a line can't be used, or there is no line.
    """
    count = 0
    names: list[str] = []
    for place, line in numbered(path):
        columns = line.split("\t")
        if not names:
            names = [name.strip().lower() for name in columns]
            if names[:2] != ["query-id", "corpus-id"]:
                remedy = "The first line names the columns, with tabs between: query-id, corpus-id, rank, score."
                raise LineError(place, f"{cut(line)} is not a header", remedy)
            continue
        if len(columns) != len(names):
            raise LineError(place, f"{len(columns)} columns, but the header has {len(names)}", "Check for stray tabs.")
        values = dict(zip(names, columns, strict=True))
        count += 1
        rank = number(place, values["rank"], "the rank") if "rank" in values else float(count)
        score = number(place, values["score"], "the score") if "score" in values else -rank
        yield RunRow(place, columns[0], columns[1], rank, score)
    if not count:
        raise InputError(f"{path} is empty: it contains no candidate. Delete it to get candidates from BM25.")


def qrels_lines(paths: Sequence[Path], notes: Notes) -> Iterator[tuple[Place, str, str, int]]:
    """Read judgements: TREC's ``query 0 document grade``, or with a header or in Parquet ``query-id corpus-id score``.

    In Parquet, ``score`` may be missing, as in NanoBEIR. Then all judged documents are relevant.

    :returns: Place, query, document and grade of each line; a negative grade as 0.
    :raises InputError: If a line can't be used, the columns look swapped, or there is no line.
    """
    width = count = 0
    for place, columns in (each for path in paths for each in _qrels_columns(path)):
        if not width:
            width = len(columns)
            order = "query, 0, document, grade" if width == 4 else "query, document, grade"
            if width not in (3, 4):
                expected = "TREC's have 4 (query, 0, document, grade), BEIR's 3 with a header"
                raise LineError(place, f"{cut(' '.join(columns))} has {width} columns", f"Judgements: {expected}.")
            if not _is_integer(columns[-1]) and columns[-1].strip().lower() in ("score", "grade", "relevance", "label"):
                continue
        if len(columns) != width:
            raise LineError(
                place, f"{len(columns)} columns, but the first line has {width}", f"The columns are: {order}."
            )
        if not _is_integer(columns[-1]):
            others = [i + 1 for i, column in enumerate(columns[:-1]) if i and _is_integer(column) and width == 3]
            hint = f"; column {others[0]} looks like it" if others else ""
            reason = f"column {width} should be the grade, an integer, but is {cut(columns[-1])}{hint}"
            raise LineError(place, reason, f"The columns are: {order}.")
        grade = int(float(columns[-1]))
        if grade > HIGHEST_GRADE:
            remedy = "Grades are small whole numbers, 0 for not relevant; check the order of the columns."
            raise LineError(place, f"the grade {grade} is above {HIGHEST_GRADE}", remedy)
        if grade < 0:
            notes.add(NEGATIVE, f"{place}: {grade}")
        count += 1
        yield place, columns[0], columns[-2], max(0, grade)
    if not count:
        raise InputError(f"{paths[0]} is empty: it contains no judgement. Give a file with judgements.")


def _qrels_columns(path: Path) -> Iterator[tuple[Place, list[str]]]:
    if path.suffix != ".parquet":
        yield from ((place, line.split("\t") if "\t" in line else line.split()) for place, line in numbered(path))
        return
    for place, row in parquet_rows(path):
        if row.get("query-id") is None or row.get("corpus-id") is None:
            raise LineError(place, f"it has the columns {', '.join(row)}", "Give query-id, corpus-id and score.")
        yield place, [str(row["query-id"]), str(row["corpus-id"]), str(row.get("score", 1))]


def read_qrels(paths: Sequence[Path], notes: Notes) -> tuple[Qrels, dict[str, Place]]:
    """Read judgements into a dictionary; see :func:`qrels_lines`.

    :returns: Query -> document -> grade, and the first line of each query.
    :raises InputError: If a line can't be used, or a pair has two grades.
    """
    qrels: Qrels = {}
    places: dict[str, Place] = {}
    for place, query, document, grade in qrels_lines(paths, notes):
        places.setdefault(query, place)
        judged = qrels.setdefault(query, {})
        if document not in judged:
            judged[document] = grade
        elif judged[document] == grade:
            notes.add(REPEATED, f"{place}: {query!r} with {document!r}")
        else:
            reason = f"query {query!r} with document {document!r} has grade {grade} here and {judged[document]} before"
            raise LineError(place, reason, "Keep one of the two.")
    return qrels, places


def grades_of(judgements: Any, notes: Notes) -> Qrels:
    """Convert judgements in memory, see :func:`crossrank.data.in_memory.by_query`. A negative grade becomes 0.

    :raises InputError: If something can't be used.
    """
    grades = by_query(judgements, GRADE_COLUMNS, "judgements")
    notes.add(NEGATIVE, count=sum(grade < 0 for judged in grades.values() for grade in judged.values()))
    return {query: {d: max(0, int(grade)) for d, grade in judged.items()} for query, judged in grades.items()}


def run_rows(run: Any, name: str) -> Iterator[RunRow]:
    """Convert a ranking in memory, see :func:`crossrank.data.in_memory.by_query`.

    :raises InputError: If something can't be used.
    """
    place = Place(Path(name), 0)
    for query, documents in by_query(run, SCORE_COLUMNS, name).items():
        for rank, (document, score) in enumerate(documents.items(), start=1):
            if math.isnan(score):
                raise InputError(f"{name}: the score of {document!r} for {query!r} is NaN. NaN can't be ranked.")
            yield RunRow(place, query, document, rank, score)


def place_of(path: Path, query: str, document: str) -> str:
    """Find the first line with a pair, for a message."""
    found = (str(place) for place, columns in _qrels_columns(path) if (columns[0], columns[-2]) == (query, document))
    return next(found, str(path))


def number(place: Place, text: str, what: str) -> float:
    """Parse a number.

    :raises InputError: If it is not a number.
    """
    try:
        value = float(text)
    except ValueError:
        raise LineError(place, f"{what} is {cut(text)}, not a number", "Check the order of the columns.") from None
    if math.isnan(value):
        raise LineError(place, f"{what} is NaN", "NaN can't be ranked. Find its cause, or leave the line out.")
    return value


def write_run(path: Path, tag: str, rankings: Iterable[tuple[str, Iterable[tuple[str, float]]]]) -> None:
    """Write a run whose scores strictly decrease, even as 32-bit floats.

    Readers sort by score, and each breaks ties in its own way; trec_eval and tools built on it use 32-bit floats. So a
    score that is not lower than the one before is written as the next lower 32-bit float.

    :param tag: The name of the run, without white space.
    :param rankings: Queries, each with its documents and scores, best first.
    :raises InputError: If an identifier has white space in it, which the format does not allow.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for query, ranking in rankings:
            before = np.float32(np.inf)
            for rank, (document, score) in enumerate(ranking, start=1):
                if len(f"{query} {document}".split()) != 2:
                    raise InputError(
                        f"{path}: query {query!r} or document {document!r} has white space in its identifier, "
                        "which a run can't contain. Use other identifiers."
                    )
                rounded = np.float32(score)
                before = rounded if rounded < before else np.nextafter(before, np.float32(-np.inf))
                out.write(f"{query} Q0 {document} {rank} {float(before)!r} {tag}\n")


def diagnose(
    path: Path, rows: Sequence[tuple[str, str]], queries: Iterable[str], documents: Iterable[str]
) -> InputError:
    """Explain why no line of a file is known: which columns contain what.

    :param rows: Query and document of some lines.
    """
    columns = {"queries": {query for query, _ in rows}, "documents": {document for _, document in rows}}
    known = {"queries": set(queries), "documents": set(documents)}
    seen = []
    for column, values in columns.items():
        for what, there in known.items():
            if (shared := len(values & there)) and column != what:
                seen.append(f"its column for {column} contains {what} ({shared} of {len(values)} values)")
    examples = "; ".join(f"{column}: {', '.join(map(cut, sorted(values)[:2]))}" for column, values in columns.items())
    hint = f"The columns look swapped: {' and '.join(seen)}." if seen else f"It contains, for example, {examples}."
    return InputError(f"{path}: no line names both a known query and a known document. {hint}")


def _is_integer(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False
