"""What callers hand over, checked: the first thing that can't be used is named with its position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from crossrank.errors import InputError

_PAIR_TYPES = (list, tuple)


def is_single_pair(inputs: Any) -> bool:
    """Whether this is one ``(query, document)`` pair rather than a list of pairs."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.size > 0
    return isinstance(inputs, _PAIR_TYPES) and len(inputs) > 0 and isinstance(inputs[0], str)


def is_positive_integer(value: Any) -> bool:
    """Whether this is an integer above 0; NumPy's count too, True does not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value > 0)


def check_batch_size(batch_size: Any) -> int | None:
    """Return a number of pairs as it is, or None.

    :raises InputError: If it is not a positive integer.
    """
    if batch_size is None:
        return None
    if not is_positive_integer(batch_size):
        raise InputError(f"batch_size={batch_size!r} is not a positive integer. Leave it out to batch by tokens.")
    return int(batch_size)


def check_top_k(top_k: Any) -> None:
    """Refuse what is neither a positive integer nor None.

    :raises InputError: If it is such.
    """
    if top_k is not None and not is_positive_integer(top_k):
        raise InputError(f"top_k={top_k!r} is not a positive integer. Leave it out to get all documents.")


def check_text(text: Any, what: str) -> str:
    """Return a string as it is, or say what was given instead.

    :raises InputError: If it is not a string.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} is {_shown(text)}, not a string. Pass the text itself, or str(...) of it.")
    return str(text)


def check_documents(documents: Any) -> list[str]:
    """Return the documents' texts.

    :raises InputError: If it is no list, or an element is not a string.
    """
    if isinstance(documents, (str, bytes, dict)) or not isinstance(documents, Iterable):
        raise InputError(
            f"documents is {_shown(documents)}; a list of strings is expected. For one document, pass [document]."
        )
    return [check_text(text, f"documents[{i}]") for i, text in enumerate(documents)]


def check_pairs(pairs: Any) -> list[tuple[str, str]]:
    """Return pairs of strings.

    :raises InputError: If something is not a pair, or an element is not a string.
    """
    if isinstance(pairs, (str, bytes, dict)) or not isinstance(pairs, Iterable):
        raise InputError(f"pairs is {_shown(pairs)}; a list of pairs is expected: [(query, document), ...].")
    checked: list[tuple[str, str]] = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, (Sequence, np.ndarray)) or len(pair) != 2:
            raise InputError(f"pairs[{i}] is {_shown(pair)}; a pair is two strings. Pass (query, document).")
        checked.append((check_text(pair[0], f"pairs[{i}][0]"), check_text(pair[1], f"pairs[{i}][1]")))
    return checked


def _shown(value: Any, most: int = 60) -> str:
    text = repr(value)
    return f"{text if len(text) <= most else text[:most] + '...'} ({type(value).__name__})"
