"""Stages for the tests of an application: no model, no network, always the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from crossrank.errors import StageError
from crossrank.ranking.stage import Context, StageScores


class _TestStage:
    """The parts that all these stages share."""

    def __init__(self, keep: int | None, threshold: float | None, name: str) -> None:
        self.name, self.keep, self.threshold = name, keep, threshold

    def warm_up(self) -> None:
        """Do nothing."""


class FixedScores(_TestStage):
    """Gives each text the score that you choose.

    :param scores: From text to score, other texts are not scored; or a function ``(query, text)``.
    :param kind: The kind of the scores.
    :param keep: How many documents go on.
    :param threshold: The lowest score with which a document goes on.
    :param name: The stage's name.
    :ivar calls: The query and texts of each call.
    """

    def __init__(
        self,
        scores: Mapping[str, float] | Callable[[str, str], float],
        *,
        kind: str = "fixed",
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "fixed",
    ) -> None:
        super().__init__(keep, threshold, name)
        self.kind = kind
        self.calls: list[tuple[str, list[str]]] = []
        self._scores = scores

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents."""
        self.calls.append((query, list(documents)))
        given = self._scores
        scores = [given(query, text) if callable(given) else given.get(text, np.nan) for text in documents]
        return StageScores(np.array(scores, np.float64), kind=self.kind)


class FailingStage(_TestStage):
    """Fails, always or a number of times; after that it scores each text by its length.

    :param times: How often it fails; ``None`` is always.
    :param error: What it raises.
    :param keep: How many documents go on.
    :param threshold: The lowest score with which a document goes on.
    :param name: The stage's name.
    :ivar calls: How often it was called.
    """

    def __init__(
        self,
        times: int | None = None,
        *,
        error: Exception | None = None,
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "failing",
    ) -> None:
        super().__init__(keep, threshold, name)
        self.calls = 0
        self._times = times
        self._error = error

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Fail, or score by length.

        :raises StageError: Or the ``error`` that was given.
        """
        self.calls += 1
        if self._times is None or self.calls <= self._times:
            raise self._error or StageError("this stage fails on purpose", retryable=True)
        return StageScores(np.array([len(text) for text in documents], np.float64), kind="length")


class SlowStage(_TestStage):
    """Takes a time for each document, within the deadline; the longest text is the best.

    :param seconds: For each document.
    :param keep: How many documents go on.
    :param threshold: The lowest score with which a document goes on.
    :param name: The stage's name.
    :ivar scored: How many documents it has scored in all calls.
    """

    def __init__(
        self, seconds: float, *, keep: int | None = None, threshold: float | None = None, name: str = "slow"
    ) -> None:
        super().__init__(keep, threshold, name)
        self.seconds = seconds
        self.scored = 0

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score by length as many documents as there is time for."""
        scores = np.full(len(documents), np.nan)
        for i, text in enumerate(documents):
            if context.cancelled.is_set() or context.deadline.remaining() < self.seconds:
                break
            time.sleep(self.seconds)
            scores[i] = len(text)
            self.scored += 1
        return StageScores(scores, kind="length")
