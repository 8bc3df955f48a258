"""A ranking, and the honest account of how it was made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from crossrank.ranking.stage import Passage


@dataclass(frozen=True)
class RankedDocument:
    """A document in its place.

    :param document: The caller's own object, untouched.
    :param text: What the stages read of it.
    :param rank: Its place, from 1.
    :param score: The score of the last stage that scored it; where none did, its first-stage score; else ``None``.
    :param kind: What ``score`` is, as in :class:`~crossrank.ranking.stage.StageScores`; ``"first_stage"``, or
        ``"unscored"`` where there is no score at all. Scores of different kinds can't be compared.
    :param scores: The score of every stage that scored it, by the stage's name, in the order they ran.
    :param kinds: What each of them is.
    :param first_stage_score: Of the search that found it; ``None`` where it carries none.
    :param first_stage_position: Where it stood in the caller's list, from 0.
    :param passage: Offsets in ``text`` of its best part, from the last stage that names one.
    :param details: What stages had to say of it, by the stage's name, such as a judge's reason.
    """

    document: Any
    text: str
    rank: int
    score: float | None
    kind: str
    scores: Mapping[str, float]
    kinds: Mapping[str, str]
    first_stage_score: float | None
    first_stage_position: int
    passage: Passage | None = None
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def passage_text(self) -> str:
        """The best part of the text; the whole text where no stage named one."""
        return self.text if self.passage is None else self.text[slice(*self.passage)]

    def to_dict(self) -> dict[str, Any]:
        """All of it but the caller's object, as what JSON can hold."""
        return {
            "rank": self.rank,
            "score": _finite(self.score),
            "kind": self.kind,
            "scores": {name: _finite(score) for name, score in self.scores.items()},
            "kinds": dict(self.kinds),
            "first_stage_score": _finite(self.first_stage_score),
            "first_stage_position": self.first_stage_position,
            "passage": None if self.passage is None else list(self.passage),
            "details": {name: dict(details) for name, details in self.details.items()},
            "text": self.text,
        }


@dataclass(frozen=True)
class StageRun:
    """A stage that ran.

    :param name: The stage's.
    :param documents: How many it was given.
    :param scored: How many of them it scored, those out of the cache included.
    :param kept: How many went on.
    :param kind: What its scores are.
    :param seconds: Wall time.
    :param tokens: Tokens that it read.
    :param pairs_cut: Documents whose text did not fit.
    :param cost: As its provider reports it.
    :param cache_hits: How many scores came out of the cache; ``None`` where none was asked.
    :param notes: What it had to say.
    """

    name: str
    documents: int
    scored: int
    kept: int
    kind: str
    seconds: float
    tokens: int = 0
    pairs_cut: int = 0
    cost: float | None = None
    cache_hits: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SkippedStage:
    """A stage that gave no scores, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ranking(Sequence[RankedDocument]):
    """Documents from the most to the least relevant. An empty one is a result.

    :param query: What was asked.
    :param ranked: The documents in their places.
    :param candidates: How many documents the caller gave.
    :param stages: The stages that ran, in order.
    :param skipped: The stages that did not or could not, and why.
    :param seconds: Wall time of the whole call.
    :param reasons: Why this is less than what was asked for, a sentence each; empty where nothing is wrong.
    :param notes: What else the caller should know.
    """

    query: str
    ranked: Sequence[RankedDocument]
    candidates: int
    stages: Sequence[StageRun] = ()
    skipped: Sequence[SkippedStage] = ()
    seconds: float = 0.0
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()

    @overload
    def __getitem__(self, index: int) -> RankedDocument: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RankedDocument]: ...
    def __getitem__(self, index: int | slice) -> RankedDocument | Sequence[RankedDocument]:
        return self.ranked[index]

    def __len__(self) -> int:
        return len(self.ranked)

    def __iter__(self) -> Iterator[RankedDocument]:
        return iter(self.ranked)

    @property
    def documents(self) -> list[Any]:
        """The caller's own objects, best first."""
        return [ranked.document for ranked in self.ranked]

    @property
    def degraded(self) -> bool:
        """Whether this is less than what was asked for: a stage failed or was skipped, or the time was up."""
        return bool(self.reasons)

    @property
    def reason(self) -> str | None:
        """Why it is degraded, in one line; ``None`` where it is not."""
        return "; ".join(self.reasons) or None

    @property
    def scored(self) -> int:
        """How many of the documents the last stage that ran has scored; 0 where none ran."""
        return self.stages[-1].scored if self.stages else 0

    @property
    def tokens(self) -> int:
        """Tokens that all stages read."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def pairs_cut(self) -> int:
        """Texts that did not fit, over all stages."""
        return sum(stage.pairs_cut for stage in self.stages)

    @property
    def cost(self) -> float | None:
        """The sum of what providers reported; ``None`` where none did."""
        costs = [stage.cost for stage in self.stages if stage.cost is not None]
        return sum(costs) if costs else None

    @property
    def cache_hit_rate(self) -> float | None:
        """The share of the scores that came out of the cache; ``None`` where none was asked."""
        asked = [stage for stage in self.stages if stage.cache_hits is not None]
        total = sum(stage.documents for stage in asked)
        return sum(stage.cache_hits or 0 for stage in asked) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """All of it but the caller's objects, as what JSON can hold."""
        return {
            "query": self.query,
            "documents": [ranked.to_dict() for ranked in self.ranked],
            **self.account(),
        }

    def account(self) -> dict[str, Any]:
        """How the ranking was made, as what JSON can hold."""
        return {
            "candidates": self.candidates,
            "degraded": self.degraded,
            "reason": self.reason,
            "stages": [
                {**vars(stage), "notes": list(stage.notes), "cost": _finite(stage.cost)} for stage in self.stages
            ],
            "skipped": [dict(vars(stage)) for stage in self.skipped],
            "scored": self.scored,
            "pairs_cut": self.pairs_cut,
            "tokens": self.tokens,
            "cost": _finite(self.cost),
            "cache_hit_rate": self.cache_hit_rate,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def _finite(value: float | None) -> float | None:
    # JSON has no NaN and no infinity.
    return value if value is not None and math.isfinite(value) else None
