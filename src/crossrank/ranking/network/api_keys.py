"""API keys: where they come from, and how messages hide them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from crossrank.errors import InputError


class Secret:
    """A key that only ``value`` shows, not the ``repr``. A pickle contains it."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret('...')" if self.value else "Secret('')"

    def hide(self, text: str) -> str:
        """Replace the key in a text, because some services repeat it in their messages."""
        return text.replace(self.value, "[key]") if self.value else text

    def excerpt(self, text: object, limit: int = 200) -> str:
        """Shorten a service's text for a message: one line of at most ``limit`` characters, without the key."""
        line = " ".join(str(text).split())
        return self.hide(line if len(line) <= limit else line[:limit] + "...")


def find_key(given: str | None, names: Sequence[str]) -> Secret:
    """Return the given key, else the first environment variable that is set, else an empty key.

    :raises InputError: If the key can't be sent in a header.
    """
    source = "api_key" if given is not None else next((name for name in names if os.environ.get(name)), "")
    key = given if given is not None else os.environ.get(source, "")
    # No message shows the key itself.
    if not isinstance(key, str):
        raise InputError(f"api_key is of type {type(key).__name__}, not a string. Pass the key itself.")
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise InputError(f"The key in {source} has characters that are not allowed in a key. Copy it again.")
    return Secret(key)
