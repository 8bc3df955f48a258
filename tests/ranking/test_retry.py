from __future__ import annotations

import asyncio
import datetime
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network.retry import (
    Failure,
    RetryPolicy,
    failure_for_status,
    gather,
    parse_retry_after,
    reasons_of,
    retrying,
)
from crossrank.ranking.stage import Context

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 0.5 ", 0.5),
        ("-3", 0),
        (email.utils.format_datetime(NOW + datetime.timedelta(seconds=90), usegmt=True), 90),
        (email.utils.format_datetime(NOW - datetime.timedelta(seconds=90), usegmt=True), 0),
        ("Sat, 21 Nov 2026 13:00:00 GMT", 3600),
        ("soon", None),
        ("", None),
        ("inf", None),
        ("nan", None),
        ("Sat, 99 Nov 2026 13:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(text, seconds):
    assert parse_retry_after({"retry-after": text}, now=NOW.timestamp()) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_read_or_ignored(text):
    seconds = parse_retry_after({"retry-after": text})
    assert seconds is None or seconds >= 0


@given(st.integers(1, 50), st.floats(0, 40) | st.none())
def test_pauses_grow_to_a_limit_and_keep_to_what_was_asked(tried, after):
    policy = RetryPolicy(initial_delay=0.5)
    pause = policy.pause(tried, Failure("x", retry_after=after))
    if after is not None:
        assert after <= pause <= after + 1
    else:
        whole = min(8, 0.5 * 2 ** (tried - 1))
        assert whole / 2 <= pause <= whole


def test_pauses_are_not_all_alike():
    assert len({RetryPolicy().pause(3, Failure("x")) for _ in range(20)}) > 10


def test_a_service_that_asks_for_too_long_a_wait_is_given_up():
    async def attempt(tried):
        raise Failure("busy", retryable=True, retry_after=3600)

    with pytest.raises(Failure, match=r"busy; it asks to wait 3[0-9]{3} s, more than the 60 s"):
        asyncio.run(retrying(attempt, RetryPolicy(), Deadline()))


@pytest.mark.parametrize(
    ("status", "again", "fatal"),
    [
        (400, False, False),
        (401, False, True),
        (404, False, True),
        (302, False, True),
        (422, False, False),
        (424, False, False),
        (429, True, False),
        (500, True, False),
        (501, False, False),
        (503, True, False),
        (529, True, False),
    ],
)
def test_what_a_status_means(status, again, fatal):
    failure = failure_for_status("x", status, "why.", {})
    assert (failure.retryable, failure.fatal) == (again, fatal)
    assert failure.reason.startswith(f"x answered {status}: why")


def test_after_a_fatal_failure_no_job_is_begun():
    begun = []

    def job(number):
        async def run():
            begun.append(number)
            await asyncio.sleep(0)
            if number == 1:
                raise Failure("wrong key", fatal=True)
            return number

        return run

    async def main():
        return await gather([job(number) for number in range(6)], asyncio.Semaphore(1), Context())

    outcomes = asyncio.run(main())
    assert begun == [0, 1]
    assert outcomes[0] == 0
    assert [str(outcome) for outcome in outcomes[1:]] == ["wrong key"] * 5


def test_an_error_of_ours_is_not_swallowed():
    async def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(_gathered([broken, broken]))


async def _gathered(jobs):
    return await gather(jobs, asyncio.Semaphore(2), Context())


def test_reasons_are_counted():
    failures = [Failure("a"), Failure("b"), Failure("a"), Failure("c"), Failure("d")]
    assert reasons_of(failures) == "a (2x); b; c; and 1 other reasons"
