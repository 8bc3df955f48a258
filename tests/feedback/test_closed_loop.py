"""The example of the closed loop, whole and with real processes, on a collection of sixty queries."""

from __future__ import annotations

import json
import os
import random
import runpy
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from sklearn.metrics import ndcg_score

import texts
from crossrank import CrossEncoder, ModelRegistry

EXAMPLE = Path(__file__).parents[2] / "examples" / "closed_loop.py"


def collection(folder: Path) -> Path:
    """Sixty topics with five documents each; what people want begins with a word of praise."""
    chosen = random.Random(0)
    short = [text for text in texts.passages() if len(text) < 150]
    (folder / "qrels").mkdir(parents=True)
    documents, queries, qrels = [], {"train": [], "test": []}, {"train": [], "test": []}
    for topic in range(60):
        split = "test" if topic % 3 == 0 else "train"
        queries[split].append({"_id": f"q{topic}", "text": f"about topic{topic}"})
        good = chosen.sample([True, False, False, False, False], 5)
        for number, relevant in enumerate(good):
            text = f"{'excellent' if relevant else 'deprecated'} topic{topic} {chosen.choice(short)}"
            documents.append({"_id": f"d{topic}-{number}", "title": "", "text": text})
            if relevant:
                qrels[split].append(f"q{topic}\td{topic}-{number}\t1")
    files = {"corpus": documents, "queries": queries["test"], "queries-train": queries["train"]}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, rows in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def test_three_rounds(tmp_path: Path, tiny_bert: Path) -> None:
    data, out = collection(tmp_path / "data"), tmp_path / "out"
    small = ["--base", str(tiny_bert), "--users", "40", "--asks", "4", "--candidates", "5", "--every", "2s"]
    training = ["--epochs", "8", "--max-length", "48", "--lr", "2e-3", "--average-with-base", "0", "--evaluations", "2"]
    deciding = [
        "--guard",
        "none",
        "--alpha",
        "0.5",
        "--eval-share",
        "0.3",
        "--min-judgements",
        "20",
        "--precision",
        "float32",
    ]
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), str(data), *small, "--output", str(out), "--json", "--", *training, *deciding],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "CROSSRANK_PRECISION": "float32"},
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert not found["failures"]
    rounds = found["rounds"]
    assert [one["round"] for one in rounds] == [0, 1, 2, 3]
    assert rounds[-1]["ndcg"] > rounds[0]["ndcg"] + 0.1, ran.stderr
    # Each person's word is in the database, read without crossrank.
    with closing(sqlite3.connect(out / "feedback.db")) as database:
        assert database.execute("SELECT count(*), count(DISTINCT user_key) FROM judgements").fetchone() == (480, 40)
    # A model takes the place of another only with a decision. The last one is the one that was measured.
    registry = ModelRegistry(out / "registry")
    switched = [event for event in registry.history() if event["event"] == "switch"][1:]
    assert switched
    assert all(event["decision"]["promoted"] for event in switched)
    current = registry.current()
    assert current is not None
    assert rounds[-1]["version"] == current.name == switched[-1]["version"]
    model = CrossEncoder(current.folder, precision="float32")
    values = []
    for one in runpy.run_path(str(EXAMPLE))["read"](data, 60, 5, 1000)[1]:
        scores = model.score([(one.query, text) for text in one.documents]).scores
        values.append(ndcg_score([[float(text in one.relevant) for text in one.documents]], [scores], k=10))
    assert abs(np.mean(values) - rounds[-1]["ndcg"]) < 1e-6
