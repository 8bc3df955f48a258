"""A job's result is that of single calls, whatever the format, and a run that was stopped goes on where it was."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossrank import CrossEncoder, InputError
from crossrank.batch import BatchJob, RankBatch
from crossrank.batch.input_files import find_files, split
from crossrank.batch.read_part import read_part, schema_of

WORDS = ("flow", "wing", "heat", "wave", "plate", "shock", "layer", "wake", "jet", "body")
WORDS += ("commit", "branch", "merge", "undo", "the", "of", "in", "a")


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Queries with one to five documents; ids that look like numbers; quotes and line ends in the texts."""
    chosen = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(chosen.choice(WORDS, words)) + chosen.choice(["", ' "so"', ", and", "\nnew line"])

    return [
        {"id": f"{i:05d}", "query": text(4), "documents": [text(12) for _ in range(1 + i % 5)], "note": text(2)}
        for i in range(count)
    ]


def expected(model: CrossEncoder, rows: list[dict[str, Any]]) -> list[list[float]]:
    return [model.predict([(row["query"], text) for text in row["documents"]]).tolist() for row in rows]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix in (".jsonl", ".gz"):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(tiny_bert, precision="float32")


@pytest.fixture
def rank(tiny_bert: Path) -> RankBatch:
    return RankBatch(tiny_bert, precision="float32")


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl", "in.jsonl.gz"])
@pytest.mark.parametrize("one_file", [False, True])
def test_lists_of_documents(name: str, one_file: bool, model: CrossEncoder, rank: RankBatch, tmp_path: Path) -> None:
    rows = rows_of(60)
    output = tmp_path / ("out.parquet" if one_file else "out")
    summary = BatchJob(write(tmp_path / name, rows), output, rank, part_pairs=30, part_bytes=3000).run()
    assert summary.parts > 1 or name.endswith(".gz")
    assert summary.rows == 60
    assert summary.pairs == sum(len(row["documents"]) for row in rows)
    assert summary.bad == 0
    done = pq.read_table(output).to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in done] == rows
    for row, scores in zip(done, expected(model, rows), strict=True):
        assert row["rerank_scores"] == pytest.approx(scores, abs=1e-5)
        places = [sorted(row["rerank_scores"], reverse=True).index(score) + 1 for score in row["rerank_scores"]]
        assert row["rerank_ranks"] == places
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, output.name])


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.parquet"])
def test_pairs_keep_their_ids_as_they_are(name: str, model: CrossEncoder, rank: RankBatch, tmp_path: Path) -> None:
    rows = [{"id": row["id"], "query": row["query"], "text": row["documents"][0]} for row in rows_of(80)]
    summary = BatchJob(write(tmp_path / name, rows), tmp_path / "out", rank, part_pairs=30, part_bytes=2000).run()
    assert summary.parts > 1
    done = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in done] == [row["id"] for row in rows]
    scores = model.predict([(row["query"], row["text"]) for row in rows])
    assert [row["rerank_score"] for row in done] == pytest.approx(scores.tolist(), abs=1e-5)


def test_top_k_keeps_the_best_documents(model: CrossEncoder, tiny_bert: Path, tmp_path: Path) -> None:
    rows = rows_of(20)
    for row in rows:
        row["documents"] = [{"doc_id": str(i), "text": text} for i, text in enumerate(row["documents"])]
    BatchJob(
        write(tmp_path / "in.parquet", rows), tmp_path / "out", RankBatch(tiny_bert, precision="float32", top_k=2)
    ).run()
    for row, done in zip(rows, pq.read_table(tmp_path / "out").to_pylist(), strict=True):
        ranked = model.rank(row["query"], [document["text"] for document in row["documents"]], top_k=2)
        best = [one["corpus_id"] for one in ranked]
        assert done["rerank_positions"] == best
        assert done["documents"] == [row["documents"][i] for i in best]
        assert done["rerank_scores"] == pytest.approx([one["score"] for one in ranked], abs=1e-5)


