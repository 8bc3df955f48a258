from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from crossrank.errors import InputError, StageError
from crossrank.ranking.judge.llm_judge import LLMJudge
from judged import DOCUMENTS, KEY, judge, right
from service import Reply, document_of, graded, said, serving


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
        "1 of 3 documents could not be judged: the answer could not be used: the grade was not one of 0, 1, 2 and 3"
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
        ({"mode": "pairwise"}, "mode='pairwise' is not known"),
        ({"step": 30}, "step=30 is more than window=20"),
        ({"window": 0}, "window=0 is not"),
        ({"keep": True}, "keep=True is not"),
        ({"timeout": 0}, "timeout=0"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"base_url": "localhost:8000/v1"}, "base_url='localhost:8000/v1' is not an address"),
        ({"threshold": "2"}, "threshold='2' is not a finite number"),
        ({"mode": "listwise", "threshold": 0.5}, "threshold=0.5 does not work with"),
        ({"prompt": "no/such/file.md"}, "can't be read"),
        ({"prompt": "a text\nwithout sections"}, "it needs one of each"),
        ({"prompt": "=== system ===\nx\n=== user ===\n{{query}} {{ids}}"}, r"lacks \['documents'\]"),
        (
            {"prompt": "=== system ===\n{{x}}\n=== user ===\n{{query}} {{documents}} {{ids}}"},
            r"unknown fields \['x'\]",
        ),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        LLMJudge("m", **options)


def test_a_missing_key_is_told_when_it_is_needed(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(StageError, match="set OPENAI_API_KEY"):
        LLMJudge("m").score("q", ["text"])
    with pytest.raises(StageError, match="set OPENAI_API_KEY"):
        LLMJudge("m").warm_up()


def test_grades_have_a_fingerprint_and_orders_have_none():
    one = LLMJudge("m", api_key=KEY)
    assert one.fingerprint() == LLMJudge("m", api_key="another").fingerprint()
    assert one.fingerprint() != LLMJudge("n", api_key=KEY).fingerprint()
    assert one.fingerprint() != LLMJudge("m", max_characters=9).fingerprint()
    assert KEY not in one.fingerprint()
    assert LLMJudge("m", mode="listwise").fingerprint() is None
    assert math.isclose(one._service.timeout, 60)
