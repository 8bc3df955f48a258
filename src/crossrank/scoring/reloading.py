"""Models across processes: pickled as constructor arguments and loaded again; dropped after a fork if they were in use.

A child process has only the thread that forked. If another thread was inside OpenVINO at that moment, a lock in there
stays taken for ever, so the child must not use that model, nor release it. It loads the model again at the first use.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_models: weakref.WeakSet[Reloadable] = weakref.WeakSet()
_busy: set[tuple[int, object]] = set()  # (thread, call) that are loading or running a model; add and discard are atomic


@contextmanager
def in_use() -> Iterator[None]:
    """Note that this thread loads or runs a model."""
    call = (threading.get_ident(), object())
    _busy.add(call)
    try:
        yield
    finally:
        _busy.discard(call)


class Reloadable:
    """A model that can be pickled, copied and used after a fork, because it knows how to load again.

    Copies (pickle, ``copy.copy``, ``copy.deepcopy``) are made anew from the constructor's arguments and are not loaded.
    """

    _arguments: dict[str, Any]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, dict[str, Any]]]:
        """Pickle the constructor's arguments."""
        return _make, (type(self), self._arguments)

    def _forget(self) -> list[object]:
        """Give up what is loaded and take new locks; return what was loaded."""
        raise NotImplementedError


def reload_after_fork(model: Reloadable) -> None:
    """Let a model load again in a child process that was forked while a model was in use."""
    _models.add(model)


def _make(kind: type, arguments: dict[str, Any]) -> Any:
    return kind(**arguments)


def _after_fork_in_child() -> None:
    here = threading.get_ident()
    others = any(call[0] != here for call in list(_busy))
    _busy.clear()
    if not others:
        return
    from crossrank.engines.openvino_engine import forget_core

    for kept in (forget_core(), *(each for model in list(_models) for each in model._forget())):
        # Releasing it would wait for threads that this process does not have.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
