"""A circuit breaker: a stage that keeps failing is not asked for a while.

After Nygard, "Release It!" (2007), chapter 5: closed, open after repeated failures, half-open with one probe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from crossrank.errors import InputError
from crossrank.validation import check_counts


class CircuitBreaker:
    """Says whether a call should be tried. May be used from many threads.

    :param failures: How many failures in a row open it.
    :param cooldown: Seconds that it stays open before one call may probe.
    :param clock: Gives the time in seconds; monotonic.
    :raises InputError: If a setting can't be used.
    :ivar last_failure: Why the last failed call failed.
    """

    def __init__(
        self, failures: int = 5, cooldown: float = 30.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check_counts(failures=failures)
        if not cooldown > 0:
            raise InputError(f"cooldown={cooldown!r} is not above 0 seconds.")
        self._max_failures = failures
        self._cooldown = cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened: float | None = None
        self._probing = False
        self.last_failure = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, in another process for instance, starts closed.
        return partial(type(self), self._max_failures, self._cooldown, clock=self._clock), ()

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.state}, {self.failures} failures in a row)"

    @property
    def state(self) -> str:
        """``"closed"``: all calls are tried; ``"open"``: none; ``"half-open"``: one may probe, or is doing so."""
        with self._lock:
            if self._opened is None:
                return "closed"
            return "half-open" if self._probing or self._left() <= 0 else "open"

    @property
    def failures(self) -> int:
        """How many calls in a row have failed."""
        return self._failures

    @property
    def retry_in(self) -> float:
        """Seconds until a call may probe; 0 where one may be tried."""
        with self._lock:
            return 0.0 if self._opened is None else max(0.0, self._left())

    def allow(self) -> bool:
        """Whether to try a call. After a yes, say how it went: ``succeeded``, ``failed`` or ``released``."""
        with self._lock:
            if self._opened is None:
                return True
            if self._probing or self._left() > 0:
                return False
            self._probing = True
            return True

    def succeeded(self) -> None:
        """A call worked: close."""
        with self._lock:
            self._failures, self._opened, self._probing = 0, None, False

    def failed(self, reason: str = "") -> None:
        """A call failed: count, and open where it was one too many, or the probe.

        :param reason: Why, for messages.
        """
        with self._lock:
            self._failures += 1
            self.last_failure = reason
            if self._probing or (self._opened is None and self._failures >= self._max_failures):
                self._opened = self._clock()
            self._probing = False

    def released(self) -> None:
        """A call ended and says nothing about the stage, for instance because it was cancelled."""
        with self._lock:
            self._probing = False

    def _left(self) -> float:
        return 0.0 if self._opened is None else self._opened + self._cooldown - self._clock()
