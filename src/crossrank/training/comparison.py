"""The result against its base and BM25 on held-out queries, with intervals: paired, query by query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.candidates import Bm25
from crossrank.evaluation.significance import intervals, permutation_p
from crossrank.training.data.types import Group
from crossrank.training.held_out import HeldOut, measure

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
class Comparison:
    """Figures of the systems ``"result"``, ``"base"`` and ``"BM25"``.

    :param queries: Held-out queries with documents of different labels: those that can be ranked well or badly.
    :param pairs: All held-out pairs.
    """

    queries: int
    pairs: int
    figures: Mapping[str, Figure]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "queries": self.queries,
            "pairs": self.pairs,
            "measure": "nDCG@10",
            "systems": {name: vars(figure) for name, figure in self.figures.items()},
        }


def compare(groups: Sequence[Group], *, result: Scorer, base: Scorer) -> Comparison:
    """Measure all three on the same groups.

    :param result: From pairs to the logits of the trained model.
    :param base: From pairs to those of the base.
    :raises MissingExtraError: If bm25s is not installed.
    """
    of_result = measure(groups, result)
    others = {"base": measure(groups, base), "BM25": measure(groups, bm25(groups))}
    figures = {"result": _figure(of_result, of_result, with_loss=True)}
    for name, found in others.items():
        figures[name] = _figure(found, of_result, with_loss=name == "base")
    return Comparison(len(of_result.ndcg), sum(len(group.judged) for group in groups), figures)


def _figure(found: HeldOut, result: HeldOut, *, with_loss: bool) -> Figure:
    loss = found.loss if with_loss else None
    if not len(found.ndcg):
        return Figure(0.0, 0.0, 0.0, loss)
    gains = result.ndcg - found.ndcg
    low, high = _interval(found.ndcg)
    gain_low, gain_high = _interval(gains)
    p = float(permutation_p(gains[:, None])[0])
    return Figure(float(found.ndcg.mean()), low, high, loss, float(gains.mean()), gain_low, gain_high, p)


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
