"""A reranker behind HTTP: Cohere, Jina, Voyage, or your own server (text-embeddings-inference, vLLM).

>>> hosted = HostedReranker("cohere", model="rerank-v3.5", keep=10)                       # doctest: +SKIP
>>> hosted = HostedReranker("tei", base_url="http://localhost:8080", truncate=True)       # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.data.text_lines import encodable
from crossrank.errors import InputError, StageError
from crossrank.optional import require
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network import network_loop
from crossrank.ranking.network.api_keys import Secret, find_key
from crossrank.ranking.network.network_loop import PerLoop
from crossrank.ranking.network.providers import PROVIDERS, Provider, value_at
from crossrank.ranking.network.retry import Failure, RetryPolicy, failure_of, gather, retrying, summary, within
from crossrank.ranking.stage import Context, StageScores
from crossrank.validation import check_counts, check_seconds, check_threshold, check_top_k, check_url


@dataclass(frozen=True)
class _Batch:
    """The answer to one request."""

    scores: NDArray[np.float64]
    tokens: int
    cost: float | None


class HostedReranker:
    """A stage whose scores come from a service.

    If there are more documents than the provider takes at once, several requests are sent. The models score each
    document independently, so scores from several requests can be compared. A document that is missing from the answer
    is not scored.

    :param provider: ``"cohere"``, ``"jina"``, ``"voyage"``, ``"tei"``, ``"vllm"``, or a
        :class:`~crossrank.ranking.network.providers.Provider` that describes another service.
    :param model: The model's name at the service; ``"tei"`` has only one and needs no name.
    :param base_url: The address; needed for software that you run yourself. It receives the API key.
    :param api_key: By default the provider's environment variable. Messages never show it.
    :param keep: How many documents go on.
    :param threshold: The lowest score with which a document goes on.
    :param truncate: Whether the service cuts long texts (``True``) or refuses them (``False``); ``None`` leaves it to
        the service. Not every provider has this option.
    :param batch_size: The most documents of one request; by default the provider's limit.
    :param max_concurrency: Requests at the same time.
    :param timeout: Seconds for one request.
    :param max_retries: Retries of one request.
    :param extra_body: More fields of the request, as the provider names them.
    :param name: The stage's name in results.
    :raises InputError: If an argument can't be used.
    """

    def __init__(
        self,
        provider: str | Provider,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        keep: int | None = None,
        threshold: float | None = None,
        truncate: bool | None = None,
        batch_size: int | None = None,
        max_concurrency: int = 4,
        timeout: float = 30.0,
        max_retries: int = 3,
        extra_body: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(provider, Provider) and provider not in PROVIDERS:
            raise InputError(
                f"provider={provider!r} is unknown. Give one of {', '.join(map(repr, PROVIDERS))}, or a Provider that "
                "describes another service."
            )
        self.provider = provider if isinstance(provider, Provider) else PROVIDERS[provider]
        check_top_k(keep, "keep")
        check_threshold(threshold)
        check_counts(batch_size=batch_size, max_concurrency=max_concurrency)
        check_seconds("timeout", timeout)
        self.name = name or self.provider.name
        self.keep = keep
        self.threshold = threshold
        self.model = model
        self._url = self._address(base_url)
        self._key: Secret = find_key(api_key, self.provider.key_names)
        self._fields = self._fixed_fields(truncate) | dict(extra_body or {})
        self._batch_size = min(batch_size or self.provider.max_documents, self.provider.max_documents)
        if batch_size and not self.provider.base_url:
            # Your own server may accept more.
            self._batch_size = batch_size
        self._timeout = timeout
        self._policy = RetryPolicy(max_retries)
        self._client: PerLoop[Any] = PerLoop(self._make_client, methodcaller("aclose"))
        self._limit = PerLoop(partial(asyncio.Semaphore, max_concurrency))

    def __repr__(self) -> str:
        return f"HostedReranker({self.provider.name!r}, model={self.model!r}, url={self._url!r})"

    def _address(self, given: str | None) -> str:
        base = given or self.provider.base_url
        if base is None:
            raise InputError(
                f"base_url is missing: you run {self.provider.name} yourself. Give its address, such as "
                "'http://localhost:8080', without the path."
            )
        check_url(base, "http://localhost:8080")
        path = self.provider.path.strip("/")
        version = path.split("/")[0]
        base = base.rstrip("/")
        # The address may be given with or without the version.
        return f"{base if version == path else base.removesuffix(f'/{version}')}/{path}"

    def _fixed_fields(self, truncate: bool | None) -> dict[str, Any]:
        fields = dict(self.provider.fixed)
        if self.provider.needs_model and not self.model:
            raise InputError(f"model={self.model!r}: {self.provider.name} has several models. Choose one with model=.")
        if self.model:
            fields["model"] = self.model
        if truncate is not None:
            if self.provider.truncate is None:
                raise InputError(f"truncate={truncate!r}: {self.provider.name} has no such option. Leave it out.")
            fields |= self.provider.truncate[0 if truncate else 1]
        return fields

    def fingerprint(self) -> str | None:
        """Everything besides the texts that a score depends on."""
        fields = sorted((key, repr(value)) for key, value in self._fields.items())
        return repr((self._url, self.model, fields, self.provider))

    def warm_up(self) -> None:
        """Import the client library. No request is sent.

        :raises StageError: If there is no key for a provider that needs one.
        """
        self._check_key()
        network_loop.run(self._client.warm_up())

    def close(self) -> None:
        """Close the connections."""
        network_loop.run(self._client.close())

    def _make_client(self) -> Any:
        httpx = require("httpx", extra="hosted", purpose="A hosted reranker")
        return httpx.AsyncClient(timeout=None, follow_redirects=False)

    def score(self, query: str, documents: Sequence[str], context: Context | None = None) -> StageScores:
        """Get the documents' scores.

        :raises StageError: If all requests fail, or the provider needs a key and there is none.
        """
        return network_loop.run(self._score(query, list(documents), context or Context()))

    async def ascore(self, query: str, documents: Sequence[str], context: Context | None = None) -> StageScores:
        """Get the documents' scores, as :meth:`score` does."""
        return await network_loop.arun(self._score(query, list(documents), context or Context()))

    async def _score(self, query: str, documents: list[str], context: Context) -> StageScores:
        self._check_key()
        starts = range(0, len(documents), self._batch_size)

        def job(start: int) -> Callable[[], Awaitable[_Batch]]:
            texts = documents[start : start + self._batch_size]
            return lambda: retrying(lambda _: self._ask(query, texts, context.deadline), self._policy, context.deadline)

        outcomes = await gather([job(start) for start in starts], self._limit.get(), context)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        if outcomes and len(failures) == len(outcomes):
            raise StageError(
                summary(failures), retryable=all(failure.retryable for failure in failures), stage=self.name
            ) from None
        scores = np.full(len(documents), math.nan)
        tokens, costs = 0, []
        for start, outcome in zip(starts, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                scores[start : start + self._batch_size] = outcome.scores
                tokens += outcome.tokens
                costs += [] if outcome.cost is None else [outcome.cost]
        missing = int(np.count_nonzero(np.isnan(scores)))
        degraded = None
        if missing:
            why = summary(failures) if failures else f"{self.provider.name} left them out of its answer"
            degraded = f"{missing} of {len(documents)} documents have no score: {why}"
        notes = (
            (f"Sent as {len(outcomes)} requests of at most {self._batch_size} documents.",) if len(starts) > 1 else ()
        )
        cost = math.fsum(costs) if costs else None
        return StageScores(scores, kind="provider", tokens=tokens, cost=cost, notes=notes, degraded=degraded)

    def _check_key(self) -> None:
        if self.provider.needs_key and not self._key.value:
            names = " or ".join(self.provider.key_names)
            raise StageError(
                f"there is no key for {self.provider.name}: set {names}, or pass api_key=", stage=self.name
            )

    async def _ask(self, query: str, texts: list[str], deadline: Deadline) -> _Batch:
        httpx = require("httpx", extra="hosted", purpose="A hosted reranker")
        who = self.provider.name
        body = {**self._fields, "query": encodable(query), self.provider.documents: [encodable(text) for text in texts]}
        if self.provider.top is not None:
            body.setdefault(self.provider.top, len(texts))
        headers = {"authorization": f"Bearer {self._key.value}"} if self._key.value else {}
        work = self._client.get().post(self._url, json=body, headers=headers)
        try:
            response = await within(work, deadline.timeout(self._timeout), who)
        except httpx.TransportError as error:
            what = self._key.excerpt(f"{type(error).__name__} {error}")
            raise Failure(f"{who} can't be reached at {self._url}: {what}", retryable=True, service=True) from None
        except httpx.HTTPError as error:
            raise Failure(f"{who} can't be asked: {self._key.excerpt(error)}", fatal=True) from None
        return self._read(response, len(texts))

    def _read(self, response: Any, count: int) -> _Batch:
        who = self.provider.name
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError):
            body = None
        if not response.is_success:
            found = (value_at(body, place) for place in self.provider.errors)
            message = next((text for text in found if text), None)
            if message is not None and not isinstance(message, str):
                message = json.dumps(message)
            shown = self._key.excerpt(message or response.reason_phrase)
            raise failure_of(who, response.status_code, shown, response.headers)
        if body is None:
            start = self._key.excerpt(response.text, 60)
            raise Failure(f"{who} sent something that is not JSON: {start!r}", retryable=True, service=True)
        tokens = value_at(body, self.provider.tokens) if self.provider.tokens else 0
        cost = value_at(body, self.provider.cost) if self.provider.cost else None
        return _Batch(
            _scores(self.provider, value_at(body, self.provider.results), count),
            max(0, tokens) if isinstance(tokens, int) and not isinstance(tokens, bool) else 0,
            float(cost) if cost is not None and _is_finite(cost) else None,
        )


def _scores(provider: Provider, results: Any, count: int) -> NDArray[np.float64]:
    """``[documents]`` of a request, NaN if there is no result; one invalid result makes the whole answer invalid."""
    scores = np.full(count, math.nan)
    where = f"{provider.name}'s answer"
    if not isinstance(results, list):
        place = ".".join(provider.results) or "the body"
        raise Failure(f"{where} has no list of results in {place}", retryable=True, pause=False)
    for result in results:
        index = result.get(provider.index) if isinstance(result, dict) else None
        score = result.get(provider.score) if isinstance(result, dict) else None
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise Failure(
                f"{where} has a result with the index {index!r}, of {count} documents", retryable=True, pause=False
            )
        if not _is_finite(score):
            raise Failure(f"{where} has the score {score!r} for document {index}", retryable=True, pause=False)
        if not math.isnan(scores[index]):
            raise Failure(f"{where} has two results for document {index}", retryable=True, pause=False)
        scores[index] = score
    if count and np.isnan(scores).all():
        raise Failure(f"{where} has no results", retryable=True, pause=False)
    return scores


def _is_finite(value: Any) -> bool:
    # An integer in JSON may be larger than any float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
