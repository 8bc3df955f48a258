"""Open a Dataset from BEIR folders, TREC files, judged pairs, names on the hub or data in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossrank.data.beir import folder_corpus, folder_qrels, folder_queries
from crossrank.data.bm25 import Bm25
from crossrank.data.corpus import MemoryCorpus, read_corpus, read_texts
from crossrank.data.dataset import Dataset, assemble
from crossrank.data.files import read_judgements
from crossrank.data.in_memory import from_ir_dataset, is_ir_dataset
from crossrank.data.judgements import ReadReport, ReadSettings, is_positive
from crossrank.data.text_lines import Notes, Place, cut, numbered
from crossrank.data.trec import Qrels, RunRow, read_qrels, read_run, read_table
from crossrank.errors import InputError

BOTH = "documents that are both positive and negative for one query (used as positive)"


def open_dataset(source: Any, *, split: str = "test", run: str | Path | None = None) -> Dataset:
    """Open a dataset: a folder in BEIR's layout, a file of judged pairs, a name on the hub, or data in memory.

    :param source: A path or a name; or a data frame, a list of dictionaries, a dataset of Hugging Face or ir_datasets.
        A :class:`Dataset` is returned unchanged.
    :param split: Which ``qrels/*.tsv`` of a folder to read.
    :param run: A TREC run to take the candidates from, instead of those in the folder.
    :raises InputError: If there is no such dataset, or a line of it can't be used.
    """
    if isinstance(source, Dataset):
        return source
    if is_ir_dataset(source):
        name = source.dataset_id() if hasattr(source, "dataset_id") else "dataset"
        return Dataset.from_dicts(*from_ir_dataset(source), name=name)
    if not isinstance(source, (str, Path)):
        return read_pairs(source)
    path = Path(source)
    if path.is_dir():
        return read_beir(path, split=split, run=run)
    if path.is_file():
        if run is not None:
            raise InputError(
                f"A run can be used only with a folder in BEIR's layout or with --qrels; {path} has no identifiers."
            )
        return read_pairs(path)
    from crossrank.data.hub_datasets import fetch

    return read_beir(fetch(str(source), split), split=split, run=run, name=str(source).rsplit("/", 1)[-1])


def read_beir(
    folder: str | Path, *, split: str = "test", run: str | Path | None = None, name: str | None = None
) -> Dataset:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, or Parquet files in folders of these names.

    Optional are ``candidates.tsv`` (query-id, corpus-id, rank, score) and ``source_documents.tsv`` (query-id,
    corpus-id): documents to exclude for a query.

    :raises InputError: If a file is missing or a line can't be used.
    """
    folder = Path(folder)
    notes = Notes()
    judged = folder_qrels(folder, split)
    excluded: dict[str, set[str]] = {}
    if (source := folder / "source_documents.tsv").is_file():
        for _, line in list(numbered(source))[1:]:
            query, _, document = line.partition("\t")
            excluded.setdefault(query, set()).add(document)
    table = folder / "candidates.tsv"
    rows = None
    if run is not None:
        rows = (read_run(Path(run)), Path(run))
    elif table.is_file():
        rows = (read_table(table), table)
    return assemble(
        name or folder.resolve().name,
        folder_queries(folder, notes),
        folder_corpus(folder, notes),
        (*read_qrels(judged, notes), judged[0]),
        notes,
        rows=rows,
        # The table does not name the first stage.
        first_stage="first stage" if run is None else Path(run).stem,
        excluded={query: frozenset(documents) for query, documents in excluded.items()},
    )


def read_trec(
    *,
    qrels: str | Path,
    queries: str | Path,
    corpus: str | Path,
    run: str | Path | None = None,
    name: str | None = None,
) -> Dataset:
    """Read TREC files: judgements, a run if there is one, and texts as JSON lines or tab-separated ``id, text``.

    :raises InputError: If a file is missing or a line can't be used.
    """
    notes = Notes()
    return assemble(
        name or Path(qrels).stem,
        read_texts([Path(queries)], notes, "query"),
        read_corpus(Path(corpus), notes),
        (*read_qrels([Path(qrels)], notes), Path(qrels)),
        notes,
        rows=None if run is None else (read_run(Path(run)), Path(run)),
        first_stage="BM25" if run is None else Path(run).stem,
    )


def read_pairs(source: Any, settings: ReadSettings | None = None) -> Dataset:
    """Read judged pairs from a file or from memory, in any form that ``crossrank train`` reads.

    If there are negatives, the candidates of a query are its judged documents. They are in BM25's order, with equal
    scores ordered by a digest of the text, because the order of the file would reveal the positives. If there are no
    negatives, the candidates have to be found among all texts.

    :param source: As in :func:`~crossrank.data.files.read_judgements`.
    :raises InputError: If a line can't be used, or no query has a relevant document.
    """
    path = Path(source) if isinstance(source, (str, Path)) else Path("rows in memory")
    notes, report = Notes(), ReadReport()
    texts: dict[str, str] = {}  # text -> identifier
    queries: dict[str, str] = {}  # text -> identifier
    qrels: Qrels = {}
    places: dict[str, Place] = {}
    for one in read_judgements([source], settings or ReadSettings(), report):
        place = Place(path, one.line)
        name = queries.setdefault(one.query, f"line-{one.line}")
        places.setdefault(name, place)
        judged = qrels.setdefault(name, {})
        document = texts.setdefault(one.document, f"d{len(texts) + 1}")
        grade = int(is_positive(one.label))
        if judged.get(document, grade) != grade:
            notes.add(BOTH, f"{place}: {cut(one.document)}")
        judged[document] = max(grade, judged.get(document, 0))
    for what, count in report.notes.items():
        notes.add(what, count=count)
    if not texts:
        raise InputError(f"{path} holds no judged document. Give rows of query, positives and negatives.")
    corpus = MemoryCorpus({name: text for text, name in texts.items()})
    by_name = {name: text for text, name in queries.items()}
    given = any(0 in judged.values() for judged in qrels.values())
    return assemble(
        path.name.partition(".")[0],
        by_name,
        corpus,
        (qrels, places, path),
        notes,
        rows=(_by_bm25(by_name, corpus, qrels, places), path) if given else None,
        first_stage="BM25",
    )


def _by_bm25(
    queries: Mapping[str, str], corpus: MemoryCorpus, qrels: Qrels, places: Mapping[str, Place]
) -> list[RunRow]:
    lexical = Bm25([corpus.text(i) for i in range(len(corpus.ids))])
    rows = []
    for name, query in queries.items():
        scores = lexical.scores(query)
        by_score = sorted(
            (-float(scores[number]), hashlib.sha256(corpus.text(number).encode("utf-8", "surrogatepass")).digest(), d)
            for d in qrels[name]
            for number in [corpus.index[d]]
        )
        rows += [RunRow(places[name], name, d, float(rank), -score) for rank, (score, _, d) in enumerate(by_score)]
    return rows
