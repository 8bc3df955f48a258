"""Stages for the tests of an application: no model, no network, always the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from crossrank.errors import StageError
from crossrank.ranking.stage import Context, StageScores


@dataclass
class _TestStage:
    """The settings that all these stages share."""

    _: KW_ONLY
    keep: int | None = None
    threshold: float | None = None
    name: str = "test"

    def warm_up(self) -> None:
        """Do nothing."""


@dataclass
class FixedScores(_TestStage):
    """Gives each text the score that you choose. ``keep``, ``threshold`` and ``name`` as for any stage.

    :param scores: From text to score, other texts are not scored; or a function ``(query, text)``.
    :param kind: The kind of the scores.
    :ivar calls: The query and texts of each call.
    """

    scores: Mapping[str, float] | Callable[[str, str], float]
    _: KW_ONLY
    kind: str = "fixed"
    name: str = "fixed"
    calls: list[tuple[str, list[str]]] = field(default_factory=list, init=False)

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents."""
        self.calls.append((query, list(documents)))
        given = self.scores
        scores = [given(query, text) if callable(given) else given.get(text, np.nan) for text in documents]
        return StageScores(np.array(scores, np.float64), kind=self.kind)


@dataclass
class FailingStage(_TestStage):
    """Fails, always or a number of times; after that it scores each text by its length.

    :param times: How often it fails; ``None`` is always.
    :param error: What it raises.
    :ivar calls: How often it was called.
    """

    times: int | None = None
    _: KW_ONLY
    error: Exception | None = None
    name: str = "failing"
    calls: int = field(default=0, init=False)

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Fail, or score by length.

        :raises StageError: Or the ``error`` that was given.
        """
        self.calls += 1
        if self.times is None or self.calls <= self.times:
            raise self.error or StageError("this stage fails on purpose", retryable=True)
        return StageScores(np.array([len(text) for text in documents], np.float64), kind="length")


@dataclass
class SlowStage(_TestStage):
    """Takes a time for each document, within the deadline; the longest text is the best.

    :param seconds: For each document.
    :ivar scored: How many documents it has scored in all calls.
    """

    seconds: float
    _: KW_ONLY
    name: str = "slow"
    scored: int = field(default=0, init=False)

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
