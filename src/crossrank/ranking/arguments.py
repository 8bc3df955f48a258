"""Checks of arguments that several stages take."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

from crossrank.errors import InputError
from crossrank.validation import is_positive_integer


def check_counts(**given: Any) -> None:
    """Refuse what is neither ``None`` nor a whole number above 0.

    :raises InputError: With the argument's name.
    """
    for name, value in given.items():
        if value is not None and not is_positive_integer(value):
            raise InputError(f"{name}={value!r} is not a whole number above 0.")


def check_timeout(timeout: Any) -> None:
    """Refuse what is not a number of seconds.

    :raises InputError: With its value.
    """
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not is_number or not timeout > 0 or not math.isfinite(timeout):
        raise InputError(f"timeout={timeout!r} is not a number of seconds above 0, such as 30.")


def check_address(base_url: Any, example: str) -> None:
    """Refuse what is no address of a web service, and one with a password in it, which logs would show.

    :param example: A right one.
    :raises InputError: With its value, unless that holds a password.
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
        raise InputError("base_url has a user's name or password in it, which logs would show. Pass api_key= instead.")
    if not is_web:
        raise InputError(wrong)
