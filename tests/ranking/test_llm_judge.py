from __future__ import annotations

import asyncio
import math
import threading
import time

import numpy as np
import pytest

from crossrank.errors import InputError, StageError
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.judge_modes import sliding_windows
from crossrank.ranking.llm_judge import LLMJudge
from crossrank.ranking.stage import Context
from service import Asked, Reply, document_of, graded, ranked, said, serving

KEY = "sk-very-secret-8f2c41"
DOCUMENTS = ["Berlin is a city.", "Paris is the capital of France.", "Bananas are yellow."]
GRADES = {"Berlin": 1, "Paris": 3, "Bananas": 0}


def judge(service, **options) -> LLMJudge:
    return LLMJudge("m", **{"base_url": f"{service.url}/v1", "api_key": KEY, **options})


def right(asked: Asked) -> Reply:
    """What a good judge says of DOCUMENTS."""
    return graded(asked, GRADES[document_of(asked, asked.ids[0]).split()[0]], reason="It says so.")


def test_grades_with_reasons_tokens_and_cost():
    def respond(asked):
        reply = right(asked)
        reply.body["usage"]["cost"] = 0.001
        return reply

    with serving(respond) as service:
        scores = judge(service, max_concurrency=2).score("capital of France?", DOCUMENTS)
    assert scores.scores.tolist() == [1, 3, 0]
    assert (scores.kind, scores.tokens, scores.degraded, scores.pairs_cut) == ("grade", 330, None, 0)
    assert scores.cost == pytest.approx(0.003)
    assert scores.details[1] == {"grade": 3, "reason": "It says so."}
    assert service.most_at_once <= 2
    body = service.asked[0].body
    assert (body["model"], body["temperature"]) == ("m", 0)
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["id", "reason", "grade"]
    assert service.asked[0].path == "/v1/chat/completions"
    assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_cost_that_a_proxy_puts_in_a_header_is_added_up():
    def respond(asked):
        reply = right(asked)
        reply.headers["x-litellm-response-cost"] = "0.5"
        return reply

    with serving(respond) as service:
        assert judge(service).score("q", DOCUMENTS).cost == 1.5


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda asked: said("I'd say it is quite relevant."),
        lambda asked: said(""),
        lambda asked: said(None, refusal="I can't judge that."),
        lambda asked: said(None, finish="content_filter"),
        lambda asked: said('{"id": "' + asked.ids[0] + '", "rea', finish="length"),
        lambda asked: graded(asked, 7),
        lambda asked: said('{"grade": 3}'),
        lambda asked: Reply({"choices": []}),
        lambda asked: Reply({"error": {"message": "upstream is gone"}}),
        lambda asked: Reply("<html>hello</html>"),
        lambda asked: Reply({"error": {"message": "slow down"}}, 429, {"retry-after": "0"}),
        lambda asked: Reply("bad gateway", 502, {"retry-after": "0"}),
        lambda asked: Reply(drop=True),
    ],
)
def test_what_can_not_be_used_is_asked_for_again(spoiled):
    def respond(asked):
        return spoiled(asked) if asked.number == 0 else right(asked)

    with serving(respond) as service:
        scores = judge(service, max_concurrency=1).score("q", DOCUMENTS)
    assert scores.scores.tolist() == [1, 3, 0]
    assert scores.degraded is None
    assert len(service.asked) == 4
    # Another marker and another id than before.
    assert not set(service.asked[0].ids) & set(service.asked[1].ids)


def test_what_stays_unusable_is_not_scored_and_said():
    def respond(asked):
        return graded(asked, 9) if "Berlin" in document_of(asked, asked.ids[0]) else right(asked)

    with serving(respond) as service:
        scores = judge(service, max_retries=2).score("q", DOCUMENTS)
    np.testing.assert_array_equal(scores.scores, [np.nan, 3, 0])
    assert scores.degraded == (
        "1 of 3 documents could not be judged and keep their order: "
        "the answer could not be used: the grade was not one of 0, 1, 2 and 3"
    )
    assert "grade was not" in scores.details[0]["failure"]
    assert len(service.asked) == 5
    assert scores.tokens == 550
    assert "The grade" not in service.asked[0].body["messages"][1]["content"]


