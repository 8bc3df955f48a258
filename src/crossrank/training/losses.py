"""The losses by name; all of them are sentence-transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossrank.errors import InputError
from crossrank.training import rows
from crossrank.training.data.types import Group
from crossrank.training.settings import Settings


@dataclass(frozen=True)
class Loss:
    """A loss.

    :param what: What it asks of the model, in a line.
    :param rows: Makes what it reads.
    :param both_classes: Whether it needs positives and negatives.
    :param make: From sentence-transformers' module of losses, a model and the settings to the loss itself.
    """

    what: str
    rows: Callable[[Sequence[Group], Settings], rows.Columns]
    both_classes: bool
    make: Callable[[Any, Any, Settings], Any]


def _bce(losses: Any, model: Any, settings: Settings) -> Any:
    import torch

    weight = None if settings.pos_weight is None else torch.tensor(settings.pos_weight)
    return losses.BinaryCrossEntropyLoss(model, pos_weight=weight)


LOSSES: Mapping[str, Loss] = {
    "bce": Loss("each pair's label, as a probability", rows.pairs, True, _bce),
    "lambda": Loss(
        "the order of a query's documents, weighed by nDCG", rows.lists, True, lambda of, model, _: of.LambdaLoss(model)
    ),
    "listnet": Loss(
        "which of a query's documents is on top", rows.lists, True, lambda of, model, _: of.ListNetLoss(model)
    ),
    "ranknet": Loss(
        "which of two documents is better, for all pairs of a query's documents",
        rows.lists,
        True,
        lambda of, model, _: of.RankNetLoss(model),
    ),
    "mse": Loss("a teacher's scores themselves", rows.teacher_pairs, False, lambda of, model, _: of.MSELoss(model)),
    "margin-mse": Loss(
        "by how much a teacher prefers a positive to a negative",
        rows.margins,
        True,
        lambda of, model, _: of.MarginMSELoss(model),
    ),
    "cached-mnrl": Loss(
        "the positive among the other documents of the batch; needs no negatives",
        rows.triplets,
        False,
        lambda of, model, settings: of.CachedMultipleNegativesRankingLoss(
            model, mini_batch_size=settings.batch_size, show_progress_bar=False
        ),
    ),
}


def find_loss(name: str) -> Loss:
    """Find a loss.

    :raises InputError: If there is none of that name.
    """
    if name not in LOSSES:
        raise InputError(f"loss={name!r} is not known. Take one of {', '.join(LOSSES)}.")
    return LOSSES[name]
