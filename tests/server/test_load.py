"""Fairness, shared pairs, deadlines, bounds: a real server process under load."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

import texts
from crossrank import CrossEncoder
from serving import Server, serve

QUERY = "how does a wing stall"
PASSAGES = [passage[:300] for passage in texts.passages()]


def body(count: int, start: int = 0, **more: object) -> dict[str, object]:
    """A request for documents that no other has."""
    return {
        "query": QUERY,
        "documents": [f"{start + i} {PASSAGES[i % len(PASSAGES)]}" for i in range(count)],
        **more,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("load") / "log"
    with serve(log, "--max-queue-tokens", "100000", "--max-documents", "1200") as running:
        yield running


def until(happens: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happens():
            return True
        time.sleep(0.02)
    return False


def hang_up(server: Server, request: dict[str, object], after: Callable[[], bool]) -> None:
    """Send a request and close the connection when ``after`` is true."""
    payload = json.dumps(request).encode()
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n"
        connection.sendall(head.encode() + payload)
        assert until(after)


def test_small_requests_do_not_wait_for_large_ones(server: Server) -> None:
    """Counted in batches, not in seconds: how many the server runs between a small request and its answer."""

    def batches(request: dict[str, object]) -> float:
        before = server.metric("crossrank_batch_fill_count")
        assert server.post(request).status_code == 200
        return server.metric("crossrank_batch_fill_count") - before

    large = batches(body(1000, 10_000))
    stop = threading.Event()

    def stream() -> int:
        served = 0
        with httpx.Client(base_url=server.url, timeout=300) as client:
            while not stop.is_set():
                assert client.post("/v1/rerank", json=body(1000, 100_000 * (served + 1))).status_code == 200
                served += 1
        return served

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(stream)
        assert until(lambda: server.metric("crossrank_queue_tokens") > 0)
        beside = [batches(body(5, 20_000 + 5 * i)) for i in range(40)]
        assert server.metric("crossrank_queue_tokens") > 0
        stop.set()
        running.result()
    # The batch that is running when it comes, and its own. In the order of arrival, it would wait for all that is left
    # of a large request.
    assert np.median(beside) <= 3
    assert max(beside) < large / 4


def test_a_disconnected_request_frees_its_place(server: Server) -> None:
    before = server.metric("crossrank_tokens_total")
    hang_up(server, body(1000), lambda: server.metric("crossrank_queue_tokens") > 0)
    assert until(lambda: server.metric("crossrank_queue_tokens") == 0, 2)
    assert server.metric("crossrank_tokens_total") == before
    assert server.post(body(5)).status_code == 200


def test_identical_pairs_in_flight_are_scored_once(server: Server) -> None:
    shared = server.metric("crossrank_pairs_shared_total")
    request = body(200, 50_000)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: server.post(request).json(), range(4)))
    assert server.metric("crossrank_pairs_shared_total") - shared > 300
    assert all(answer["results"] == answers[0]["results"] for answer in answers)
    own = CrossEncoder(precision="float32").rank(QUERY, request["documents"])  # type: ignore[arg-type]
    by_index = {row["index"]: row["relevance_score"] for row in answers[3]["results"]}
    np.testing.assert_allclose([by_index[row["corpus_id"]] for row in own], [row["score"] for row in own], atol=1e-5)


def test_the_place_of_a_shared_pair_survives_its_first_request(server: Server) -> None:
    request = body(400, 70_000)
    with ThreadPoolExecutor(1) as threads:
        running: list[Future[httpx.Response]] = []
        first: list[float] = []

        def second_is_waiting() -> bool:
            waiting = server.metric("crossrank_queue_tokens")
            if waiting and not running:
                first.append(waiting)
                running.append(threads.submit(server.post, request))
            return bool(running) and waiting > 1.5 * first[0]

        hang_up(server, request, second_is_waiting)
        answer = running[0].result()
    assert answer.status_code == 200
    assert answer.json()["crossrank"]["skipped"] == []


def test_a_deadline_gives_what_was_scored(server: Server) -> None:
    request = body(1000, 200_000)
    # The first deadline within which this machine scores some of them.
    for milliseconds in (500, 1000, 2000, 4000, 8000):
        answer = server.post(request, x_request_timeout_ms=str(milliseconds))
        assert answer.status_code == 200
        found = answer.json()
        facts = found["crossrank"]
        if len(facts["skipped"]) < 1000:
            break
    scored = [row["index"] for row in found["results"] if row["index"] not in set(facts["skipped"])]
    assert 0 < len(facts["skipped"]) < 1000
    assert [row["index"] for row in found["results"]] == scored + sorted(facts["skipped"])
    assert "the time was up" in facts["degraded"]
    assert any("degraded" in warning for warning in found["meta"]["warnings"])
    assert until(lambda: server.metric("crossrank_queue_tokens") == 0, 1)
    documents = request["documents"]
    assert isinstance(documents, list)
    own = CrossEncoder(precision="float32").predict([(QUERY, documents[i]) for i in scored[:20]])
    np.testing.assert_allclose([row["relevance_score"] for row in found["results"][: len(own)]], own, atol=1e-5)
    assert server.post({"query": QUERY, "texts": documents}, x_request_timeout_ms="1").headers["x-crossrank-degraded"]
    for unusable in ("soon", "0", "-5", "nan"):
        assert server.post(body(1), x_request_timeout_ms=unusable).status_code == 422


def test_a_full_queue_is_told(server: Server) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda i: server.post(body(600, 300_000 + 2000 * i)), range(6)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert "max_queue_tokens is 100000" in refused.json()["message"]


def test_bounds_of_a_request(server: Server) -> None:
    many = server.post({"query": QUERY, "documents": ["a"] * 1201})
    assert many.status_code == 413
    assert "max_documents is 1200" in many.json()["message"]
    long = server.post({"query": "a" * 40_000, "documents": ["a"]})
    assert long.status_code == 422
    assert "max_query_characters is 32768" in long.json()["message"]
    assert (
        server.post({"query": QUERY, "documents": ["word " * 500_000]}).json()["crossrank"]["cut"][0]["tokens"]
        > 400_000
    )


def test_a_stopping_server_finishes_what_it_accepted(tmp_path: Path) -> None:
    with serve(tmp_path / "log") as server, ThreadPoolExecutor(1) as threads:
        running = threads.submit(server.post, body(300))
        assert until(lambda: server.metric("crossrank_queue_tokens") > 0)
        server.process.terminate()
        assert running.result().status_code == 200
        server.process.wait(20)
