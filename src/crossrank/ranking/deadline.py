"""A time budget for a whole call, on the clock that nobody sets back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from copy import copy
from numbers import Real
from typing import TypeVar

from crossrank.errors import InputError

T = TypeVar("T")


class Deadline:
    """A moment by which a call has to be back.

    :param seconds: From now; ``None`` means that there is no hurry.
    :param clock: What tells the time, in seconds; monotonic.
    :raises InputError: If ``seconds`` is not above 0.
    """

    def __init__(self, seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, Real)):
            raise InputError(
                f"deadline={seconds!r} is not a number of seconds, such as 0.3. Leave it out for no limit."
            )
        if seconds is not None and not seconds > 0:
            raise InputError(f"deadline={seconds!r} is not above 0 seconds. Give the seconds that the call may take.")
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
        """Seconds that are left, not below 0; ``inf`` where there is no limit."""
        return math.inf if self.seconds is None else max(0.0, self.seconds - self._reserve - self.elapsed())

    def reserving(self, seconds: float) -> Deadline:
        """Make the same deadline, of which so many seconds at the end are kept for something else."""
        copied = copy(self)
        copied._reserve = self._reserve + seconds
        return copied

    def timeout(self, most: float | None = None) -> float | None:
        """What is left as a timeout for one request: not above ``most``; ``None`` means none of both limits."""
        left = min(self.remaining(), math.inf if most is None else most)
        return None if math.isinf(left) else left


def run_within(deadline: Deadline, work: Callable[[], T]) -> T | None:
    """Do some work, and be back in time whether it is done or not; it then goes on in a thread of its own.

    :returns: What it gave, or ``None`` if it has not come to an end.
    """
    if not deadline.is_limited:
        return work()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised where the caller is
            failures.append(error)

    worker = threading.Thread(target=run, name="crossrank-within")
    worker.start()
    worker.join(deadline.remaining())
    if failures:
        raise failures[0]
    return results[0] if results else None
