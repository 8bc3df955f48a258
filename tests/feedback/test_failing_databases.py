"""Databases and servers that fail: ranking goes on, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from crossrank.feedback.store import Store
from database import Postgres
from feedback_requests import judgements, ranked, say
from serving import serve


@pytest.mark.postgres
def test_the_database_goes_and_comes_back(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    own = Postgres()
    own.start()
    try:
        url = own.new_database()
        with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
            before = ranked(server)["id"]
            assert say(server, "a", request_id=before, clicked=[0]).status_code == 201
            own.stop()
            waiting = ranked(server)
            assert waiting["crossrank"]["stored"] is True
            for _ in range(3):
                response = say(server, "b", request_id=before, clicked=[1])
                assert response.status_code == 503
                assert int(response.headers["retry-after"]) > 0
                assert ranked(server)["results"]
            own.start()
            until(lambda: say(server, "b", request_id=before, clicked=[1]).status_code == 201)
            # What was answered meanwhile was kept, and written.
            assert say(server, "c", request_id=waiting["id"], clicked=[2]).status_code == 201
            own.query("feedback1", "ALTER SYSTEM SET default_transaction_read_only = on")
            own.query("feedback1", "SELECT pg_reload_conf()")
            until(lambda: say(server, request_id=before, comment="x").status_code == 503)
            assert ranked(server)["results"]
        assert [row.idempotency_key for row in judgements(Store(url))][:3] == ["a", "b", "c"]
    finally:
        own.stop()
        own.remove()


def test_the_disk_is_full(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    Store(url)
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        name = ranked(server)["id"]
        assert say(server, request_id=name, clicked=[0]).status_code == 201
        # No file of this process may grow beyond what the log has now: a full disk, as the system sees it.
        limit = max(file.stat().st_size for file in tmp_path.glob("f.db*"))
        subprocess.run(["prlimit", f"--pid={server.process.pid}", f"--fsize={limit}:"], check=True)
        until(lambda: say(server, request_id=name, comment="a" * 9000).status_code == 503)
        response = say(server, request_id=name, comment="a" * 9000)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert ranked(server)["results"]
        there = len(judgements(Store(url)))
        subprocess.run(["prlimit", f"--pid={server.process.pid}", "--fsize=unlimited:"], check=True)
        until(lambda: say(server, request_id=name, clicked=[1]).status_code == 201)
    assert len(judgements(Store(url))) == there + 1


@pytest.mark.postgres
def test_the_disk_of_postgresql_is_full(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    own = Postgres("--wal-segsize=1")  # its log is in files of 1 MB, so that only tables reach the limit
    own.start()
    try:
        url = own.new_database()
        letters = random.Random(0)
        with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
            name = ranked(server)["id"]

            def fill() -> httpx.Response:
                return say(server, request_id=name, comment="".join(letters.choices(string.printable, k=9000)))

            assert fill().status_code == 201
            own.limit_files(str(2 << 20))
            until(lambda: fill().status_code == 503)
            response = fill()
            assert response.status_code == 503
            assert "could not extend file" in response.json()["message"]
            assert int(response.headers["retry-after"]) > 0
            assert ranked(server)["results"]
            there = len(judgements(Store(url)))
            assert there > 100
            own.limit_files("unlimited")
            until(lambda: fill().status_code == 201)
            assert len(judgements(Store(url))) == there + 1
    finally:
        own.stop()
        own.remove()


def test_a_database_file_that_is_moved_away(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    """What was written into it then would be lost, so nothing is acknowledged until it is back."""
    url = f"sqlite:///{tmp_path}/f.db"
    (tmp_path / "away").mkdir()
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        name = ranked(server)["id"]
        assert say(server, "a", request_id=name, clicked=[0]).status_code == 201
        for file in tmp_path.glob("f.db*"):
            file.rename(tmp_path / "away" / file.name)
        response = say(server, "b", request_id=name, clicked=[1])
        assert response.status_code == 503
        assert "deleted or moved" in response.json()["message"]
        assert int(response.headers["retry-after"]) > 0
        assert ranked(server)["results"]
        assert not list(tmp_path.glob("f.db*"))
        for file in (tmp_path / "away").glob("f.db*"):
            file.rename(tmp_path / file.name)
        until(lambda: say(server, "b", request_id=name, clicked=[1]).status_code == 201)
    assert [row.idempotency_key for row in judgements(Store(url))] == ["a", "b"]


def test_a_database_file_that_may_not_be_written(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/f.db")
    store.engine.dispose()
    (tmp_path / "f.db").chmod(0o444)
    tmp_path.chmod(0o555)
    # Even root may not, without the capability to pass over permissions.
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    for words in (["serve", "--port", "0", "--feedback"], ["feedback", "delete", "--user", "u", "--store"]):
        command = [*without, sys.executable, "-m", "crossrank", *words, store.name]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 1
        assert "is writable" in ran.stderr
        assert ran.stderr.count("\n") == 1
    tmp_path.chmod(0o755)


def test_killed_under_load(url: str, tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    """What was acknowledged is there; what was not is sent again, and is there once."""
    sent: dict[str, dict[str, Any]] = {}
    acknowledged: set[str] = set()
    lock = threading.Lock()
    flags = ("--model", f"m={tiny_bert}", "--feedback", url)
    name = ""

    def client(base: str, worker: str) -> None:
        with httpx.Client(base_url=base, timeout=30) as own:
            for turn in range(1000):
                key, body = f"{worker}-{turn}", {"request_id": name, "comment": f"{worker}-{turn}"}
                with lock:
                    sent[key] = body
                try:
                    response = own.post("/v1/feedback", json=body, headers={"Idempotency-Key": key})
                except httpx.HTTPError:
                    return
                if response.status_code == 201:
                    with lock:
                        acknowledged.add(key)

    for attempt in range(3):
        with serve(tmp_path / "log", *flags) as server:
            name = ranked(server)["id"]
            workers = [
                threading.Thread(target=client, args=(server.url, f"{attempt}-{number}")) for number in range(16)
            ]
            for thread in workers:
                thread.start()
            time.sleep(random.uniform(0.3, 1.0))
            server.process.send_signal(signal.SIGKILL)
            for thread in workers:
                thread.join()
            server.process.wait()
    there = Counter(row.idempotency_key for row in judgements(Store(url)))
    assert acknowledged <= set(there)
    assert set(there) <= set(sent)
    with serve(tmp_path / "log", *flags) as server:
        for key, body in sent.items():
            assert say(server, key, **body).status_code == 201
    assert Counter(row.idempotency_key for row in judgements(Store(url))) == dict.fromkeys(sent, 1)


def test_killed_between_the_write_and_the_answer(
    url: str, tmp_path: Path, tiny_bert: Path, until: Callable[..., None]
) -> None:
    flags = ("--model", f"m={tiny_bert}", "--feedback", url)
    with serve(tmp_path / "log", *flags) as server:
        name = ranked(server)["id"]
        body = json.dumps({"request_id": name, "clicked": [1]}).encode()
        host, _, port = server.url.removeprefix("http://").partition(":")
        connection = socket.create_connection((host, int(port)))
        head = f"POST /v1/feedback HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until(lambda: len(judgements(Store(url))) == 1)
        # Written, and nobody has read the answer.
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        connection.close()
    with serve(tmp_path / "log", *flags) as server:
        again = say(server, "k", request_id=name, clicked=[1])
        assert again.status_code == 201
        assert [row.id for row in judgements(Store(url))] == [again.json()["id"]]
