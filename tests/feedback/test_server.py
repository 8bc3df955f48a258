"""Feedback over HTTP: real servers, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from crossrank.feedback.store import Store
from feedback_requests import BODY, ranked, say
from serving import serve


def test_from_a_ranking_to_the_database(url: str, tmp_path: Path, tiny_bert: Path) -> None:
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        answer = ranked(server, top_n=3)
        assert answer["crossrank"]["stored"] is True
        shown = [result["index"] for result in answer["results"]]
        # At once: the ranking is there when the feedback comes.
        response = say(server, request_id=answer["id"], clicked=[shown[1]], helpful={shown[0]: False}, user="grace")
        assert response.status_code == 201, response.text
        (one,) = Store(url).judged()
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
        assert "grace" not in log  # no hexadecimal word, which a request id could contain


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
    rows = list(Store(url).judged(all_rankings=True))
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
        until(lambda: Store(url).counts()["rankings"] == 1)
    newest = next(iter(Store(url).judged(all_rankings=True, newest=1)))
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
        until(lambda: Store(url).counts()["rankings"] == 1)
        unshown = {0, 1, 2, 3} - set(next(iter(Store(url).judged(all_rankings=True))).ranking.shown)
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
    (one,) = Store(url).judged()
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
    rows = [one.ranking for one in Store(url).judged(all_rankings=True)]
    assert Counter(row.shuffled for row in rows) == {0: orders[0], 3: orders[3]}


def test_the_queue_drops_rankings_and_says_so(tmp_path: Path, tiny_bert: Path, until: Callable[..., None]) -> None:
    url = f"sqlite:///{tmp_path}/f.db"
    flags = ("--model", f"m={tiny_bert}", "--feedback", url, "--feedback-queue", "3")
    with serve(tmp_path / "log", *flags) as server:
        # Another process holds the database's lock, as a long backup might.
        engine = Store(url).engine
        with engine.connect().execution_options(crossrank_writes=True) as other, other.begin():
            answers = [ranked(server) for _ in range(6)]
            stored = [answer["crossrank"]["stored"] for answer in answers]
            assert stored == sorted(stored, reverse=True)
            assert 3 <= sum(stored) <= 4  # one may be in the writer's hands
            assert "too many" in answers[-1]["crossrank"]["warnings"][-1]
            assert server.metric("crossrank_rankings_stored_total") == 6
            assert "dropped" in server.log.read_text()
        until(lambda: len(list(Store(url).judged(all_rankings=True))) == sum(stored))
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
    found = Counter(row.user_key for one in Store(url).judged() for row in one.judgements)
    assert found == {f"u{number}": 10 for number in range(16)}


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


def test_no_ranking_holds_up_the_others(url: str, tmp_path: Path, tiny_bert: Path) -> None:
    """Identifiers that no database takes, and documents that got no score in time."""
    with serve(tmp_path / "log", "--model", f"m={tiny_bert}", "--feedback", url) as server:
        body = {**BODY, "documents": [{"id": "a\ud800\x00b", "text": "\udfff"}, "git log"], "store": True}
        bad = server.client.post("/v1/rerank", content=json.dumps(body)).json()["id"]
        many = {**BODY, "documents": [f"{i} git log " * 100 for i in range(500)], "store": True}
        late = server.post(many, x_request_timeout_ms="1").json()
        assert late["crossrank"]["degraded"]
        good = ranked(server)["id"]
        for name in (bad, late["id"], good):
            assert say(server, request_id=name, stars={0: 5, 1: 1}).status_code == 201
    rows = [one.ranking for one in Store(url).judged()]
    assert rows[0].documents[0] == {"id": "a\ufffd\ufffdb", "text": "\ufffd"}
    assert len(rows[1].scores) == 500
