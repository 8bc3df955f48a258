"""Models in forked processes: a fork waits until no other thread is inside a native library.

A child process has only the thread that forked. If another thread was inside OpenVINO or the tokenizer at that moment,
the locks that it held there stay taken in the child for ever. docs/decisions.md has what else was found.
"""

from __future__ import annotations

# Hooks run before a fork in the reverse order of their registration. Those of these two take a lock that a thread which
# the fork waits for may need, so they must be registered before the ones below.
import concurrent.futures.thread  # noqa: F401
import ctypes
import logging  # noqa: F401
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from crossrank.errors import CrossRankError

# Seconds that a fork waits for other threads at most. A forward pass takes well under one, loading a large model a few.
MAX_WAIT = 60.0

_condition = threading.Condition()
_inside: dict[int, int] = {}  # thread -> how many `native_code` blocks it is in
_forks_waiting = 0
_unusable = False
_locked: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_reopened: weakref.WeakSet[Any] = weakref.WeakSet()
_preparations: list[Callable[[], object]] = []


@contextmanager
def native_code() -> Iterator[None]:
    """Load or run a model inside this block. A fork in another thread waits for it, and it waits for a fork.

    Take locks outside the block: inside, a thread must never wait for another that is about to enter a block.

    :raises CrossRankError: If this process was forked while another thread was in a block for too long to wait for.
    """
    if _unusable:
        raise CrossRankError(
            "This process was forked while another thread was loading or running a model, and that did not end within "
            f"{MAX_WAIT:g} seconds. No model can be used here. Start processes with "
            "multiprocessing.get_context('spawn'), or fork before threads use models."
        )
    thread = threading.get_ident()
    with _condition:
        _condition.wait_for(lambda: not _forks_waiting or thread in _inside)
        _inside[thread] = _inside.get(thread, 0) + 1
    try:
        yield
    finally:
        with _condition:
            _inside[thread] -= 1
            if not _inside[thread]:
                del _inside[thread]
            _condition.notify_all()


def renew_lock_after_fork(owner: Any) -> None:
    """Replace an object's ``_lock`` in child processes, because another thread may have held it."""
    _locked.add(owner)


def never_release_after_fork(value: Any) -> None:
    """Keep a native object alive in child processes: its destructor would wait for threads that don't exist there."""
    _kept.add(value)


def reopen_after_fork(owner: Any) -> None:
    """Call an object's ``reopen()`` in child processes: a database connection must not be used in two processes."""
    _reopened.add(owner)


def before_fork(prepare: Callable[[], object]) -> None:
    """Call a function before each fork, while no other thread is in a ``native_code`` block."""
    _preparations.append(prepare)


def _others_inside() -> bool:
    return any(thread != threading.get_ident() for thread in list(_inside))


def _before_fork() -> None:
    global _forks_waiting
    with _condition:
        _forks_waiting += 1
        if _condition.wait_for(lambda: not _others_inside(), timeout=MAX_WAIT):
            for prepare in _preparations:
                prepare()


def _after_fork_in_parent() -> None:
    global _forks_waiting
    with _condition:
        _forks_waiting -= 1
        _condition.notify_all()


def _after_fork_in_child() -> None:
    global _condition, _forks_waiting, _unusable
    _unusable = _unusable or _others_inside()
    _condition, _forks_waiting = threading.Condition(), 0
    for thread in list(_inside):
        if thread != threading.get_ident():
            del _inside[thread]
    for owner in list(_locked):
        owner._lock = threading.RLock()  # serves as a plain Lock, too
    for value in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    for owner in list(_reopened):
        owner.reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
