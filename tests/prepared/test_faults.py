"""What may happen to prepared documents on disk, with real processes."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossrank import CrossEncoder
from crossrank.errors import CrossRankError, PreparedError
from crossrank.prepared import store
from crossrank.prepared.documents import PreparedDocuments

TEXTS = {
    f"d{i}": f"document {i} about wings, flow {i * 7 % 13} and pressure at speed {i * 31 % 101}" for i in range(600)
}
QUERY = "pressure on wings at speed"
# What a child process runs: the model, the folder, then which documents.
CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from crossrank.errors import CrossRankError
from crossrank.prepared import documents
from test_faults import TEXTS, opened
documents._TEXTS = documents._MOST_TEXTS = 2
target = opened({model!r}, {folder!r})
target.load()
print("ready", flush=True)
{body}
"""


def opened(model: object, folder: object) -> PreparedDocuments:
    return PreparedDocuments(str(folder), str(model), precision="float32", num_threads=1)


def child(model: Path, folder: Path, body: str) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parent), model=str(model), folder=str(folder), body=body)
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "p"
    opened(tiny, folder).add(TEXTS, TEXTS.values())
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "p"))


def encoder(model: Path, folder: Path) -> CrossEncoder:
    return CrossEncoder(model, prepared=folder, precision="float32", num_threads=1, document_cache=0)


def assert_sound(folder: Path, whole: Path) -> int:
    """Every document that is said to be there has the states that it has in a folder made in one go."""
    found, expected = PreparedDocuments(folder), PreparedDocuments(whole)
    number = 0
    for text in TEXTS.values():
        read, other = found.find(text), expected.find(text)
        assert other is not None
        if read is not None:
            # Batches of other shapes round otherwise: a step of int8 at most.
            assert np.abs(read.states.astype(int) - other.states.astype(int)).max() <= 1
            number += 1
    assert number == len(found)
    assert PreparedDocuments(folder).repair() == []
    return number


def test_killed_at_random_moments(tiny: Path, whole: Path, tmp_path: Path) -> None:
    folder, chosen, counts = tmp_path / "p", random.Random(0), [0]
    for _ in range(10):
        process = child(tiny, folder, "target.add(TEXTS, TEXTS.values(), progress=lambda n: print(n, flush=True))")
        assert process.stdout is not None
        for _ in range(chosen.randint(0, 12)):
            process.stdout.readline()
        time.sleep(chosen.uniform(0, 0.003))
        process.kill()
        process.communicate()
        if (folder / store.DIRECTORY).exists():
            counts.append(assert_sound(folder, whole))
            # What was added stays.
            assert counts[-1] >= counts[-2]
    assert len(set(counts)) > 3, counts
    added = opened(tiny, folder).add(TEXTS, TEXTS.values())
    assert added.unchanged == counts[-1]
    assert assert_sound(folder, whole) == len(TEXTS)


@pytest.mark.proc
def test_a_full_disk(tiny: Path, whole: Path, tmp_path: Path) -> None:
    """Files of this process may not grow beyond 60 kB, which the system reports as a full disk is."""
    body = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: target.add(TEXTS, TEXTS.values())\nexcept CrossRankError as error: print(type(error).__name__, error)"
    )
    out = finished(child(tiny, tmp_path / "p", body))
    assert out.startswith("PreparedError")
    assert "can't be written" in out
    assert "goes on from there" in out
    there = assert_sound(tmp_path / "p", whole)
    assert 0 < there < len(TEXTS)
    assert opened(tiny, tmp_path / "p").add(TEXTS, TEXTS.values()).unchanged == there
    assert assert_sound(tmp_path / "p", whole) == len(TEXTS)


def test_two_writers_at_once(tiny: Path, whole: Path, tmp_path: Path) -> None:
    """The second waits for the first."""
    halves = ["list(TEXTS)[:300]", "list(TEXTS)[300:]"]
    children = [child(tiny, tmp_path / "p", f"target.add({half}, [TEXTS[i] for i in {half}])") for half in halves]
    for process in children:
        finished(process)
    assert assert_sound(tmp_path / "p", whole) == len(TEXTS)


def test_a_writer_that_waits_too_long_is_refused(tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.2)
    with store.Store(folder).writer(), pytest.raises(CrossRankError, match=r"in use by 'prepare' \(process \d+"):
        opened(tiny, folder).add(["new"], ["text"])
    assert opened(tiny, folder).add(["new"], ["text"]).read == 1


