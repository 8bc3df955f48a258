"""Checks of arguments: each function returns the value in its plain type or raises an InputError.

A message names the argument, shows the value, and says what to do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from crossrank.errors import InputError, did_you_mean
from crossrank.pairs import PreparedId


class FieldError(InputError):
    """A request's body that can't be used.

    :param field: The part of the body that is meant.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


# ---- values ----------------------------------------------------------------------------------------------------------


def shown(value: Any, limit: int = 60) -> str:
    """Show a value and its type in a message; a long value is shortened to ``limit`` characters."""
    text = repr(value)
    return f"{text if len(text) <= limit else text[:limit] + '...'} ({type(value).__name__})"


def is_finite_number(value: Any) -> bool:
    """Whether this is a real number, also NumPy's, that fits in a float; ``True`` is not a number."""
    try:
        return isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
    except OverflowError:  # an integer larger than any float
        return False


def is_positive_integer(value: Any) -> bool:
    """Whether this is an integer above 0, also NumPy's; ``True`` is not an integer."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


# ---- numbers ---------------------------------------------------------------------------------------------------------


def check_positive_integer(name: str, value: Any, remedy: str = "") -> int:
    """Return an integer above 0 as an ``int``.

    :param remedy: The end of the message.
    :raises InputError: If it is something else.
    """
    if not is_positive_integer(value):
        raise InputError(f"{name}={value!r} is not a positive integer. {remedy}".rstrip())
    return int(value)


def check_optional_integer(name: str, value: Any, remedy: str = "Leave it out for the default.") -> int | None:
    """Return an integer above 0 as an ``int``, and ``None`` as it is.

    :raises InputError: If it is something else.
    """
    return None if value is None else check_positive_integer(name, value, remedy)


def check_counts(**given: Any) -> None:
    """Check that each of several arguments is a positive integer or ``None``.

    :raises InputError: With the name of the first one that is not.
    """
    for name, value in given.items():
        check_optional_integer(name, value)


def check_not_negative_integer(name: str, value: Any, remedy: str = "Give 0 or more.") -> int:
    """Return an integer from 0 on as an ``int``.

    :raises InputError: If it is something else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 0:
        raise InputError(f"{name}={value!r} is not an integer of 0 or more. {remedy}")
    return int(value)


def check_number(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, remedy: str = "") -> float:
    """Return a finite number within ``[low, high]`` as a ``float``.

    :raises InputError: If it is something else.
    """
    if not is_finite_number(value) or not low <= value <= high:
        within = (
            f" from {low:g} to {high:g}" if math.isfinite(low + high) else f" of {low:g} or more" * (low > -math.inf)
        )
        raise InputError(f"{name}={value!r} is not a finite number{within}. {remedy}".rstrip())
    return float(value)


def check_seconds(name: str, value: Any, *, zero: bool = False, remedy: str = "Give one such as 30.") -> float:
    """Return a number of seconds above 0, or with ``zero`` from 0 on.

    :raises InputError: If it is something else.
    """
    if not is_finite_number(value) or value < 0 or (value == 0 and not zero):
        raise InputError(
            f"{name}={value!r} is not a number of seconds {'of 0 or more' if zero else 'above 0'}. {remedy}"
        )
    return float(value)


def check_threshold(threshold: Any) -> float | None:
    """Return a threshold as a ``float``, and ``None`` as it is.

    :raises InputError: If it is not a finite number.
    """
    if threshold is None:
        return None
    return check_number("threshold", threshold, remedy="Leave it out to keep all documents.")


def check_top_k(top_k: Any, name: str = "top_k") -> int | None:
    """Return how many documents to keep, ``None`` for all.

    :param name: The argument's name.
    :raises InputError: If it is not a positive integer.
    """
    return check_optional_integer(name, top_k, "Leave it out to get all documents.")


def check_batch_size(batch_size: Any) -> int | None:
    """Return how many pairs a forward pass may have, ``None`` for a budget of tokens.

    :raises InputError: If it is not a positive integer.
    """
    return check_optional_integer("batch_size", batch_size, "Leave it out to batch by tokens.")


