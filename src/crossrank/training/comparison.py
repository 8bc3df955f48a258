"""The trained model against its base and BM25 on held-out queries, paired by query."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.data.bm25 import Bm25
from crossrank.data.judgements import Group, is_positive
from crossrank.evaluation.result import PairedComparison
from crossrank.evaluation.significance import compare_all, mean_intervals
from crossrank.training.held_out import HeldOut, measure

LEARNT, NEW = "learnt", "new"
MEASURE = "nDCG@10"
Scorer = Callable[[list[tuple[str, str]]], NDArray[Any]]


@dataclass(frozen=True)
class HeldOutSystem:
    """How one system does on the held-out queries. Only ``loss`` is there if no query can be ranked well or badly.

    :param mean: Mean nDCG@10.
    :param interval: Ends of its 95 % interval.
    :param loss: Mean binary cross-entropy of all pairs; ``None`` for BM25.
    :param comparison: With the trained model, which is the second system; ``None`` for the trained model itself.
    """

    mean: float | None
    interval: tuple[float, float] | None
    loss: float | None
    comparison: PairedComparison | None


@dataclass(frozen=True)
class HeldOutComparison:
    """The systems ``"result"`` (the trained model), ``"base"`` and ``"BM25"`` on the same held-out queries.

    :param queries: Queries with documents of different labels: only these can be ranked well or badly.
    :param pairs: All held-out pairs.
    :param parts: The base against the result on two kinds of queries. ``"learnt"``: with a relevant document that is
        also relevant in training, so that a gain may be memory of the document; ``"new"``: the others. A part without
        queries is missing.
    """

    queries: int
    pairs: int
    systems: Mapping[str, HeldOutSystem]
    parts: Mapping[str, PairedComparison]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "queries": self.queries,
            "pairs": self.pairs,
            "measure": MEASURE,
            "systems": {name: asdict(system) for name, system in self.systems.items()},
            "by_documents": {name: asdict(part) for name, part in self.parts.items()},
        }


def compare_held_out(
    groups: Sequence[Group], *, result: Scorer, base: Scorer, learnt: Collection[str]
) -> HeldOutComparison:
    """Measure the trained model, its base and BM25 on the same groups.

    :param result: From pairs to the logits of the trained model.
    :param base: From pairs to the logits of the base.
    :param learnt: Documents that were relevant in training.
    :raises MissingExtraError: If bm25s is not installed.
    """
    found = {name: measure(groups, scorer) for name, scorer in (("result", result), ("base", base))}
    found["BM25"] = measure(groups, bm25(groups))
    queries = len(found["result"].ndcg)
    known = np.array([asks_for(group, learnt) for group in groups if group.can_rank], bool)
    parts = {
        name: _compare(found, "base", which)
        for name, which in ((LEARNT, known), (NEW, ~known))
        if queries and any(which)
    }
    systems = {}
    for name, one in found.items():
        loss = None if name == "BM25" else one.loss
        if queries:
            interval = mean_intervals({MEASURE: one.ndcg})[MEASURE]
            comparison = None if name == "result" else _compare(found, name, np.ones(queries, bool))
            systems[name] = HeldOutSystem(float(one.ndcg.mean()), interval, loss, comparison)
        else:
            systems[name] = HeldOutSystem(None, None, loss, None)
    return HeldOutComparison(queries, sum(len(group.judged) for group in groups), systems, parts)


def asks_for(group: Group, documents: Collection[str]) -> bool:
    """Whether one of these documents is relevant for the query."""
    return any(is_positive(one.label) and one.document in documents for one in group.judged)


def _compare(found: Mapping[str, HeldOut], name: str, which: NDArray[np.bool_]) -> PairedComparison:
    return compare_all([(one, {MEASURE: found[one].ndcg[which]}) for one in (name, "result")], [MEASURE])[0]


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
