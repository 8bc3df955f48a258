"""A time budget for a whole call, on a monotonic clock."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from copy import copy
from typing import Any, TypeVar

from crossrank.validation import check_seconds

T = TypeVar("T")


class Deadline:
    """The moment by which a call must return.

    :param seconds: Counted from now; ``None`` for no limit.
    :param clock: Returns monotonic seconds.
    :raises InputError: If ``seconds`` is not above 0.
    """

    def __init__(self, seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if seconds is not None and seconds != math.inf:
            check_seconds("deadline", seconds, remedy="Give one such as 0.3, or leave it out for no limit.")
        self.seconds = seconds
        self._clock = clock
        self._started = clock()
        self._reserve = 0.0

    def __repr__(self) -> str:
        return f"Deadline({self.seconds!r}, remaining={self.remaining():.3f})"

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.seconds is not None and math.isfinite(self.seconds)

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return self.remaining() <= 0

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def remaining(self) -> float:
        """Seconds that are left, at least 0; ``inf`` if there is no limit."""
        return math.inf if self.seconds is None else max(0.0, self.seconds - self._reserve - self.elapsed())

    def reserving(self, seconds: float) -> Deadline:
        """Return the same deadline, but this many seconds earlier."""
        copied = copy(self)
        copied._reserve = self._reserve + seconds
        return copied

    def timeout(self, limit: float | None = None) -> float | None:
        """Seconds for one request: the time that is left, at most ``limit``; ``None`` for no limit."""
        left = min(self.remaining(), math.inf if limit is None else limit)
        return None if math.isinf(left) else left


class DeadlineThreads:
    """Runs work in threads, and returns in time whether the work is done or not.

    Work that takes too long continues in its thread. While all threads are busy, for instance because a model is still
    loading, a call waits for one of them. Work that gets no thread in time is not done.
    """

    def __init__(self) -> None:
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def run_within(self, deadline: Deadline, work: Callable[[], T]) -> T | None:
        """Run a function. Return its result, or ``None`` if it did not end in time."""
        if not deadline.is_limited:
            return work()
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            self._pool = os.getpid(), ThreadPoolExecutor(max(8, 2 * (os.cpu_count() or 1)), "crossrank-within")
        running = self._pool[1].submit(work)
        done, _ = wait([running], min(deadline.remaining(), threading.TIMEOUT_MAX))
        if not done:
            running.cancel()
            return None
        return running.result()
