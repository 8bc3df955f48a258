"""Judges and hosted rerankers within a pipeline: what an application sees of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from crossrank.errors import InputError, StageError
from crossrank.ranking.hosted import HostedReranker
from crossrank.ranking.llm_judge import LLMJudge
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
    # Bananas were under the threshold; of Berlin nothing is known.
    assert ranking.documents == [DOCUMENTS[1], DOCUMENTS[0]]
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
