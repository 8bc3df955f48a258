"""The result against its base and BM25 on held-out queries, with intervals: paired, query by query."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.data.bm25 import Bm25
from crossrank.data.judgements import Group, is_positive
from crossrank.evaluation.significance import intervals, permutation_p
from crossrank.training.held_out import HeldOut, measure

LEARNT, NEW = "learnt", "new"
Scorer = Callable[[list[tuple[str, str]]], NDArray[Any]]


@dataclass(frozen=True)
class Figure:
    """Mean nDCG@10 of a system, and by how much the result is above it.

    :param low: Of the mean's 95 % interval.
    :param gain: Mean of the differences, the result less this system.
    :param p: Two-sided permutation test of the differences.
    """

    ndcg: float
    low: float
    high: float
    loss: float | None
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    p: float = 1.0


@dataclass(frozen=True)
class Part:
    """By how much the result is above its base on a part of the held-out queries; as in :class:`Figure`."""

    queries: int
    gain: float
    gain_low: float
    gain_high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Figures of the systems ``"result"``, ``"base"`` and ``"BM25"``.

    :param queries: Held-out queries with documents of different labels: those that can be ranked well or badly.
    :param pairs: All held-out pairs.
    :param parts: ``"learnt"``: queries with a relevant document that is relevant in training, too, where a gain may be
        memory of the document; ``"new"``: the others. A part without queries is not there.
    """

    queries: int
    pairs: int
    figures: Mapping[str, Figure]
    parts: Mapping[str, Part]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "queries": self.queries,
            "pairs": self.pairs,
            "measure": "nDCG@10",
            "systems": {name: vars(figure) for name, figure in self.figures.items()},
            "by_documents": {name: vars(part) for name, part in self.parts.items()},
        }


def compare(groups: Sequence[Group], *, result: Scorer, base: Scorer, learnt: Collection[str]) -> Comparison:
    """Measure all three on the same groups.

    :param result: From pairs to the logits of the trained model.
    :param base: From pairs to those of the base.
    :param learnt: Documents that were relevant in training.
    :raises MissingExtraError: If bm25s is not installed.
    """
    of_result = measure(groups, result)
    others = {"base": measure(groups, base), "BM25": measure(groups, bm25(groups))}
    figures = {"result": _figure(of_result, of_result, with_loss=True)}
    for name, found in others.items():
        figures[name] = _figure(found, of_result, with_loss=name == "base")
    known = np.array([asks_for(group, learnt) for group in groups if group.can_rank], bool)
    gains = of_result.ndcg - others["base"].ndcg
    parts = {name: _part(gains[these]) for name, these in ((LEARNT, known), (NEW, ~known)) if these.any()}
    return Comparison(len(of_result.ndcg), sum(len(group.judged) for group in groups), figures, parts)


def asks_for(group: Group, documents: Collection[str]) -> bool:
    """Whether one of these documents is relevant for the query."""
    return any(is_positive(one.label) and one.document in documents for one in group.judged)


def _figure(found: HeldOut, result: HeldOut, *, with_loss: bool) -> Figure:
    loss = found.loss if with_loss else None
    if not len(found.ndcg):
        return Figure(0.0, 0.0, 0.0, loss)
    low, high = _interval(found.ndcg)
    part = _part(result.ndcg - found.ndcg)
    return Figure(float(found.ndcg.mean()), low, high, loss, part.gain, part.gain_low, part.gain_high, part.p)


def _part(gains: NDArray[np.float64]) -> Part:
    low, high = _interval(gains)
    return Part(len(gains), float(gains.mean()), low, high, float(permutation_p(gains[:, None])[0]))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.asarray(intervals(values[:, None])).reshape(-1)[:2]
    return float(low), float(high)


def bm25(groups: Sequence[Group]) -> Scorer:
    """BM25 over the documents of all groups.

    :raises MissingExtraError: If bm25s is not installed.
    """
    documents = {text: i for i, text in enumerate(dict.fromkeys(one.document for g in groups for one in g.judged))}
    index = Bm25(list(documents))

    def score(pairs: list[tuple[str, str]]) -> NDArray[np.float64]:
        known = {query: index.scores(query) for query in {query for query, _ in pairs}}
        return np.array([known[query][documents[document]] for query, document in pairs])

    return score
