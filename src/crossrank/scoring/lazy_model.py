"""Models that are found and read at their first use, and that load again in another process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from crossrank.checkpoint.source import ModelFiles, resolve
from crossrank.forks import native_code, renew_lock_after_fork

_Loaded = TypeVar("_Loaded")
_Model = TypeVar("_Model", bound="LazyModel[Any]")


class Reloadable:
    """A model that can be pickled and copied.

    A copy (pickle, ``copy.copy``, ``copy.deepcopy``) is made from the constructor's arguments. It loads at its first
    use.
    """

    _arguments: dict[str, Any]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, dict[str, Any]]]:
        """Pickle the constructor's arguments."""
        return _make, (type(self), self._arguments)


def _make(kind: type, arguments: dict[str, Any]) -> Any:
    return kind(**arguments)


class LazyModel(Reloadable, Generic[_Loaded]):
    """A model in a folder or on the hub. Threads may share it: one of them loads it, the others wait.

    :param name: What it is called in messages.
    :param source: A name on the hub, a folder, or ``None`` for the bundled model.
    :param arguments: The constructor's arguments; ``revision``, ``token``, ``cache_folder`` and ``local_files_only``
        say where to look.
    """

    def __init__(self, name: str, source: Any, arguments: dict[str, Any]) -> None:
        self.name = name
        self._source = source
        self._arguments = arguments
        self._lock = threading.Lock()
        self._files: ModelFiles | None = None
        self._loaded: _Loaded | None = None
        renew_lock_after_fork(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {'loaded' if self._loaded else 'not loaded yet'})"

    def load(self: _Model) -> _Model:
        """Find, read and compile the model now rather than at the first call.

        :raises ModelError: If that fails.
        """
        self._load()
        return self

    def _find(self) -> ModelFiles:
        if self._files is None:
            where = ("revision", "token", "cache_folder", "local_files_only")
            self._files = resolve(self._source, **{name: self._arguments[name] for name in where})
        return self._files

    def _load(self) -> _Loaded:
        loaded = self._loaded
        if loaded is None:
            with self._lock, native_code():
                if self._loaded is None:
                    self._loaded = self._read(self._find().folder)
                loaded = self._loaded
        return loaded

    def _read(self, folder: Path) -> _Loaded:
        """Read and compile the model."""
        raise NotImplementedError
