"""The server's application on Ray Serve: a real local cluster, real requests over HTTP, a replica killed under load."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crossrank import CrossEncoder, InputError
from crossrank.cli.main import main

ray = pytest.importorskip("ray")
pytest.importorskip("ray.serve")

QUERY = "how do I undo a commit"
TEXTS = ["git log shows the history", "git reset --soft undoes the last commit", "the museum is closed on Mondays"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Two replicas behind Ray's proxy."""
    from ray import serve

    from crossrank.integrations.ray_serve import application

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    path = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application({"precision": "float32", "max_documents": 50}, replicas=2, cpus=1))
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def rankers() -> dict[int, str]:
    """The processes of the replicas that score."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            name = entry.read_bytes().split(b"\0")[0].decode()
            if name.startswith("ray::ServeReplica:") and ":Ranker" in name:
                found[int(entry.parent.name)] = name
    return found


def test_the_same_dialects_limits_and_scores(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = CrossEncoder(precision="float32").rank(QUERY, TEXTS)
    answer = httpx.post(f"{url}/v1/rerank", json={"query": QUERY, "documents": TEXTS}, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["x-crossrank-model"] == "bundled"
    rows = answer.json()["results"]
    assert [row["index"] for row in rows] == [row["corpus_id"] for row in expected]
    assert [row["relevance_score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    many = httpx.post(f"{url}/rerank", json={"query": QUERY, "texts": ["a"] * 51}, timeout=60)
    assert many.status_code == 413
    assert set(many.json()) == {"error", "error_type"}
    assert main(["doctor", url]) == 0, capsys.readouterr().out


@pytest.mark.proc
def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
    assert condition()


def test_a_killed_replica_loses_no_request(url: str) -> None:
    expected = {row["corpus_id"]: row["score"] for row in CrossEncoder(precision="float32").rank(QUERY, TEXTS)}
    before = rankers()
    assert len(before) == 2
    killed, enough = threading.Event(), threading.Event()
    answers: list[tuple[bool, int, Any]] = []
    failures: list[Exception] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not enough.is_set():
                # Texts of one's own, so that each request is real work: some are always in flight.
                body = {"query": QUERY, "documents": [*TEXTS, *(f"{number} {time.time()} {i}" for i in range(40))]}
                try:
                    answer = client.post("/v1/rerank", json=body)
                    answers.append((killed.is_set(), answer.status_code, answer.json()))
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(answers) >= 4)
        os.kill(next(iter(before)), signal.SIGKILL)
        killed.set()
        wait_for(lambda: sum(after for after, _, _ in answers) >= 12)
    finally:
        enough.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {status for _, status, _ in answers} == {200}
    assert {after for after, _, _ in answers} == {False, True}
    for _, _, answer in answers:
        assert sorted(row["index"] for row in answer["results"]) == list(range(43))
        scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
        assert [scores[i] for i in range(3)] == pytest.approx([expected[i] for i in range(3)], abs=1e-5)
    # Ray puts a new one in its place.
    wait_for(lambda: len(rankers()) == 2)
    assert set(rankers()) != set(before)


def test_what_can_not_be_used() -> None:
    from crossrank.integrations.ray_serve import application

    for wrong, said in (
        ({"settings": {"port": "x"}}, "port='x'"),
        ({"replicas": 0}, "replicas=0"),
        ({"cpus": 0}, "cpus=0"),
    ):
        with pytest.raises(InputError, match=said):
            application(**wrong)  # type: ignore[arg-type]
