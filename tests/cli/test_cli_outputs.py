"""No command writes over what it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from small_collection import write_beir

ROWS = [{"query": "how do I undo a commit", "positives": ["git revert undoes it"], "negatives": ["a cake"]}]
COMMANDS = [
    ("mine", "j.jsonl", "--corpus", "c.jsonl", "-o", "j.jsonl"),
    ("mine", "j.jsonl", "--corpus", "c.jsonl", "-o", "./c.jsonl"),
    ("mine", "beir", "--split", "test", "-o", "beir/corpus.jsonl"),
    ("evaluate", "j.jsonl", "--report", "j.jsonl"),
    ("evaluate", "j.jsonl", "--report", "link.html"),
    ("evaluate", "beir", "--per-query", "beir/qrels/test.csv"),
    ("evaluate", "b.run", "--run-out", "b.run"),
    ("evaluate", "beir", "--run", "runs/a.run", "--run-out", "runs"),
    ("compare", "runs/a.run", "b.run", "--qrels", "beir/qrels/test.tsv", "--report", "b.run"),
    ("calibrate", "j.jsonl", "-o", "j.jsonl"),
    ("promote", "model", "--data", "j.jsonl", "--decision", "j.jsonl"),
    ("promote", "model", "--data", "j.jsonl", "--guard", "c.jsonl", "--decision", "c.jsonl"),
]


@pytest.fixture
def files(tmp_path: Path) -> dict[Path, bytes]:
    (tmp_path / "j.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "c.jsonl").write_text('{"_id": "1", "text": "a cake needs flour"}\n')
    folder = write_beir(tmp_path / "beir")
    (folder / "qrels" / "test.csv").write_text("")
    (tmp_path / "runs").mkdir()
    for name in ("runs/a.run", "b.run"):
        (tmp_path / name).write_text("git Q0 undo 1 1.0 a\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "link.html").symlink_to("j.jsonl")
    return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_input_is_never_written_over(
    command: tuple[str, ...],
    files: dict[Path, bytes],
    crossrank: Callable,
    tmp_path: Path,  # type: ignore[type-arg]
) -> None:
    ran = crossrank(*command)
    assert ran.code == 1
    assert "Name another" in ran.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    "command", [("mine", "j.jsonl", "-o", "."), ("promote", ".", "--data", "j.jsonl")], ids=" ".join
)
def test_the_current_folder_is_no_traceback(
    command: tuple[str, ...],
    files: dict[Path, bytes],
    crossrank: Callable,
    tmp_path: Path,  # type: ignore[type-arg]
) -> None:
    ran = crossrank(*command)
    assert ran.code == 1
    assert ran.err.startswith("crossrank: error: ") or ran.err.startswith("error")
    assert len(ran.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