def test_a_damaged_segment(tiny: Path, whole: Path, folder: Path) -> None:
    (path,) = folder.glob("segment-*")
    victim = next(row for row in store.Store(folder).rows() if row.id == "d300")
    data = bytearray(path.read_bytes())
    data[victim.start + victim.size // 2] ^= 0xFF
    path.write_bytes(data)
    model = encoder(tiny, folder)
    pairs = [(QUERY, TEXTS[i]) for i in ("d299", "d300", "d301")]
    result = model.score(pairs)
    # Read anew, and counted.
    assert (result.documents, result.documents_prepared) == (3, 2)
    np.testing.assert_allclose(result.logits, encoder(tiny, whole).score(pairs).logits, rtol=0, atol=0.15)
    with pytest.raises(PreparedError, match=r"the id 'd300' is damaged in .*segment-000001.bin.*--repair"):
        model.rank_ids(QUERY, ["d299", "d300"])
    documents = opened(tiny, folder)
    assert documents.repair() == ["d300"]
    assert documents.add(TEXTS, TEXTS.values()).read == 1
    assert assert_sound(folder, whole) == len(TEXTS)
    assert encoder(tiny, folder).score(pairs).documents_prepared == 3


def test_adding_again_mends_a_damaged_document(tiny: Path, whole: Path, folder: Path) -> None:
    (path,) = folder.glob("segment-*")
    path.write_bytes(path.read_bytes()[:-1000])
    assert 0 < opened(tiny, folder).add(TEXTS, TEXTS.values()).read < 20
    assert assert_sound(folder, whole) == len(TEXTS)


def test_a_lost_segment(tiny: Path, whole: Path, folder: Path) -> None:
    next(folder.glob("segment-*")).unlink()
    assert encoder(tiny, folder).score([(QUERY, TEXTS["d1"])]).documents_prepared == 0
    documents = opened(tiny, folder)
    assert len(documents.repair()) == len(TEXTS)
    documents.add(TEXTS, TEXTS.values())
    assert assert_sound(folder, whole) == len(TEXTS)


def test_a_damaged_directory_is_named(tiny: Path, folder: Path) -> None:
    (folder / store.DIRECTORY).write_bytes(b"nothing of the sort" * 1000)
    with pytest.raises(PreparedError, match=r"directory\.sqlite.*prepare the documents again"):
        PreparedDocuments(folder)


def test_a_newer_format_is_refused(tiny: Path, folder: Path) -> None:
    connection = sqlite3.connect(folder / store.DIRECTORY)
    connection.execute("UPDATE meta SET value = '2' WHERE name = 'format'")
    connection.commit()
    connection.close()
    with pytest.raises(PreparedError, match=r"format 2.*reads format 1.*newer crossrank"):
        PreparedDocuments(folder)


def test_a_disk_that_can_only_be_read(tiny: Path, whole: Path, folder: Path) -> None:
    """As a user who may not write: root may everywhere."""
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in [*folder.parents, *tiny.parents][:-1]:
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)
    body = (
        # What is imported late may lie where only root can read.
        "import os, secrets, filelock\nif os.getuid() == 0: os.setuid(65534)\n"
        f"again = opened({str(tiny)!r}, {str(folder)!r})\n"
        "print(sum(again.find(text) is not None for text in TEXTS.values()))\n"
        "try: target.add(['new'], ['text'])\nexcept CrossRankError as error: print(error)"
    )
    out = finished(child(tiny, folder, body)).splitlines()
    assert out[0] == str(len(TEXTS))
    assert "can't be written" in out[1]


def test_readers_beside_a_process_that_removes_adds_and_compacts(tiny: Path, whole: Path, folder: Path) -> None:
    body = (
        "import time; end = time.monotonic() + 4\n"
        "ids = list(TEXTS)\n"
        "while time.monotonic() < end:\n"
        "    target.remove(ids[:400]); target.compact(); target.add(ids[:400], [TEXTS[i] for i in ids[:400]])\n"
        "print('done')"
    )
    process = child(tiny, folder, body)
    model = encoder(tiny, folder)
    prepared = model._documents.prepared
    assert prepared is not None
    pairs = [(QUERY, text) for text in list(TEXTS.values())[::5]]
    expected = encoder(tiny, whole).score(pairs).logits
    counts = set()
    while process.poll() is None:
        result = model.score(pairs)
        np.testing.assert_allclose(result.logits, expected, rtol=0, atol=0.15)
        counts.add(result.documents_prepared)
        prepared.refresh()
    assert "done" in finished(process)
    assert len(counts) > 1, counts
    assert assert_sound(folder, whole) == len(TEXTS)
