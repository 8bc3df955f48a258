"""The losses by name: those of sentence-transformers, or based on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossrank.data.judgements import Group
from crossrank.training import loss_inputs
from crossrank.training.loss_inputs import Columns
from crossrank.training.settings import Settings


@dataclass(frozen=True)
class Loss:
    """A loss.

    :param rows: Makes the columns that it reads.
    :param both_classes: Whether it needs both positives and negatives.
    :param make: Makes the loss, given sentence-transformers' module of losses, a model, the settings and the columns.
    """

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


# Losses whose batches combine documents of several queries.
IN_BATCH = ("mnrl", "cached-mnrl")

LOSSES: Mapping[str, Loss] = {
    "bce": Loss(loss_inputs.pairs, True, _bce),
    "lambda": Loss(loss_inputs.lists, True, lambda of, model, *_: of.LambdaLoss(model)),
    "listnet": Loss(loss_inputs.lists, True, lambda of, model, *_: of.ListNetLoss(model)),
    "ranknet": Loss(loss_inputs.lists, True, lambda of, model, *_: of.RankNetLoss(model)),
    "mse": Loss(loss_inputs.teacher_pairs, False, lambda of, model, *_: of.MSELoss(model)),
    "margin-mse": Loss(loss_inputs.margins, True, lambda of, model, *_: of.MarginMSELoss(model)),
    "mnrl": Loss(loss_inputs.triplets, False, _mnrl),
    "cached-mnrl": Loss(loss_inputs.triplets, False, _cached_mnrl),
}
