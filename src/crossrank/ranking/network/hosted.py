"""A reranker behind HTTP: Cohere, Jina, Voyage, or your own server (text-embeddings-inference, vLLM).

>>> hosted = HostedReranker("cohere", model="rerank-v3.5", keep=10)                       # doctest: +SKIP
>>> hosted = HostedReranker("tei", base_url="http://localhost:8080", truncate=True)       # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network.api_keys import find_key
from crossrank.ranking.network.json_service import JsonService, count_of, value_at
from crossrank.ranking.network.network_stage import NetworkStage
from crossrank.ranking.network.providers import PROVIDERS, Provider
from crossrank.ranking.network.retry import Failure, gather, reasons_of, retrying
from crossrank.ranking.stage import Context, StageScores
from crossrank.validation import check_counts, check_url, encodable, is_finite_number


class _Batch(NamedTuple):
    """The answer to one request; ``scores`` is ``[documents]`` of the request."""

    scores: NDArray[np.float64]
    tokens: int
    cost: float | None


class HostedReranker(NetworkStage):
    """A stage whose scores come from a service.

    If there are more documents than the provider takes at once, several requests are sent. The models score each
    document independently, so scores from several requests can be compared. A document that is missing from the answer
    is not scored.

    :param provider: ``"cohere"``, ``"jina"``, ``"voyage"``, ``"tei"``, ``"vllm"``, or a
        :class:`~crossrank.ranking.network.providers.Provider` that describes another service.
    :param model: The model's name at the service; ``"tei"`` has only one and needs no name.
    :param base_url: The address; needed for software that you run yourself. It receives the API key.
    :param api_key: By default the provider's environment variable. Messages never show it.
    :param keep: How many documents to pass on, best first; by default all.
    :param threshold: The lowest score that a document needs to be passed on.
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
        check_counts(batch_size=batch_size)
        key = find_key(api_key, self.provider.key_names)
        names = " or ".join(self.provider.key_names)
        missing = f"there is no key for {self.provider.name}: set {names}, or pass api_key="
        service = JsonService(
            self.provider.name,
            self._address(base_url),
            key,
            timeout,
            needs_key=missing if self.provider.needs_key else "",
            errors=self.provider.errors,
        )
        super().__init__(
            name or self.provider.name,
            service,
            keep=keep,
            threshold=threshold,
            max_concurrency=max_concurrency,
            max_retries=max_retries,
        )
        self.model = model
        self._fields = self._fixed_fields(truncate) | dict(extra_body or {})
        self._batch_size = batch_size or self.provider.max_documents
        if self.provider.base_url:  # your own server may accept more
            self._batch_size = min(self._batch_size, self.provider.max_documents)

    def __repr__(self) -> str:
        return f"HostedReranker({self.provider.name!r}, model={self.model!r}, url={self._service.url!r})"

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
        """Describe what a score depends on, besides the texts."""
        fields = sorted((key, repr(value)) for key, value in self._fields.items())
        return repr((self._service.url, self.model, fields, self.provider))

    async def _score(self, query: str, documents: list[str], context: Context) -> StageScores:
        # 1) Send the documents, in several requests if there are many.
        self._service.client.get()  # fails if there is no key
        starts = range(0, len(documents), self._batch_size)

        def job(start: int) -> Callable[[], Awaitable[_Batch]]:
            texts = documents[start : start + self._batch_size]
            return lambda: retrying(lambda _: self._ask(query, texts, context.deadline), self._policy, context.deadline)

        outcomes = await gather([job(start) for start in starts], self._limit.get(), context)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        if outcomes and len(failures) == len(outcomes):
            raise self._error(failures)
        # 2) Put the answers together.
        scores = np.full(len(documents), math.nan)
        tokens, costs = 0, []
        for start, outcome in zip(starts, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                scores[start : start + self._batch_size] = outcome.scores
                tokens += outcome.tokens
                costs += [] if outcome.cost is None else [outcome.cost]
        # 3) Say what is missing.
        degraded = None
        if missing := int(np.count_nonzero(np.isnan(scores))):
            why = reasons_of(failures) if failures else f"{self.provider.name} left them out of its answer"
            degraded = f"{missing} of {len(documents)} documents have no score: {why}"
        notes = [f"Sent as {len(starts)} requests of at most {self._batch_size} documents."] if len(starts) > 1 else []
        cost = math.fsum(costs) if costs else None
        return StageScores(scores, kind="provider", tokens=tokens, cost=cost, notes=notes, degraded=degraded)

    async def _ask(self, query: str, texts: list[str], deadline: Deadline) -> _Batch:
        provider = self.provider
        fields = {**self._fields, "query": encodable(query), provider.documents: list(map(encodable, texts))}
        if provider.top is not None:
            fields.setdefault(provider.top, len(texts))
        body, _ = await self._service.post(fields, deadline)
        cost: Any = value_at(body, provider.cost) if provider.cost else None
        return _Batch(
            _scores(provider, value_at(body, provider.results), len(texts)),
            count_of(value_at(body, provider.tokens)) if provider.tokens else 0,
            float(cost) if is_finite_number(cost) else None,
        )


def _scores(provider: Provider, results: Any, count: int) -> NDArray[np.float64]:
    """``[documents]`` of a request, NaN if there is no result; one invalid result makes the whole answer invalid."""

    def invalid(what: str) -> Failure:
        return Failure(f"{provider.name}'s answer has {what}", retryable=True, pause=False)

    scores = np.full(count, math.nan)
    if not isinstance(results, list):
        raise invalid(f"no list of results in {'.'.join(provider.results) or 'the body'}")
    for result in results:
        index, score = value_at(result, (provider.index,)), value_at(result, (provider.score,))
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise invalid(f"a result with the index {index!r}, of {count} documents")
        if not is_finite_number(score):
            raise invalid(f"the score {score!r} for document {index}")
        if not math.isnan(scores[index]):
            raise invalid(f"two results for document {index}")
        scores[index] = score
    if count and np.isnan(scores).all():
        raise invalid("no results")
    return scores
