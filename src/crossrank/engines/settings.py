"""Device, precision and length: check the caller's values, and choose the values to use."""

from __future__ import annotations

import os
import warnings

from crossrank.checkpoint.model_config import ModelConfig
from crossrank.errors import CrossRankWarning, InputError
from crossrank.validation import check_choice, check_optional_integer

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
PRECISION_VARIABLE = "CROSSRANK_PRECISION"


def check_settings(device: str | None, precision: str, max_length: int | None) -> None:
    """Check the values before anything is loaded.

    :raises InputError: If a value is not known.
    """
    if device is not None and device.partition(":")[0] not in DEVICES:
        raise InputError(
            f"device={device!r} is not known: give one of {', '.join(DEVICES)}, or cuda:1 for the second GPU."
        )
    check_choice("precision", precision, PRECISIONS)
    choose_precision(precision)
    check_optional_integer("max_length", max_length, "Leave it out for all that the model reads.")


def choose_precision(precision: str) -> str:
    """Replace ``"auto"`` by the value of the environment variable ``CROSSRANK_PRECISION``, if it is set.

    :raises InputError: If the variable has an unknown value.
    """
    setting = os.environ.get(PRECISION_VARIABLE, "").strip()
    if precision != "auto" or not setting:
        return precision
    return check_choice(PRECISION_VARIABLE, setting, PRECISIONS, ", or unset the variable")


def usable_length(config: ModelConfig, max_length: int | None) -> int:
    """The requested length, or the model's limit if that is less, with a warning."""
    if max_length is None:
        return config.usable_length
    if max_length > config.usable_length:
        warnings.warn(
            f"max_length={max_length} is more than this model's {config.usable_length} tokens, so "
            f"{config.usable_length} are used. Leave it out, or take a model with a longer context.",
            CrossRankWarning,
            stacklevel=2,
        )
    return min(max_length, config.usable_length)
