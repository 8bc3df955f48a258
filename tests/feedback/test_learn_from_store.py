"""``crossrank learn`` on a store."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from crossrank.cli.main import main
from crossrank.feedback.judgement import Judgement
from crossrank.feedback.store import Ranking, Store

QUICK = [
    "--epochs",
    "6",
    "--batch-size",
    "16",
    "--max-length",
    "48",
    "--lr",
    "2e-3",
    "--average-with-base",
    "0",
    "--evaluations",
    "2",
    "--alpha",
    "0.5",
    "--guard",
    "none",
    "--min-judgements",
    "20",
    "--eval-share",
    "0.3",
    "--num-threads",
    "1",
    "--json",
]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSRANK_PRECISION", "float32")


def fill(store: Store, first: int, count: int) -> None:
    """Stars that a tiny model can learn: what is good begins with a word of praise."""
    chosen = random.Random(first)
    short = [text for text in texts.passages() if len(text) < 200]
    for number in range(first, first + count):
        kinds = chosen.sample([True, True, False, False], 4)
        documents = [{"text": f"{'excellent' if good else 'deprecated'} {chosen.choice(short)}"} for good in kinds]
        store.add_rankings([Ranking(f"r{number}", f"number {number}", documents, [3, 2, 1, 0], [0.0] * 4)])
        stars = {index: 5 if good else 1 for index, good in enumerate(kinds)}
        store.add_judgement(Judgement(f"r{number}", stars=stars, user="ada"))


def test_learn_reads_the_store_and_remembers_what_it_read(
    url: str, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(url)
    fill(store, 0, 60)

    def learn(*more: str) -> dict[str, Any]:
        words = ["learn", "--feedback", url, "--registry", f"{tmp_path}/registry", "--base", str(tiny_bert)]
        code = main([*words, *QUICK, *more])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert code == (3 if told["state"] == "not promoted" else 0)
        return told

    first = learn()
    assert first["state"] == "promoted", first["reasons"]
    assert (first["rows"], first["new_rows"], first["new_judgements"], first["eta"]) == (60, 60, 240, 1.0)
    assert learn()["state"] == "nothing to do"
    # A judgement that takes the place of an old one is new, and the old one is not read any more.
    store.add_judgement(Judgement("r7", stars={0: 3}, user="ada"))
    fill(store, 100, 3)
    again = learn("--dry-run")
    assert (again["rows"], again["new_rows"], again["new_judgements"]) == (63, 4, 13)
    store.delete(request_id="r8")
    assert learn("--dry-run")["rows"] == 62


def test_learn_takes_the_estimate_of_attention(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    store, users = Store(url), np.random.default_rng(0)
    documents = [{"text": f"document {i}"} for i in range(5)]
    for number in range(400):
        shown = users.permutation(5).tolist()
        store.add_rankings([Ranking(f"r{number}", f"q{number % 40}", documents, shown, [0.0] * 5, shuffled=5)])
        clicked = [one for k, one in enumerate(shown, 1) if users.random() < k**-0.5 * (0.9 if one == 2 else 0.3)]
        store.add_judgement(Judgement(f"r{number}", clicked=tuple(clicked)))
    words = ["learn", "--feedback", url, "--registry", f"{tmp_path}/r", "--dry-run", "--json"]
    assert main(words) == 0
    assert 0.3 < json.loads(capsys.readouterr().out)["eta"] < 0.7
    assert main([*words, "--click-bias", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["eta"] == 2
    assert main(["feedback", "stats", "--store", url]) == 0
    assert "'crossrank learn --feedback' uses this" in capsys.readouterr().out


def test_learn_makes_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["learn", "--feedback", f"sqlite:///{tmp_path}/typo.db", "--registry", f"{tmp_path}/r"]
    assert main(command) == 1
    assert main([*command, "--every", "6h"]) == 1
    assert "typo.db" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("time", ["6", "h", "0s", "nanh", "infd", "6 hours", "1y"])
def test_times_that_are_none(time: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn", "--feedback", str(tmp_path), "--registry", f"{tmp_path}/r", "--every", time]) == 2
    assert "6h" in capsys.readouterr().err


def test_learn_again_and_again(tmp_path: Path, until: Callable[..., None]) -> None:
    file = tmp_path / "f.db"
    store = Store(f"sqlite:///{file}")
    fill(store, 0, 2)
    command = [sys.executable, "-m", "crossrank", "learn", "--feedback", f"sqlite:///{file}"]
    command += ["--registry", f"{tmp_path}/r", "--every", "1s", "--json"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
    try:

        def rounds() -> list[int]:
            return [json.loads(line)["rows"] for line in (tmp_path / "out").read_text().splitlines()]

        until(lambda: 2 in rounds())
        fill(store, 10, 3)
        until(lambda: 5 in rounds())
        # A round without its database is reported; the next ones go on.
        store.engine.dispose()
        file.rename(tmp_path / "away.db")
        until(lambda: "There is no database" in (tmp_path / "err").read_text())
        (tmp_path / "away.db").rename(file)
        seen = len(rounds())
        until(lambda: len(rounds()) > seen)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    # A round may also have read while some of the three were there.
    assert rounds() == sorted(rounds())
    assert {2, 5} <= set(rounds()) <= {2, 3, 4, 5}
