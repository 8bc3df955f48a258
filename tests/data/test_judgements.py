"""Reading training data: forms, names, labels; worked out by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.data.feedback import label_of_stars, label_of_vote, labels_of_clicks
from crossrank.data.files import read_judgements
from crossrank.data.judgements import ReadReport, ReadSettings, Row, RowError, grouped, is_positive
from crossrank.data.open_dataset import read_beir
from crossrank.errors import InputError
from crossrank.training.held_out_feedback import split_signals
from small_collection import DOCUMENTS, write_beir


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(*paths: str, report: ReadReport | None = None, **settings: Any) -> list[tuple[str, str, float]]:
    found = read_judgements(paths, ReadSettings(**settings), report or ReadReport())
    return [(one.query, one.document, one.label) for one in found]


@pytest.mark.parametrize(
    "names",
    [
        ("query", "document", "label"),
        ("sentence1", "sentence2", "score"),
        ("sentence_0", "sentence_1", "label"),
        ("question", "answer", "relevance"),
        ("Query", "Passage", "Label"),
        ("text1", "text2", "similarity"),
    ],
)
def test_names_of_pairs(names: tuple[str, str, str], tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [dict(zip(names, ("q", "d", 0.25), strict=True))])
    assert read(path) == [("q", "d", 0.25)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"anchor": "q", "positive": "p", "negative": "n"}, [("p", 1), ("n", 0)]),
        ({"query": "q", "positives": ["p", "r"], "negatives": ["n"]}, [("p", 1), ("r", 1), ("n", 0)]),
        ({"query": "q", "pos": ["p"], "neg": ["n", "m"]}, [("p", 1), ("n", 0), ("m", 0)]),
        ({"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m"}, [("p", 1), ("n", 0), ("m", 0)]),
        ({"query": "q", "positive": "p"}, [("p", 1)]),
        ({"query": "q", "positive": "p", "negative": None}, [("p", 1)]),
        ({"query": "q", "positive_passages": [{"title": "T", "text": "p"}], "negative_passages": []}, [("T p", 1)]),
    ],
)
def test_positives_and_negatives(row: dict[str, Any], expected: list[Any], tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.jsonl", [row])) == [("q", text, label) for text, label in expected]


def test_the_same_rows_in_every_kind_of_file(tmp_path: Path) -> None:
    rows = [
        {"query": "a, b", "document": 'two\nlines "quoted"', "label": 1.0},
        {"query": "ü", "document": "x", "label": 0},
    ]
    jsonl = written(tmp_path / "a.jsonl", rows)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(Path(jsonl).read_text())
    (tmp_path / "c.csv").write_text(
        'query,document,label\n"a, b","two\nlines ""quoted""",1.0\nü,x,0\n', encoding="utf-8-sig"
    )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    expected = [(row["query"], row["document"], row["label"]) for row in rows]
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.parquet"):
        assert read(str(tmp_path / name)) == expected, name


def test_tsv_takes_quotation_marks_as_letters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('query\tdocument\tlabel\n"open\t5" disk\t1\n')
    assert read(str(tmp_path / "a.tsv")) == [('"open', '5" disk', 1.0)]


def test_a_csv_line_is_counted_in_the_file_and_not_in_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('query,document,label\nq,"two\nlines",1\nq,d,high\n')
    with pytest.raises(RowError, match=r"a\.csv, line 4: its label is 'high', not a number"):
        read(str(tmp_path / "a.csv"))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,document,label,document\nq,d,1,e\n")
    with pytest.raises(InputError, match="has two columns 'document'"):
        read(str(tmp_path / "a.csv"))


def test_graded_labels_are_scaled(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"query": "q", "document": "d", "label": 2}])
    with pytest.raises(RowError, match=r"line 1: its label is 2, outside 0 to 1.*--max-label"):
        read(path)
    # Grades of 0 to 4: 1 is relevant (0.5), 4 is 1, and 2 lies a third of the way between.
    assert read(path, max_label=4) == [("q", "d", pytest.approx(2 / 3))]


def test_a_grade_of_1_is_relevant_everywhere(tmp_path: Path) -> None:
    """As in trec_eval: also where the highest grade is 3, a document of grade 1 is no negative."""
    folder = write_beir(tmp_path / "beir", qrels={"git": {"undo": 3, "log": 1, "cake": 0}})
    [group] = grouped(read_judgements([str(folder)], ReadSettings(split="test"), ReadReport()))
    assert [one.document for one in group.positives] == [DOCUMENTS["undo"], DOCUMENTS["log"]]
    assert [one.document for one in group.negatives] == [DOCUMENTS["cake"]]
    rows = [{"query": "q", "document": str(grade), "label": grade} for grade in (3, 2, 1, 0)]
    [group] = grouped(read_judgements([written(tmp_path / "a.jsonl", rows)], ReadSettings(max_label=3), ReadReport()))
    assert [one.document for one in group.positives] == ["3", "2", "1"]
    labels = [one.label for one in group.judged]
    assert labels == sorted(labels, reverse=True)
    assert len(set(labels)) == 4


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"frage": "q", "text": "not this", "antwort": "d", "label": 1}])
    with pytest.raises(RowError, match="match no known form"):
        read(path)
    assert read(path, columns={"query": "frage", "document": "antwort"}) == [("q", "d", 1.0)]


