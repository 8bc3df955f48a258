"""Models that are pickled as their constructor's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Reloadable:
    """A model that can be pickled and copied, because it knows how to load again.

    Copies (pickle, ``copy.copy``, ``copy.deepcopy``) are made anew from the constructor's arguments and are not loaded.
    """

    _arguments: dict[str, Any]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, dict[str, Any]]]:
        """Pickle the constructor's arguments."""
        return _make, (type(self), self._arguments)


def _make(kind: type, arguments: dict[str, Any]) -> Any:
    return kind(**arguments)
