"""``crossrank calibrate``, and the commands that score with what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import texts

QUERIES = 30
# A calibration holds for one precision, and only float32 gives a pair the same score in every batch.
TABLES = ("qrels/test.tsv", "candidates.tsv")
FLOAT32 = ("--precision", "float32")


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Queries that are words of one passage each, with five candidates judged and one not."""
    folder = tmp_path / "passages"
    (folder / "qrels").mkdir(parents=True)
    passages = [text for text in texts.passages() if len(text) > 60][: QUERIES * 6]
    lines: dict[str, list[str]] = {"corpus.jsonl": [], "queries.jsonl": []}
    tables = {"qrels/test.tsv": ["query-id\tcorpus-id\tscore"], "candidates.tsv": ["query-id\tcorpus-id\trank\tscore"]}
    for i, text in enumerate(passages):
        query, place = divmod(i, 6)
        lines["corpus.jsonl"].append(json.dumps({"_id": f"d{i}", "title": "", "text": text}))
        if place == 0:
            lines["queries.jsonl"].append(json.dumps({"_id": f"q{query}", "text": " ".join(text.split()[2:10])}))
        if place < 5:
            tables["qrels/test.tsv"].append(f"q{query}\td{i}\t{int(place == 0)}")
        tables["candidates.tsv"].append(f"q{query}\td{i}\t{place + 1}\t{6 - place}")
    for name, content in {**lines, **tables}.items():
        (folder / name).write_text("\n".join(content) + "\n")
    return folder


def test_calibrate_then_rerank_and_score(crossrank: Callable, collection: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    ran = crossrank("calibrate", collection, "-o", "c.json", "--json", "--target-recall", "0.8", *FLOAT32)
    assert ran.code == 0, ran.err
    said, written = json.loads(ran.out), json.loads((tmp_path / "c.json").read_text())
    assert {key: said[key] for key in written} == written
    assert (said["pairs"], said["relevant"], said["queries"], said["unjudged"]) == (150, 30, 30, 30)
    assert said["unjudged_as"] == "left out"
    assert sum(point["pairs"] for point in said["reliability"]["after"]) == 150
    threshold = said["thresholds"][0]
    assert threshold["pairs"] == 30
    assert threshold["bound"] >= 0.8

    (tmp_path / "docs.txt").write_text("\n".join(texts.passages()[:20]) + "\n")
    query = "parse command line arguments"
    raw = crossrank("rerank", query, "docs.txt", "--raw", "--json", *FLOAT32)
    calibrated = ("--calibration", "c.json", *FLOAT32)
    ran = crossrank("rerank", query, "docs.txt", *calibrated, "--json")
    rows, raw_rows = ([json.loads(line) for line in out.lines] for out in (ran, raw))
    assert [row["corpus_id"] for row in rows] == [row["corpus_id"] for row in raw_rows]
    assert all(0 < row["score"] < 1 for row in rows)
    least = rows[3]["score"]
    ran = crossrank("rerank", query, "docs.txt", *calibrated, "--json", "--threshold", repr(least))
    assert [json.loads(line) for line in ran.lines] == [row for row in rows if row["score"] >= least]
    ran = crossrank("score", "-", *calibrated, stdin=f"{query}\t{rows[0]['text']}\n")
    assert float(ran.out) == pytest.approx(rows[0]["score"], abs=1e-5)

    ran = crossrank("rerank", query, "docs.txt", *calibrated, "--max-length", "64")
    assert ran.code == 1
    assert "They differ in max_length" in ran.err
    assert crossrank("rerank", query, "docs.txt", "--calibration", "c.json", "--raw").code == 2


def test_trec_files_give_the_same_calibration(crossrank: Callable, collection: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    rows = {name: [line.split("\t") for line in (collection / name).read_text().splitlines()[1:]] for name in TABLES}
    qrels, run = (rows[name] for name in TABLES)
    (tmp_path / "a.qrels").write_text("".join(f"{query} 0 {document} {grade}\n" for query, document, grade in qrels))
    (tmp_path / "a.run").write_text("".join(f"{q} Q0 {d} {rank} {score} a\n" for q, d, rank, score in run))
    texts_of = ("--topics", collection / "queries.jsonl", "--corpus", collection / "corpus.jsonl")
    ran = crossrank("calibrate", collection, "-o", "folder.json", *FLOAT32)
    assert ran.code == 0, ran.err
    ran = crossrank("calibrate", "--qrels", "a.qrels", *texts_of, "--run", "a.run", "-o", "trec.json", *FLOAT32)
    assert ran.code == 0, ran.err
    by_folder, by_trec = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("folder", "trec"))
    assert by_trec["dataset"] == "a"
    assert by_trec["pairs"] == 150
    for name in ("curve", "log_losses", "before", "after", "relevant", "unjudged"):
        assert by_trec.get(name) == by_folder.get(name), name
    assert "Give either DATASET" in crossrank("calibrate", collection, "--qrels", "a.qrels", "-o", "c.json").err
    assert "There is no dataset" in crossrank("calibrate", "-o", "c.json").err
    assert "is an input" in crossrank("calibrate", "--qrels", "a.qrels", *texts_of, "-o", "a.qrels").err


def test_for_eyes(crossrank: Callable, collection: Path) -> None:  # type: ignore[type-arg]
    ran = crossrank("calibrate", collection, "-o", "c.json", "--assume-irrelevant", "--method", "platt")
    assert ran.code == 0, ran.err
    assert "180 pairs of 30 queries, 30 relevant; 30 candidates without a judgement: irrelevant" in ran.out
    assert "expected calibration error" in ran.out


def test_too_few_are_told(crossrank: Callable, collection: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    ran = crossrank("calibrate", collection, "-o", "c.json", "--target-recall", "0.95")
    assert ran.code == 1
    assert "59 are needed. Judge pairs until there are 29 more" in ran.err
    # The scores and the curve took work, so they are not thrown away.
    assert "c.json has the calibration without a threshold" in ran.err
    assert "expected calibration error" in ran.out
    assert json.loads((tmp_path / "c.json").read_text())["thresholds"] == []
    table = collection / "qrels" / "test.tsv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.endswith("\t0")) + "\n")
    ran = crossrank("calibrate", collection, "-o", "c.json")
    assert ran.code == 1
    assert "--assume-irrelevant" in ran.err
