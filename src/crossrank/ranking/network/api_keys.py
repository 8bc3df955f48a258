"""API keys: where they come from, and how they stay out of messages."""

from __future__ import annotations

import os
from collections.abc import Sequence

from crossrank.errors import InputError


class Secret:
    """A key that is visible only as ``value``, not in a ``repr``. A pickle holds it."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret('...')" if self.value else "Secret('')"

    def hide(self, text: str) -> str:
        """The text without the key, which some services send back in their messages."""
        return text.replace(self.value, "[key]") if self.value else text


def find_key(given: str | None, names: Sequence[str]) -> Secret:
    """The key that was given, else the first of the environment variables that is set; an empty one if there is none.

    :raises InputError: If the key can't stand in a header.
    """
    source = "api_key" if given is not None else next((name for name in names if os.environ.get(name)), "")
    key = given if given is not None else os.environ.get(source, "")
    # No message shows the key itself.
    if not isinstance(key, str):
        raise InputError(f"api_key is of type {type(key).__name__}, not a string. Pass the key itself.")
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise InputError(f"The key in {source} has characters that no key has. Copy it again.")
    return Secret(key)
