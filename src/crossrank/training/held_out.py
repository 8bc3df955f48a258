"""Measure a model on held-out queries, and compare it with its base and BM25, paired by query."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import BaseEvaluator
from sklearn.metrics import ndcg_score

from crossrank.data.bm25 import Bm25
from crossrank.data.judgements import Group, is_positive
from crossrank.evaluation.result import PairedComparison
from crossrank.evaluation.significance import compare_all, mean_intervals

LEARNT, NEW = "learnt", "new"
MEASURE = "nDCG@10"
# From pairs to their logits or scores, ``[pairs]``.
Scorer = Callable[[list[tuple[str, str]]], NDArray[Any]]
DEPTH = 10  # of nDCG
# So that one pair with a very wrong score does not outweigh all others.
_MOST = 30.0


@dataclass(frozen=True)
class HeldOut:
    """Figures on held-out queries.

    :param ndcg: nDCG@10 with linear gains for each query that can be ranked, ``[queries]``; ties are averaged.
    :param loss: Mean binary cross-entropy of all pairs.
    """

    ndcg: NDArray[np.float64]
    loss: float


def measure(groups: Sequence[Group], logits_of: Scorer) -> HeldOut:
    """Score all pairs of held-out groups and measure the ranking."""
    pairs = [one.pair for group in groups for one in group.judged]
    logits = np.asarray(logits_of(pairs), np.float64)
    labels = np.array([one.label for group in groups for one in group.judged])
    clipped = np.clip(logits, -_MOST, _MOST)
    loss = float(np.mean(np.logaddexp(0, clipped) - labels * clipped))
    known = np.nan_to_num(logits)  # the loss shows that a model diverged
    values, start = [], 0
    for group in groups:
        stop = start + len(group.judged)
        if group.can_rank:
            values.append(ndcg_score([labels[start:stop]], [known[start:stop]], k=DEPTH))
        start = stop
    return HeldOut(np.array(values), loss)


def sentence_transformers_logits(model: Any, batch_size: int) -> Scorer:
    """Make a function from pairs to the logits of a model."""
    import torch

    return partial(model.predict, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False)


class HeldOutEvaluator(BaseEvaluator):  # type: ignore[misc]
    """Scores a model for the trainer; higher is better.

    The figure is the mean nDCG@10 minus a hundredth of the loss, which breaks ties and decides if no query has
    documents with different labels.
    """

    def __init__(self, groups: Sequence[Group], batch_size: int) -> None:
        super().__init__()
        self.groups = groups
        self.batch_size = batch_size
        self.primary_metric = "held_out"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure."""
        found = measure(self.groups, sentence_transformers_logits(model, self.batch_size))
        mean = float(found.ndcg.mean()) if len(found.ndcg) else 0.0
        figure = mean - min(found.loss, 10.0) / 100
        if not math.isfinite(figure):
            figure = -1.0
        return {"held_out": figure, "held_out_ndcg@10": mean, "held_out_loss": found.loss}


@dataclass(frozen=True)
class HeldOutSystem:
    """One system on the held-out queries. Only ``loss`` is set if no query has documents of different labels.

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
    :param parts: The base and the result on two kinds of queries. ``"learnt"``: with a relevant document that is
        also relevant in training, so a gain may come from memorising it; ``"new"``: the others. A part without
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

    :param result: From pairs to the logits of the trained model; ``base`` to those of the base.
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