def test_bad_lines_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = '{"query": "q", "document": "d", "label": 1}\n'
    path.write_text(good + '{"query": 3, "document": "d", "label": 1}\n\nnot json\n[1]\n{"a": 1}\n' + good)
    with pytest.raises(RowError, match=r"a\.jsonl, line 2: its 'query' is 3, not a string"):
        read(str(path))
    report = ReadReport()
    assert read(str(path), report=report, skip_bad=True) == [("q", "d", 1.0)] * 2
    assert (report.rows, report.skipped) == (2, 4)
    assert report.first_skipped is not None
    assert "line 2" in report.first_skipped


@pytest.mark.parametrize("name", ["missing.jsonl", "a.xlsx"])
def test_files_of_no_use(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(InputError, match=name):
        read(str(tmp_path / name))


def test_beir_folder(tmp_path: Path) -> None:
    written(
        tmp_path / "corpus.jsonl", [{"_id": "1", "title": "T", "text": "one"}, {"_id": "2", "title": "", "text": "two"}]
    )
    written(tmp_path / "queries.jsonl", [{"_id": "a", "text": "alpha"}])
    written(tmp_path / "queries-train.jsonl", [{"_id": "b", "text": "beta"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nb\t1\t2\na\t2\t1\nb\t2\t0\n")
    assert read(str(tmp_path)) == [("beta", "T one", 1.0), ("alpha", "two", 0.5), ("beta", "two", 0.0)]
    with pytest.raises(InputError, match=r"no .*qrels/test\.tsv. The splits are: train"):
        read(str(tmp_path), split="test")
    qrels = (tmp_path / "qrels/train.tsv").read_text()
    (tmp_path / "qrels/train.tsv").write_text(f"{qrels}a\t9\t1\nz\t1\t1\n")
    report = ReadReport()
    assert len(read(str(tmp_path), report=report)) == 3
    assert report.notes == {"judgements of queries or documents that are not in the collection (left out)": 2}
    (tmp_path / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nb\t9\t1\n")
    with pytest.raises(InputError, match="no line names both a known query and a known document"):
        read(str(tmp_path))


def test_training_and_evaluation_read_the_same_folder(tmp_path: Path) -> None:
    """Gzipped, with queries in a file for each split, with a grade of -1 and an unknown document."""
    folder = write_beir(
        tmp_path / "beir", qrels={"git": {"undo": 2, "log": 1, "cake": -1, "gone": 1}, "new": {"moon": 1}}
    )
    written(folder / "queries-dev.jsonl", [{"_id": "new", "text": "something else"}])
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    dataset = read_beir(folder)
    evaluated = {
        (dataset.queries[query], DOCUMENTS[document], grade > 0)
        for query, judged in dataset.qrels.items()
        for document, grade in judged.items()
        if document in DOCUMENTS
    }
    trained = {(query, document, is_positive(label)) for query, document, label in read(str(folder), split="test")}
    assert trained == evaluated
    assert len(trained) == 4


# ---- feedback


@pytest.mark.parametrize("name", ["score", "scores", "relevance", "similarity"])
def test_what_the_search_scored_is_no_judgement(name: str, tmp_path: Path) -> None:
    row = {"query": "q", "documents": ["a", "b", "c"], name: [0.93, 0.91, 0.12], "clicked": [3]}
    assert read(written(tmp_path / "a.jsonl", [row])) == [("q", "a", 0), ("q", "b", 0), ("q", "c", 1)]
    said, clicks = split_signals(Row("a.jsonl", 1, row), ReadSettings())
    assert [(one.document, one.label) for one in said] == []
    assert clicks is not None
    assert clicks.places == (3,)
    row["grade"] = [1, None, 0]
    assert read(written(tmp_path / "a.jsonl", [row])) == [("q", "a", 1), ("q", "b", 0), ("q", "c", 0)]
    # Who names the column says that it holds judgements.
    path = written(tmp_path / "b.jsonl", [{"query": "q", "documents": ["a"], name: [0.5]}])
    assert read(path, columns={"label": name}) == [("q", "a", 0.5)]


def test_what_each_signal_says(tmp_path: Path) -> None:
    rows = [
        # The lowest click is the fourth: the first and third were passed over, the fifth perhaps never seen.
        {"query": "clicks", "documents": ["a", "b", "c", "d", "e"], "clicked": [2, 4], "model": "v1"},
        {"query": "one click", "documents": ["a", "b"], "clicked": 1},
        {"query": "stars", "documents": ["a", "b", "c"], "stars": [5, None, 2]},
        {"query": "votes", "documents": ["a", "b"], "votes": ["up", "down"]},
        {"query": "labels", "documents": [{"text": "a", "label": 0.3}, {"text": "b"}]},
        {"query": "nothing", "documents": ["a", "b"], "clicked": []},
        # What was said goes before what was clicked.
        {"query": "both", "documents": ["a", "b", "c"], "clicked": [3], "stars": [4, None, 1]},
    ]
    report = ReadReport()
    found = read(written(tmp_path / "f.jsonl", rows), report=report)
    assert found == [
        *[("clicks", text, label) for text, label in (("a", 0), ("b", 1), ("c", 0), ("d", 1))],
        ("one click", "a", 1),
        ("stars", "a", 1),
        ("stars", "c", 0.25),
        ("votes", "a", 1),
        ("votes", "b", 0),
        ("labels", "a", 0.3),
        ("both", "a", 0.75),
        ("both", "b", 0),
        ("both", "c", 0),
    ]
    # e; b of "one click"; b of "stars"; b of "labels"; both of "nothing".
    assert report.notes == {
        "shown documents without a judgement": 6,
        "rankings without a click (they give no labels)": 1,
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"documents": ["a"], "clicked": [0]}, "1 is the top"),
        ({"documents": ["a"], "clicked": [2]}, "2 is not a position from 1 to 1"),
        ({"documents": ["a", "b"], "stars": [5]}, "1 stars for 2 documents"),
        ({"documents": ["a"], "stars": [6]}, "6 is not a number of stars"),
        ({"documents": ["a"], "votes": ["maybe"]}, "'maybe' is not a vote"),
        ({"documents": "a", "stars": [1]}, "not a list"),
        ({"documents": [["a"]], "stars": [1]}, "not a string"),
    ],
)
def test_feedback_of_no_use_is_told(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "f.jsonl", [{"query": "q", **row}])
    with pytest.raises(RowError, match=r"f\.jsonl, line 1") as told:
        read(path)
    assert said in str(told.value)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n)))))
