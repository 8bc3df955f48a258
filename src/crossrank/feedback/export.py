"""Stored feedback to files: rankings, pairs and triplets as JSON lines or Parquet, or a folder to evaluate on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from crossrank.errors import InputError
from crossrank.feedback.rows import mean_labels, pair_rows, ranking_rows, triplet_rows
from crossrank.feedback.store import Judged, digest_of
from crossrank.feedback.tables import RankingRow
from crossrank.optional import require

FORMS: Mapping[str, Callable[[Iterable[Judged]], Iterator[dict[str, Any]]]] = {
    "rankings": ranking_rows,
    "pairs": pair_rows,
    "triplets": triplet_rows,
}
COLLECTION = "collection"
_ROWS = 1000


def export_file(judged: Iterable[Judged], path: Path, form: str) -> int:
    """Write rows to a file ending in .jsonl or .parquet, which appears once it is complete.

    :param form: A key of :data:`FORMS`.
    :returns: How many rows.
    :raises InputError: If the name has another ending.
    :raises OSError: If the file can't be written; an old one stays.
    """
    write = {".jsonl": _json_lines, ".parquet": _parquet}.get(path.suffix)
    if write is None:
        raise InputError(f"{str(path)!r} ends neither in .jsonl nor in .parquet. Name a file that does.")
    part = path.with_name(f".{path.name}.part")
    try:
        count = write(FORMS[form](judged), part, form)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _json_lines(rows: Iterable[dict[str, Any]], path: Path, _: str) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            count += 1
            _line(stream, {name: value for name, value in row.items() if value is not None})
    return count


def _parquet(rows: Iterator[dict[str, Any]], path: Path, form: str) -> int:
    pa = require("pyarrow", extra="parquet", purpose="Writing Parquet")
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Writing Parquet")
    text, number = pa.string(), pa.float64()
    schema = {
        "rankings": {
            "query": text,
            "documents": pa.list_(pa.struct({"id": text, "text": text})),
            "clicked": pa.list_(pa.int64()),
            "stars": pa.list_(number),
            "votes": pa.list_(pa.bool_()),
            "label": pa.list_(number),
            "request_id": text,
            "time": text,
            "model": text,
            "model_version": text,
            "shuffled": pa.int64(),
        },
        "pairs": {"query": text, "document": text, "label": number},
        "triplets": {"query": text, "positive": text, "negative": text},
    }
    count = 0
    with parquet.ParquetWriter(path, pa.schema(schema[form])) as writer:
        while batch := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=pa.schema(schema[form])))
            count += len(batch)
    return count


def export_collection(judged: Iterable[Judged], folder: Path) -> int:
    """Write a test collection: a BEIR folder with candidates, and TREC's qrels and run.

    A query is a ranking that was shown, so its identifier is unique, and the run is the order in which it was shown.
    A document has its own identifier, or a digest of its text if none was sent or two texts have the same one.
    Grades are 0 (label below 0.5), 1, 2 and 3 (stars 3, 4 and 5), from the mean label of all users. Rankings
    without texts are only in ``qrels.trec`` and ``run.trec``.

    :returns: How many queries.
    :raises InputError: If the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{str(folder)!r} is not an empty folder. Name another.")
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}  # identifier -> the digest of the text that it is for
    written: set[str] = set()
    count = 0
    with ExitStack() as files:

        def file(name: str) -> TextIO:
            return files.enter_context((folder / name).open("w", encoding="utf-8"))

        corpus, queries, beir = file("corpus.jsonl"), file("queries.jsonl"), file("qrels/test.tsv")
        candidates, qrels, run = file("candidates.tsv"), file("qrels.trec"), file("run.trec")
        beir.write("query-id\tcorpus-id\tscore\n")
        candidates.write("query-id\tcorpus-id\trank\tscore\n")
        for one in judged:
            labels = mean_labels(one)
            if not labels:
                continue
            count += 1
            ranking, query = one.ranking, f"q{one.ranking.id}"
            names = {index: _name(ranking, index, digests) for index in ranking.shown}
            if ranking.has_texts:
                _line(queries, {"_id": query, "text": ranking.query})
            ranked: set[str] = set()
            for rank, index in enumerate(ranking.shown, start=1):
                name, score = names[index], len(ranking.shown) - rank + 1
                if name in ranked:  # the same text twice: use its best rank
                    continue
                ranked.add(name)
                run.write(f"{query} Q0 {name} {rank} {score} crossrank\n")
                if index in labels:
                    qrels.write(f"{query} 0 {name} {grade_of(labels[index])}\n")
                if ranking.has_texts:
                    candidates.write(f"{query}\t{name}\t{rank}\t{score}\n")
                    if index in labels:
                        beir.write(f"{query}\t{name}\t{grade_of(labels[index])}\n")
                    if name not in written:
                        written.add(name)
                        _line(corpus, {"_id": name, "text": ranking.documents[index]["text"]})
    return count


def grade_of(label: float) -> int:
    """TREC's grade for a label: 1 or higher if relevant (0.5 and above)."""
    return 0 if label < 0.5 else round(1 + 4 * (label - 0.5))


def _name(ranking: RankingRow, index: int, digests: dict[str, str]) -> str:
    document = ranking.documents[index]
    digest = document["digest"] if "digest" in document else digest_of(document["text"])
    own = "_".join(str(document.get("id", "")).split())
    if own and digests.setdefault(own, digest) == digest:
        return own
    return f"d{digest[:16]}"


def _line(stream: TextIO, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value, ensure_ascii=False) + "\n")
