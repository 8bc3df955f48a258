"""A store that may only be read: commands that read it work, and never change it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import crossrank
from crossrank.feedback.database import StoreError
from crossrank.feedback.judgement import Judgement
from crossrank.feedback.store import Ranking, Store

# Root may write anywhere, unless it gives up the capability to pass over permissions.
WITHOUT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
DOCUMENTS = [{"text": "git log"}, {"text": "git reset"}]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a store of two rankings; it may be deleted again after the test."""
    made = tmp_path / "store"
    made.mkdir()
    store = Store(f"sqlite:///{made}/f.db")
    store.add_rankings([Ranking(name, "undo", DOCUMENTS, [1, 0], [0.5, 0.9]) for name in ("r1", "r2")])
    store.add_judgement(Judgement("r1", clicked=(1,)))
    store.engine.dispose()
    yield made
    made.chmod(0o755)


def run(folder: Path, action: str, *more: str, code: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossrank", "feedback", action, "--store", f"sqlite:///{folder}/f.db", *more]
    environment = {**os.environ, **({"PYTHONPATH": str(code)} if code else {})}
    return subprocess.run([*WITHOUT, *command], capture_output=True, text=True, timeout=60, env=environment)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def protect(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def leave_log(folder: Path) -> None:
    """A third ranking by a writer that was killed: it is in SQLite's log only."""
    script = (
        "import os, sys\nfrom crossrank.feedback.store import Ranking, Store\n"
        "Store(sys.argv[1]).add_rankings([Ranking('r3', 'undo', [{'text': 'a'}], [0], [1.0])])\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{folder}/f.db"], check=True, timeout=60)
    assert (folder / "f.db-wal").stat().st_size


def test_commands_that_read_need_no_permission_to_write(folder: Path, tmp_path: Path) -> None:
    protect(folder)
    before = contents(folder)
    stats = run(folder, "stats", "--json")
    assert (stats.returncode, stats.stderr) == (0, "")
    assert (json.loads(stats.stdout)["rankings"], json.loads(stats.stdout)["judgements"]) == (2, 1)
    listed = run(folder, "list", "--json")
    assert [json.loads(line)["request_id"] for line in listed.stdout.splitlines()] == ["r2", "r1"]
    exported = run(folder, "export", "-o", str(tmp_path / "out.jsonl"))
    assert exported.returncode == 0, exported.stderr
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["clicked"] == [1]
    assert contents(folder) == before


@pytest.mark.parametrize("protected", ["file", "folder"])
def test_only_one_of_both_may_be_written(folder: Path, protected: str) -> None:
    (folder / "f.db" if protected == "file" else folder).chmod(0o555)
    before = (folder / "f.db").read_bytes()
    listed = run(folder, "list", "--json")
    assert len(listed.stdout.splitlines()) == 2, listed.stderr
    assert (folder / "f.db").read_bytes() == before


def test_what_a_killed_writer_left_in_the_log_is_read(folder: Path) -> None:
    leave_log(folder)
    protect(folder)
    before = contents(folder)
    listed = run(folder, "list", "--json")
    assert [json.loads(line)["request_id"] for line in listed.stdout.splitlines()] == ["r3", "r2", "r1"]
    assert contents(folder)["f.db"] == before["f.db"]


def test_a_log_that_cant_be_read_is_not_passed_over(folder: Path) -> None:
    leave_log(folder)
    (folder / "f.db-shm").unlink()  # without it, SQLite would have to write to read the log
    protect(folder)
    listed = run(folder, "list")
    assert (listed.returncode, listed.stdout) == (1, "")
    assert "f.db-wal" in listed.stderr
    assert "Copy" in listed.stderr


@pytest.mark.parametrize("writable", [True, False])
def test_a_store_of_an_earlier_version_is_not_changed_by_reading(folder: Path, tmp_path: Path, writable: bool) -> None:
    """Read with the code as it would be with one more migration."""
    package = tmp_path / "code" / "crossrank"
    shutil.copytree(Path(crossrank.__file__).parent, package, ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    (package / "feedback" / "migrations" / "versions" / "v9999_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n\nrevision = '9999'\ndown_revision = '0001'\n\n\n"
        "def upgrade():\n    op.add_column('rankings', sa.Column('more', sa.Text()))\n"
    )
    if not writable:
        protect(folder)
    before = contents(folder)
    stats = run(folder, "stats", code=package.parent)
    assert (stats.returncode, stats.stdout) == (1, "")
    assert all(words in stats.stderr for words in ("'0001'", "'9999'", "crossrank serve --feedback"))
    assert contents(folder) == before
    if writable:  # The remedy helps: whoever may write upgrades it.
        deleted = run(folder, "delete", "--user", "nobody", code=package.parent)
        assert deleted.returncode == 0, deleted.stderr
        assert run(folder, "stats", code=package.parent).returncode == 0


def test_a_file_of_another_program_is_not_changed_by_reading(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "f.db") as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="no tables of crossrank"):
        Store(f"sqlite:///{tmp_path}/f.db", read_only=True)
    assert contents(tmp_path) == before


def test_a_store_opened_for_reading_refuses_to_write(url: str) -> None:
    Store(url).add_rankings([Ranking("r1", "undo", DOCUMENTS, [1, 0], [0.5, 0.9])])
    store = Store(url, read_only=True)
    assert [one.ranking.request_id for one in store.judged(all_rankings=True)] == ["r1"]
    for write in (lambda: store.delete(request_id="r1"), lambda: store.add_judgement(Judgement("r1", clicked=(0,)))):
        with pytest.raises(StoreError, match=r"read-?only"):
            write()
    assert len(list(Store(url).judged(all_rankings=True))) == 1
