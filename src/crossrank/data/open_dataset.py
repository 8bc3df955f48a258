"""Files -> Dataset: a folder in BEIR's layout, TREC files, JSON lines of queries with positives and negatives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossrank.data.beir import folder_corpus, folder_qrels, folder_queries
from crossrank.data.bm25 import Bm25
from crossrank.data.corpus import MemoryCorpus, read_corpus, read_texts
from crossrank.data.dataset import Dataset, assemble
from crossrank.data.text_lines import Notes, Place, cut, numbered, record, wrong
from crossrank.data.trec import Qrels, RunRow, read_qrels, read_run, read_table
from crossrank.errors import InputError

_PAIR_FIELDS: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "question", "anchor"),
    "positive": ("positive", "positives", "pos"),
    "negative": ("negative", "negatives", "neg"),
}
SAME_QUERY = "lines with the query of an earlier line (their documents were joined)"
BOTH = "documents both positive and negative of one query (taken as positive)"


def open_dataset(source: str | Path, *, split: str = "test", run: str | Path | None = None) -> Dataset:
    """Find a dataset: a folder in BEIR's layout, a file of JSON lines, or the name of one on the hub.

    :param split: Which of a folder's ``qrels/*.tsv``.
    :param run: A TREC run whose ranking gives the candidates, instead of the folder's own.
    :raises InputError: If there is no such dataset, or a line of it can't be used.
    """
    path = Path(source)
    if path.is_dir():
        return read_beir(path, split=split, run=run)
    if path.is_file():
        if run is not None:
            raise InputError(f"A run goes with a folder in BEIR's layout or with --qrels; {path} has no identifiers.")
        return read_pairs(path)
    from crossrank.data.hub_datasets import fetch

    return read_beir(fetch(str(source), split), split=split, run=run, name=str(source).rsplit("/", 1)[-1])


def read_beir(
    folder: str | Path, *, split: str = "test", run: str | Path | None = None, name: str | None = None
) -> Dataset:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    Optional are ``candidates.tsv`` (query-id, corpus-id, rank, score) and ``source_documents.tsv`` (query-id,
    corpus-id): documents that must not come up for a query.

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
        (*read_qrels(judged, notes), judged),
        notes,
        rows=rows,
        # What made the table is not written in it; in this layout it is BM25 by custom.
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
        (*read_qrels(Path(qrels), notes), Path(qrels)),
        notes,
        rows=None if run is None else (read_run(Path(run)), Path(run)),
        first_stage="BM25" if run is None else Path(run).stem,
    )


def read_pairs(path: str | Path) -> Dataset:
    """Read JSON lines ``{query, positive(s), negative(s)}``, each a text or a list of texts.

    Where there are negatives, a query's candidates are its own positives and negatives. They are put in BM25's order,
    equal scores by a digest of the text: the order of the file would give the positives away. Where there are none,
    the candidates are to be found among all texts of the file.

    :raises InputError: If a line can't be used.
    """
    path = Path(path)
    notes = Notes()
    texts: dict[str, str] = {}  # text -> identifier
    queries: dict[str, str] = {}  # text -> identifier
    qrels: Qrels = {}
    places: dict[str, Place] = {}
    for place, line in numbered(path):
        row = record(place, line)
        query = _pair_field(place, row, "query")
        if len(query) != 1:
            raise wrong(place, "it has no query", f"Name it by one of: {', '.join(_PAIR_FIELDS['query'])}.")
        if query[0] in queries:
            notes.add(SAME_QUERY, f"{place}: {cut(query[0])}")
        name = queries.setdefault(query[0], f"line-{place.number}")
        places.setdefault(name, place)
        judged = qrels.setdefault(name, {})
        for kind, grade in (("positive", 1), ("negative", 0)):
            for text in _pair_field(place, row, kind):
                document = texts.setdefault(text, f"d{len(texts) + 1}")
                if judged.get(document, grade) != grade:
                    notes.add(BOTH, f"{place}: {cut(text)}")
                judged[document] = max(grade, judged.get(document, 0))
    if not texts:
        raise InputError(f"{path} holds no positive and no negative. Give lines {{query, positives, negatives}}.")
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


def _pair_field(place: Place, row: Mapping[str, Any], kind: str) -> list[str]:
    found: list[str] = []
    for name in _PAIR_FIELDS[kind]:
        value = row.get(name)
        values = [value] if isinstance(value, str) else value if isinstance(value, list) else None
        if value is None:
            continue
        if values is None or not all(isinstance(text, str) for text in values):
            raise wrong(place, f"its field {name!r} is {cut(repr(value))}", "Give a text or a list of texts.")
        found += values
    return found