def test_nothing_judged_is_an_error_that_says_why():
    with (
        serving([said("No idea.")]) as service,
        pytest.raises(StageError, match="no JSON object with a grade") as caught,
    ):
        judge(service, max_retries=1).score("q", DOCUMENTS)
    assert caught.value.retryable
    assert len(service.asked) == 6


def test_an_answer_cut_off_is_asked_for_again_with_more_room():
    def respond(asked):
        return said('{"id": "', finish="length") if asked.body["max_tokens"] < 40 else graded(asked, 2)

    with serving(respond) as service:
        assert judge(service, max_tokens=16).score("q", ["text"]).scores.tolist() == [2]
    assert [asked.body["max_tokens"] for asked in service.asked] == [16, 32, 64]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_response_format_is_asked_once_more_without(status):
    def respond(asked):
        if "response_format" in asked.body:
            return Reply({"error": {"message": "json_schema is not supported"}}, status)
        return right(asked)

    with serving(respond) as service:
        asks = judge(service, max_concurrency=1, max_retries=0)
        first = asks.score("q", DOCUMENTS)
        assert first.scores.tolist() == [1, 3, 0]
        assert len(service.asked) == 4
        assert any("json_schema is not supported" in note for note in first.notes)
        asks.score("q", DOCUMENTS)
        assert len(service.asked) == 7


def test_a_model_that_takes_no_temperature_is_asked_without():
    def respond(asked):
        if "temperature" in asked.body:
            return Reply({"error": {"message": "Unsupported value: 'temperature' does not support 0."}}, 400)
        return right(asked)

    with serving(respond) as service:
        assert judge(service).score("q", DOCUMENTS).scores.tolist() == [1, 3, 0]
        assert "response_format" in service.asked[-1].body


def test_a_refused_request_is_no_reason_to_leave_the_format_out_of_others():
    def respond(asked):
        long = "Berlin" in document_of(asked, asked.ids[0])
        return Reply({"error": {"message": "maximum context length"}}, 400) if long else right(asked)

    with serving(respond) as service:
        scores = judge(service, max_concurrency=1).score("q", DOCUMENTS)
    assert np.isnan(scores.scores[0])
    assert "answered 400: maximum context length" in scores.degraded
    # Once with and once without; then the other documents, with it again.
    assert ["response_format" in asked.body for asked in service.asked] == [True, False, True, True]


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


def test_loops_come_and_go():
    async def both(asks):
        return await asyncio.gather(asks.ascore("q", DOCUMENTS), asks.ascore("q", DOCUMENTS[:1]))

    with serving(right) as service:
        asks = judge(service)
        for _ in range(3):
            first, second = asyncio.run(both(asks))
            assert (first.scores.tolist(), second.scores.tolist()) == ([1, 3, 0], [1])
        assert asks.score("q", DOCUMENTS).scores.tolist() == [1, 3, 0]
        asks.close()
        asks.close()
        assert asks.score("q", DOCUMENTS).scores.tolist() == [1, 3, 0]


def test_documents_are_cut_and_counted():
    with serving(lambda asked: graded(asked, 1)) as service:
        scores = judge(service, max_characters=20).score("q", ["short", "a rather long document of many words"])
        seen = sorted(document_of(asked, asked.ids[0]) for asked in service.asked)
    # Between words only where one ends near.
    assert seen == ["a rather long docume", "short"]
    assert scores.pairs_cut == 1
    assert any("cut at 20 characters" in note for note in scores.notes)


