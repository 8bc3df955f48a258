"""Judges and hosted rerankers within a pipeline: what an application sees of them."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time

import pytest

from crossrank.errors import InputError, StageError
from crossrank.ranking.breaker import CircuitBreaker
from crossrank.ranking.cache.sqlite_cache import MemoryCache
from crossrank.ranking.judge.llm_judge import LLMJudge
from crossrank.ranking.network.hosted import HostedReranker
from crossrank.ranking.reranker import Reranker
from service import Reply, document_of, graded, serving

KEY = "sk-very-secret-8f2c41"
DOCUMENTS = ["Berlin is a city.", "Paris is the capital of France.", "Bananas are yellow.", "France has a capital."]
GRADES = {"Berlin": 1, "Paris": 3, "Bananas": 0, "France": 3}


def services(asked):
    """A hosted reranker and a judge in one."""
    if asked.path == "/v2/rerank":
        rows = [{"index": i, "relevance_score": 1 / (1 + i)} for i in range(len(asked.body["documents"]))]
        return Reply({"results": rows, "meta": {"billed_units": {"search_units": 2}}})
    return graded(asked, GRADES[document_of(asked, asked.ids[0]).split()[0]])


def pipeline(url: str, **options) -> Reranker:
    stages = [
        HostedReranker("cohere", model="m", base_url=url, api_key=KEY, keep=3, max_retries=0),
        LLMJudge("m", base_url=url + "/v1", api_key=KEY, threshold=1, max_retries=0),
    ]
    return Reranker(stages, **options)


@pytest.mark.parametrize("call", [Reranker.rank, lambda *given: asyncio.run(Reranker.arank(*given))])
def test_two_stages_and_their_account(call):
    with serving(services) as service:
        ranking = call(pipeline(service.url), "capital of France?", DOCUMENTS)
    assert ranking.documents == [DOCUMENTS[1], DOCUMENTS[0]]
    assert ranking[0].scores == {"cohere": 0.5, "llm_judge": 3}
    assert ranking[0].kinds == {"cohere": "provider", "llm_judge": "grade"}
    assert ranking[0].details["llm_judge"] == {"grade": 3, "reason": "because"}
    assert (ranking.tokens, ranking.cost, ranking.degraded) == (330, 2, False)


def test_a_stage_that_is_down_keeps_the_order_and_says_so():
    def respond(asked):
        return Reply({"error": {"message": "gone"}}, 503) if "chat" in asked.path else services(asked)

    with serving(respond) as service:
        ranking = pipeline(service.url, on_error="keep_order").rank("q", DOCUMENTS)
        with pytest.raises(StageError, match="answered 503: gone") as caught:
            pipeline(service.url).rank("q", DOCUMENTS)
    assert ranking.documents == DOCUMENTS[:3]
    assert ranking.degraded
    assert "answered 503: gone" in ranking.reason
    assert str(caught.value).count("llm_judge") == 1
    assert KEY not in str(ranking.to_dict())


def test_what_was_judged_before_the_deadline_is_used():
    def respond(asked):
        reply = services(asked)
        reply.delay = 3 if "chat" in asked.path and "Berlin" in document_of(asked, asked.ids[0]) else 0
        return reply

    with serving(respond) as service:
        reranker = pipeline(service.url, on_error="keep_order", deadline=1.0)
        reranker.warm_up()
        started = time.monotonic()
        ranking = reranker.rank("q", DOCUMENTS)
        assert time.monotonic() - started < 1.5
    # Bananas are below the threshold; Berlin has no grade, so it does not pass either.
    assert ranking.documents == [DOCUMENTS[1]]
    assert "1 of 3 documents could not be judged" in ranking.reason


def test_out_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = tmp_path / "pipeline.toml"
    with serving(services) as service:
        path.write_text(
            f'[[stages]]\ntype = "hosted"\nprovider = "cohere"\nmodel = "m"\nbase_url = "{service.url}"\n'
            f'[[stages]]\ntype = "llm-judge"\nmodel = "m"\nbase_url = "{service.url}/v1"\nkeep = 1\n'
        )
        assert Reranker.from_file(path).rank("q", DOCUMENTS).documents == [DOCUMENTS[1]]
    path.write_text('[[stages]]\ntype = "llm-judge"\nmodel = "m"\napi_key = "x"\n')
    with pytest.raises(InputError, match="environment"):
        Reranker.from_file(path)


def test_a_missing_key_is_a_failed_stage_with_one_clear_line(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COHERE_API_KEY", "CO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for stage, said in (
        (LLMJudge("m"), "llm_judge: there is no key for 'm': set OPENAI_API_KEY or pass api_key="),
        (HostedReranker("cohere", model="m"), "cohere: there is no key for cohere: set COHERE_API_KEY or CO_API_KEY"),
    ):
        reranker = Reranker(stage, on_error="keep_order")
        for _ in range(7):  # also when the breaker is open by then
            ranking = reranker.rank("q", DOCUMENTS)
            assert ranking.documents == DOCUMENTS
            assert said.partition(": ")[2] in ranking.reason
        with pytest.raises(StageError) as caught:
            Reranker(stage).rank("q", DOCUMENTS)
        assert str(caught.value).startswith(said)


def test_grades_of_another_endpoint_do_not_come_from_the_cache(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    cache = MemoryCache()
    with serving(lambda asked: graded(asked, 3)) as one, serving(lambda asked: graded(asked, 0)) as other:
        for service, grade in ((one, 3), (other, 0), (one, 3)):
            monkeypatch.setenv("OPENAI_BASE_URL", f"{service.url}/v1")
            ranking = Reranker(LLMJudge("m"), cache=cache).rank("q", DOCUMENTS[:1])
            assert ranking[0].score == grade
        assert (len(one.asked), len(other.asked)) == (1, 1)


def test_a_judge_keeps_the_endpoint_that_it_was_made_with(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda asked: graded(asked, 2)) as service:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{service.url}/v1")
        judge = LLMJudge("m")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        assert judge.score("q", DOCUMENTS[:1]).scores.tolist() == [2]


def test_short_deadlines_do_not_open_a_breaker():
    def respond(asked):
        reply = services(asked)
        reply.delay = 0.3
        return reply

    with serving(respond) as service:
        stage = HostedReranker("cohere", model="m", base_url=service.url, api_key=KEY, max_retries=0)
        stage.warm_up()
        reranker = Reranker(stage)
        for _ in range(6):
            assert reranker.rank("q", DOCUMENTS, deadline=0.05).degraded
        assert (reranker.breakers["cohere"].state, reranker.breakers["cohere"].failures) == ("closed", 0)
        assert not reranker.rank("q", DOCUMENTS).degraded


def test_a_call_served_by_the_cache_says_nothing_to_the_breaker():
    broken = True

    def respond(asked):
        return Reply({}, 500) if broken else services(asked)

    with serving(respond) as service:
        now = [0.0]
        stage = HostedReranker("cohere", model="m", base_url=service.url, api_key=KEY, max_retries=0)
        reranker = Reranker(
            stage,
            on_error="keep_order",
            cache=MemoryCache(),
            breaker=lambda: CircuitBreaker(3, 10, clock=lambda: now[0]),
        )
        broken = False
        reranker.rank("known", DOCUMENTS)
        broken = True
        for _ in range(3):
            assert reranker.rank("unknown", DOCUMENTS).degraded
            assert not reranker.rank("known", DOCUMENTS).degraded  # no success of the service
        breaker = reranker.breakers["cohere"]
        assert breaker.state == "open"
        asked = len(service.asked)
        known = reranker.rank("known", DOCUMENTS)  # needs no service, so it is not refused
        assert (known.degraded, known.cache_hit_rate) == (False, 1.0)
        now[0] = 11
        reranker.rank("known", DOCUMENTS)
        assert (breaker.state, len(service.asked)) == ("half-open", asked)


def test_stages_can_be_copied_and_pickled():
    with serving(services) as service:
        stages = pipeline(service.url, cache=MemoryCache())
        expected = stages.rank("q", DOCUMENTS).documents
        for copied in (copy.deepcopy(stages), pickle.loads(pickle.dumps(stages))):
            assert copied.rank("q", DOCUMENTS).documents == expected
