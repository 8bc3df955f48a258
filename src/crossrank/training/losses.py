"""The losses by name: sentence-transformers' own, or made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossrank.data.judgements import Group
from crossrank.errors import InputError
from crossrank.training import rows
from crossrank.training.rows import Columns
from crossrank.training.settings import Settings


@dataclass(frozen=True)
class Loss:
    """A loss.

    :param what: What it asks of the model, in a line.
    :param rows: Makes what it reads.
    :param both_classes: Whether it needs positives and negatives.
    :param make: From sentence-transformers' module of losses, a model, the settings and the rows to the loss itself.
    """

    what: str
    rows: Callable[[Sequence[Group], Settings], Columns]
    both_classes: bool
    make: Callable[[Any, Any, Settings, Columns], Any]


def _bce(losses: Any, model: Any, settings: Settings, columns: Columns) -> Any:
    import torch

    weight = None if settings.pos_weight is None else torch.tensor(settings.pos_weight)
    return losses.BinaryCrossEntropyLoss(model, pos_weight=weight)


def _mnrl(losses: Any, model: Any, settings: Settings, columns: Columns) -> Any:
    from crossrank.training.in_batch import InBatchLoss, in_batch_loss

    return in_batch_loss(InBatchLoss, model, columns, settings.in_batch)


def _cached_mnrl(losses: Any, model: Any, settings: Settings, columns: Columns) -> Any:
    from crossrank.training.in_batch import CachedInBatchLoss, in_batch_loss

    return in_batch_loss(
        CachedInBatchLoss,
        model,
        columns,
        settings.in_batch,
        mini_batch_size=settings.batch_size,
        show_progress_bar=False,
    )


# What a batch has many of: queries with their documents.
IN_BATCH = ("mnrl", "cached-mnrl")

LOSSES: Mapping[str, Loss] = {
    "bce": Loss("each pair's label, as a probability", rows.pairs, True, _bce),
    "lambda": Loss(
        "the order of a query's documents, weighed by nDCG",
        rows.lists,
        True,
        lambda of, model, *_: of.LambdaLoss(model),
    ),
    "listnet": Loss(
        "which of a query's documents is on top", rows.lists, True, lambda of, model, *_: of.ListNetLoss(model)
    ),
    "ranknet": Loss(
        "which of two documents is better, for all pairs of a query's documents",
        rows.lists,
        True,
        lambda of, model, *_: of.RankNetLoss(model),
    ),
    "mse": Loss("a teacher's scores themselves", rows.teacher_pairs, False, lambda of, model, *_: of.MSELoss(model)),
    "margin-mse": Loss(
        "by how much a teacher prefers a positive to a negative",
        rows.margins,
        True,
        lambda of, model, *_: of.MarginMSELoss(model),
    ),
    "mnrl": Loss(
        "the positive among the other documents of the batch; needs no negatives",
        rows.triplets,
        False,
        _mnrl,
    ),
    "cached-mnrl": Loss(
        "the same with large batches: computed in parts, each part twice",
        rows.triplets,
        False,
        _cached_mnrl,
    ),
}


def find_loss(name: str) -> Loss:
    """Find a loss.

    :raises InputError: If there is none of that name.
    """
    if name not in LOSSES:
        raise InputError(f"loss={name!r} is not known. Take one of {', '.join(LOSSES)}.")
    return LOSSES[name]
