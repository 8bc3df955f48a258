"""A circuit breaker: a stage that keeps failing is not called for a while.

From Nygard, "Release It!" (2007), chapter 5: closed; open after repeated failures; half-open for one trial call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from crossrank.validation import check_counts, check_seconds


class CircuitBreaker:
    """Decides whether to call a stage. Threads may share one object.

    :param failures: The number of failures in a row that opens it.
    :param cooldown: Seconds that it stays open before one trial call.
    :param clock: Returns monotonic seconds.
    :raises InputError: If a setting can't be used.
    :ivar last_failure: Why the last failed call failed.
    """

    def __init__(
        self, failures: int = 5, cooldown: float = 30.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check_counts(failures=failures)
        check_seconds("cooldown", cooldown)
        self._max_failures = failures
        self._cooldown = cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened: float | None = None
        self._probing = False
        self.last_failure = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, for instance in another process, starts closed.
        return partial(type(self), self._max_failures, self._cooldown, clock=self._clock), ()

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.state}, {self.failures} failures in a row)"

    @property
    def state(self) -> str:
        """``"closed"``: all calls go through; ``"open"``: none; ``"half-open"``: one trial call."""
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
        """Seconds until the next call may start; 0 if it may start now."""
        with self._lock:
            return 0.0 if self._opened is None else max(0.0, self._left())

    def allow(self) -> bool:
        """Whether a call may start. If so, report its end with ``succeeded``, ``failed`` or ``released``."""
        with self._lock:
            if self._opened is None:
                return True
            if self._probing or self._left() > 0:
                return False
            self._probing = True
            return True

    def succeeded(self) -> None:
        """Report that a call worked; this closes the breaker."""
        with self._lock:
            self._failures, self._opened, self._probing = 0, None, False

    def failed(self, reason: str = "") -> None:
        """Report that a call failed; too many in a row, or a failed trial call, open the breaker.

        :param reason: For messages.
        """
        with self._lock:
            self._failures += 1
            self.last_failure = reason
            if self._probing or (self._opened is None and self._failures >= self._max_failures):
                self._opened = self._clock()
            self._probing = False

    def released(self) -> None:
        """Report that a call ended without telling anything about the stage, for instance because it was cancelled."""
        with self._lock:
            self._probing = False

    def _left(self) -> float:
        return 0.0 if self._opened is None else self._opened + self._cooldown - self._clock()
