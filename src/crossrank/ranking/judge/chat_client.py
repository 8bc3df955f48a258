"""Requests to an OpenAI-compatible chat endpoint.

Servers accept different fields. If a server refuses ``response_format``, the request is sent again without it, and so
are all later ones.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network.api_keys import find_key
from crossrank.ranking.network.json_service import JsonService, count_of, value_at
from crossrank.ranking.network.retry import Failure
from crossrank.validation import check_url

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

    def add(self, body: Any, headers: Mapping[str, str]) -> None:
        """Add an answer: its tokens, and its cost if the body or a header has one."""
        self.prompt_tokens += count_of(value_at(body, ("usage", "prompt_tokens")))
        self.completion_tokens += count_of(value_at(body, ("usage", "completion_tokens")))
        # OpenRouter reports the cost in the body, LiteLLM in a header.
        for given in (value_at(body, ("usage", "cost")), headers.get(_COST_HEADER)):
            if (cost := _amount(given)) is not None:
                self.cost = (self.cost or 0.0) + cost
                break


class ChatAnswer(NamedTuple):
    """An answer.

    :param text: The message's text; may be empty.
    :param finish: Why the model stopped: ``"stop"``, ``"length"`` ...
    :param refusal: The model's refusal, if it sent one.
    """

    text: str
    finish: str
    refusal: str


class ChatEndpoint:
    """A model behind an OpenAI-compatible endpoint; the arguments are those of :class:`LLMJudge`.

    :param settings: ``temperature`` and ``max_tokens``; ``None`` is not sent.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None,
        api_key: str | None,
        timeout: float,
        settings: Mapping[str, float | None],
        extra_body: Mapping[str, Any] | None,
    ) -> None:
        self.model = model
        given_url = base_url or os.environ.get("OPENAI_BASE_URL")
        if given_url:
            check_url(given_url, "http://localhost:8000/v1")
        self.base_url = (given_url or _OPENAI_URL).rstrip("/")
        missing = (
            f"there is no key for {model!r}: set OPENAI_API_KEY or pass api_key=, or pass base_url= for a server that "
            "needs no key"
        )
        self.service = JsonService(
            f"The judge {model!r}",
            f"{self.base_url}/chat/completions",
            find_key(api_key, ("OPENAI_API_KEY",)),
            timeout,
            needs_key="" if given_url else missing,
        )
        self._settings = settings
        self._extra = dict(extra_body or {})
        self._refused: set[str] = set()

    @property
    def identity(self) -> tuple[Any, ...]:
        """What an answer depends on, besides the messages; without the key."""
        return (self.base_url, self.model, tuple(self._settings.items()), tuple(map(str, self._extra.items())))

    async def ask(
        self,
        messages: list[dict[str, str]],
        schema: tuple[str, dict[str, Any]],
        deadline: Deadline,
        spent: Spent,
        *,
        length_factor: int = 1,
    ) -> ChatAnswer:
        """Send a request; if the server refuses an optional field, send it again without the field.

        :param schema: The name and the JSON schema of the answer.
        :param length_factor: Multiplies ``max_tokens``.
        :raises Failure: If there is no answer.
        """
        name, form = schema
        optional: dict[str, Any] = {key: value for key, value in self._settings.items() if value is not None}
        if "max_tokens" in optional:
            optional["max_tokens"] *= length_factor
        json_schema = {"name": name, "schema": form, "strict": True}
        optional["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        left_out: dict[str, str] = {}
        while True:
            fields = {key: value for key, value in optional.items() if key not in self._refused | set(left_out)}
            spent.requests += 1
            try:
                body, headers = await self.service.post(
                    {"model": self.model, "messages": messages, **fields, **self._extra}, deadline
                )
            except Failure as failure:
                refused = _field_to_leave_out(failure, fields)
                if refused is None:
                    raise
                left_out[refused] = failure.reason
            else:
                # The request works without the field, so the field was the reason.
                self._refused |= set(left_out)
                for refused, reason in left_out.items():
                    spent.notes[f"The server does not accept {refused}, so it was left out. {reason}"] = None
                spent.add(body, headers)
                return self._answer_in(body)

    def _answer_in(self, body: Any) -> ChatAnswer:
        choices = value_at(body, ("choices",))
        choice = choices[0] if isinstance(choices, list) and choices else {}
        # Some routers send a model's error with status 200.
        if not value_at(choice, ("message",)) and (error := value_at(body, ("error",))):
            message = self.service.key.excerpt(json.dumps(error))
            raise Failure(f"{self.service.who} answered with an error: {message}", retryable=True, service=True)
        text, refusal = (_text(value_at(choice, ("message", name))) for name in ("content", "refusal"))
        hide = self.service.key.hide
        return ChatAnswer(hide(text), str(value_at(choice, ("finish_reason",))), hide(refusal))


def _field_to_leave_out(failure: Failure, fields: Mapping[str, Any]) -> str | None:
    """The field that a server may have refused: one that its message names, else ``response_format``."""
    if failure.status not in _REFUSALS:
        return None
    for name in ("temperature", "max_tokens"):
        if name in fields and name in failure.reason.lower() and "response_format" not in failure.reason:
            return name
    return "response_format" if "response_format" in fields else None


def _text(value: Any) -> str:
    # Some servers send a list of parts.
    if isinstance(value, list):
        return "".join(_text(value_at(part, ("text",))) for part in value)
    return value if isinstance(value, str) else ""


def _amount(value: Any) -> float | None:
    try:
        amount = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None