# ---- names -----------------------------------------------------------------------------------------------------------


def check_choice(name: str, value: Any, choices: Iterable[str], remedy: str = "") -> str:
    """Return one of several strings.

    :raises InputError: If it is none of them. The message lists them.
    """
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={value!r} is not known: give one of {', '.join(known)}{remedy}.")
    return value


def check_settings_names(what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check that all settings exist.

    :param what: What has the settings.
    :raises InputError: With the first unknown name. The message lists the known ones.
    """
    names = tuple(known)
    for name in given:
        if name not in names:
            raise InputError(
                f"{what} has no setting {name!r}.{did_you_mean(name, names)} Its settings: {', '.join(names)}."
            )


def check_model_name(model: Any, argument: str = "model_name_or_path") -> str | os.PathLike[str]:
    """Return the name or folder of a model.

    :param argument: The argument's name.
    :raises InputError: If it is neither a string nor a path.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(
            f"{argument}={model!r} is neither a string nor a path. Give a name on the hub, such as "
            "'cross-encoder/ms-marco-MiniLM-L6-v2', or a folder."
        )
    return model


def check_revision(revision: Any) -> str | None:
    """Return a revision on the hub, ``None`` for the newest.

    :raises InputError: If it is not a string.
    """
    if revision is not None and not isinstance(revision, str):
        raise InputError(f"revision={revision!r} is not a string. Give a branch, a tag or a commit.")
    return revision


def check_url(base_url: Any, example: str) -> str:
    """Return the address of a web service.

    :param example: A valid address, for the message.
    :raises InputError: If it is not an http or https address, or contains a password, which logs would show.
    """
    wrong = f"base_url={base_url!r} is not an address. Give it as {example!r}."
    if not isinstance(base_url, str):
        raise InputError(wrong)
    try:
        parts = urlsplit(base_url)
        has_password, is_web = "@" in parts.netloc, parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        raise InputError(wrong) from None
    if has_password:
        raise InputError("base_url contains a user name or password, which logs would show. Pass api_key= instead.")
    if not is_web:
        raise InputError(wrong)
    return base_url


# ---- texts -----------------------------------------------------------------------------------------------------------


def check_text(text: Any, what: str) -> str:
    """Return a string, and a :class:`~crossrank.pairs.PreparedId` as it is.

    :param what: Its name in the message, such as ``"documents[3]"``.
    :raises InputError: If it is not a string.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} is {shown(text)}, not a string. Pass the text itself, or str(...) of it.")
    return text if isinstance(text, PreparedId) else str(text)


def check_documents(documents: Any) -> list[str]:
    """Return the documents' texts.

    :raises InputError: If it is not a list of strings. The message names the first element that is not one.
    """
    if isinstance(documents, (str, bytes, dict)) or not isinstance(documents, Iterable):
        raise InputError(
            f"documents is {shown(documents)}; a list of strings is expected. For one document, pass [document]."
        )
    return [check_text(text, f"documents[{i}]") for i, text in enumerate(documents)]


def check_pairs(pairs: Any) -> list[tuple[str, str]]:
    """Return pairs of strings.

    :raises InputError: If it is not a list of pairs of strings. The message names the first element that is not one.
    """
    if isinstance(pairs, (str, bytes, dict)) or not isinstance(pairs, Iterable):
        raise InputError(f"pairs is {shown(pairs)}; a list of pairs is expected: [(query, document), ...].")
    checked: list[tuple[str, str]] = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, (Sequence, np.ndarray)) or len(pair) != 2:
            raise InputError(f"pairs[{i}] is {shown(pair)}; a pair is two strings. Pass (query, document).")
        checked.append((check_text(pair[0], f"pairs[{i}][0]"), check_text(pair[1], f"pairs[{i}][1]")))
    return checked


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON may contain, by question marks. UTF-8 can't encode them, tokenizers fail."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def is_single_pair(inputs: Any) -> bool:
    """Whether this is one ``(query, document)`` pair rather than a list of pairs."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.size > 0
    return isinstance(inputs, (list, tuple)) and len(inputs) > 0 and isinstance(inputs[0], str)
