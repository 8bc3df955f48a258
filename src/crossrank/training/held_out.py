"""Measure a model on queries that it does not learn from, during training and afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import BaseEvaluator
from sklearn.metrics import ndcg_score

from crossrank.data.judgements import Group

DEPTH = 10  # of nDCG
# So that one pair with a very wrong score does not outweigh all others.
_MOST = 30.0


@dataclass(frozen=True)
class HeldOut:
    """Figures on held-out queries.

    :param ndcg: nDCG@10 with linear gains of each query that ranks, ``[queries]``; ties are averaged.
    :param loss: Mean binary cross-entropy of all pairs.
    """

    ndcg: NDArray[np.float64]
    loss: float


def measure(groups: Sequence[Group], logits_of: Callable[[list[tuple[str, str]]], NDArray[Any]]) -> HeldOut:
    """Score all pairs of held-out groups and measure the ranking.

    :param logits_of: Pairs to logits ``[pairs]``.
    """
    pairs = [one.pair for group in groups for one in group.judged]
    logits = np.asarray(logits_of(pairs), np.float64)
    labels = np.array([one.label for group in groups for one in group.judged])
    clipped = np.clip(logits, -_MOST, _MOST)
    loss = float(np.mean(np.logaddexp(0, clipped) - labels * clipped))
    known = np.nan_to_num(logits)  # a model that diverged shows in its loss
    values, start = [], 0
    for group in groups:
        stop = start + len(group.judged)
        if group.can_rank:
            values.append(ndcg_score([labels[start:stop]], [known[start:stop]], k=DEPTH))
        start = stop
    return HeldOut(np.array(values), loss)


def sentence_transformers_logits(model: Any, batch_size: int) -> Callable[[list[tuple[str, str]]], NDArray[np.float32]]:
    """Make a function from pairs to the logits of a model."""
    import torch

    def logits(pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = model.predict(
            pairs, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return scores

    return logits


class HeldOutEvaluator(BaseEvaluator):  # type: ignore[misc]
    """Tells the trainer how good the model is; higher is better.

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
