"""Retries of requests: which ones, when, and how often.

Pauses double from one try to the next, and half of each is random, so that many callers do not return at the same time
("equal jitter"; M. Brooker, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TypeVar

from crossrank.ranking.deadline import Deadline
from crossrank.ranking.stage import Context
from crossrank.validation import check_not_negative_integer

T = TypeVar("T")

# Besides 5xx: request timeout, conflict, too early, too many requests.
_RETRYABLE = frozenset({408, 409, 425, 429})
# Not implemented, HTTP version not supported: they do not change with time.
_NOT_RETRYABLE = frozenset({501, 505})
_REMEDIES = {
    401: "Check the API key",
    402: "Check the account's balance",
    403: "Check that the API key may use this model",
    404: "Check base_url and the model's name",
    405: "Check base_url",
}
# With these codes, 429 means that the account is empty, so waiting does not help.
_EMPTY_ACCOUNT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_TICK = 0.05  # seconds between checks for a cancelled call


@dataclass(eq=False)
class Failure(Exception):  # noqa: N818
    """Why a request gave no usable answer.

    :param reason: A sentence without its full stop.
    :param retryable: Whether the same request may work later.
    :param pause: Whether to wait before the next try. Not needed if the service works but its answer was unusable.
    :param retry_after: Seconds to wait, as the service asks.
    :param fatal: Whether all other requests of this call would fail too, as with a wrong key.
    :param service: Whether the service failed, and not only this request.
    :param status: The HTTP status of the answer; 0 if there was none.
    """

    reason: str
    retryable: bool = field(default=False, kw_only=True)
    pause: bool = field(default=True, kw_only=True)
    retry_after: float | None = field(default=None, kw_only=True)
    fatal: bool = field(default=False, kw_only=True)
    service: bool = field(default=False, kw_only=True)
    status: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try, and how long to wait.

    :param max_retries: Tries after the first one.
    :param initial_delay: The longest first pause, in seconds; later ones are up to 16 times as long.
    :param max_retry_after: The longest pause that a service may ask for, in seconds; beyond it the request fails.
    """

    max_retries: int = 3
    initial_delay: float = 0.5
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        check_not_negative_integer("max_retries", self.max_retries)

    def pause(self, tried: int, failure: Failure) -> float:
        """Seconds to wait after ``tried`` failed tries."""
        if failure.retry_after is not None:
            return failure.retry_after + random.uniform(0, min(1.0, failure.retry_after / 10))
        if not failure.pause:
            return 0.0
        whole = self.initial_delay * min(16.0, 2.0 ** (tried - 1))
        return whole / 2 + random.uniform(0, whole / 2)


async def retrying(attempt: Callable[[int], Awaitable[T]], policy: RetryPolicy, deadline: Deadline) -> T:
    """Call ``attempt(0)``, ``attempt(1)`` ... until one succeeds or no tries or no time are left.

    :raises Failure: The last one.
    """
    tried = 0
    while True:
        try:
            return await attempt(tried)
        except Failure as failure:
            tried += 1
            if not failure.retryable or tried > policy.max_retries:
                raise
            pause = policy.pause(tried, failure)
            if pause > policy.max_retry_after:
                why = f"it asks to wait {pause:.0f} s, more than the {policy.max_retry_after:.0f} s"
            elif pause >= deadline.remaining():
                why = f"the next try would be in {pause:.1f} s, but only {deadline.remaining():.1f} s are left"
            else:
                why = ""
            if why:
                raise Failure(f"{failure.reason}; {why}", retryable=True, service=failure.service) from None
        await asyncio.sleep(pause)


async def gather(
    jobs: Sequence[Callable[[], Awaitable[T]]], limit: asyncio.Semaphore, context: Context
) -> list[T | Failure]:
    """Run jobs concurrently, and return each one's value or failure.

    A job that is not done when the time is up or the call is cancelled has failed. No more jobs start after a fatal
    failure, or if the service fails before any job has succeeded.

    :param jobs: Each may raise :class:`Failure`.
    :param limit: How many run at once.
    """
    stopped: Failure | None = None
    succeeded = False

    async def one(job: Callable[[], Awaitable[T]]) -> T | Failure:
        nonlocal stopped, succeeded
        async with limit:
            if stopped is not None:
                return stopped
            try:
                value = await job()
            except Failure as failure:
                if failure.fatal or (failure.service and not succeeded):
                    stopped = stopped or failure
                return failure
            succeeded = True
            return value

    tasks = [asyncio.ensure_future(one(job)) for job in jobs]
    pending = set(tasks)
    late: Failure | None = None
    try:
        while pending and late is None:
            _, pending = await asyncio.wait(pending, timeout=min(_TICK, context.deadline.remaining()))
            if context.cancelled.is_set():
                late = Failure("the call was cancelled")
            elif context.deadline.expired:
                late = Failure(f"the deadline of {context.deadline.seconds:g} s has passed", retryable=True)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    # Read every exception, or asyncio logs it as "never retrieved".
    broken = [task.exception() for task in tasks if task not in pending]
    for error in broken:
        if error is not None:
            raise error
    return [late if task in pending and late else task.result() for task in tasks]


async def within(work: Awaitable[T], seconds: float | None, who: str) -> T:
    """Wait for an answer for at most some seconds; ``None`` for no limit.

    :raises Failure: If it takes longer.
    """
    try:
        return await asyncio.wait_for(work, seconds)
    except (asyncio.TimeoutError, TimeoutError):
        raise Failure(f"{who} did not answer within {seconds:.3g} s", retryable=True, service=True) from None


def failure_for_status(who: str, status: int, message: str, headers: Mapping[str, str], code: object = "") -> Failure:
    """Describe an answer with an error status.

    :param message: From the service, ready to be shown.
    :param code: The service's name for the error, if any.
    """
    answer = f"{who} answered {status}" + (f": {message.rstrip('.')}" if message else "")
    remedy = _REMEDIES.get(status) or (_REMEDIES[402] if code in _EMPTY_ACCOUNT else "")
    if 300 <= status < 400:
        remedy = "Check base_url"
    if remedy:
        return Failure(f"{answer}. {remedy}", fatal=True, status=status)
    retryable = (status >= 500 and status not in _NOT_RETRYABLE) or status in _RETRYABLE
    wait = parse_retry_after(headers) if retryable else None
    return Failure(answer, retryable=retryable, retry_after=wait, service=retryable, status=status)


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read how many seconds an answer asks to wait: ``Retry-After``, as seconds or a date (RFC 9110, 10.2.3).

    :param now: Seconds since 1970; by default the clock's.
    """
    text = (headers.get("retry-after") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def reasons_of(failures: Sequence[Failure]) -> str:
    """List the reasons, each once with its count."""
    counts = Counter(failure.reason for failure in failures)
    reasons = "; ".join(f"{reason} ({count}x)" if count > 1 else reason for reason, count in counts.most_common(3))
    return reasons + (f"; and {len(counts) - 3} other reasons" if len(counts) > 3 else "")
