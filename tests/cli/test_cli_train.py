"""``crossrank train`` and ``crossrank mine`` as they are called."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import texts

Run = Callable[..., Any]


def write_pairs(path: Path, queries: int = 8, *, one_class: bool = False) -> Path:
    short = [text for text in texts.passages() if len(text) < 300]
    rows = []
    for i in range(queries):
        query = " ".join(short[i].split()[:6])
        rows.append({"query": query, "document": short[i], "label": 1})
        rows += [{"query": query, "document": short[-i - 1], "label": 0}] * (not one_class)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_dry_run_looks_at_the_data_and_writes_nothing(crossrank: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    with pairs.open("a") as stream:
        stream.write(
            '{"query": "again", "document": "x", "label": 1}\n' * 2 + '{"query": "", "document": "x", "label": 1}\n'
        )
    ran = crossrank("train", "pairs.jsonl", "--dry-run")
    assert ran.code == 0, ran.err
    assert "19 rows: 17 pairs of 9 queries" in ran.out
    assert "1  empty query or document: left out (pairs.jsonl, line 19, ...)" in ran.out
    found = json.loads(crossrank("train", "pairs.jsonl", "--dry-run", "--json").out)["data"]
    assert (found["pairs"], found["positives"], found["negatives"]) == (17, 9, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_what_can_t_be_trained_on_is_told(crossrank: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "one.jsonl", one_class=True)
    ran = crossrank("train", "one.jsonl", "--dry-run")
    assert ran.code == 1
    assert "All 8 pairs are positive and none is negative" in ran.err
    (tmp_path / "bad.csv").write_text("query,document,label\nq,d,7\n")
    assert "bad.csv, line 2: its label is 7" in crossrank("train", "bad.csv", "--dry-run").err
    assert "--output" in crossrank("train", "one.jsonl").err
    assert crossrank("train", "one.jsonl", "--loss", "magic").code == 2


def test_an_interrupted_run_says_how_to_go_on(tiny_bert: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    given = ["train", "pairs.jsonl", "--base", str(tiny_bert), "--output", "m", "--epochs", "5000"]
    command = [sys.executable, "-m", "crossrank", *given]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not list(tmp_path.glob(".m.run/checkpoint-*/complete")) and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Continue from the last save point" in said


def test_a_missing_file_is_reported_without_loading_torch(crossrank: Run, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    ran = crossrank("train", "nope.jsonl", "--output", "x", env={"PYTHONPATH": str(tmp_path)})
    assert ran.code == 1
    assert "There is no file 'nope.jsonl'" in ran.err


def test_too_few_queries_to_hold_out_is_explained(crossrank: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 12)
    ran = crossrank("train", "pairs.jsonl", "--dry-run")
    assert "0  of 12 queries held out, because 15% of them are fewer than 10" in ran.out


def test_mine_then_train(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "one.jsonl", one_class=True)
    corpus = [text for text in texts.passages() if len(text) < 300]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus))
    ran = crossrank(
        "mine", "one.jsonl", "--corpus", "corpus.jsonl", "-o", "triplets.jsonl", "--ranks", "1", "20", "--json"
    )
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    rows = [json.loads(line) for line in (tmp_path / "triplets.jsonl").read_text().splitlines()]
    assert facts["queries"] == 8
    assert facts["triplets"] == sum(len(row["positives"]) * len(row["negatives"]) for row in rows) > 8
    ran = crossrank(
        *("train", "triplets.jsonl", "--base", tiny_bert, "--output", "model", "--max-length", "32"),
        *("--epochs", "1", "--seed", "3", "--json"),
    )
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)
    assert made["data"]["positives"] == 8
    assert made["held_out"] is None
    ranked = crossrank("rerank", "a query", "corpus.jsonl", "--model", "model", "--max-length", "32", "--json")
    assert ranked.code == 0, ranked.err


def test_queries_that_ask_for_learnt_documents_are_told_apart(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 12)
    short = [text for text in texts.passages() if len(text) < 300]
    # Other questions: four for documents that are learnt, seven for new ones.
    rows = [{"query": f"question {i}", "document": short[i], "label": 1} for i in range(8, 19)]
    rows += [{**row, "document": short[30], "label": 0} for row in rows]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = crossrank(
        *("train", "pairs.jsonl", "--eval", "eval.jsonl", "--base", tiny_bert, "--output", "model"),
        *("--max-length", "32", "--epochs", "1"),
    )
    assert ran.code == 0, ran.err
    assert "on 11 held-out queries" in ran.out
    assert "on 4 of them with a document that was also relevant in training: " in ran.out
    assert "on 7 of them without one: " in ran.out
    assert "4 of them had a document that was also relevant in training: " in (tmp_path / "model/README.md").read_text()


def test_held_out_queries_that_can_t_be_ranked_tell_nothing(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    (tmp_path / "eval.jsonl").write_text('{"query": "another", "document": "relevant", "label": 1}\n')
    ran = crossrank(
        *("train", "pairs.jsonl", "--eval", "eval.jsonl", "--base", tiny_bert, "--output", "model"),
        *("--max-length", "32", "--epochs", "1"),
    )
    assert ran.code == 0, ran.err
    assert "No held-out query has documents with different labels" in ran.out
    assert "0.0000" not in ran.out


def test_mine_says_what_it_needs(crossrank: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "one.jsonl", one_class=True)
    (tmp_path / "empty.jsonl").touch()
    assert "empty.jsonl" in crossrank("mine", "empty.jsonl", "-o", "t.jsonl").err
    assert "no document" in crossrank("mine", "one.jsonl", "--corpus", "empty.jsonl", "-o", "t.jsonl").err
    assert "filter_margin=nan" in crossrank("mine", "one.jsonl", "--filter-margin", "nan", "-o", "t.jsonl").err
    assert not (tmp_path / "t.jsonl").exists()
    assert "--bi-encoder" in crossrank("mine", "one.jsonl", "--method", "both", "-o", "t.jsonl").err


def test_a_teacher_s_scores_are_numbers(crossrank: Run, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_pairs(tmp_path / "pairs.jsonl").read_text().splitlines()]
    rows[3]["teacher_score"] = float("nan")
    scored = [{**row, "teacher_score": row.get("teacher_score", 1.0)} for row in rows]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored))
    ran = crossrank("train", "pairs.jsonl", "--teacher-scores", "scores.jsonl", "--loss", "mse", "--dry-run")
    assert ran.code == 1
    assert "scores.jsonl, line 4: its teacher score is nan, not a number" in ran.err


def test_data_of_which_nothing_is_left(crossrank: Run, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    (tmp_path / "empty.jsonl").touch()
    assert (
        "The evaluation data (empty.jsonl) has no pairs"
        in crossrank("train", "pairs.jsonl", "--eval", "empty.jsonl", "--dry-run").err
    )
    assert "there were none" in crossrank("train", "empty.jsonl", "--dry-run").err
    ran = crossrank("train", "pairs.jsonl", "--eval", "pairs.jsonl", "--dry-run")
    assert ran.code == 1
    assert "No pairs are left to train on: 16 pairs of 8 queries that are also in the evaluation data" in ran.err
