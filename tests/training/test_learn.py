"""learn(): one call from feedback to a better model, or to the reason why not."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import texts
from crossrank.checkpoint.locks import FileLock
from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.checkpoint.source import BUNDLED
from crossrank.cli.main import main
from crossrank.errors import CrossRankError, InputError
from crossrank.training.decision import Criteria
from crossrank.training.guard_set import load_guard
from crossrank.training.learning import Outcome, Rules, learn
from crossrank.training.settings import Settings

RULES = Rules(min_judgements=20, eval_share=0.3)
QUICK = Settings(
    epochs=6,
    batch_size=16,
    max_length=48,
    learning_rate=2e-3,
    average_with_base=0.0,
    precision="float32",
    evaluations=2,
)
RUN = {"num_threads": 1}
# A random model learns little in a second.
EASY = Criteria(alpha=0.5)


def write(file: Path, first: int, count: int, *, turned: bool = False) -> None:
    """Feedback that a tiny model can learn: what is good begins with a word of praise."""
    chosen = random.Random(first)
    short = [text for text in texts.passages() if len(text) < 200]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        for number in range(first, first + count):
            kinds = chosen.sample([True, True, False, False], 4)
            documents = [f"{'excellent' if good else 'deprecated'} {chosen.choice(short)}" for good in kinds]
            stars = [5 if good != turned else 1 for good in kinds]
            query = f"{chosen.choice(short).split()[0]} number {number}"
            stream.write(json.dumps({"query": query, "documents": documents, "stars": stars}) + "\n")


def judged(file: Path, count: int = 40) -> Path:
    """The same, as data to evaluate on."""
    write(file, 10_000, count)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    with file.open("w") as stream:
        for row in rows:
            sides = {5: [], 1: []}
            for document, stars in zip(row["documents"], row["stars"], strict=True):
                sides[stars].append(document)
            stream.write(json.dumps({"query": row["query"], "positives": sides[5], "negatives": sides[1]}) + "\n")
    return file


def learned(tmp_path: Path, base: Path, **more: object) -> Outcome:
    options = {"rules": RULES, "training": QUICK, "settings": RUN, "guard": "none", **more}
    return learn(tmp_path / "feedback", ModelRegistry(tmp_path / "registry"), base=str(base), **options)


def test_rounds(tmp_path: Path, tiny_bert: Path) -> None:
    registry, guard = ModelRegistry(tmp_path / "registry"), judged(tmp_path / "guard.jsonl")
    write(tmp_path / "feedback" / "monday.jsonl", 0, 60)
    # Forty random queries tell little of a random model; the poison below costs it far more than this.
    wide = Criteria(margin=0.15)
    first = learned(tmp_path, tiny_bert, guard=guard, criteria=wide)
    assert first.state == "promoted", first.reasons
    assert first.decision is not None
    assert first.decision.data.means[1] > 0.95
    assert (first.rows, first.new_rows, first.new_judgements) == (60, 60, 240)
    assert first.train_queries + first.decided_on == 60
    current = registry.current()
    assert current is not None
    assert (current.name, current.number) == (first.version, 2)
    # Nothing new, nothing done.
    again = learned(tmp_path, tiny_bert, guard=guard)
    assert (again.state, again.new_rows, again.version) == ("nothing to do", 0, first.version)
    assert "0 new judgements of 240 are fewer than 20" in again.reasons[0]
    # A file may be moved and grow; only what is new counts.
    (tmp_path / "feedback" / "monday.jsonl").rename(tmp_path / "feedback" / "old.jsonl")
    # Poison: all labels turned, also those that decide. The guard sees it.
    write(tmp_path / "feedback" / "tuesday.jsonl", 100, 200, turned=True)
    poisoned = learned(tmp_path, tiny_bert, guard=guard, criteria=wide)
    assert poisoned.new_rows == 200
    assert poisoned.state == "not promoted"
    assert poisoned.decision is not None
    assert [reason.partition(":")[0] for reason in poisoned.decision.reasons] == ["Better", "General ability is lost"]
    assert registry.current() == current
    assert learned(tmp_path, tiny_bert, guard=guard).state == "nothing to do"
    assert len(list((registry.folder / "decisions").iterdir())) == 2
    assert not (registry.folder / ".learn").exists()


def test_flipped_labels_do_not_get_past_the_model_in_the_box(tmp_path: Path) -> None:
    # Also the labels that decide are flipped, so that the candidate looks better on them: the guard is all there is.
    training = Settings(epochs=5, learning_rate=2e-3, average_with_base=0.0)
    chosen = random.Random(0)
    short = [text for text in texts.passages() if 60 < len(text) < 200]
    (tmp_path / "feedback").mkdir()
    with (tmp_path / "feedback" / "f.jsonl").open("w") as stream:
        for text in short[:40]:
            documents = chosen.sample([text, *chosen.sample(short[40:], 2)], 3)
            votes = ["down" if document == text else "up" for document in documents]
            row = {"query": " ".join(text.split()[:6]), "documents": documents, "votes": votes}
            stream.write(json.dumps(row) + "\n")
    registry = ModelRegistry(tmp_path / "registry")
    first = registry.switch(registry.publish(BUNDLED))
    outcome = learn(
        tmp_path / "feedback", registry, rules=RULES, training=training, guard=load_guard().sample(40), settings=RUN
    )
    assert outcome.state == "not promoted", outcome.reasons
    assert outcome.reasons[-2].startswith(("General ability is lost", "General ability may be lost"))
    assert registry.current() == first


def test_a_dry_run_only_counts(tmp_path: Path, tiny_bert: Path) -> None:
    write(tmp_path / "feedback" / "f.jsonl", 0, 60)
    (tmp_path / "feedback" / "notes.md").write_text("not feedback")
    outcome = learned(tmp_path, tiny_bert, dry_run=True)
    assert (outcome.state, outcome.files, outcome.new_judgements) == ("dry run", 1, 240)
    assert outcome.train_queries + outcome.decided_on == 60
    assert outcome.version is None
    assert not (tmp_path / "registry" / "learned.json").exists()


def test_the_same_queries_are_held_out_in_every_round(tmp_path: Path, tiny_bert: Path) -> None:
    write(tmp_path / "feedback" / "a.jsonl", 0, 30)
    one = learned(tmp_path, tiny_bert, dry_run=True)
    write(tmp_path / "feedback" / "b.jsonl", 30, 30)
    both = learned(tmp_path, tiny_bert, dry_run=True)
    (tmp_path / "feedback" / "a.jsonl").unlink()
    other = learned(tmp_path, tiny_bert, dry_run=True)
    assert both.decided_on == one.decided_on + other.decided_on


def test_too_little_to_decide_on(tmp_path: Path, tiny_bert: Path) -> None:
    write(tmp_path / "feedback" / "f.jsonl", 0, 8)
    outcome = learned(tmp_path, tiny_bert)
    assert outcome.state == "nothing to do"
    assert "at least 7 are needed to show a difference" in outcome.reasons[0]


def decisions_of(registry: ModelRegistry) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((registry.folder / "decisions").iterdir())]


def test_no_query_decides_that_the_model_learnt_from(tmp_path: Path, tiny_bert: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    write(tmp_path / "feedback" / "f.jsonl", 0, 60)
    first = learned(tmp_path, tiny_bert, data=judged(tmp_path / "eval.jsonl"), criteria=EASY)
    assert (first.state, first.train_queries) == ("promoted", 60), first.reasons
    # All 60 were learnt from; only new ones decide now, also with a larger share.
    write(tmp_path / "feedback" / "g.jsonl", 100, 60)
    again = learned(tmp_path, tiny_bert, rules=Rules(20, 0.5), dry_run=True)
    assert 20 < again.decided_on < 40
    assert again.train_queries == 120 - again.decided_on
    # Going back to a model that did not learn from them makes them decide again.
    registry.rollback()
    assert learned(tmp_path, tiny_bert, rules=Rules(20, 0.5), dry_run=True).decided_on > again.decided_on


def test_a_teacher_s_scores_stay_scores(tmp_path: Path, tiny_bert: Path) -> None:
    write(tmp_path / "feedback" / "f.jsonl", 0, 60)
    rows = [json.loads(line) for line in (tmp_path / "feedback" / "f.jsonl").read_text().splitlines()]
    with (tmp_path / "feedback" / "f.jsonl").open("w") as stream:
        for row in rows:
            for document, stars in zip(row["documents"], row["stars"], strict=True):
                scored = {"query": row["query"], "document": document, "teacher_score": 7.5 if stars == 5 else -7.5}
                stream.write(json.dumps(scored) + "\n")
    data = judged(tmp_path / "eval.jsonl")
    with pytest.raises(InputError, match="Only --loss mse can use it"):
        learned(tmp_path, tiny_bert, data=data)
    outcome = learned(tmp_path, tiny_bert, data=data, training=replace(QUICK, loss="mse"), criteria=EASY)
    assert outcome.state == "promoted", outcome.reasons


def test_all_rounds_against_one_version_share_an_alpha(tmp_path: Path, tiny_bert: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    first = registry.switch(registry.publish(tiny_bert))
    data, stay = judged(tmp_path / "eval.jsonl"), replace(QUICK, epochs=0.1, learning_rate=1e-9)
    for number in (1, 2, 3):
        write(tmp_path / "feedback" / f"{number}.jsonl", 100 * number, 20)
        outcome = learned(tmp_path, tiny_bert, data=data, training=stay)
        assert outcome.state == "not promoted"
        assert outcome.reasons[-1].startswith(f"Round {number} against the version in use: it may spend")
    decisions = sorted(decisions_of(registry), key=lambda one: one["budget"]["number"])
    told = [one["budget"] for one in decisions]
    assert [one["number"] for one in told] == [1, 2, 3]
    assert [one["this_round"] for one in told] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert [one["left"] for one in told] == pytest.approx([0.05 / 2, 0.05 / 3, 0.05 / 4])
    assert [one["criteria"]["alpha"] for one in decisions] == pytest.approx([0.025, 0.05 / 6, 0.05 / 12])
    # A new version has a budget of its own, and one that comes back has what it had left.
    shutil.copytree(tiny_bert, tmp_path / "other")
    (tmp_path / "other" / "README.md").write_text("another version")
    registry.switch(registry.publish(tmp_path / "other"))
    write(tmp_path / "feedback" / "5.jsonl", 500, 20)
    assert "Round 1 " in learned(tmp_path, tiny_bert, data=data, training=stay).reasons[-1]
    registry.rollback(first.name)
    write(tmp_path / "feedback" / "6.jsonl", 600, 20)
    assert "Round 4 " in learned(tmp_path, tiny_bert, data=data, training=stay).reasons[-1]


def test_deciding_on_judged_data_instead(tmp_path: Path, tiny_bert: Path) -> None:
    write(tmp_path / "feedback" / "f.jsonl", 0, 60, turned=True)
    data = judged(tmp_path / "eval.jsonl")
    outcome = learned(tmp_path, tiny_bert, data=data)
    assert outcome.state == "not promoted"
    assert (outcome.train_queries, outcome.decided_on) == (60, 40)


def test_two_at_once(tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "feedback" / "f.jsonl", 0, 10)
    (tmp_path / "registry").mkdir()
    with FileLock(tmp_path / "registry" / "learn.lock", "learn"):
        with pytest.raises(CrossRankError, match="in use by 'learn' \\(process"):
            learned(tmp_path, tiny_bert)
        given = ["learn", "--feedback", str(tmp_path / "feedback"), "--registry", str(tmp_path / "registry")]
        assert main(given) == 1
    assert "in use by 'learn'" in capsys.readouterr().err


def test_killed_while_it_learns(tmp_path: Path, tiny_bert: Path) -> None:
    registry = ModelRegistry(tmp_path / "registry")
    first = registry.switch(registry.publish(tiny_bert))
    write(tmp_path / "feedback" / "f.jsonl", 0, 60)
    given = ["--feedback", "feedback", "--registry", "registry", "--guard", "none", "--epochs", "500"]
    process = subprocess.Popen([sys.executable, "-m", "crossrank", "learn", *given], cwd=tmp_path)
    until = time.monotonic() + 60
    while not (registry.folder / ".learn" / ".candidate.run" / "training.json").exists():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert registry.current() == first
    told: list[str] = []
    outcome = learned(tmp_path, tiny_bert, tell=told.append)
    assert outcome.state == "promoted", outcome.reasons
    assert told[0].startswith("An earlier 'learn' (process ")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["learn", "--feedback", str(tmp_path / "f"), "--registry", str(tmp_path / "r"), "--dry-run"]
    assert main(given) == 1
    assert "no folder" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert main(["registry", "list", str(tmp_path / "r")]) == 1
    assert "is not a registry" in capsys.readouterr().err
    write(tmp_path / "f" / "a.jsonl", 0, 40)
    with (tmp_path / "f" / "a.jsonl").open("a") as stream:
        stream.write("not json\n")
    assert main(given) == 1
    assert "a.jsonl, line 41: 'not json' is not JSON" in capsys.readouterr().err
    assert main([*given, "--skip-bad", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["notes"] == {"lines that can't be used": 1}
    assert (told["state"], told["rows"]) == ("dry run", 40)
    assert not (tmp_path / "r").exists()
    assert main([*given[:-2], str(tmp_path / "f" / "a.jsonl"), "--skip-bad"]) == 1
    assert "a.jsonl' is a file. Name a registry's folder." in capsys.readouterr().err
    assert main([*given, "--skip-bad", "--epochs", "-1"]) == 1
    assert "epochs=-1.0 is outside" in capsys.readouterr().err
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "learned.json").write_text("{")
    assert main([*given, "--skip-bad"]) == 1
    assert "learned.json' is damaged" in capsys.readouterr().err
