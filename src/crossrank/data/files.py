"""Read rows from JSON lines, CSV, TSV and Parquet files, gzipped or not, and from BEIR folders."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from crossrank.data.beir import folder_corpus, folder_qrels, folder_queries
from crossrank.data.corpus import Corpus, MemoryCorpus
from crossrank.data.dataset import Dataset
from crossrank.data.forms import judgements_of
from crossrank.data.in_memory import from_ir_dataset, is_ir_dataset, records
from crossrank.data.judgements import Judgement, ReadReport, ReadSettings, Row, RowError, label_of_grade
from crossrank.data.text_lines import LineError, Notes, Place, all_lines, numbered, parquet_rows, record, text_of
from crossrank.data.trec import diagnose, qrels_lines
from crossrank.errors import InputError

# A path, or something in memory that :mod:`crossrank.data.in_memory` can read.
Source = Any
# A CSV field may hold a long document.
_LONGEST_FIELD = 64 << 20
UNKNOWN_IDS = "judgements of queries or documents that are not in the collection (left out)"


def read_judgements(sources: Sequence[Source], settings: ReadSettings, report: ReadReport) -> Iterator[Judgement]:
    """Read judged pairs, one source after the other.

    :param sources: Files ending in .jsonl, .ndjson, .json, .csv, .tsv or .parquet (the text ones also with .gz), BEIR
        folders, or what is in memory: a :class:`Dataset`, a data frame, a list of dictionaries, a dataset of Hugging
        Face or of ir_datasets.
    :param report: Filled while reading.
    :raises InputError: If there is no such file, or its format is unknown.
    :raises RowError: At a line that can't be used, unless ``skip_bad`` is set.
    :raises MissingExtraError: If pyarrow is needed for Parquet and not installed.
    """
    for source in sources:
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            yield from _from_beir(Path(source), settings, report)
        elif isinstance(source, Dataset) or is_ir_dataset(source):
            yield from _from_dataset(source, report)
        else:
            for _, found in judged_rows(source, settings, report):
                report.rows += 1
                yield from found


def judged_rows(source: Source, settings: ReadSettings, report: ReadReport) -> Iterator[tuple[Row, list[Judgement]]]:
    """Give the rows of a file or a table in memory, each with its judgements; see :func:`read_judgements`."""
    for row in rows_of(source):
        try:
            if isinstance(row, RowError):
                raise row
            found = judgements_of(row, settings, report)
        except RowError as error:  # noqa: PERF203
            if not settings.skip_bad:
                raise
            report.skipped += 1
            report.first_skipped = report.first_skipped or f"{error.place}: {error.reason}"
        else:
            yield row, found


def rows_of(source: Source) -> Iterator[Row | RowError]:
    """Give the rows of a file or a table in memory. A line that can't be read is given as an error value.

    :raises InputError: If there is no such file, or its extension is unknown.
    """
    if not isinstance(source, (str, Path)):
        yield from (Row("rows in memory", number, row) for number, row in enumerate(records(source), start=1))
        return
    path = str(source)
    ending = next((end for end in _READERS if path.lower().removesuffix(".gz").endswith(end)), None)
    if not Path(path).is_file():
        raise InputError(f"There is no file {path!r} (seen from {str(Path.cwd())!r}). Check the path.")
    if ending is None:
        raise InputError(
            f"{path!r} does not end in any of {', '.join(_READERS)}, so its format is unknown. Rename it, or give a "
            "BEIR folder (corpus.jsonl, queries.jsonl, qrels/)."
        )
    yield from _READERS[ending](path)


def _json_lines(path: str) -> Iterator[Row | RowError]:
    for place, line in numbered(Path(path)):
        try:
            yield Row(path, place.number, record(place, line))
        except LineError as error:  # noqa: PERF203
            yield RowError.of(path, place.number, error)


def _table(separator: str) -> Callable[[str], Iterator[Row | RowError]]:
    def read(path: str) -> Iterator[Row | RowError]:
        csv.field_size_limit(_LONGEST_FIELD)
        # In a TSV quotation marks have no meaning, as in the files of BEIR and MS MARCO.
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
        reader = csv.reader((line for _, line in all_lines(Path(path))), delimiter=separator, quoting=quoting)
        names = next(reader, None)
        if not names:
            raise InputError(f"{path!r} is empty. Its first line should name the columns.")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise InputError(f"{path!r} has two columns {twice!r}. Give each a unique name.")
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RowError(path, start, f"it is not CSV ({error})", "Quote fields with line ends in them.")
                continue
            if cells and len(cells) != len(names):
                reason = f"it has {len(cells)} columns, but the first line names {len(names)}"
                yield RowError(path, start, reason, "Quote fields with separators in them, or give JSON lines.")
            elif cells:
                yield Row(path, start, dict(zip(names, cells, strict=True)))

    return read


_READERS: Mapping[str, Callable[[str], Iterator[Row | RowError]]] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _json_lines),
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".parquet": lambda path: (Row(path, place.number, row) for place, row in parquet_rows(Path(path))),
}


# ---- BEIR folders


def _from_beir(folder: Path, settings: ReadSettings, report: ReadReport) -> Iterator[Judgement]:
    """Give the judgements of a folder in BEIR's layout."""
    notes = Notes()
    paths = folder_qrels(folder, settings.split)
    queries, corpus = folder_queries(folder, notes), folder_corpus(folder, notes)
    judged = list(qrels_lines(paths, notes))
    if not any(query in queries and document in corpus.index for _, query, document, _ in judged):
        raise diagnose(paths[0], [row[1:3] for row in judged], queries, corpus.index)
    yield from _labelled(judged, queries, corpus, report)
    for what, count in notes.counts.items():
        report.note(what, count)


def _from_dataset(source: Any, report: ReadReport) -> Iterator[Judgement]:
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, float]]
    corpus: Corpus
    if isinstance(source, Dataset):
        queries, corpus, qrels = source.queries, source.corpus, source.qrels
    else:
        queries, documents, qrels = from_ir_dataset(source)
        corpus = MemoryCorpus(documents)
    pairs = ((query, document, grade) for query, judged in qrels.items() for document, grade in judged.items())
    places = (Place(Path("dataset in memory"), number) for number in itertools.count(1))
    judged = [(place, *pair) for place, pair in zip(places, pairs, strict=False)]
    yield from _labelled(judged, queries, corpus, report)


def _labelled(
    judged: Sequence[tuple[Place, str, str, float]], queries: Mapping[str, str], corpus: Corpus, report: ReadReport
) -> Iterator[Judgement]:
    """Turn grades into labels. The highest grade of all pairs becomes 1."""
    highest = max([1.0, *(grade for *_, grade in judged)])
    for place, query, document, grade in judged:
        if query not in queries or document not in corpus.index:
            report.note(UNKNOWN_IDS)
            continue
        report.rows += 1
        label = label_of_grade(max(0, grade), highest)
        yield Judgement(queries[query], corpus.text(corpus.index[document]), label, str(place.path), place.number)


def read_documents(path: str) -> Iterator[str]:
    """Read the documents of a BEIR folder, or of a file with one document per row. Identifiers are optional.

    :raises InputError: If there is no such file, or a row has no text.
    """
    if Path(path).is_dir():
        corpus = folder_corpus(Path(path), Notes())
        yield from map(corpus.text, range(len(corpus.ids)))
        return
    for row in rows_of(path):
        if isinstance(row, RowError):
            raise row
        yield text_of(Place(Path(path), row.line), row.fields)
