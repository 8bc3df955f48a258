"""What a stage is: it scores documents, and never sorts them.

Your own stage is any object with these members; there is no base class.

>>> class Shortest:
...     name, keep, threshold = "shortest", None, None
...     def warm_up(self): ...
...     def score(self, query, documents, context):
...         return StageScores(np.array([-len(text) for text in documents], np.float64), kind="negative length")
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossrank.pairs import PairScores
from crossrank.ranking.deadline import Deadline

# A part of a text: the offset of its first character, and the offset after its last one.
Passage = tuple[int, int]


@dataclass(frozen=True)
class StageScores:
    """A stage's scores of some documents, in the order in which it got them.

    :param scores: ``[documents]``, higher is better. NaN means not scored, for instance because time ran out. Such
        documents come after all scored ones, in the order in which they came, and pass no threshold.
    :param kind: What the scores are: ``"logit"``, ``"sigmoid"``, ``"softmax"``, ``"custom"``, ``"calibrated"``,
        ``"tanh"``, ``"provider"``, ``"grade"``, ``"rank"``, ``"fused"``, ``"first_stage"``, or your own word.
    :param relevance: ``[documents]``, what to sort by instead of the scores, such as raw logits, in which rounding
        makes no ties. NaN exactly where ``scores`` is.
    :param tokens: Tokens that were read.
    :param pairs_cut: How many documents' texts did not fit.
    :param cut: ``[documents]``, which documents did not fit, if known; a score cache stores it.
    :param cost: In the provider's unit, if it reports one.
    :param notes: For the caller, a sentence each.
    :param passages: ``[documents]``, the offsets of each document's best part, if known.
    :param degraded: Why the result is incomplete; ``None`` if it is complete.
    :param details: ``[documents]``, more facts about each, such as a judge's reason, as JSON values.
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
        """``[documents]``: ``relevance`` if there is one, else ``scores``."""
        return self.scores if self.relevance is None else self.relevance

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``[documents]``: which of them have a score."""
        return ~np.isnan(self.scores)

    def of(self, rows: NDArray[np.int64]) -> StageScores:
        """The scores of some documents, without the facts about all of them together."""
        return StageScores(
            scores=self.scores[rows],
            kind=self.kind,
            relevance=None if self.relevance is None else self.relevance[rows],
            passages=None if self.passages is None else [self.passages[i] for i in rows],
            details=None if self.details is None else [self.details[i] for i in rows],
        )


@dataclass
class Context:
    """The facts of a call that a stage may use.

    :param deadline: Of the whole call. A stage that uses a network takes its timeouts from it; a local one scores as
        many documents as fit, starting with the first.
    :param cancelled: Set when nobody waits for the result any more; check it between chunks of work.
    :param first_stage: ``[documents]``, scores of the search that found the documents; NaN if unknown.
    :param positions: ``[documents]``, positions in the caller's list, from 0.
    :param earlier: The scores that earlier stages gave to these documents, by stage name, in the order they ran.
    """

    deadline: Deadline = field(default_factory=Deadline)
    cancelled: threading.Event = field(default_factory=threading.Event)
    first_stage: NDArray[np.float64] | None = None
    positions: NDArray[np.int64] | None = None
    earlier: Mapping[str, StageScores] = field(default_factory=dict)

    def of(self, rows: NDArray[np.int64]) -> Context:
        """The facts about some documents."""
        return replace(
            self,
            first_stage=None if self.first_stage is None else self.first_stage[rows],
            positions=None if self.positions is None else self.positions[rows],
            earlier={name: scores.of(rows) for name, scores in self.earlier.items()},
        )


class Stage(Protocol):
    """A stage of a pipeline."""

    @property
    def name(self) -> str:
        """Its name in results and messages; a :class:`~crossrank.ranking.reranker.Reranker` numbers repeated ones."""

    @property
    def keep(self) -> int | None:
        """How many documents to pass on, best first; ``None`` for all."""

    @property
    def threshold(self) -> float | None:
        """The lowest score that a document needs to be passed on."""

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents; they come best first.

        :raises StageError: If they can't be scored.
        """

    def warm_up(self) -> None:
        """Do what would make the first call slow, such as loading a model."""


@runtime_checkable
class AsyncStage(Protocol):
    """A stage that can wait without blocking a thread. ``arank`` runs all other stages in a thread."""

    async def ascore(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score the documents, as ``score`` does."""


@runtime_checkable
class CacheableStage(Protocol):
    """A stage in which a document's score depends only on its text, the query and the fingerprint."""

    def fingerprint(self) -> str | None:
        """Describe what the scores depend on, besides the texts: model, revision, template, length, precision.

        ``None`` if unknown; nothing is cached then. It is read before and after scoring, because the stage may change
        its model in between.
        """


@runtime_checkable
class ClosableStage(Protocol):
    """A stage that must be closed, such as one with connections."""

    def close(self) -> None:
        """Close it. May be called twice."""


@runtime_checkable
class PairScorer(Protocol):
    """A model that scores pairs: a ``CrossEncoder``, a ``RegistryModel``, or your own."""

    def score(self, pairs: Any) -> PairScores:
        """Score ``(query, document)`` pairs."""