def test_a_pipeline(tiny_bert: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text(f'[[stages]]\ntype = "cross-encoder"\nmodel = "{tiny_bert}"\nprecision = "float32"\nkeep = 2\n')
    rows = rows_of(10)
    BatchJob(write(tmp_path / "in.jsonl", rows), tmp_path / "out", RankBatch(pipeline=pipeline)).run()
    model = CrossEncoder(tiny_bert, precision="float32")
    for row, done in zip(rows, pq.read_table(tmp_path / "out").to_pylist(), strict=True):
        best = {
            one["corpus_id"]: i for i, one in enumerate(model.rank(row["query"], row["documents"], top_k=2), start=1)
        }
        assert done["rerank_ranks"] == [best.get(i) for i in range(len(row["documents"]))]
        assert [score is None for score in done["rerank_scores"]] == [
            i not in best for i in range(len(row["documents"]))
        ]


def test_parts_cover_each_row_once(tmp_path: Path) -> None:
    """Rows cut at any size are the rows of the csv module."""
    rows = [{"query": row["query"], "text": row["documents"][0]} for row in rows_of(200)]
    for name, size in (("in.csv", 333), ("in.csv", 1), ("in.tsv", 5000), ("in.csv", 10**9)):
        system, files = find_files(str(write(tmp_path / name, rows)))
        schema = schema_of(system, files)
        parts = list(split(system, files, size=size))
        found = [row for part in parts for chunk in read_part(system, part, schema) for row in chunk.table.to_pylist()]
        assert found == rows
        assert (len(parts) > 50) == (size == 1)


def test_bad_rows_are_set_aside_with_the_reason(rank: RankBatch, tmp_path: Path) -> None:
    good = rows_of(3)
    lines = [json.dumps(row) for row in good]
    lines[1:1] = [
        "{no json",
        '["a", "list"]',
        json.dumps({**good[0], "query": None}),
        json.dumps({**good[0], "query": 7}),
    ]
    lines += ["", json.dumps({**good[0], "unknown": 1}), json.dumps({**good[0], "documents": ["a", None]})]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    # The unknown field is within the rows that decide the columns; so it is known here.
    summary = BatchJob(tmp_path / "in.jsonl", tmp_path / "out", rank).run()
    bad = [json.loads(line) for line in (tmp_path / "out/_bad/part-00000.jsonl").read_text().splitlines()]
    assert summary.bad == len(bad)
    reasons = {row["row"]: row["reason"] for row in bad}
    assert reasons[2].startswith("not JSON")
    assert reasons[3] == "a JSON object is expected, not list"
    assert "the query is null" in reasons[4]
    assert "'query' is int" in reasons[5]
    assert "documents[1]" in reasons[10]
    assert next(row for row in bad if row["row"] == 2)["row_as_it_was"] == "{no json"
    done = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in done] == [good[0]["id"], good[1]["id"], good[2]["id"], good[0]["id"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": "x", "text": "y"}], "No column of queries was found among a, text"),
        ([{"query": "x", "other": "y"}], "No column of documents"),
        ([{"query": 1, "text": "y"}], "The column 'query' is int64"),
        ([{"query": "x", "text": 3}], "documents are text, structs, or lists"),
        ([{"query": "x", "text": "y", "rerank_score": 1.0}], "The column 'rerank_score' exists already"),
    ],
)
def test_columns_that_cant_be_used(rows: list[dict[str, Any]], message: str, rank: RankBatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        BatchJob(write(tmp_path / "in.parquet", rows), tmp_path / "out", rank)
    assert not (tmp_path / "out").exists()


def test_inputs_that_cant_be_used(rank: RankBatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        BatchJob(tmp_path / "missing.jsonl", tmp_path / "out", rank)
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match="has an unknown format"):
        BatchJob(tmp_path / "notes.txt", tmp_path / "out", rank)
    with pytest.raises(InputError, match="has no file that ends"):
        BatchJob(tmp_path, tmp_path / "out", rank)
    folder = tmp_path / "several"
    folder.mkdir()
    write(folder / "a.parquet", rows_of(3))
    pq.write_table(pa.table({"id": [1], "query": ["a"], "documents": [["b"]], "note": ["c"]}), folder / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet' has different columns than .*'id' is int64, not string"):
        BatchJob(folder, tmp_path / "out", rank)
    (folder / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a Parquet file, or it is damaged"):
        BatchJob(folder, tmp_path / "out", rank)
    with pytest.raises(InputError, match="top_k is for lists"):
        BatchJob(write(tmp_path / "p.csv", [{"query": "a", "text": "b"}]), tmp_path / "o", RankBatch(top_k=3))


def test_a_glob_and_a_folder(rank: RankBatch, tmp_path: Path) -> None:
    rows = rows_of(12)
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    write(folder / "a-1.jsonl", rows[:4])
    write(folder / "a-2.jsonl", rows[4:8])
    write(folder / "deep" / "c.jsonl", rows[8:])
    write(folder / "_left_out.jsonl", rows)
    BatchJob(folder, tmp_path / "all", rank).run()
    assert [row["id"] for row in pq.read_table(tmp_path / "all").to_pylist()] == [row["id"] for row in rows]
    BatchJob(f"{folder}/a-*.jsonl", tmp_path / "some", rank).run()
    assert [row["id"] for row in pq.read_table(tmp_path / "some").to_pylist()] == [row["id"] for row in rows[:8]]


def test_an_address_of_another_file_system(model: CrossEncoder, rank: RankBatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    rows = rows_of(20)
    system = fsspec.filesystem("memory")
    with system.open("/batch-in/rows.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows), file)
    BatchJob("memory://batch-in/rows.parquet", "memory://batch-out", rank, part_pairs=10).run()
    names = sorted(name for name in system.ls("/batch-out", detail=False) if name.endswith(".parquet"))
    assert len(names) > 1
    done = []
    for name in names:
        with system.open(name, "rb") as file:
            done += pq.read_table(file).to_pylist()
    for row, scores in zip(done, expected(model, rows), strict=True):
        assert row["rerank_scores"] == pytest.approx(scores, abs=1e-5)


# ---- stopped and resumed


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "crossrank", "batch", *map(str, arguments), "--num-threads", "1"]


def test_a_killed_run_goes_on(model: CrossEncoder, tiny_bert: Path, tmp_path: Path) -> None:
    rows = rows_of(4000)
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out"
    script = (
        "import sys; from crossrank.batch import BatchJob, RankBatch; "
        "BatchJob(sys.argv[1], sys.argv[2], RankBatch(sys.argv[3], precision='float32', num_threads=1), "
        "part_bytes=20000).run()"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, source, output, tiny_bert])
        enough = len(list(output.glob("part-*.parquet"))) + 2
        deadline = time.monotonic() + 120
        while len(list(output.glob("part-*.parquet"))) < enough and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    rank = RankBatch(tiny_bert, precision="float32")
    summary = BatchJob(source, output, rank, part_bytes=20000).run()
    assert summary.resumed >= 5
    recorded = [json.loads(path.read_text()) for path in sorted((output / "_parts").glob("*.json"))]
    assert len(recorded) == summary.parts
    kept = [name for name, changed in finished.items() if (output / name).stat().st_mtime_ns == changed]
    assert len(kept) >= summary.resumed
    done = pq.read_table(output).to_pylist()
    assert [row["id"] for row in done] == [row["id"] for row in rows]
    assert summary.rows == 4000
    some = slice(0, 4000, 97)
    for row, scores in zip(done[some], expected(model, rows[some]), strict=True):
        assert row["rerank_scores"] == pytest.approx(scores, abs=1e-5)
    assert not list((output / "_tmp").iterdir())


def test_a_damaged_or_lost_part_is_done_again(tiny_bert: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(60))

    def run() -> Any:
        return BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32"), part_bytes=3000).run()

    first = run()
    whole = pq.read_table(tmp_path / "out")
    damaged = tmp_path / "out/part-00001.parquet"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    (tmp_path / "out/part-00002.parquet").unlink()
    again = run()
    assert again.redone == ["part-00001", "part-00002"]
    assert again.resumed == first.parts - 2
    assert pq.read_table(tmp_path / "out").equals(whole)


def test_an_output_of_another_job_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(10))
    BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32")).run()
    with pytest.raises(InputError, match="started with another 'settings': max_length"):
        BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32", max_length=16)).run()
    write(source, rows_of(11))
    with pytest.raises(InputError, match="started with another 'input'"):
        BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32")).run()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="other files"):
        BatchJob(source, tmp_path / "full", RankBatch(tiny_bert)).run()
    assert (tmp_path / "full/mine.txt").read_text() == "keep me"
    (tmp_path / "there.parquet").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        BatchJob(source, tmp_path / "there.parquet", RankBatch(tiny_bert)).run()
    assert (tmp_path / "there.parquet").read_bytes() == b"mine"
    with pytest.raises(InputError, match="contains the input"):
        BatchJob(tmp_path / "in.jsonl", tmp_path, RankBatch(tiny_bert))


def test_two_runs_on_one_output(tiny_bert: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(30))
    job = BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32"))
    other = BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32"))

    def meanwhile(done: int) -> None:
        with pytest.raises(InputError, match="Another run is writing"):
            other.run()

    job.run(advance=meanwhile)


def test_an_input_that_changes_meanwhile(tiny_bert: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(60))
    job = BatchJob(source, tmp_path / "out", RankBatch(tiny_bert, precision="float32"), part_bytes=3000)
    with pytest.raises(InputError, match="changed while the job ran"):
        job.run(advance=lambda done: os.utime(source, ns=(1, 1)))
    assert not list((tmp_path / "out/_tmp").iterdir())


def test_a_full_disk_is_an_error_and_a_resume(tiny_bert: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    rows = rows_of(200)
    for i, row in enumerate(rows):
        row["note"] = os.urandom(300 if i > 100 else 3).hex()
    source = write(tmp_path / "in.jsonl", rows)
    given = ["--model", tiny_bert, "--precision", "float32", source, tmp_path / "out"]

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    failed = subprocess.run(command(*given), preexec_fn=little_room, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "File too large" in failed.stderr
    assert "Traceback" not in failed.stderr
    done = subprocess.run(command(*given, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 200
    assert [row["note"] for row in pq.read_table(tmp_path / "out").to_pylist()] == [row["note"] for row in rows]


def test_the_command(tiny_bert: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(5))
    with source.open("a") as file:
        file.write("{bad\n")
    done = subprocess.run(
        command(source, tmp_path / "out.parquet", "--model", tiny_bert), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "5 rows" in done.stderr
    assert "1 rows were left out" in done.stderr
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 5
    assert json.loads((tmp_path / "out.parquet.bad.jsonl").read_text())["row"] == 6


# ---- the function underneath


def test_rank_batch_takes_frames_and_dictionaries_and_is_sent(model: CrossEncoder, rank: RankBatch) -> None:
    rows = rows_of(8)
    scores = expected(model, rows)
    again = pickle.loads(pickle.dumps(rank))
    frame = again(pd.DataFrame(rows))
    assert list(frame["id"]) == [row["id"] for row in rows]
    for found, wanted in zip(frame["rerank_scores"], scores, strict=True):
        assert list(found) == pytest.approx(wanted, abs=1e-5)
    columns = again({"query": np.array([row["query"] for row in rows]), "text": [row["documents"][0] for row in rows]})
    assert columns["rerank_score"] == pytest.approx([row[0] for row in scores], abs=1e-5)
    batch = pa.RecordBatch.from_pylist(rows)
    assert isinstance(again(batch), pa.RecordBatch)
    with pytest.raises(InputError, match="of type int"):
        again(3)


def test_memory_stays_bounded(tiny_bert: Path, tmp_path: Path) -> None:
    """Ten times the rows take no more memory, but for what the allocator keeps."""
    script = (
        "import sys, resource; from crossrank.batch import BatchJob, RankBatch; "
        "BatchJob(sys.argv[1], sys.argv[2], RankBatch(sys.argv[3], num_threads=1, max_length=16)).run(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    text = " ".join(WORDS * 4)
    for count in (20_000, 100_000):
        source = tmp_path / f"{count}.csv"
        with source.open("w") as file:
            file.write("query,text\n")
            file.writelines(f"q{i % 10},{text}\n" for i in range(count))
        done = subprocess.run(
            [sys.executable, "-c", script, source, tmp_path / f"out-{count}", tiny_bert],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 60, peaks
