"""Ray: the same rows as the local engine, also when an actor or the whole run is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossrank import CrossRankError, InputError
from crossrank.batch import BatchJob, RankBatch
from crossrank.integrations.ray_data import ray_engine

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A local cluster of two processors, each worker a process of its own."""
    # Workers import crossrank from where this process does.
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


def pairs(count: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"{i:05d}" for i in range(count)],
            "query": [f"wing flow {i % 7}" for i in range(count)],
            "text": [f"heat wave plate {i} " * (1 + i % 5) for i in range(count)],
        }
    )


def job(source: Path, output: Path, model: Path) -> BatchJob:
    return BatchJob(source, output, RankBatch(model, precision="float32", num_threads=1), part_pairs=50)


def test_ray_gives_the_rows_of_the_local_engine(tiny_bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pairs(400), source, row_group_size=100)
    here = job(source, tmp_path / "here", tiny_bert).run()
    there = job(source, tmp_path / "there", tiny_bert).run(engine=ray_engine(workers=2))
    assert there.parts == here.parts == 8
    assert there.pairs == here.pairs == 400
    assert pq.read_table(tmp_path / "there").equals(pq.read_table(tmp_path / "here"))


@pytest.mark.proc
def test_an_actor_is_killed_in_mid_run(tiny_bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pairs(400), source, row_group_size=100)
    killed: list[int] = []

    def kill_one(done: int) -> None:
        """After the first part, end the process of an actor."""
        if killed:
            return
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if entry.read_bytes().startswith(b"ray::MapWorker(MapBatches(_PartActor)"):
                    killed.append(int(entry.parent.name))
                    os.kill(killed[0], signal.SIGKILL)
                    return

    summary = job(source, tmp_path / "out", tiny_bert).run(engine=ray_engine(workers=2), advance=kill_one)
    assert killed
    assert summary.pairs == 400
    assert [row["id"] for row in pq.read_table(tmp_path / "out").to_pylist()] == [f"{i:05d}" for i in range(400)]


def test_what_the_caller_did_wrong_comes_back(tiny_bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pairs(100), source, row_group_size=50)
    begun = job(source, tmp_path / "out", tiny_bert)
    os.utime(source, ns=(1, 1))
    with pytest.raises(InputError, match="changed while the job ran"):
        begun.run(engine=ray_engine(workers=1))


def test_map_batches_of_ones_own(tiny_bert: Path) -> None:
    from crossrank.integrations.ray_data import RankBatch as ForRay

    table = pairs(40)
    rows = (
        ray.data.from_arrow(table)
        .map_batches(
            ForRay,
            fn_constructor_kwargs={"model": str(tiny_bert), "precision": "float32", "num_threads": 1},
            batch_format="pyarrow",
            batch_size=20,
            concurrency=1,
        )
        .take_all()
    )
    wanted = RankBatch(tiny_bert, precision="float32", num_threads=1)(table)
    found = {row["id"]: row["rerank_score"] for row in rows}
    assert found == pytest.approx(dict(zip(table["id"].to_pylist(), wanted["rerank_score"].to_pylist(), strict=True)))


@pytest.mark.proc
def test_a_killed_run_on_ray_goes_on(tiny_bert: Path, tmp_path: Path) -> None:
    """The command in a process of its own, with a cluster of its own; killed, then run again."""
    source = tmp_path / "in.parquet"
    pq.write_table(pairs(3000), source, row_group_size=50)
    output = tmp_path / "out"
    # Parts of the command have 20,000 pairs at the most, and a row group is never joined with the next.
    command: list[Any] = [sys.executable, "-m", "crossrank", "batch", source, output, "--engine", "ray"]
    command += ["--workers", "1", "--model", tiny_bert, "--precision", "float32", "--num-threads", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(list((output / "_parts").glob("*.json"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(list((output / "_parts").glob("*.json")))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["resumed"] >= min(finished, 3) > 0
    assert summary["rows"] == 3000
    assert [row["id"] for row in pq.read_table(output).to_pylist()] == [f"{i:05d}" for i in range(3000)]


def test_no_cluster_at_the_address(tiny_bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pairs(10), source)
    command: list[Any] = [sys.executable, "-m", "crossrank", "batch", source, tmp_path / "out", "--engine", "ray"]
    command += ["--address", "127.0.0.1:1", "--model", tiny_bert]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1
    assert "There is no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
    assert issubclass(InputError, CrossRankError)
