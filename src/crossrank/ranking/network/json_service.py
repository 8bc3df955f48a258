"""Requests to a web service: JSON out, JSON in, and a :class:`Failure` for everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any

from crossrank.errors import StageError
from crossrank.optional import require
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network.api_keys import Secret
from crossrank.ranking.network.network_loop import PerLoop
from crossrank.ranking.network.retry import Failure, failure_for_status, within

# A path of keys in the body of an answer; () is the body itself.
Place = tuple[str, ...]
# Where services put the message of an error.
ERROR_PLACES: tuple[Place, ...] = (("message",), ("detail",), ("error", "message"), ("error",))


class JsonService:
    """A web service with one address.

    :param who: Its name in messages.
    :param key: Sent as a bearer token unless it is empty.
    :param needs_key: What to tell the user if there is no key; empty if the service needs none.
    :param timeout: Seconds for one request and its answer.
    :param errors: Where the message of an error may be.
    """

    def __init__(
        self,
        who: str,
        url: str,
        key: Secret,
        timeout: float,
        *,
        needs_key: str = "",
        errors: Sequence[Place] = ERROR_PLACES,
    ) -> None:
        self.who, self.url, self.key, self.timeout = who, url, key, timeout
        self._needs_key = needs_key
        self._errors = errors
        self.client: PerLoop[Any] = PerLoop(self._connect, methodcaller("aclose"))

    def _connect(self) -> Any:
        httpx = require("httpx", extra="hosted", purpose=f"A request to {self.who}")
        if self._needs_key and not self.key.value:
            raise StageError(self._needs_key)
        # A redirect would send the key to another address.
        return httpx.AsyncClient(timeout=None, follow_redirects=False)

    async def post(self, fields: Mapping[str, Any], deadline: Deadline) -> tuple[Any, Mapping[str, str]]:
        """Send a request; return the answer's JSON and its headers.

        :raises Failure: If the service can't be reached, or answers with an error or something that is not JSON.
        :raises StageError: If the service needs a key and there is none.
        """
        client = self.client.get()
        httpx = require("httpx", extra="hosted", purpose=f"A request to {self.who}")
        headers = {"authorization": f"Bearer {self.key.value}"} if self.key.value else {}
        work = client.post(self.url, json=fields, headers=headers)
        try:
            response = await within(work, deadline.timeout(self.timeout), self.who)
        except httpx.TransportError as error:
            what = self.key.excerpt(f"{type(error).__name__} {error}")
            raise Failure(f"{self.who} can't be reached at {self.url}: {what}", retryable=True, service=True) from None
        except httpx.HTTPError as error:
            raise Failure(f"{self.who} can't be asked: {self.key.excerpt(error)}", fatal=True) from None
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError):
            body = None
        if not response.is_success:
            message = next((text for place in self._errors if (text := value_at(body, place))), response.reason_phrase)
            shown = self.key.excerpt(message if isinstance(message, str) else json.dumps(message))
            code = value_at(body, ("error", "code")) or value_at(body, ("code",))
            raise failure_for_status(self.who, response.status_code, shown, response.headers, code)
        if body is None:
            start = self.key.excerpt(response.text, 60)
            raise Failure(f"{self.who} sent something that is not JSON: {start!r}", retryable=True, service=True)
        return body, response.headers


def value_at(body: Any, place: Place) -> Any:
    """Return the value at a place; ``None`` if there is none."""
    for key in place:
        if not isinstance(body, Mapping):
            return None
        body = body.get(key)
    return body


def count_of(value: Any) -> int:
    """A number of tokens in an answer; 0 if it is anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
