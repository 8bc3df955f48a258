"""What limits a list of documents, checked."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from crossrank.errors import InputError
from crossrank.validation import is_positive_integer


def check_limits(keep: Any, threshold: Any, *, name: str = "keep") -> None:
    """Check how many documents go on, and from which score on.

    :param name: What the number is called.
    :raises InputError: If one of them can't be used.
    """
    if keep is not None and not is_positive_integer(keep):
        raise InputError(f"{name}={keep!r} is not a positive integer. Leave it out to get all documents.")
    if threshold is not None and (
        not isinstance(threshold, Real) or isinstance(threshold, bool) or math.isnan(float(threshold))
    ):
        raise InputError(f"threshold={threshold!r} is not a number. Leave it out to get documents of any score.")
