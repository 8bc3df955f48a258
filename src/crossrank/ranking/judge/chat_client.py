"""Requests to an OpenAI-compatible chat endpoint, through the ``openai`` package.

Servers accept different fields. If a server refuses ``response_format``, the request is sent again without it, and so
are all later ones. The answer is read as plain JSON, so that a missing field does not make the client library fail.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

from crossrank.errors import StageError
from crossrank.optional import require
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network.api_keys import Secret, find_key
from crossrank.ranking.network.network_loop import PerLoop
from crossrank.ranking.network.retry import Failure, failure_of, within
from crossrank.validation import check_url

KEY_NAMES = ("OPENAI_API_KEY",)
_OPENAI_URL = "https://api.openai.com/v1"
# A server that does not know a field answers with one of these.
_REFUSALS = frozenset({400, 422})
_COST_HEADER = "x-litellm-response-cost"  # https://docs.litellm.ai/docs/proxy/response_headers


@dataclass
class Spent:
    """What a call has used so far, including requests with unusable answers."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, usage: Any, headers: Mapping[str, str]) -> None:
        """Add an answer: the ``usage`` in its body, and a cost if the body or a header has one."""
        usage = usage if isinstance(usage, dict) else {}
        self.prompt_tokens += _count(usage.get("prompt_tokens"))
        self.completion_tokens += _count(usage.get("completion_tokens"))
        # OpenRouter reports it in the body, LiteLLM in a header.
        cost = _amount(usage.get("cost"))
        cost = _amount(headers.get(_COST_HEADER)) if cost is None else cost
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost


@dataclass(frozen=True)
class Answer:
    """An answer.

    :param text: The message's text; may be empty.
    :param finish: Why the model stopped: ``"stop"``, ``"length"`` ...
    :param refusal: The model's refusal, if it sent one.
    """

    text: str
    finish: str
    refusal: str


