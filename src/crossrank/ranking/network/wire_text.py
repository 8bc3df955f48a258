"""Texts on their way to a service, and from a service into a message."""

from __future__ import annotations

from typing import Any


def sendable(text: str) -> str:
    """The text with a replacement character for each lone surrogate, which JSON in UTF-8 can't carry."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shorten(text: Any, limit: int = 200) -> str:
    """A service's text in one line, and short enough for a message."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[:limit] + "..."
