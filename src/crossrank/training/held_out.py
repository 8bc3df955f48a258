"""How a model does on queries it did not learn from, while it learns and afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import BaseEvaluator

from crossrank.data.judgements import Group

DEPTH = 10
# The loss of a pair that is wholly wrong should not drown all others.
_MOST = 30.0


@dataclass(frozen=True)
class HeldOut:
    """Figures on held-out queries.

    :param ndcg: nDCG@10 of each query that ranks, ``[queries]``.
    :param loss: Mean binary cross-entropy of all pairs.
    """

    ndcg: NDArray[np.float64]
    loss: float


def ndcg(labels: Sequence[float], scores: NDArray[Any], depth: int = DEPTH) -> float:
    """NDCG with linear gains (Jarvelin and Kekalainen 2002); ties in input order."""
    order = np.argsort(-scores, kind="stable")[:depth]
    discount = 1 / np.log2(np.arange(2, depth + 2))
    gains = np.asarray(labels, np.float64)
    best = np.sort(gains)[::-1][:depth]
    return float((gains[order] * discount[: len(order)]).sum() / (best * discount[: len(best)]).sum())


def measure(groups: Sequence[Group], logits_of: Callable[[list[tuple[str, str]]], NDArray[Any]]) -> HeldOut:
    """Score all pairs of held-out groups, and measure.

    :param logits_of: Pairs to logits ``[pairs]``.
    """
    pairs = [one.pair for group in groups for one in group.judged]
    logits = np.asarray(logits_of(pairs), np.float64)
    labels = np.array([one.label for group in groups for one in group.judged])
    clipped = np.clip(logits, -_MOST, _MOST)
    loss = float(np.mean(np.logaddexp(0, clipped) - labels * clipped))
    values, start = [], 0
    for group in groups:
        stop = start + len(group.judged)
        if group.can_rank:
            values.append(ndcg(labels[start:stop].tolist(), logits[start:stop]))
        start = stop
    return HeldOut(np.array(values), loss)


def sentence_transformers_logits(model: Any, batch_size: int) -> Callable[[list[tuple[str, str]]], NDArray[np.float32]]:
    """A function from pairs to a model's logits."""
    import torch

    def logits(pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = model.predict(
            pairs, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return scores

    return logits


class HeldOutEvaluator(BaseEvaluator):  # type: ignore[misc]
    """Tells the trainer how the model does; larger is better.

    The figure is the mean nDCG@10 of the queries that rank, less a hundredth of the loss, which decides between equals
    and where no query ranks.
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
