"""Versions in a folder: publishing, switching, going back; and what is left when a process dies or the disk is full."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crossrank.checkpoint.locks import FileLock
from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.cli.main import main
from crossrank.errors import CheckpointError, CrossRankError, InputError


def checkpoint(folder: Path, text: str, size: int = 1000) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(text.encode() * size)
    (folder / "1_Dense").mkdir()
    (folder / "1_Dense" / "weights").write_text(text)
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    registry = ModelRegistry(tmp_path / "registry")
    registry.switch(registry.publish(checkpoint(tmp_path / "a", "a")))
    return registry


def test_publishing_does_not_put_to_use(registry: ModelRegistry, tmp_path: Path) -> None:
    second = registry.publish(checkpoint(tmp_path / "b", "b"))
    assert second.number == 2
    assert registry.current() == registry.versions()[0]
    for name in ("config.json", "model.safetensors", "1_Dense/weights"):
        assert (second.folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    registry.switch(second)
    assert registry.current() == second
    # A script may read it, too.
    assert (registry.folder / "current").read_text().splitlines()[0] == second.name


def test_the_name_is_the_number_and_a_digest_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{}")
    by_hand = hashlib.sha256(b"11 2 config.json\n{}").hexdigest()
    assert ModelRegistry(tmp_path / "r").publish(tmp_path / "a").name == f"1-{by_hand[:8]}"


def test_the_same_checkpoint_keeps_its_version(registry: ModelRegistry, tmp_path: Path) -> None:
    assert registry.publish(tmp_path / "a") == registry.current()
    assert len(registry.versions()) == 1


def test_hidden_files_and_save_points_stay_behind(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", "a")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").touch()
    (folder / "checkpoint-20").mkdir()
    (folder / "checkpoint-20" / "optimizer.pt").touch()
    version = ModelRegistry(tmp_path / "r").publish(folder)
    assert sorted(path.name for path in version.folder.iterdir()) == ["1_Dense", "config.json", "model.safetensors"]


def test_back_step_by_step_and_never_to_what_was_rolled_back(registry: ModelRegistry, tmp_path: Path) -> None:
    for letter in "bcd":
        registry.switch(registry.publish(checkpoint(tmp_path / letter, letter)))
    one, two, three, four = registry.versions()
    assert registry.rollback() == three
    assert registry.rollback() == two
    registry.switch(four)
    assert registry.rollback() == two
    assert registry.rollback() == one
    with pytest.raises(InputError, match=r"no earlier version.*--to"):
        registry.rollback()
    assert registry.rollback("3") == three
    assert registry.rollback() == one
    with pytest.raises(InputError, match=f"no version '9'.*{one.name}"):
        registry.rollback("9")


def test_a_damaged_version_is_not_put_to_use(registry: ModelRegistry, tmp_path: Path) -> None:
    first, second = registry.current(), registry.publish(checkpoint(tmp_path / "b", "b"))
    (second.folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        registry.switch(second)
    assert registry.current() == first
    # Published again it comes in whole.
    third = registry.publish(tmp_path / "b")
    assert third.number == 3
    registry.switch(third)


def test_compare_and_switch(registry: ModelRegistry, tmp_path: Path) -> None:
    first = registry.current()
    b, c = (registry.publish(checkpoint(tmp_path / x, x)) for x in "bc")
    registry.switch(b, instead_of=first)
    with pytest.raises(CrossRankError, match="meanwhile"):
        registry.switch(c, instead_of=first)
    assert registry.current() == b


def test_no_checkpoint_and_a_pointer_of_nonsense(registry: ModelRegistry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        registry.publish(tmp_path)
    (registry.folder / "current").write_text("../../etc\n")
    with pytest.raises(CheckpointError, match="does not name a version"):
        registry.current()
    assert ModelRegistry(tmp_path / "none").current() is None


def test_history_keeps_figures_and_survives_a_line_cut_off(registry: ModelRegistry, tmp_path: Path) -> None:
    with (registry.folder / "history.jsonl").open("a") as stream:
        stream.write('{"event": "swi')
    second = registry.publish(checkpoint(tmp_path / "b", "b"))
    registry.switch(second, record={"decision": {"p": 0.01}})
    events = registry.history()
    assert [event["event"] for event in events] == ["publish", "switch", "publish", "switch"]
    assert events[-1]["decision"] == {"p": 0.01}
    assert events[-1]["before"] == registry.versions()[0].name


def test_full_disk_leaves_the_old_version(registry: ModelRegistry, tmp_path: Path) -> None:
    candidate = checkpoint(tmp_path / "b", "b", size=200_000)
    before = registry.current()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"not published, and 1-\w+ is in use as before.*room"):
            registry.publish(candidate)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.current() == before
    assert [path.name for path in (registry.folder / "versions").iterdir()] == [before.name]
    registry.switch(registry.publish(candidate))


@pytest.mark.parametrize("limit", [0, 10, 600])
def test_full_disk_while_switching(registry: ModelRegistry, tmp_path: Path, limit: int) -> None:
    before, second = registry.current(), registry.publish(checkpoint(tmp_path / "b", "b"))
    held = FileLock(registry.folder / "lock", "nothing")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        # The lock's own line, the pointer's, or the history's does not fit.
        with pytest.raises(OSError, match="File too large"):
            registry.switch(second, record={"decision": "x" * 600})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.current() == before
    with held:
        pass
    registry.switch(second)
    assert registry.current() == second


LOOP = """
import sys
from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.cli.main import main
registry = ModelRegistry(sys.argv[1])
print("on", flush=True)
while True:
    for candidate in sys.argv[2:]:
        registry.switch(registry.publish(candidate))
    registry.rollback()
    for version in registry.versions()[1:]:
        if version != registry.current() and version not in registry.before():
            import shutil
            # Out of the way first: a folder half removed would be a damaged version, of the user's own making.
            old = version.folder.with_name(".old")
            shutil.rmtree(old, ignore_errors=True)
            version.folder.rename(old)
            shutil.rmtree(old)
