"""The part that all stages share whose scores come from a web service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from crossrank.errors import StageError
from crossrank.ranking.network import network_loop
from crossrank.ranking.network.json_service import JsonService
from crossrank.ranking.network.network_loop import PerLoop
from crossrank.ranking.network.retry import Failure, RetryPolicy, reasons_of
from crossrank.ranking.stage import Context, StageScores
from crossrank.validation import check_counts, check_seconds, check_threshold, check_top_k


class NetworkStage:
    """The base of :class:`HostedReranker` and :class:`LLMJudge`, which both define ``_score``.

    :param max_concurrency: Requests at the same time.
    :param max_retries: Retries of one request.
    """

    def __init__(
        self,
        name: str,
        service: JsonService,
        *,
        keep: int | None,
        threshold: float | None,
        max_concurrency: int,
        max_retries: int,
    ) -> None:
        check_top_k(keep, "keep")
        check_threshold(threshold)
        check_counts(max_concurrency=max_concurrency)
        check_seconds("timeout", service.timeout)
        self.name, self.keep, self.threshold = name, keep, threshold
        self._service = service
        self._policy = RetryPolicy(max_retries)
        self._limit = PerLoop(partial(asyncio.Semaphore, max_concurrency))

    def warm_up(self) -> None:
        """Import the client library. No request is sent.

        :raises StageError: If the service needs a key and there is none.
        """
        network_loop.run(self._service.client.warm_up())

    def close(self) -> None:
        """Close the connections."""
        network_loop.run(self._service.client.close())

    def score(self, query: str, documents: Sequence[str], context: Context | None = None) -> StageScores:
        """Get the documents' scores.

        :raises StageError: If all requests fail, or the service needs a key and there is none.
        """
        return network_loop.run(self._score(query, list(documents), context or Context()))

    async def ascore(self, query: str, documents: Sequence[str], context: Context | None = None) -> StageScores:
        """Get the documents' scores, as :meth:`score` does."""
        return await network_loop.arun(self._score(query, list(documents), context or Context()))

    async def _score(self, query: str, documents: list[str], context: Context) -> StageScores:
        raise NotImplementedError

    def _error(self, failures: Sequence[Failure], before: str = "", after: str = "") -> StageError:
        """The error if all requests failed: their reasons, with a text before and after them."""
        retryable = all(failure.retryable for failure in failures)
        return StageError(f"{before}{reasons_of(failures)}{after}", retryable=retryable, stage=self.name)
