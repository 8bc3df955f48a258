"""What the tests of feedback send to a server, and what is in its database then."""

from __future__ import annotations

from typing import Any

import httpx
import sqlalchemy as sa

from crossrank.feedback.store import Store
from serving import Server

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
