"""Feedback over HTTP: real servers, on SQLite and on PostgreSQL, also on databases that fail."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from crossrank.feedback.store import Store, open_store
from database import Postgres
from serving import Server, serve

DOCUMENTS = ["git log", {"text": "git reset", "id": 7}, "git push", "git tag"]
BODY = {"query": "undo a commit", "documents": DOCUMENTS}


def ranked(server: Server, **more: Any) -> dict[str, Any]:
    answer = server.post({**BODY, "store": True, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def say(server: Server, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return server.client.post("/v1/feedback", json=body, headers=headers)


def judgements(store: Store) -> list[Any]:
    with store.engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT id, user_key, idempotency_key FROM judgements ORDER BY id")))


def test_from_a_ranking_to_the_database(url: str, tmp_path: Path, tiny_bert: Path) -> None:
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        answer = ranked(server, top_n=3)
        assert answer["crossrank"]["stored"] is True
        shown = [result["index"] for result in answer["results"]]
        # At once: the ranking is there when the feedback comes.
        response = say(server, request_id=answer["id"], clicked=[shown[1]], helpful={shown[0]: False}, user="ada")
        assert response.status_code == 201, response.text
        (one,) = open_store(url).judged()
        assert one.ranking.request_id == answer["id"]
        assert one.ranking.shown == shown
        assert [one.ranking.scores[index] for index in shown] == [r["relevance_score"] for r in answer["results"]]
        assert (one.ranking.query, one.ranking.dialect, one.ranking.model) == ("undo a commit", "rerank", "m")
        assert one.ranking.model_version == answer["crossrank"]["model_version"]
        assert one.ranking.documents == [
            {"text": "git log"}, {"id": "7", "text": "git reset"}, {"text": "git push"}, {"text": "git tag"}
        ]  # fmt: skip
        assert (one.judgements[0].clicked, one.judgements[0].helpful) == ([shown[1]], {str(shown[0]): False})
        # Every dialect: the answer of this one is a bare list, so the id is in a header.
        tei = server.post({"query": "undo", "texts": ["git log", "git reset"], "store": True}, "/rerank")
        assert tei.headers["x-crossrank-stored"] == "true"
        assert say(server, request_id=tei.headers["x-request-id"], stars={0: 4}).status_code == 201
        log = (tmp_path / "log").read_text()
        assert "git" not in log
        assert "undo" not in log
        assert "ada" not in log


def test_what_is_stored(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        assert server.post(BODY).json()["crossrank"]["stored"] is False
        assert server.post({**BODY, "store": False}).json()["crossrank"]["stored"] is False
        assert server.post(BODY, x_crossrank_store="true").json()["crossrank"]["stored"] is True
        # An off switch for a proxy, whatever the body says.
        assert server.post({**BODY, "store": True}, x_crossrank_store="false").json()["crossrank"]["stored"] is False
        several = server.post({"text_1": ["a", "b"], "text_2": ["c", "d"], "store": True}, "/score").json()
        assert several["crossrank"]["stored"] is False
        assert "several queries" in several["crossrank"]["warnings"][0]
        # The same id a second time, with other documents: the first stays.
        for documents in (["a", "b"], ["c"]):
            server.post({"query": "q", "documents": documents, "store": True}, x_request_id="mine")
        assert say(server, request_id="mine", clicked=[1]).status_code == 201
    rows = list(open_store(url).judged(all_rankings=True))
    assert len(rows) == 2
    assert [document["text"] for document in rows[1].ranking.documents] == ["a", "b"]
    with serve(
        tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url, "--feedback-rate", "1", "--feedback-texts",
        "digest", "--feedback-days", "1",
    ) as server:  # fmt: skip
        assert server.post(BODY).json()["crossrank"]["stored"] is True
        assert server.post({**BODY, "store": False}).json()["crossrank"]["stored"] is False
    # The newest has five digests of 64 letters and an identifier of one: only it is within this limit.
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url, "--feedback-max-bytes", "322"):
        until(lambda: open_store(url).counts()["rankings"] == 1)
    newest = next(iter(open_store(url).judged(all_rankings=True, newest=1)))
    assert not newest.ranking.has_texts
    assert b"undo" not in b"".join(json.dumps(each).encode() for each in newest.ranking.documents)


def test_without_feedback(tmp_path: Path, tiny_bert: Path) -> None:
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}") as server:
        answer = ranked(server)
        assert "stored" not in answer["crossrank"]
        assert "--feedback" in answer["crossrank"]["warnings"][0]
        response = say(server, request_id=answer["id"], clicked=[0])
        assert response.status_code == 404
        assert "--feedback" in response.json()["message"]
        assert server.client.get("/v1/feedback").status_code == 405


def test_feedback_that_can_not_be_used(url: str, tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    (tmp_path / "keys").write_text("secret\n")
    flags = ("--model", f"m={tiny_bert}", "--feedback", url, "--keys-file", str(tmp_path / "keys"))
    with serve(tmp_path / "log", *flags, wait=False) as server:
        server.client.headers["authorization"] = "Bearer secret"
        name = ranked(server, top_n=3)["id"]
        # A ranking is written after the answer, so that writing holds nobody up.
        until(lambda: open_store(url).counts()["rankings"] == 1)
        unshown = {0, 1, 2, 3} - set(next(iter(open_store(url).judged(all_rankings=True))).ranking.shown)
        nasty = "'; DROP TABLE judgements; -- <script>alert(1)</script>"
        cases: list[tuple[dict[str, Any], int]] = [
            ({"request_id": "unknown", "clicked": [0]}, 404),
            ({"request_id": nasty, "clicked": [0]}, 404),
            ({"request_id": name}, 422),
            ({"request_id": name, "clicked": [4]}, 422),
            ({"request_id": name, "clicked": list(unshown)}, 422),
            ({"request_id": name, "clicked": nasty}, 422),
            ({"request_id": name, "helpful": {nasty: True}}, 422),
            ({"request_id": name, "stars": {"0": 6}}, 422),
            ({"request_id": name, "stars": nasty}, 422),
            ({"request_id": name, "order": [0, 1]}, 422),
            ({"request_id": name, "order": [0, 0, 1]}, 422),
            ({"request_id": name, "comment": "a" * 1_000_000}, 422),
            ({"request_id": name, "comment": "a" * 2_000_000}, 413),
            ({"request_id": name, nasty: 1}, 422),
            ({"request_id": name, "missing": nasty, "comment": nasty, "user": nasty}, 201),
        ]
        for body, status in cases:
            response = say(server, **body)
            assert response.status_code == status, (str(body)[:100], response.text)
            if status != 201:
                assert len(response.json()["message"]) < 400
        assert server.client.post("/v1/feedback", content=b"[1]").status_code == 400
        assert server.client.post("/v1/feedback", content=b"{").status_code == 400
        assert say(server, key="k" * 200, request_id=name, comment="x").status_code == 422
        assert say(server, key="k", request_id=name, comment="x").status_code == 201
        assert say(server, key="k", request_id=name, comment="y").status_code == 422
        del server.client.headers["authorization"]
        assert say(server, request_id=name, comment="x").status_code == 401
    (one,) = open_store(url).judged()
    assert [row.comment for row in one.judgements] == [nasty, "x"]
    assert one.judgements[0].missing == one.judgements[0].user_key == nasty


def test_a_share_of_the_stored_rankings_is_shuffled(tmp_path: Path, tiny_bert: Path) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    flags = ("--feedback", url, "--feedback-rate", "1", "--shuffle-top", "3", "--share", "0.5")
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", *flags) as server:
        usual = [r["index"] for r in server.post({**BODY, "store": False}).json()["results"]]
        orders = Counter()
        for _ in range(200):
            answer = server.post(BODY).json()
            order = [result["index"] for result in answer["results"]]
            shuffled = answer["crossrank"].get("shuffled", 0)
            orders[shuffled] += 1
            assert order[3:] == usual[3:]
            assert sorted(order) == [0, 1, 2, 3]
            if not shuffled:
                assert order == usual
            else:
                orders[tuple(order[:3])] += 1
        # Scores stay with their documents.
        last = {result["index"]: result["relevance_score"] for result in answer["results"]}
        assert sorted(usual, key=lambda index: -last[index]) == usual
    assert 60 < orders[3] < 140
    assert len([order for order in orders if isinstance(order, tuple)]) == 6
    rows = [one.ranking for one in open_store(url).judged(all_rankings=True)]
    assert Counter(row.shuffled for row in rows) == {0: orders[0], 3: orders[3]}


def test_the_queue_drops_rankings_and_says_so(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    flags = ("--model", f"m={tiny_bert}", "--feedback", url, "--feedback-queue", "3")
    with serve(tmp_path / "log", *flags) as server:
        # Another process holds the database's lock, as a long backup might.
        engine = open_store(url).engine
        with engine.connect().execution_options(crossrank_writes=True) as other, other.begin():
            answers = [ranked(server) for _ in range(6)]
            stored = [answer["crossrank"]["stored"] for answer in answers]
            assert stored == sorted(stored, reverse=True)
            assert 3 <= sum(stored) <= 4  # one may be in the writer's hands
            assert "too many" in answers[-1]["crossrank"]["warnings"][-1]
            assert server.metric("crossrank_rankings_stored_total") == 6
            assert "dropped" in server.log.read_text()
        until(lambda: len(list(open_store(url).judged(all_rankings=True))) == sum(stored))
        assert ranked(server)["crossrank"]["stored"] is True


def test_sixteen_clients_at_once(url: str, tmp_path: Path, tiny_bert: Path) -> None:
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        failures: list[str] = []

        def client(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as own:
                for turn in range(10):
                    answer = own.post("/v1/rerank", json={**BODY, "store": True}).json()
                    body = {"request_id": answer["id"], "clicked": [turn % 4], "user": f"u{number}"}
                    response = own.post("/v1/feedback", json=body)
                    if response.status_code != 201:
                        failures.append(response.text)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
    found = Counter(row.user_key for one in open_store(url).judged() for row in one.judgements)
    assert found == {f"u{number}": 10 for number in range(16)}


# ---- databases that fail


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
        assert [row.idempotency_key for row in judgements(open_store(url))][:3] == ["a", "b", "c"]
    finally:
        own.stop()
        own.remove()


def test_the_disk_is_full(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    open_store(url)
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
        there = len(judgements(open_store(url)))
        subprocess.run(["prlimit", f"--pid={server.process.pid}", "--fsize=unlimited:"], check=True)
        until(lambda: say(server, request_id=name, clicked=[1]).status_code == 201)
    assert len(judgements(open_store(url))) == there + 1


def test_killed_under_load(url: str, tmp_path: Path, tiny_bert: Path) -> None:
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
    assert len(acknowledged) > 20
    there = Counter(row.idempotency_key for row in judgements(open_store(url)))
    assert acknowledged <= set(there)
    assert set(there) <= set(sent)
    with serve(tmp_path / "log", *flags) as server:
        for key, body in sent.items():
            assert say(server, key, **body).status_code == 201
    assert Counter(row.idempotency_key for row in judgements(open_store(url))) == dict.fromkeys(sent, 1)


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
        until(lambda: len(judgements(open_store(url))) == 1)
        # Written, and nobody has read the answer.
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        connection.close()
    with serve(tmp_path / "log", *flags) as server:
        again = say(server, "k", request_id=name, clicked=[1])
        assert again.status_code == 201
        assert [row.id for row in judgements(open_store(url))] == [again.json()["id"]]


def test_a_store_that_can_not_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    import sys

    command = [sys.executable, "-m", "crossrank", "serve", "--port", "0", "--feedback"]
    for url in ("sqlite:////no/such/folder/f.db", "postgresql://127.0.0.1:9/x"):
        ran = subprocess.run([*command, url], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 1
        assert ran.stderr.count("\n") == 1


def test_an_empty_registry_serves_the_bundled_model_until_there_is_a_version(
    tmp_path: Path, tiny_bert: Path, until: Callable[..., None]
) -> None:
    from crossrank.checkpoint.model_registry import ModelRegistry

    (tmp_path / "live").mkdir()
    with serve(tmp_path / "log", "--model", f"live=registry:{tmp_path}/live", "--watch-seconds", "0.1") as server:
        first = server.post(BODY).json()["crossrank"]["model_version"]
        registry = ModelRegistry(tmp_path / "live")
        version = registry.publish(tiny_bert)
        registry.switch(version)
        until(lambda: server.post(BODY).json()["crossrank"]["model_version"] == version.name)
        assert first != version.name
    assert np.isfinite(server.start_seconds)
