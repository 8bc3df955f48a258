"""What is in memory is read as the same thing in files is."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import datasets
import ir_measures
import pandas
import pytest

from crossrank.data import Dataset, ReadReport, ReadSettings, open_dataset
from crossrank.data.files import read_judgements
from crossrank.errors import InputError
from crossrank.evaluation import compare, evaluate
from small_collection import CANDIDATES, DOCUMENTS, QRELS, QUERIES, Scores, lines, shared_words, write_beir

ROWS = [
    {"query": "how do I undo", "document": "git revert undoes", "label": 1.0},
    {"query": "how do I undo", "document": "a cake", "label": 0.0},
    {"query": "bread", "document": "needs flour", "label": 1.0},
    {"query": "bread", "document": "the moon", "label": 0.0},
]


def found(evaluation: Any) -> Any:
    return {one.name: {m: values.tolist() for m, values in one.values.items()} for one in evaluation.systems}


def test_dictionaries_are_what_a_folder_is(tmp_path: Path) -> None:
    from_files = evaluate(write_beir(tmp_path / "beir"), [Scores(shared_words)])
    dataset = Dataset.from_dicts(QUERIES, DOCUMENTS, QRELS, candidates=CANDIDATES)
    assert found(evaluate(dataset, Scores(shared_words))) == found(from_files)
    # Without candidates BM25 finds them, as it does for a folder without any.
    folder = write_beir(tmp_path / "none", candidates=None)
    dataset = Dataset.from_dicts(QUERIES, {d: {"title": "", "text": t} for d, t in DOCUMENTS.items()}, QRELS)
    assert found(evaluate(dataset, Scores(shared_words))) == found(evaluate(folder, Scores(shared_words)))


@pytest.mark.parametrize("kind", ["list", "pandas", "hf"])
def test_rows_are_what_a_file_is(kind: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", map(json.dumps, ROWS))
    table = {"list": ROWS, "pandas": pandas.DataFrame(ROWS), "hf": datasets.Dataset.from_list(ROWS)}[kind]
    of_file, of_table = open_dataset(path), open_dataset(table)
    assert of_table.queries == of_file.queries
    assert of_table.qrels == of_file.qrels
    assert found(evaluate(table, Scores(shared_words))) == found(evaluate(path, Scores(shared_words)))
    for source in (str(path), table):
        read = read_judgements([source], ReadSettings(), ReadReport())
        assert [(*one.pair, one.label) for one in read] == [tuple(row.values()) for row in ROWS]


def test_what_pandas_has_no_value_for_is_missing() -> None:
    frame = pandas.DataFrame([{"query": "q", "positive": "p", "negative": "n"}, {"query": "r", "positive": "p"}])
    read = list(read_judgements([frame], ReadSettings(), ReadReport()))
    assert [one.pair for one in read] == [("q", "p"), ("q", "n"), ("r", "p")]


class IrDataset:
    """The methods and the named tuples that ir_datasets documents."""

    def dataset_id(self) -> str:
        return "small/test"

    def queries_iter(self) -> Any:
        query = type("Query", (namedtuple("Query", ["query_id", "text"]),), {"default_text": lambda self: self.text})
        return (query(*item) for item in QUERIES.items())

    def docs_iter(self) -> Any:
        document = type("Doc", (namedtuple("Doc", ["doc_id", "text"]),), {"default_text": lambda self: self.text})
        return (document(*item) for item in DOCUMENTS.items())

    def qrels_iter(self) -> Any:
        qrel = namedtuple("TrecQrel", ["query_id", "doc_id", "relevance", "iteration"])
        return (qrel(q, d, grade, "0") for q, judged in QRELS.items() for d, grade in judged.items())


def test_an_object_of_ir_datasets(tmp_path: Path) -> None:
    dataset = open_dataset(IrDataset())
    assert (dataset.name, dict(dataset.queries), dataset.qrels) == ("small/test", QUERIES, QRELS)
    folder = write_beir(tmp_path / "beir")
    read = [
        {(one.pair, one.label) for one in read_judgements([source], ReadSettings(split="test"), ReadReport())}
        for source in (IrDataset(), dataset, str(folder))
    ]
    assert read[0] == read[1] == read[2]
    assert len(read[0]) == 5


def test_runs_in_memory_are_measured_as_ir_measures_does() -> None:
    good = {"git": {"undo": 3.0, "log": 2.0, "cake": 1.0}, "baking": {"bread": 2.0, "cake": 1.0}, "sky": {"moon": 1.0}}
    rows = [{"query_id": q, "doc_id": d, "score": s} for q, found in good.items() for d, s in found.items()]
    judged = [{"query_id": q, "doc_id": d, "relevance": g} for q, found in QRELS.items() for d, g in found.items()]
    scored = [ir_measures.ScoredDoc(*row.values()) for row in rows]
    evaluation = compare({"a": CANDIDATES, "b": good, "frame": pandas.DataFrame(rows), "named": scored}, QRELS)
    again = compare({"a": CANDIDATES, "b": good}, pandas.DataFrame(judged))
    assert found(again) == {name: values for name, values in found(evaluation).items() if name in ("a", "b")}
    by_rank = {q: {d: -r for r, d in enumerate(documents)} for q, documents in CANDIDATES.items()}
    for system, run in zip(evaluation.systems, (by_rank, good, good, good), strict=True):
        expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.RR @ 10], QRELS, run)
        assert {str(m): pytest.approx(v) for m, v in expected.items()} == {
            m: system.mean(m) for m in ("nDCG@10", "RR@10")
        }


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: compare({"a": CANDIDATES}, QRELS), "two or more"),
        (lambda: compare({"a": CANDIDATES, "b": [{"query_id": "git", "score": 1}]}, QRELS), "no doc_id or docno"),
        (lambda: compare({"a": CANDIDATES, "b": {"git": {"undo": float("nan")}}}, QRELS), "is NaN"),
        (lambda: compare({"a": CANDIDATES, "b": {"git": {"undo": "high"}}}, QRELS), "Give numbers"),
        (lambda: Dataset.from_dicts(QUERIES, DOCUMENTS, {"git": {"undo": 0}}), "no query has a relevant document"),
        (lambda: Dataset.from_dicts(QUERIES, DOCUMENTS, {"x": {"y": 1}}), "no line names both"),
        (lambda: open_dataset([1, 2]), "Row 0 is a int"),
        (lambda: open_dataset(3), "int is not a table"),
        (lambda: open_dataset([{"a": 1}]), "match no known form"),
        (lambda: open_dataset([]), "holds no judged document"),
    ],
)
def test_what_cannot_be_used_is_said(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()
