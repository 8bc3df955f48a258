"""Readers: what is read, what is told with file and line, what is counted."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from crossrank.data.bm25 import bm25
from crossrank.data.corpus import MemoryCorpus
from crossrank.data.files import read_judgements
from crossrank.data.judgements import ReadReport, ReadSettings
from crossrank.data.open_dataset import open_dataset, read_beir, read_pairs, read_trec
from crossrank.data.text_lines import Notes
from crossrank.data.trec import read_run, write_run
from crossrank.errors import CrossRankError, InputError
from small_collection import CANDIDATES, DOCUMENTS, QRELS, QUERIES, lines, write_beir


def ranked(dataset) -> dict[str, list[str]]:
    return {
        query: [dataset.corpus.ids[d] for d in dataset.candidates.documents[dataset.candidates.of(i)]]
        for i, query in enumerate(dataset.queries)
    }


def test_beir(tmp_path):
    dataset = read_beir(write_beir(tmp_path / "small"))
    assert dataset.name == "small"
    assert dict(dataset.queries) == QUERIES
    assert [dataset.corpus.text(i) for i in range(5)] == list(DOCUMENTS.values())
    assert dataset.qrels == QRELS
    assert ranked(dataset) == CANDIDATES
    assert dataset.left_out == {}


def test_a_folder_of_parquet_files_as_nano_beir_has(tmp_path):
    tables = {
        "corpus/train-00000-of-00001": [{"_id": name, "text": text} for name, text in DOCUMENTS.items()],
        "queries/train-00000-of-00001": [{"_id": name, "text": text} for name, text in QUERIES.items()],
        "qrels/test-00000-of-00002": [{"query-id": "git", "corpus-id": "undo"}],
        "qrels/test-00001-of-00002": [{"query-id": "sky", "corpus-id": "moon"}],
        "qrels/dev-00000-of-00001": [{"query-id": "baking", "corpus-id": "bread"}],
    }
    for name, rows in tables.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    assert read_beir(tmp_path).qrels == {"git": {"undo": 1}, "sky": {"moon": 1}}
    assert [one.document for one in read_judgements([str(tmp_path)], ReadSettings(split="dev"), ReadReport())] == [
        DOCUMENTS["bread"]
    ]
    with pytest.raises(InputError, match="split 'train', only for dev, test"):
        read_beir(tmp_path, split="train")


def test_title_and_text_have_a_space_between(tmp_path):
    folder = write_beir(tmp_path)
    lines(folder / "corpus.jsonl", ['{"_id": "undo", "title": "Git", "text": "reverts — für alle"}'])
    assert read_beir(folder).corpus.text(0) == "Git reverts — für alle"


def test_what_a_collection_excludes_is_no_candidate(tmp_path):
    folder = write_beir(tmp_path)
    lines(folder / "source_documents.tsv", ["query-id\tcorpus-id", "git\tcake"])
    dataset = read_beir(folder)
    assert ranked(dataset)["git"] == ["log", "undo"]
    assert dataset.left_out == {"candidates that the collection excludes for their query": 1}
    (folder / "candidates.tsv").unlink()
    assert "cake" not in ranked(read_beir(folder).with_bm25(10))["git"]


@pytest.mark.parametrize("grade", [-1, -2])
def test_negative_grades_are_not_relevant_and_counted(tmp_path, grade):
    folder = write_beir(tmp_path, qrels={**QRELS, "baking": {"bread": 1, "cake": grade}})
    dataset = read_beir(folder)
    assert dataset.qrels["baking"] == {"bread": 1, "cake": 0}
    [(what, count)] = dataset.left_out.items()
    assert "negative" in what
    assert count == 1
    assert dataset.first_places[what] == f"{folder / 'qrels' / 'test.tsv'}, line 5: {grade}"


def test_what_counts_for_nothing_is_counted_with_its_first_place(tmp_path):
    qrels = {**QRELS, "nobody": {"undo": 1}, "baking": {"cake": 0}, "sky": {"moon": 1, "nowhere": 1}}
    candidates = {**CANDIDATES, "nobody": ["cake"], "sky": ["moon", "nowhere"], "unjudged": ["cake", "moon"]}
    folder = write_beir(tmp_path, qrels=qrels, candidates=candidates, queries={**QUERIES, "unjudged": "what is it"})
    dataset = read_beir(folder)
    assert list(dataset.queries) == ["git", "sky"]
    assert dataset.left_out == {
        "queries without a relevant document": 1,
        "judgements of documents that are not in the corpus (kept: they count as missed)": 1,
        "judgements of queries that are not among the queries": 1,
        "queries with candidates but without a judgement": 1,
        "candidates of queries that are not among the queries": 1,
        "candidates that are not in the corpus": 1,
    }
    assert "nowhere" in dataset.qrels["sky"]
    places = dataset.first_places
    assert places["candidates that are not in the corpus"].endswith("candidates.tsv, line 8: 'nowhere'")
    assert "test.tsv, line 7" in places["judgements of queries that are not among the queries"]
    assert (
        "test.tsv, line 6: 'sky'"
        in places["judgements of documents that are not in the corpus (kept: they count as missed)"]
    )


def test_queries_of_another_split_are_not_reported(tmp_path):
    folder = write_beir(tmp_path)
    lines(folder / "queries-train.jsonl", ['{"_id": "train-1", "text": "of another split"}'])
    assert read_beir(folder).left_out == {}
    (folder / "candidates.tsv").unlink()
    assert read_beir(folder).left_out == {}


def test_repeated_lines_count_once(tmp_path):
    folder = write_beir(tmp_path, candidates={**CANDIDATES, "sky": ["moon", "log", "moon"]})
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        text = (folder / name).read_text().splitlines()
        lines(folder / name, [*text, text[-1]])
    dataset = read_beir(folder)
    assert ranked(dataset)["sky"] == ["moon", "log"]
    assert sorted(dataset.left_out.values()) == [1, 1, 1, 1]
    twice = dataset.first_places["candidates given twice for a query (the better rank was kept)"]
    assert twice == f"{folder / 'candidates.tsv'}, line 9"
    assert dataset.qrels == QRELS


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        (
            "corpus.jsonl",
            '{"_id": "moon", "text": "another"}',
            "corpus.jsonl, line 6: document 'moon' has a different text",
        ),
        ("corpus.jsonl", '{"_id": "new", "text": 5}', "corpus.jsonl, line 6"),
        ("corpus.jsonl", "not JSON", "corpus.jsonl, line 6: 'not JSON' is not JSON"),
        (
            "queries.jsonl",
            '{"_id": "git", "text": "another"}',
            "queries.jsonl, line 4: query 'git' has a different text",
        ),
        ("queries.jsonl", '{"text": "no identifier"}', "queries.jsonl, line 4: no identifier"),
        ("qrels/test.tsv", "git\tundo\t1", "test.tsv, line 7: query 'git' with document 'undo' has grade 1 here and 2"),
        ("qrels/test.tsv", "git\tcake\thigh", "test.tsv, line 7: column 3 should be the grade"),
        ("qrels/test.tsv", "git\tcake", "test.tsv, line 7: 2 columns"),
        ("qrels/test.tsv", "git\tcake\t3000000000", "test.tsv, line 7: the grade 3000000000 is above 10000"),
        ("candidates.tsv", "git\tmoon\t4\tnan", "candidates.tsv, line 10: the score is NaN"),
        ("candidates.tsv", "git\tmoon\tlast\t1", "candidates.tsv, line 10: the rank is 'last', not a number"),
        ("candidates.tsv", "git moon 4 1", "candidates.tsv, line 10: 1 columns"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_with_its_place(tmp_path, file, line, says):
    folder = write_beir(tmp_path)
    lines(folder / file, [*(folder / file).read_text().splitlines(), line])
    with pytest.raises(InputError) as error:
        read_beir(folder)
    assert says in str(error.value)


def test_bytes_that_are_no_utf8_are_told_with_their_line(tmp_path):
    folder = write_beir(tmp_path)
    with (folder / "corpus.jsonl").open("ab") as out:
        out.write('{"_id": "x", "text": "für"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match=r"corpus\.jsonl, line 6: byte 24 .* is not UTF-8"):
        read_beir(folder)


def test_missing_parts_are_named(tmp_path):
    folder = write_beir(tmp_path)
    with pytest.raises(InputError, match="The splits are: test"):
        read_beir(folder, split="dev")
    queries = (folder / "queries.jsonl").read_text()
    (folder / "queries.jsonl").write_text("")
    with pytest.raises(InputError, match=r"queries\.jsonl holds no query"):
        read_beir(folder)
    (folder / "queries.jsonl").write_text(queries)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(InputError, match=r"no corpus\.jsonl"):
        open_dataset(folder)
    with pytest.raises(InputError, match="no folder or file"):
        open_dataset(tmp_path / "nowhere")


# ---- runs and judgements of TREC


def trec(folder: Path, run: list[str] | None = None, qrels: list[str] | None = None):
    write_beir(folder)
    lines(
        folder / "a.run", run or [f"{q} Q0 {d} {r} {9 - r} t" for q, f in CANDIDATES.items() for r, d in enumerate(f)]
    )
    lines(
        folder / "a.qrels",
        qrels or [f"{q} 0 {d} {grade}" for q, judged in QRELS.items() for d, grade in judged.items()],
    )
    return {
        "qrels": folder / "a.qrels",
        "queries": folder / "queries.jsonl",
        "corpus": folder / "corpus.jsonl",
        "run": folder / "a.run",
    }


def test_trec(tmp_path):
    dataset = read_trec(**trec(tmp_path))
    assert ranked(dataset) == CANDIDATES
    assert dataset.qrels == QRELS
    assert dataset.first_stage == "a"


def test_a_runs_score_goes_before_its_rank_and_the_rank_before_the_order_of_the_lines(tmp_path):
    run = ["git Q0 cake 1 1.0 t", "git Q0 log 3 2.0 t", "git Q0 undo 2 2.0 t"]
    dataset = read_trec(**trec(tmp_path, run))
    assert ranked(dataset)["git"] == ["undo", "log", "cake"]
    assert dataset.left_out["queries without candidates (kept: they count 0)"] == 2
    assert dataset.left_out["candidates whose rank and score disagree (the score was used)"] == 1


def test_a_run_sorted_from_its_end_is_read_as_any_other(tmp_path):
    run = [f"git Q0 {d} {3 - i} {i + 1} t" for i, d in enumerate(reversed(CANDIDATES["git"]))]
    assert ranked(read_trec(**trec(tmp_path, run)))["git"] == CANDIDATES["git"]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (["git Q0 undo 1 nan t"], "a.run, line 1: column 5, the score, is NaN"),
        (["git Q0 undo 1 9.5 t", "git Q0 log 2 high t"], "a.run, line 2: column 5, the score, is 'high'"),
        (["git Q0 undo 9.5 1 t"], "rank and score look swapped"),
        (["git undo Q0 1 9.5 t"], "a.run, line 1: column 3 should be the document, but is 'Q0'"),
        (["git undo 1 9.5"], "a.run, line 1: 'git undo 1 9.5' has 4 columns"),
        (["undo Q0 git 1 9.5 t", "moon Q0 sky 1 9.5 t"], "column for queries contains documents (2 of 2 values)"),
        ([f"git Q0 {d} {i} {i} t" for i, d in enumerate(DOCUMENTS, start=1)], "the scores count 1, 2, 3"),
        ([f"git Q0 {d} {90 - 7 * i} {i} t" for i, d in enumerate(DOCUMENTS, start=1)], "the scores count 1, 2, 3"),
        (["no Q0 such 1 2.0 t"], "no line names both a known query and a known document"),
    ],
)
def test_a_run_that_cannot_be_used(tmp_path, run, says):
    with pytest.raises(InputError) as error:
        read_trec(**trec(tmp_path, run))
    assert says in str(error.value)


def test_an_empty_run_is_told(tmp_path):
    (tmp_path / "empty.run").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.run is empty"):
        list(read_run(tmp_path / "empty.run"))


@pytest.mark.parametrize(
    ("qrels", "says"),
    [
        (["undo 0 git 1", "moon 0 sky 1"], "column for queries contains documents"),
        (["git 0 1 undo"], "column 4 should be the grade"),
        (["git 0 cake 0"], "no query has a relevant document"),
    ],
)
def test_judgements_that_cannot_be_used(tmp_path, qrels, says):
    with pytest.raises(InputError, match=says):
        read_trec(**trec(tmp_path, qrels=qrels))


def test_a_written_run_falls_strictly_and_reads_back_in_order(tmp_path):
    write_run(tmp_path / "x" / "t.run", "t", [("q", [("a", 2.0), ("b", 2.0), ("c", 2.0), ("d", -1.0)])])
    rows = list(read_run(tmp_path / "x" / "t.run"))
    assert [row.document for row in rows] == ["a", "b", "c", "d"]
    assert all(one.score > other.score for one, other in pairwise(rows))


@pytest.mark.parametrize(
    "scores", [[2.0] * 4, [1e-3, 1e-3, 1e-3 - 1e-12, -5.0], [2.0, 2.0 - 1e-9, 2.0 - 2e-9, 1.9999999]]
)
def test_other_tools_rank_a_written_run_as_we_do(tmp_path, scores):
    """trec_eval, behind pytrec_eval, holds scores in 32 bits and breaks ties by the identifier, last first."""
    documents = ["a", "b", "c", "d"]
    write_run(tmp_path / "t.run", "t", [("q", list(zip(documents, scores, strict=True)))])
    run = list(ir_measures.read_trec_run(str(tmp_path / "t.run")))
    for rank, document in enumerate(documents, start=1):
        [value] = ir_measures.iter_calc([ir_measures.RR], {"q": {document: 1}}, run)
        assert value.value == pytest.approx(1 / rank), document


def test_an_identifier_that_a_run_cannot_hold_is_told(tmp_path):
    with pytest.raises(InputError, match="'a b' has white space"):
        write_run(tmp_path / "t.run", "t", [("q", [("a b", 2.0)])])


# ---- JSON lines


def test_pairs(tmp_path):
    path = lines(
        tmp_path / "pairs.jsonl",
        map(
            json.dumps,
            [
                {
                    "query": "bread",
                    "positives": ["bread needs flour"],
                    "negatives": ["the moon", "bread is bread bread"],
                },
                {"query": "moon", "pos": "the moon", "neg": ["bread needs flour"]},
                {"question": "bread", "positive": "bread needs flour and time"},
                {"query": "none", "negative": "x y"},
            ],
        ),
    )
    dataset = read_pairs(path)
    assert list(dataset.queries.values()) == ["bread", "moon"]
    assert [sum(judged.values()) for judged in dataset.qrels.values()] == [2, 1]
    # In BM25's order, not in the file's, which would give the positives away.
    texts = [dataset.corpus.text(d) for d in dataset.candidates.documents[dataset.candidates.of(0)]]
    assert texts[0] == "bread is bread bread"
    assert texts[-1] == "the moon"
    assert dataset.left_out == {
        "queries without a relevant document": 1,
    }


def test_pairs_without_negatives_look_among_all_texts(tmp_path):
    rows = [{"query": f"word{i}", "positive": f"a text of word{i}"} for i in range(20)]
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    dataset = read_pairs(path)
    assert dataset.candidates is None
    assert [found[0] for found in ranked(dataset.with_bm25(5)).values()] == dataset.corpus.ids


@pytest.mark.parametrize("row", ['{"query": 5, "pos": "x"}', '{"pos": "x"}', '{"query": "x", "pos": [5]}', "[]"])
def test_a_pair_that_cannot_be_used(tmp_path, row):
    with pytest.raises(CrossRankError, match=r"p\.jsonl, line 2"):
        read_pairs(lines(tmp_path / "p.jsonl", ['{"query": "a", "pos": "b"}', row]))


# ---- BM25 and samples


def test_bm25_by_its_formula():
    """Lucene's form: idf * tf / (tf + k1 * (1 - b + b * length / mean length)), words of two letters and more."""
    texts = {"one": "apple apple pear", "two": "apple plum plum plum plum", "three": "fig fig"}
    found = bm25(["apple"], MemoryCorpus(texts), 10, notes=Notes(), show_progress=False)
    idf = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = 10 / 3
    expected = [idf * tf / (tf + 1.5 * (0.25 + 0.75 * length / mean)) for tf, length in ((2, 3), (1, 5))]
    assert found.documents.tolist() == [0, 1]
    assert found.scores == pytest.approx(expected, rel=1e-5)


