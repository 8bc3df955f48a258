"""What a stage is: it scores documents, and never sorts them.

A stage of your own is any object with these members; there is no base class.

>>> class Shortest:
...     name, keep, threshold = "shortest", None, None
...     def warm_up(self): ...
...     def score(self, query, documents, context):
...         return StageScores(np.array([-len(text) for text in documents], np.float64), kind="negative length")
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossrank.ranking.deadline import Deadline
from crossrank.types import PairScores

# A part of a text, as offsets of its first character and of the one behind its last.
Passage = tuple[int, int]


@dataclass(frozen=True)
class StageScores:
    """What a stage says of some documents, in the order in which it got them.

    :param scores: ``[documents]``, higher is better. NaN means "not scored", for instance because time was up: such
        documents stand behind all that were scored, in the order in which they came, and pass no threshold.
    :param kind: What the scores are: ``"logit"``, ``"sigmoid"``, ``"softmax"``, ``"custom"``, ``"calibrated"``,
        ``"tanh"``, ``"provider"``, ``"grade"``, ``"rank"``, ``"fused"``, ``"first_stage"``, or a word of your own.
    :param relevance: ``[documents]``, what to sort by if it is not the scores: raw logits, in which nothing has been
        rounded to a tie. NaN exactly where ``scores`` is.
    :param tokens: Tokens that were read.
    :param pairs_cut: How many documents' texts did not fit.
    :param cut: ``[documents]``, which of them, if that is known; a score cache remembers it.
    :param cost: In the provider's own unit, if it reports one.
    :param notes: What the caller should know, a sentence each.
    :param passages: For each document the offsets of its best part, if there is one.
    :param degraded: Why this is less than what was asked for; ``None`` if nothing is wrong.
    :param details: For each document further facts, such as a judge's reason; JSON-safe.
    """

    scores: NDArray[np.float64]
    kind: str
    relevance: NDArray[np.float64] | None = None
    tokens: int = 0
    pairs_cut: int = 0
    cost: float | None = None
    notes: Sequence[str] = ()
    passages: Sequence[Passage | None] | None = None
    degraded: str | None = None
    details: Sequence[Mapping[str, Any]] | None = None
    cut: NDArray[np.bool_] | None = None

    @property
    def sort_by(self) -> NDArray[np.float64]:
        """``[documents]``: ``relevance`` where there is one, else ``scores``."""
        return self.scores if self.relevance is None else self.relevance

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``[documents]``: which of them have a score."""
        return ~np.isnan(self.scores)


@dataclass
class Context:
    """What a stage may want to know about the call.

    :param deadline: When the whole call has to be back. A stage that talks to a network takes its timeouts from it; a
        local one scores as many documents as fit, from the first on.
    :param cancelled: Set when nobody waits for the answer any more; check it between chunks of work.
    :param first_stage: ``[documents]``, scores of the search that found the documents; NaN where there is none.
    :param positions: ``[documents]``, where each stood in the caller's list, from 0.
    :param earlier: What the stages before this one said of these same documents, by name, in the order they ran.
    """

    deadline: Deadline = field(default_factory=Deadline)
    cancelled: threading.Event = field(default_factory=threading.Event)
    first_stage: NDArray[np.float64] | None = None
    positions: NDArray[np.int64] | None = None
    earlier: Mapping[str, StageScores] = field(default_factory=dict)


class Stage(Protocol):
    """A stage of a pipeline.

    ``name`` is unique within a pipeline (a :class:`~crossrank.ranking.reranker.Reranker` numbers repeated ones).
    ``keep`` is how many documents go on to the next stage, best first, ``None`` all. ``threshold`` is the least score
    with which a document goes on.
    """

    @property
    def name(self) -> str:
        """What it is called in results and messages."""
        ...

    @property
    def keep(self) -> int | None:
        """How many documents go on."""
        ...

    @property
    def threshold(self) -> float | None:
        """The least score with which a document goes on."""
        ...

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents, best candidates first.

        :raises StageError: If no scores can be given.
        """
        ...

    def warm_up(self) -> None:
        """Do now what would make the first call slow, such as loading a model."""
        ...


@runtime_checkable
class AsyncStage(Protocol):
    """A stage that can wait without a thread. Others are run in one by ``arank``."""

    async def ascore(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents, as ``score`` does."""
        ...


@runtime_checkable
class CacheableStage(Protocol):
    """A stage in which a document's score depends only on its text, the query and the fingerprint."""

    def fingerprint(self) -> str | None:
        """Everything that the scores depend on besides the texts: model, revision, template, length, precision.

        ``None`` if that is not known; nothing is cached then. It is asked before and after scoring: a stage that
        changed its model in between has another one.
        """
        ...


@runtime_checkable
class ClosableStage(Protocol):
    """A stage that holds something open, such as connections."""

    def close(self) -> None:
        """Close it. May be called twice."""
        ...


@runtime_checkable
class PairScorer(Protocol):
    """A model that scores pairs: a ``CrossEncoder``, a ``RegistryModel``, or one of your own."""

    def score(self, pairs: Any) -> PairScores:
        """Score ``(query, document)`` pairs."""
        ...
