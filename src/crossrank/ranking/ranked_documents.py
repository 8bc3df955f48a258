"""A ranking, and how it was made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from crossrank.ranking.stage import Passage


@dataclass(frozen=True)
class RankedDocument:
    """A document in a ranking.

    :param document: The caller's object, unchanged.
    :param text: The text that the stages read.
    :param rank: From 1.
    :param score: From the last stage that scored it, else its first-stage score, else ``None``.
    :param kind: The kind of ``score``, as in :class:`~crossrank.ranking.stage.StageScores`; or ``"first_stage"``; or
        ``"unscored"`` if there is no score. Scores of different kinds can't be compared.
    :param scores: The score from each stage that scored it, by the stage's name, in the order they ran.
    :param kinds: The kind of each of these scores.
    :param first_stage_score: From the search that found it; ``None`` if unknown.
    :param first_stage_position: Its position in the caller's list, from 0.
    :param passage: Offsets in ``text`` of its best part, from the last stage that reports one.
    :param details: More facts from stages, by the stage's name, such as a judge's reason.
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
        """The best part of the text; the whole text if no stage reported one."""
        return self.text if self.passage is None else self.text[slice(*self.passage)]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the caller's object, as JSON values."""
        facts = {name: value for name, value in vars(self).items() if name not in ("document", "text")}
        return {
            **facts,
            "score": _finite(self.score),
            "scores": {name: _finite(score) for name, score in self.scores.items()},
            "first_stage_score": _finite(self.first_stage_score),
            "passage": None if self.passage is None else list(self.passage),
            "text": self.text,
        }


@dataclass(frozen=True)
class StageRun:
    """A stage that ran.

    :param name: The stage's name.
    :param documents: How many documents it got.
    :param scored: How many of them have a score, from the cache or from the stage.
    :param kept: How many of them went on.
    :param kind: The kind of its scores.
    :param seconds: Wall time.
    :param tokens: Tokens that it read.
    :param pairs_cut: Documents whose text did not fit.
    :param cost: As its provider reports it.
    :param cache_hits: How many scores came from the cache; ``None`` if the cache was not used.
    :param notes: From the stage, a sentence each.
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
    """A stage that did not run or failed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ranking(Sequence[RankedDocument]):
    """Documents from the most to the least relevant. It may be empty.

    :param query: The query.
    :param ranked: The documents, best first.
    :param candidates: How many documents the caller gave.
    :param stages: The stages that ran, in order.
    :param skipped: The stages that did not run or failed.
    :param seconds: Wall time of the whole call.
    :param reasons: Why the ranking is degraded, a sentence each; empty if it is not.
    :param notes: Other notes for the caller.
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
        """The caller's objects, best first."""
        return [ranked.document for ranked in self.ranked]

    @property
    def degraded(self) -> bool:
        """Whether something is missing: a stage failed or was skipped, or the time was up."""
        return bool(self.reasons)

    @property
    def reason(self) -> str | None:
        """Why it is degraded, in one line; ``None`` if it is not."""
        return "; ".join(self.reasons) or None

    @property
    def scored(self) -> int:
        """How many documents the last stage scored; 0 if none ran."""
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
        """The sum of the costs that providers reported; ``None`` if none did."""
        costs = [stage.cost for stage in self.stages if stage.cost is not None]
        return sum(costs) if costs else None

    @property
    def cache_hit_rate(self) -> float | None:
        """The share of the scores that came from the cache; ``None`` if no cache was used."""
        asked = [stage for stage in self.stages if stage.cache_hits is not None]
        total = sum(stage.documents for stage in asked)
        return sum(stage.cache_hits or 0 for stage in asked) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the caller's objects, as JSON values."""
        return {"query": self.query, "documents": [ranked.to_dict() for ranked in self.ranked], **self.account()}

    def account(self) -> dict[str, Any]:
        """How the ranking was made, as JSON values."""
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