def test_bm25_finds_nothing_for_words_that_no_document_has():
    found = bm25(["zebra", "", "the"], MemoryCorpus({"a": "apple"}), 10, notes=Notes(), show_progress=False)
    assert found.counts.tolist() == [0, 0, 0]


def test_a_sample_is_seeded_and_told(tmp_path):
    names = [f"q{i}" for i in range(30)]
    folder = write_beir(
        tmp_path,
        queries={name: f"query {name}" for name in names},
        qrels={name: {"moon": 1} for name in names},
        candidates={name: ["cake", "moon"] if i % 2 else ["moon"] for i, name in enumerate(names)},
    )
    dataset = read_beir(folder)
    sample = dataset.sample(7, seed=3)
    assert len(sample.queries) == len(sample.qrels) == len(sample.candidates) == 7
    assert sample.left_out == {"queries that are not in the random sample": 23}
    assert list(sample.queries) == list(dataset.sample(7, seed=3).queries) != list(dataset.sample(7, seed=4).queries)
    assert {query: ranked(dataset)[query] for query in sample.queries} == ranked(sample)
    assert dataset.sample(30) is dataset


def test_a_damaged_gzip_file_is_told(tmp_path):
    folder = write_beir(tmp_path)
    whole = bytearray(gzip.compress(b"".join(b'{"_id": "%d", "text": "%d"}\n' % (i, i * i) for i in range(500))))
    whole[100:160] = bytes(byte ^ 0x5A for byte in whole[100:160])
    (folder / "queries-more.jsonl.gz").write_bytes(whole)
    with pytest.raises(InputError, match=r"queries-more\.jsonl\.gz, after line \d+: it can't be read"):
        read_beir(folder)
