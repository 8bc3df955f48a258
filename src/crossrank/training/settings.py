"""All settings of a training run. The defaults suit 50 to 5,000 pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from crossrank.errors import InputError, did_you_mean

LOSS_NAMES = ("bce", "lambda", "listnet", "ranknet", "mse", "margin-mse", "mnrl", "cached-mnrl")
FREEZE = ("auto", "none", "embeddings", "half", "body")
_ANY = 1e9


def _of(
    default: Any,
    text: str,
    least: float | None = None,
    most: float = _ANY,
    *,
    choices: tuple[str, ...] = (),
    option: str | None = None,
) -> Any:
    """Make a field of the settings.

    :param text: What the setting does, for ``--help``.
    :param least: The smallest value; ``most`` is the largest.
    :param choices: The possible values.
    :param option: The name of the option on the command line if it differs from the field; ``""`` for no option.
    """
    return field(default=default, metadata={"text": text, "range": (least, most), "choices": choices, "option": option})


@dataclass(frozen=True)
class Settings:
    """Settings of a run. The ``metadata`` of each field says what it does and which values are allowed.

    :raises InputError: If a value is out of range.
    """

    loss: str = _of("bce", "loss function", choices=LOSS_NAMES)
    epochs: float = _of(3, "passes over the data", 1e-6, 1e6)
    learning_rate: float | None = _of(
        None, "learning rate (default: 2e-5; 5e-5 if only the head learns)", 0, 1, option="lr"
    )
    batch_size: int = _of(16, "pairs in a batch; with mnrl and cached-mnrl, queries", 1)
    accumulate: int = _of(1, "batches per optimizer step (gradient accumulation)", 1)
    warmup: float = _of(0.1, "share of the steps in which the learning rate rises from 0 to its full value", 0, 1)
    schedule: str = _of("linear", "how the learning rate falls after that", choices=("linear", "cosine", "constant"))
    weight_decay: float = _of(0.01, "weight decay", 0, 10)
    max_length: int | None = _of(
        None,
        "maximum tokens of a pair (bundled model: of a document), saved with the model (default: the base model's)",
        4,
    )
    train_length: int | None = _of(None, "maximum tokens during training only; a lower value saves time", 4)
    freeze: str = _of(
        "auto",
        f"layers not to train: {', '.join(FREEZE)}, or the number of lowest layers; auto means body for the bundled "
        "model, embeddings for others",
    )
    average_with_base: float = _of(
        0.5, "weight of the base model in the saved weights (WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903)", 0, 1
    )
    mix_share: float = _of(0.5, "general pairs to mix in, for each training pair", 0, 100)
    held_out: float = _of(0.15, "share of the queries to hold out, if no evaluation data is given", 0, 0.9)
    least_held_out: int = _of(10, "hold out no queries if there would be fewer than this", 0, option="")
    patience: int = _of(3, "stop after this many evaluations without improvement; 0: never", 0)
    evaluations: int = _of(10, "how many times to evaluate and save", 1, 10_000)
    pos_weight: float | None = _of(None, "weight of relevant pairs in bce", 1e-6, 1e6)
    list_size: int = _of(10, "maximum documents per list, for lambda, listnet and ranknet", 2, 10_000)
    negatives: int = _of(1, "negatives per triplet", 1, 1000)
    in_batch: int = _of(6, "documents of other queries used as negatives, for mnrl and cached-mnrl", 1, 1000)
    lora_rank: int | None = _of(
        None,
        "train LoRA adapters of this rank and merge them at the end; needs the extra 'lora'",
        1,
        4096,
        option="lora",
    )
    precision: str = _of(
        "auto",
        "number format during training; auto means bfloat16 where the processor supports it",
        choices=("auto", "float32", "bfloat16"),
    )
    seed: int = _of(0, "random seed; the same seed gives the same model", 0, 2**32 - 1)

    def __post_init__(self) -> None:
        for one in fields(self):
            value, (least, most), choices = getattr(self, one.name), one.metadata["range"], one.metadata["choices"]
            if choices and value not in choices:
                raise InputError(f"{one.name}={value!r} is unknown. Choose from {', '.join(choices)}.")
            if least is not None and value is not None and not least <= value <= most:
                raise InputError(f"{one.name}={value!r} is outside {least:g} to {most:g}.")
        if self.freeze not in FREEZE and not str(self.freeze).isdecimal():
            raise InputError(
                f"freeze={self.freeze!r} is unknown. Choose from {', '.join(FREEZE)}, or give a number of layers."
            )

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Settings:
        """Make settings from texts ``NAME=VALUE``.

        :raises InputError: If a name is unknown or a value can't be read.
        """
        known = {one.name: one for one in fields(cls)}
        values = {}
        for text in texts:
            name, mark, value = text.partition("=")
            name = name.strip().replace("-", "_")
            if not mark or name not in known:
                guess = did_you_mean(name, known)
                raise InputError(
                    f"{text!r} is not NAME=VALUE of a setting.{guess} The settings are {', '.join(known)}."
                )
            try:
                values[name] = kind_of(known[name])(value.strip())
            except ValueError as error:
                raise InputError(f"{text!r}: the value is not a number.") from error
        return cls(**values)

    def changed(self) -> Mapping[str, Any]:
        """The settings that differ from the defaults."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def kind_of(one: Field[Any]) -> Any:
    """The type of a field's value: ``int``, ``float`` or ``str``."""
    return {"int": int, "float": float, "str": str}[str(one.type).partition(" ")[0]]
