"""All that a training run depends on besides its data, in one place; the defaults suit 50 to 5,000 pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from crossrank.errors import InputError

FREEZE = ("auto", "none", "embeddings", "half", "body")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """What a run is made with.

    :param loss: A name in :data:`crossrank.training.losses.LOSSES`.
    :param epochs: Passes over the data; a part of one may be given.
    :param learning_rate: Where the schedule starts; ``None`` takes ``learning_rate_head`` where only a head is
        trained, else ``learning_rate_all``.
    :param batch_size: Pairs of a step (before accumulation); lists and triplets are counted by their pairs. Queries,
        for in-batch losses.
    :param accumulate: Batches whose gradients make one step.
    :param warmup: Share of the steps over which the rate rises from 0.
    :param schedule: How it falls then: ``"linear"``, ``"cosine"`` or ``"constant"``.
    :param max_length: The most tokens of a pair (of a document, for a model as in the box), also written into the saved
        model; ``None`` leaves the base's.
    :param train_length: The same while it learns; ``None`` is ``max_length``. A smaller one saves time; the saved model
        and evaluations on the way read up to ``max_length``.
    :param freeze: What does not learn: nothing, the embeddings, these and the lower half of the layers, or all but the
        head; a number is these and so many of the lowest layers; ``"auto"`` is the body for the model in the box, else
        the embeddings.
    :param average_with_base: Share of the base in the weights that are saved (WiSE-FT: Wortsman et al. 2022, arXiv
        2109.01903): 0 is the trained weights alone.
    :param mix_share: With general pairs: how many of them, as a share of the training pairs.
    :param held_out: Share of the queries that are kept for early stopping and for the figures in the card, where no
        evaluation data is given.
    :param least_held_out: With fewer held-out queries than this, none are held out.
    :param patience: Evaluations without a better figure after which training stops; 0 never stops early.
    :param evaluations: How often to evaluate and to save a point from which a run can go on.
    :param pos_weight: Weight of positive pairs in ``bce``; ``None`` is 1.
    :param list_size: The most documents of a list, for losses on lists.
    :param negatives: Negatives of a triplet, for losses on triplets.
    :param in_batch: Documents of other queries in the batch that a positive is set against, for in-batch losses.
    :param lora_rank: Train low-rank additions of this rank instead of the weights themselves; they are merged at the
        end.
    :param precision: What forward and backward passes calculate in: bfloat16 where the processor has it, if ``"auto"``.
    """

    loss: str = "bce"
    epochs: float = 3
    learning_rate: float | None = None
    learning_rate_all: float = 2e-5
    learning_rate_head: float = 5e-5
    batch_size: int = 16
    accumulate: int = 1
    warmup: float = 0.1
    schedule: str = "linear"
    weight_decay: float = 0.01
    max_length: int | None = None
    train_length: int | None = None
    freeze: str = "auto"
    average_with_base: float = 0.5
    mix_share: float = 0.5
    held_out: float = 0.15
    least_held_out: int = 10
    patience: int = 3
    evaluations: int = 10
    pos_weight: float | None = None
    list_size: int = 10
    negatives: int = 1
    in_batch: int = 6
    lora_rank: int | None = None
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in _LIMITS:
            value = getattr(self, name)
            if value is not None and not (least <= value <= most):
                raise InputError(f"{name}={value!r} is outside {least:g} to {most:g}. Take a value between.")
        for name, known in (("freeze", FREEZE), ("precision", PRECISIONS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value not in known and not (name == "freeze" and str(value).isdecimal()):
                also = " or a number of layers" if name == "freeze" else ""
                raise InputError(f"{name}={value!r} is not known. Take one of {', '.join(known)}{also}.")

    def changed(self) -> Mapping[str, Any]:
        """What differs from the defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


SCHEDULES = ("linear", "cosine", "constant")
_ANY = 1e9
_LIMITS: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1e-6, 1e6),
    ("learning_rate", 0, 1),
    ("batch_size", 1, _ANY),
    ("accumulate", 1, _ANY),
    ("warmup", 0, 1),
    ("weight_decay", 0, 10),
    ("max_length", 4, _ANY),
    ("train_length", 4, _ANY),
    ("average_with_base", 0, 1),
    ("mix_share", 0, 100),
    ("held_out", 0, 0.9),
    ("patience", 0, _ANY),
    ("evaluations", 1, 10_000),
    ("pos_weight", 1e-6, 1e6),
    ("list_size", 2, 10_000),
    ("negatives", 1, 1000),
    ("in_batch", 1, 1000),
    ("lora_rank", 1, 4096),
    ("seed", 0, 2**32 - 1),
)