def test_clicks_judge_only_what_was_looked_at(case: tuple[int, set[int]]) -> None:
    shown, clicked = case
    labels = labels_of_clicks(shown, list(clicked))
    assert len(labels) == shown
    assert {i + 1 for i, label in enumerate(labels) if label == 1} == clicked
    assert all(label is None for label in labels[max(clicked, default=0) :])
    assert all(label is not None for label in labels[: max(clicked, default=0)])


def test_the_tables() -> None:
    assert [label_of_stars(n) for n in (1, 2, 3, 3.5, 4, 5)] == [0, 0.25, 0.5, 0.625, 0.75, 1]
    assert [label_of_vote(vote) for vote in ("up", "👎", True, False, " Helpful ", -1)] == [1, 0, 1, 0, 1, 0]


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    """JSON may carry lone surrogates; what reads the texts afterwards takes UTF-8 only."""
    (tmp_path / "a.jsonl").write_text('{"query": "a\\ud800", "document": "\\ud83d\\ude00 b\\udfff c", "label": 1}\n')
    assert read(str(tmp_path / "a.jsonl")) == [("a?", "\U0001f600 b? c", 1.0)]


def test_a_damaged_gzip_file_is_told(tmp_path: Path) -> None:
    rows = "".join(f'{{"query": "q{i * i}", "document": "d{i}", "label": 1}}\n' for i in range(500))
    whole = bytearray(gzip.compress(rows.encode()))
    whole[100:160] = bytes(byte ^ 0x5A for byte in whole[100:160])
    (tmp_path / "a.jsonl.gz").write_bytes(whole)
    with pytest.raises(InputError, match=r"a\.jsonl\.gz, after line \d+: it can't be read"):
        read(str(tmp_path / "a.jsonl.gz"), skip_bad=True)


@pytest.mark.shared_data
def test_cranfields_relevant_documents_are_no_negatives() -> None:
    """Its grades go to 4; 363 of the 1612 relevant documents have grade 1."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "cranfield"
    groups = grouped(read_judgements([str(folder)], ReadSettings(split="test"), ReadReport()))
    judged = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    assert sum(len(group.positives) for group in groups) == sum(int(grade) > 0 for *_, grade in judged) == 1612