class ChatEndpoint:
    """A model behind an OpenAI-compatible endpoint.

    :param model: Its name at the endpoint.
    :param base_url: The address up to ``/v1``; by default ``OPENAI_BASE_URL``, else OpenAI's.
    :param api_key: By default ``OPENAI_API_KEY``.
    :param timeout: Seconds for one request and its answer.
    :param temperature: ``None`` sends none, for models that do not accept one.
    :param max_tokens: The longest answer; ``None`` leaves it to the server.
    :param extra_body: More fields of the request.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None,
        api_key: str | None,
        timeout: float,
        temperature: float | None,
        max_tokens: int | None,
        extra_body: Mapping[str, Any] | None,
    ) -> None:
        self.model = model
        # Resolved here, not by the openai package, because the identity of a grade depends on it.
        given_url = base_url or os.environ.get("OPENAI_BASE_URL")
        if given_url:
            check_url(given_url, "http://localhost:8000/v1")
        self.base_url = (given_url or _OPENAI_URL).rstrip("/")
        self._needs_key = not given_url
        self.timeout = timeout
        self.key: Secret = find_key(api_key, KEY_NAMES)
        self._settings = {"temperature": temperature, "max_tokens": max_tokens}
        self._extra = dict(extra_body or {})
        self._refused: set[str] = set()
        self.client: PerLoop[Any] = PerLoop(self._make_client, methodcaller("close"))

    def _make_client(self) -> Any:
        openai = require("openai", extra="llm", purpose="An LLM as judge")
        if self._needs_key and not self.key.value:
            raise StageError(
                f"there is no key for {self.model!r}: set OPENAI_API_KEY or pass api_key=, or pass base_url= for a "
                "server that needs no key"
            )
        # Local servers need no key, but the package does.
        key = self.key.value or "none"
        return openai.AsyncOpenAI(api_key=key, base_url=self.base_url, max_retries=0, timeout=None)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Everything besides the messages that an answer depends on; without the key."""
        return (self.base_url, self.model, tuple(self._settings.items()), tuple(map(str, self._extra.items())))

    async def ask(
        self,
        messages: list[dict[str, str]],
        schema: tuple[str, dict[str, Any]],
        deadline: Deadline,
        spent: Spent,
        *,
        length_factor: int = 1,
    ) -> Answer:
        """Send a request; if the server refuses an optional field, send it again without the field.

        :param schema: The name and the JSON schema of the answer.
        :param length_factor: Multiplies ``max_tokens``.
        :raises Failure: If there is no answer.
        """
        name, form = schema
        whole: dict[str, Any] = {key: value for key, value in self._settings.items() if value is not None}
        if "max_tokens" in whole:
            whole["max_tokens"] *= length_factor
        whole["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": name, "schema": form, "strict": True},
        }
        left_out: dict[str, str] = {}
        while True:
            fields = {key: value for key, value in whole.items() if key not in self._refused | set(left_out)}
            try:
                answer = await self._send({"messages": messages, **fields}, deadline, spent)
            except _FieldError as error:
                refused = error.field_of(fields)
                if refused is None:
                    raise error.failure from None
                left_out[refused] = error.message
            else:
                # The request works without the field, so the field was the reason.
                self._refused |= set(left_out)
                for refused, message in left_out.items():
                    note = f"The server does not accept {refused}, so it was left out. Its answer: {message}"
                    spent.notes[note] = None
                return answer

    async def _send(self, body: dict[str, Any], deadline: Deadline, spent: Spent) -> Answer:
        openai = require("openai", extra="llm", purpose="An LLM as judge")
        who = f"The judge {self.model!r}"
        seconds = deadline.timeout(self.timeout)
        spent.requests += 1
        create = self.client.get().chat.completions.with_raw_response.create
        try:
            raw = await within(create(model=self.model, extra_body=self._extra or None, **body), seconds, who)
        except openai.APIStatusError as error:
            raise self._failure(who, error) from None
        except openai.APIConnectionError as error:
            cause = self.key.excerpt(str(error.__cause__ or error))
            raise Failure(f"{who} can't be reached: {cause}", retryable=True, service=True) from None
        except openai.OpenAIError as error:
            raise Failure(f"{who} can't be asked: {self.key.excerpt(str(error))}", fatal=True) from None
        return self._read(who, raw.http_response, spent)

    def _failure(self, who: str, error: Any) -> Exception:
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message") or body.get("detail") or body.get("error") or error.body or ""
        message = self.key.excerpt(message if isinstance(message, str) else json.dumps(message, default=str))
        failure = failure_of(who, error.status_code, message, error.response.headers, str(body.get("code") or ""))
        return _FieldError(failure, message) if error.status_code in _REFUSALS else failure

    def _read(self, who: str, response: Any, spent: Spent) -> Answer:
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            start = self.key.excerpt(response.text, 60)
            raise Failure(f"{who} sent something that is not JSON: {start!r}", retryable=True, service=True)
        spent.add(body.get("usage"), response.headers)
        choices = body.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        # Some routers send a model's error with status 200.
        if not message and body.get("error"):
            message = self.key.excerpt(json.dumps(body["error"]))
            raise Failure(f"{who} answered with an error: {message}", retryable=True, service=True)
        text, refusal = (self.key.hide(_text(message.get(name))) for name in ("content", "refusal"))
        return Answer(text, str(choice.get("finish_reason")), refusal)


class _FieldError(Exception):
    """A refusal that may concern one field of the request."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.message = message

    def field_of(self, fields: Mapping[str, Any]) -> str | None:
        """The field to leave out: one that the message names, else ``response_format``."""
        for name in ("temperature", "max_tokens"):
            if name in fields and name in self.message.lower() and "response_format" not in self.message:
                return name
        return "response_format" if "response_format" in fields else None


def _text(value: Any) -> str:
    # Some servers send a list of parts.
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _amount(value: Any) -> float | None:
    try:
        amount = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None
