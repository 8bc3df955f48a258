from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from crossrank.errors import StageError
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.judge.llm_judge import LLMJudge
from crossrank.ranking.stage import Context
from judged import DOCUMENTS, KEY, judge, right
from service import Reply, serving


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "API key"), (403, "API key"), (404, "base_url"), (402, "balance")]
)
def test_what_no_other_request_would_mend_ends_the_call_at_once(status, remedy):
    with serving([Reply({"error": {"message": f"no: {KEY}"}}, status)]) as service:
        with pytest.raises(StageError, match=f"answered {status}: no: \\[key\\].*{remedy}") as caught:
            judge(service, max_concurrency=1).score("q", DOCUMENTS)
        assert len(service.asked) == 1
    assert not caught.value.retryable


def test_an_empty_account_is_not_waited_for():
    reply = Reply({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429)
    with serving([reply]) as service, pytest.raises(StageError, match="balance"):
        judge(service, max_concurrency=1).score("q", DOCUMENTS)
    assert len(service.asked) == 1


def test_retry_after_is_kept_to():
    def respond(asked):
        return Reply({}, 429, {"retry-after": "1"}) if asked.number == 0 else right(asked)

    with serving(respond) as service:
        judge(service, max_concurrency=1).score("q", DOCUMENTS[:1])
    assert 1.0 <= service.asked[1].started - service.asked[0].started < 1.6


def test_a_deadline_is_not_overrun_by_waiting():
    def respond(asked):
        return Reply({}, 429, {"retry-after": "30"}) if asked.number == 1 else right(asked)

    with serving(respond) as service:
        started = time.monotonic()
        scores = judge(service, max_concurrency=1).score("q", DOCUMENTS, Context(deadline=Deadline(5)))
    assert time.monotonic() - started < 3
    np.testing.assert_array_equal(scores.scores, [1, np.nan, 0])
    assert "the next try would be in" in scores.degraded


def test_a_deadline_ends_requests_under_way_and_keeps_what_is_there():
    def respond(asked):
        reply = right(asked)
        reply.delay = 0 if asked.number == 0 else 3
        return reply

    with serving(respond) as service:
        started = time.monotonic()
        scores = judge(service, max_concurrency=1).score("q", DOCUMENTS, Context(deadline=Deadline(0.5)))
        assert time.monotonic() - started < 1
    np.testing.assert_array_equal(scores.scores, [1, np.nan, np.nan])
    assert scores.degraded.startswith("2 of 3 documents could not be judged")


def test_a_slow_answer_is_given_up_after_the_timeout():
    with serving([Reply(delay=2)]) as service:
        started = time.monotonic()
        with pytest.raises(StageError, match=r"did not answer within 0.2 s"):
            judge(service, timeout=0.2, max_retries=0).score("q", DOCUMENTS)
    assert time.monotonic() - started < 1


def test_a_service_that_is_not_there_is_not_tried_for_each_document():
    with serving([Reply()]) as service:
        gone = service.url
    started = time.monotonic()
    with pytest.raises(StageError, match="can't be reached") as caught:
        LLMJudge("m", base_url=gone, api_key=KEY, max_retries=1).score("q", ["text"] * 200)
    assert caught.value.retryable
    assert "requests were sent" in str(caught.value)
    assert time.monotonic() - started < 3


def test_cancelling_the_async_call_hangs_up():
    hung_up = threading.Event()

    async def main(service):
        task = asyncio.create_task(judge(service, max_concurrency=1).ascore("q", DOCUMENTS))
        while not service.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hung_up.set()

    def respond(asked):
        hung_up.wait(3)
        return right(asked)

    with serving(respond) as service:
        asyncio.run(main(service))
        time.sleep(0.3)
    assert len(service.asked) == 1


def test_a_call_that_was_cancelled_stops():
    context = Context()

    def respond(asked):
        if asked.number == 1:
            context.cancelled.set()
        return right(asked)

    with serving(respond) as service:
        scores = judge(service, max_concurrency=1).score("q", DOCUMENTS * 20, context)
    assert "cancelled" in scores.degraded
    assert len(service.asked) < 20
