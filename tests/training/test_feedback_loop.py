"""The example of a loop: users click, the model learns, the ranking gets better."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path

import pytest

import texts
from crossrank.checkpoint.model_registry import ModelRegistry

EXAMPLE = Path(__file__).parents[2] / "examples" / "feedback_loop.py"


def collection(folder: Path) -> Path:
    """Forty topics with five documents each; what users want begins with a word of praise."""
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


def test_three_rounds(tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["epochs=4", "max_length=48", "learning_rate=2e-3", "average_with_base=0", "precision=float32"]
    options = [word for setting in [*settings, "evaluations=2"] for word in ("--set", setting)]
    values = runpy.run_path(str(EXAMPLE))["main"](
        [
            *(str(collection(tmp_path / "data")), "--base", str(tiny_bert), "--output", str(tmp_path / "out")),
            *("--guard", "none", "--sessions", "12", "--min-judgements", "20", "--candidates", "5"),
            *options,
        ]
    )
    out = capsys.readouterr().out
    assert len(values) == 4
    assert values[-1] > values[0] + 0.1, out
    assert out.count("\nround ") == 3
    assert f"{values[0]:.4f} -> {values[-1]:.4f}" in out
    registry = ModelRegistry(tmp_path / "out" / "registry")
    assert registry.current() is not None
    # A model takes the place of another only with a decision.
    switched = [event for event in registry.history() if event["event"] == "switch"][1:]
    assert switched
    assert all(event["decision"]["promoted"] for event in switched)