def test_no_documents_need_no_request():
    with serving([Reply(status=500)]) as service:
        assert judge(service).score("q", []).scores.shape == (0,)
        assert judge(service, mode="listwise").score("q", []).scores.shape == (0,)
    assert not service.asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "pairwise"}, "mode='pairwise' is unknown"),
        ({"step": 30}, "step=30 is more than window=20"),
        ({"window": 0}, "window=0 is not"),
        ({"keep": True}, "keep=True is not"),
        ({"timeout": 0}, "timeout=0"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"mode": "listwise", "threshold": 0.5}, "threshold=0.5 does not go with"),
        ({"prompt": "no/such/file.md"}, "can't be read"),
        ({"prompt": "a text\nwithout sections"}, "it needs one of each"),
        ({"prompt": "=== system ===\nx\n=== user ===\n{{query}} {{ids}}"}, r"lacks \['documents'\]"),
        ({"prompt": "=== system ===\n{{x}}\n=== user ===\n{{query}} {{documents}} {{ids}}"}, r"does not know \['x'\]"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        LLMJudge("m", **options)


def test_a_missing_key_is_told_when_it_is_needed(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        LLMJudge("m").score("q", ["text"])


def test_windows_go_from_the_back_to_the_very_front():
    assert sliding_windows(25, 20, 10) == [(5, 25), (0, 15)]
    assert sliding_windows(20, 20, 10) == [(0, 20)]
    assert sliding_windows(3, 20, 10) == [(0, 3)]
    assert sliding_windows(40, 20, 10) == [(20, 40), (10, 30), (0, 20)]
    assert sliding_windows(0, 20, 10) == []


def by_number(asked: Asked) -> Reply:
    """Puts documents that are numbers in descending order."""
    return ranked(sorted(asked.ids, key=lambda identity: -int(document_of(asked, identity))))


def test_the_best_climb_from_window_to_window():
    numbers = [str((7 * i) % 41) for i in range(41)]
    with serving(by_number) as service:
        scores = judge(service, mode="listwise", window=8, step=4).score("q", numbers)
    assert (scores.kind, scores.degraded) == ("rank", None)
    order = np.argsort(-scores.scores)
    # The best window - step are in their right places after one pass: 4 of each window move on.
    assert [numbers[row] for row in order[:4]] == ["40", "39", "38", "37"]
    assert sorted(scores.scores, reverse=True) == [1 / rank for rank in range(1, 42)]
    assert len(service.asked) == len(sliding_windows(41, 8, 4))
    assert [detail["rank"] for detail in scores.details] == np.argsort(order).__add__(1).tolist()


def test_an_empty_selection_is_an_answer():
    with serving([ranked([])]) as service:
        scores = judge(service, mode="listwise").score("q", DOCUMENTS)
    assert len(service.asked) == 1
    assert scores.degraded is None
    assert scores.scores.tolist() == [1, 1 / 2, 1 / 3]
    assert [detail["named"] for detail in scores.details] == [False] * 3
    assert any("found nothing relevant" in note for note in scores.notes)


def test_a_window_without_an_answer_keeps_its_order():
    def respond(asked):
        return said("hm") if asked.number < 2 else by_number(asked)

    with serving(respond) as service:
        asks = judge(service, mode="listwise", window=4, step=2, max_retries=1)
        scores = asks.score("q", [str(i) for i in range(6)])
    # 2..5 could not be judged; then 0..3 came as 3, 2, 1, 0.
    assert np.argsort(-scores.scores).tolist() == [3, 2, 1, 0, 4, 5]
    assert scores.degraded.startswith("1 of 2 windows could not be judged and keep their order: the answer could not")


def test_the_first_window_is_asked_for_when_time_gets_short():
    def respond(asked):
        reply = by_number(asked)
        reply.delay = 0.4
        return reply

    with serving(respond) as service:
        asks = judge(service, mode="listwise", window=4, step=2)
        asks.warm_up()
        scores = asks.score("q", [str(i) for i in range(30)], Context(deadline=Deadline(1.5)))
    order = np.argsort(-scores.scores).tolist()
    # The last window and the first one; between them as many of those before the first as there was time for.
    assert 2 <= len(service.asked) <= 4
    assert {"0", "1"} <= {document_of(service.asked[-1], identity) for identity in service.asked[-1].ids}
    assert order[0] > 2
    assert order[-4:] == [29, 28, 27, 26]
    assert "there was no time for it" in scores.degraded
    assert sorted(order) == list(range(30))


def test_all_windows_failed_is_an_error():
    with serving([said("hm")]) as service, pytest.raises(StageError, match="judged nothing"):
        judge(service, mode="listwise", window=4, step=2, max_retries=0).score("q", DOCUMENTS * 3)
    assert len(service.asked) == 4


def test_grades_have_a_fingerprint_and_orders_have_none():
    one = LLMJudge("m", api_key=KEY)
    assert one.fingerprint() == LLMJudge("m", api_key="another").fingerprint()
    assert one.fingerprint() != LLMJudge("n", api_key=KEY).fingerprint()
    assert one.fingerprint() != LLMJudge("m", max_characters=9).fingerprint()
    assert KEY not in one.fingerprint()
    assert LLMJudge("m", mode="listwise").fingerprint() is None
    assert math.isclose(one._endpoint.timeout, 60)