"""


def test_killed_at_any_moment_the_version_in_use_is_whole(registry: ModelRegistry, tmp_path: Path) -> None:
    candidates = [checkpoint(tmp_path / f"new{i}", f"{i}", size=300_000) for i in range(3)]
    moments = random.Random(0)

    def found() -> bool:
        return any(event["event"] == "found" and "process" in event["left_by"] for event in registry.history())

    for round_ in range(100):
        # At least so many moments, and so many that one was in the middle of a change.
        if round_ >= 12 and found():
            break
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(registry.folder), *map(str, candidates)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        current = registry.current()
        assert current is not None
        registry.check(current)
        for version in registry.versions():
            registry.check(version)
    # And it goes on from there; that a process ended in the middle stands in the history.
    registry.switch(registry.publish(checkpoint(tmp_path / "last", "last")))
    assert found()
    assert not (registry.folder / "versions" / ".incoming").exists()


def test_many_writers_get_in_one_after_the_other(registry: ModelRegistry, tmp_path: Path) -> None:
    candidates = [checkpoint(tmp_path / f"new{i}", f"{i}") for i in range(8)]
    threads = [threading.Thread(target=lambda c=c: registry.switch(registry.publish(c))) for c in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in registry.versions()] == list(range(1, 10))
    assert len(registry.before()) == 8


def test_a_taken_lock_says_who_has_it(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "lock", "learn"),
        pytest.raises(CrossRankError, match=f"in use by 'learn' \\(process {os.getpid()} on "),
        FileLock(tmp_path / "lock", "other"),
    ):
        pass
    with FileLock(tmp_path / "lock", "other") as lock:
        assert lock.left_by is None


def test_a_lock_left_behind_by_a_killed_process_is_free_and_told(tmp_path: Path) -> None:
    holds = "import sys; from pathlib import Path; from crossrank.checkpoint.locks import FileLock"
    holds += "\nwith FileLock(Path(sys.argv[1]), 'learn'): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(CrossRankError, match=f"in use by 'learn' .process {process.pid} on "):
            FileLock(tmp_path / "lock", "other").__enter__()
        process.kill()
    with FileLock(tmp_path / "lock", "other") as lock:
        assert lock.left_by is not None
        assert lock.left_by.startswith(f"'learn' (process {process.pid} on ")


def test_what_is_no_registry_is_told_and_left_alone(registry: ModelRegistry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a registry"):
        ModelRegistry(tmp_path / "typo").rollback()
    assert not (tmp_path / "typo").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        ModelRegistry(tmp_path / "file").rollback()
    (registry.folder / "current").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="does not name a version"):
        registry.current()


def test_pruning_keeps_what_is_in_use_and_the_way_back(registry: ModelRegistry, tmp_path: Path) -> None:
    for text in "bcde":
        registry.switch(registry.publish(checkpoint(tmp_path / text, text)))
    waiting = registry.publish(checkpoint(tmp_path / "f", "f"))  # somebody is about to use it
    one, two, three, four, five, _ = registry.versions()
    assert registry.prune(2, dry_run=True) == [one, two]
    assert len(registry.versions()) == 6
    assert registry.prune(2) == [one, two]
    assert registry.versions() == [three, four, five, waiting]
    assert registry.history()[-1]["deleted"] == [one.name, two.name]
    assert [registry.rollback(), registry.rollback()] == [four, three]
    with pytest.raises(InputError, match="no earlier version"):
        registry.rollback()
    # After going back, what is newer stays.
    assert registry.prune(0) == []
    with pytest.raises(InputError, match="keep=-1"):
        registry.prune(-1)


def test_the_registry_command(registry: ModelRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry.switch(registry.publish(checkpoint(tmp_path / "b", "b")), record={"decision": {"reasons": ["Better: b."]}})
    first, second = registry.versions()
    folder = str(registry.folder)
    assert main(["registry", "list", folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [first.name, second.name]
    assert lines[0].endswith("in use before")
    assert lines[1].endswith("in use")
    assert main(["registry", "show", folder]) == 0
    assert "    Better: b." in capsys.readouterr().out.splitlines()
    assert main(["registry", "show", folder, "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["bytes"]) == (first.name, 2 + 1000 + 1)
    assert main(["registry", "prune", folder, "--keep", "0", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would delete: {first.name}\n"
    assert main(["registry", "prune", folder, "--keep", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == [first.name]
    assert main(["registry", "list", folder, "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["versions"]] == [second.name]
    assert main(["registry", "list", str(tmp_path / "none")]) == 1
