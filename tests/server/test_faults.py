"""What goes wrong around a server: each with a real process, which answers rightly afterwards."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving import Server, serve

BODY = {"query": "how do I undo a commit", "documents": ["git log", "git reset undoes the last commit"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("faults") / "log"
    with serve(log, "--model", f"tiny={tiny_bert}", "--body-seconds", "1") as running:
        yield running


@pytest.fixture(autouse=True)
def serves_on(server: Server) -> Iterator[None]:
    """After each fault the server still answers as it did."""
    before = server.post(BODY).json()["results"]
    yield
    assert server.post(BODY).json()["results"] == before
    assert server.client.get("/ready").status_code == 200
    assert not [line for line in server.logged() if "traceback" in line]


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b'{"query": "a", "documents": ["b"]', 400),
        (b'"text"', 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe{}", 400),
        (b'{"query": "\xe9", "documents": ["b"]}', 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"query": "a", "documents": ["b"], "top_n": NaN}', 400),
        (b'{"query": "a", "documents": ["b"], "top_n": Infinity}', 400),
        (b'{"query": "a", "documents": ["b"], "top_n": 1e400}', 422),
        (b'{"query": "a", "documents": ["b"], "top_n": -1}', 422),
        (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 100_000 + b"}", 400),
        (b'{"query": "a", "documents": ["b"], "top_n": 99999999999999999999999}', 200),
        (b'{"query": "a\\ud800", "documents": ["\\udfff b", "\\u0000"], "return_documents": true}', 200),
        (b'{"query": "a", "documents": {"a": "b"}}', 422),
        (b'{"query": "a", "documents": [["b"]]}', 422),
        (b'{"query": 7, "documents": ["b"]}', 422),
        (b"{}", 422),
        (b'\xef\xbb\xbf{"query": "a", "documents": ["b"]}', 200),
    ],
)
def test_bodies_that_are_not_right(raw: bytes, status: int, server: Server) -> None:
    response = server.client.post("/v1/rerank", content=raw)
    assert response.status_code == status
    answer = response.json()
    if status != 200:
        assert isinstance(answer["detail"], str)
        assert answer["message"]


def test_fifty_megabytes(server: Server) -> None:
    payload = b'{"query": "a", "documents": ["' + b"b" * 50_000_000 + b'"]}'
    with connect(server) as connection:
        connection.sendall(f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413
        assert b"max_body_bytes" in answer.read()

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(payload), 1 << 20):
            yield payload[start : start + (1 << 20)]

    try:
        assert server.client.post("/rerank", content=chunks()).status_code == 413
    except (httpx.WriteError, httpx.RemoteProtocolError):
        server.client.close()  # it was refused while it was being sent
        server.client = httpx.Client(base_url=server.url, timeout=60)


def test_a_slow_client_is_not_waited_for(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert server.post(BODY).status_code == 200
        began = time.monotonic()
        answer = b""
        while b"body_seconds" not in answer:
            connection.sendall(b" ")
            connection.settimeout(0.1)
            try:
                answer += connection.recv(10_000)
            except TimeoutError:
                assert time.monotonic() - began < 10
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_half_sent_body(server: Server) -> None:
    for _ in range(20):
        with connect(server) as connection:
            connection.sendall(b'POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"query": "a"')


def test_schemathesis_finds_no_server_error(server: Server) -> None:
    command = [
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
        "run",
        f"{server.url}/openapi.json",
        "--checks=not_a_server_error",
        "--max-examples=10",
        "--exclude-path=/admin/reload",
        "--generation-database=none",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-3000:]


def test_killed_with_requests_in_flight(tmp_path: Path, tiny_bert: Path) -> None:
    body = {**BODY, "documents": [f"{i} git log " * 100 for i in range(2000)]}
    with serve(tmp_path / "log", "--model", f"tiny={tiny_bert}") as server, ThreadPoolExecutor(4) as threads:
        running = [threads.submit(server.post, body) for _ in range(4)]
        while server.metric("crossrank_queue_tokens") == 0:
            time.sleep(0.01)
        server.process.kill()
        for each in running:
            with pytest.raises(httpx.TransportError):
                each.result()
        port = server.url.rpartition(":")[2]
    with serve(tmp_path / "log2", "--model", f"tiny={tiny_bert}", "--port", port) as server:
        assert server.post(BODY).status_code == 200


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    flags = ["--model", f"gone={tmp_path / 'gone'}"]
    with serve(tmp_path / "log", *flags, wait=False) as server:
        ready = server.client.get("/ready")
        assert ready.status_code == 503
        assert "gone" in ready.json()["reason"]
        assert server.client.get("/health").status_code == 200
        answer = server.post(BODY)
        assert answer.status_code == 424  # no 5xx: some clients retry those ten times
        assert str(tmp_path / "gone") in answer.json()["message"]
        tei = server.post({"query": "a", "texts": ["b"]})
        assert tei.json()["error_type"] == "Backend"


def test_a_port_in_use_is_told(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    ran = subprocess.run([sys.executable, "-m", "crossrank", "serve", "--port", port], capture_output=True, text=True)
    assert ran.returncode == 1
    assert f"127.0.0.1:{port} can't be listened on" in ran.stderr
    assert "Traceback" not in ran.stderr


_JUMPS = """
import itertools, sys, time
real, jumps = time.time, itertools.cycle([0, 3e8, -3e8])
time.time = lambda: real() + next(jumps)
from crossrank.cli.main import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("fault", ["clock", "disk"])
def test_a_jumping_clock_and_a_full_disk(fault: str, tiny_bert: Path) -> None:
    """The wall clock jumps by years at each look; the log is written to a disk without room."""
    code = ["-c", _JUMPS] if fault == "clock" else ["-m", "crossrank", "serve"]
    target = "/dev/full" if fault == "disk" and Path("/dev/full").exists() else "/dev/null"
    with Path(target).open("w") as log:
        command = [sys.executable, *code, "--port", "0", "--model", f"tiny={tiny_bert}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip().rpartition(" ")[2]
        with httpx.Client(base_url=url, timeout=30) as client:
            for _ in range(20):
                assert client.post("/rerank", json=BODY, headers={"X-Request-Timeout-Ms": "20000"}).json()["results"]
            assert client.post("/rerank", content=b"{").status_code == 400
            assert json.loads(client.get("/ready").text)["status"] == "ready"
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
