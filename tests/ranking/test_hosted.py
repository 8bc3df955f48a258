from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from crossrank.errors import InputError, StageError
from crossrank.ranking.deadline import Deadline
from crossrank.ranking.network.hosted import HostedReranker
from crossrank.ranking.network.providers import PROVIDERS, Provider
from crossrank.ranking.reranker import Reranker
from crossrank.ranking.stage import Context
from service import Reply, serving

KEY = "key-very-secret-77ab"
DOCUMENTS = ["one", "three three three", "two two"]
# How each service answers, as its documentation shows it; scores are the number of words / 10, best first.
ANSWERS = {
    "cohere": lambda rows: {
        "id": "1",
        "results": [{"index": index, "relevance_score": score} for index, score in rows],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    },
    "jina": lambda rows: {
        "model": "m",
        "usage": {"total_tokens": 30, "prompt_tokens": 30},
        "results": [{"index": index, "relevance_score": score} for index, score in rows],
    },
    "voyage": lambda rows: {
        "object": "list",
        "data": [{"index": index, "relevance_score": score} for index, score in rows],
        "model": "m",
        "usage": {"total_tokens": 30},
    },
    "tei": lambda rows: [{"index": index, "score": score} for index, score in rows],
    "vllm": lambda rows: {
        "id": "1",
        "model": "m",
        "usage": {"prompt_tokens": 30, "total_tokens": 30},
        "results": [
            {"index": index, "document": {"text": "x", "multi_modal": None}, "relevance_score": score}
            for index, score in rows
        ],
    },
}
PATHS = {"cohere": "/v2/rerank", "jina": "/v1/rerank", "voyage": "/v1/rerank", "tei": "/rerank", "vllm": "/v1/rerank"}
FIELDS = {
    "cohere": {"model", "query", "documents", "top_n"},
    "jina": {"model", "query", "documents", "top_n", "return_documents"},
    "voyage": {"model", "query", "documents", "top_k", "return_documents"},
    "tei": {"query", "texts", "raw_scores", "return_text"},
    "vllm": {"model", "query", "documents", "top_n"},
}


def answer(name: str):
    def respond(asked):
        texts = asked.body["texts" if name == "tei" else "documents"]
        rows = sorted(enumerate(len(text.split()) / 10 for text in texts), key=lambda row: -row[1])
        return Reply(ANSWERS[name](rows))

    return respond


def hosted(service, name: str = "cohere", **options) -> HostedReranker:
    model = None if name == "tei" else "m"
    return HostedReranker(name, **{"model": model, "base_url": service.url, "api_key": KEY, **options})


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_each_provider_is_asked_and_read_in_its_own_shape(name):
    with serving(answer(name)) as service:
        scores = hosted(service, name).score("q", DOCUMENTS)
    assert scores.scores.tolist() == [0.1, 0.3, 0.2]
    assert (scores.kind, scores.degraded) == ("provider", None)
    assert scores.tokens == (0 if name in ("cohere", "tei") else 30)
    assert scores.cost == (1 if name == "cohere" else None)
    (asked,) = service.asked
    assert asked.path == PATHS[name]
    assert set(asked.body) == FIELDS[name]
    assert asked.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_too_many_for_one_request_are_split_and_put_together(name):
    texts = ["word " * (1 + i % 7) for i in range(75)]
    with serving(answer(name)) as service:
        scores = hosted(service, name, batch_size=32, max_concurrency=2).score("q", texts)
    np.testing.assert_allclose(scores.scores, [(1 + i % 7) / 10 for i in range(75)])
    assert len(service.asked) == 3
    assert service.most_at_once <= 2
    assert sorted(len(asked.body["texts" if name == "tei" else "documents"]) for asked in service.asked) == [11, 32, 32]
    assert any("3 requests" in note for note in scores.notes)
    assert scores.cost == (3 if name == "cohere" else None)


def test_a_providers_limit_is_kept_and_ones_own_server_may_take_more():
    assert HostedReranker("voyage", model="m", batch_size=5000)._batch_size == 1000
    assert HostedReranker("tei", base_url="http://localhost:1")._batch_size == 32
    assert HostedReranker("tei", base_url="http://localhost:1", batch_size=128)._batch_size == 128


@pytest.mark.parametrize(
    ("name", "truncate", "fields"),
    [
        ("tei", True, {"truncate": True}),
        ("tei", False, {"truncate": False}),
        ("voyage", False, {"truncation": False}),
        ("vllm", True, {"truncate_prompt_tokens": -1}),
    ],
)
def test_whether_to_cut_is_said_in_each_providers_words(name, truncate, fields):
    with serving(answer(name)) as service:
        hosted(service, name, truncate=truncate).score("q", DOCUMENTS)
    assert fields.items() <= service.asked[0].body.items()


def test_more_fields_and_a_service_of_ones_own():
    own = Provider("own", None, "/rank", documents="passages", top=None, results=("out", "hits"), score="s", index="i")

    def respond(asked):
        return Reply({"out": {"hits": [{"i": i, "s": -i} for i in range(len(asked.body["passages"]))]}})

    with serving(respond) as service:
        scores = HostedReranker(own, model="m", base_url=service.url, extra_body={"lang": "de"}).score("q", DOCUMENTS)
    assert scores.scores.tolist() == [0, -1, -2]
    assert service.asked[0].body["lang"] == "de"
    assert "authorization" not in service.asked[0].headers


def test_documents_that_are_left_out_are_not_scored():
    with serving([Reply({"results": [{"index": 1, "relevance_score": 0.5}]})]) as service:
        scores = hosted(service).score("q", DOCUMENTS)
    np.testing.assert_array_equal(scores.scores, [np.nan, 0.5, np.nan])
    assert scores.degraded.startswith("2 of 3 documents have no score: cohere left them out")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"results": [{"index": 3, "relevance_score": 0.5}]}, "the index 3, of 3 documents"),
        ({"results": [{"index": -1, "relevance_score": 0.5}]}, "the index -1"),
        ({"results": [{"index": "0", "relevance_score": 0.5}]}, "the index '0'"),
        ({"results": [{"index": True, "relevance_score": 0.5}]}, "the index True"),
        ({"results": [{"index": 0, "relevance_score": "high"}]}, "the score 'high' for document 0"),
        ('{"results": [{"index": 0, "relevance_score": NaN}]}', "the score nan for document 0"),
        ({"results": [{"index": 0}]}, "the score None"),
        ({"results": [{"index": 0, "relevance_score": 1}] * 2}, "two results for document 0"),
        ({"results": ["a"]}, "the index None"),
        ({"results": []}, "no results"),
        ({"data": []}, "no list of results in results"),
        ([], "no list of results"),
        ("<html><h1>Welcome</h1></html>", "not JSON: '<html>"),
        ("", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
    ],
)
def test_answers_that_make_no_sense_are_asked_for_again_and_then_told(body, why):
    def respond(asked):
        return answer("cohere")(asked) if asked.number == 1 and mended else Reply(body)

    for mended in (True, False):
        with serving(respond) as service:
            if mended:
                assert hosted(service, max_retries=1).score("q", DOCUMENTS).scores.tolist() == [0.1, 0.3, 0.2]
            else:
                with pytest.raises(StageError, match=why) as caught:
                    hosted(service, max_retries=1).score("q", DOCUMENTS)
                assert caught.value.retryable
            assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("name", "status", "body", "message"),
    [
        (
            "cohere",
            401,
            {"message": "invalid api token"},
            r"401: invalid api token\. Check the API key",
        ),
        ("cohere", 422, {"message": "too many documents", "id": "1"}, "cohere answered 422: too many documents"),
        ("jina", 402, {"detail": "no balance"}, "jina answered 402: no balance.*balance"),
        ("jina", 422, {"detail": [{"loc": ["model"], "msg": "unknown"}]}, "jina answered 422: .*unknown"),
        ("voyage", 400, {"detail": "the request exceeds the limit"}, "voyage answered 400: the request exceeds"),
        ("tei", 422, {"error": "must have less than 512 tokens", "error_type": "Validation"}, "less than 512 tokens"),
        ("vllm", 404, {"error": {"message": "no such model", "code": 404}}, "no such model.*base_url"),
        ("cohere", 404, "<html>nginx</html>", "cohere answered 404: Not Found.*base_url"),
        ("cohere", 301, "", "cohere answered 301: Moved Permanently.*base_url"),
    ],
)
def test_errors_carry_the_providers_word_and_are_not_repeated(name, status, body, message):
    with serving([Reply(body, status)]) as service:
        with pytest.raises(StageError, match=message) as caught:
            hosted(service, name).score("q", DOCUMENTS)
        assert len(service.asked) == 1
    assert not caught.value.retryable
    assert caught.value.stage == name


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(status):
    def respond(asked):
        return Reply("busy", status, {"retry-after": "0"}) if asked.number < 2 else answer("cohere")(asked)

    with serving(respond) as service:
        assert hosted(service).score("q", DOCUMENTS).scores.tolist() == [0.1, 0.3, 0.2]
    assert len(service.asked) == 3


def test_a_connection_that_breaks_is_tried_again():
    def respond(asked):
        return Reply(drop=True) if asked.number == 0 else answer("cohere")(asked)

    with serving(respond) as service:
        assert hosted(service).score("q", DOCUMENTS).scores.tolist() == [0.1, 0.3, 0.2]


def test_one_batch_that_fails_costs_only_its_own_documents():
    def respond(asked):
        return Reply({"message": "bad text"}, 400) if "bad" in asked.body["documents"] else answer("cohere")(asked)

    with serving(respond) as service:
        scores = hosted(service, batch_size=2).score("q", ["one", "two two", "bad", "x", "three three three"])
    np.testing.assert_array_equal(scores.scores, [0.1, 0.2, np.nan, np.nan, 0.3])
    assert "2 of 5 documents have no score: cohere answered 400: bad text" in scores.degraded


def test_the_deadline_and_the_timeout_end_the_waiting():
    with serving([Reply(delay=3)]) as service:
        started = time.monotonic()
        with pytest.raises(StageError, match=r"the deadline of 0.3 s has passed|did not answer within"):
            hosted(service).score("q", DOCUMENTS, Context(deadline=Deadline(0.3)))
        with pytest.raises(StageError, match=r"cohere did not answer within 0.3 s"):
            hosted(service, timeout=0.3, max_retries=0).score("q", DOCUMENTS)
        assert time.monotonic() - started < 1.5


def test_a_server_that_is_not_there():
    with serving([Reply()]) as service:
        gone = service.url
    with pytest.raises(StageError, match=f"can't be reached at {gone}/v2/rerank") as caught:
        HostedReranker("cohere", model="m", base_url=gone, api_key=KEY, max_retries=1).score("q", DOCUMENTS)
    assert caught.value.retryable


def test_async_calls_from_loops_that_come_and_go():
    with serving(answer("cohere")) as service:
        stage = hosted(service)
        for _ in range(3):
            assert asyncio.run(stage.ascore("q", DOCUMENTS)).scores.tolist() == [0.1, 0.3, 0.2]
        stage.warm_up()
        stage.close()
        assert stage.score("q", DOCUMENTS).scores.tolist() == [0.1, 0.3, 0.2]
        assert stage.score("q", []).scores.shape == (0,)
    assert len(service.asked) == 4


def test_half_characters_do_not_break_the_request():
    with serving(answer("cohere")) as service:
        assert hosted(service).score("q\ud83d", ["\udc00 x"]).scores.tolist() == [0.2]


@pytest.mark.parametrize("name", ["COHERE_API_KEY", "CO_API_KEY"])
def test_the_key_comes_out_of_the_environment(name, monkeypatch):
    for each in ("COHERE_API_KEY", "CO_API_KEY"):
        monkeypatch.delenv(each, raising=False)
    with serving(answer("cohere")) as service:
        with pytest.raises(StageError, match="set COHERE_API_KEY or CO_API_KEY"):
            hosted(service, api_key=None).score("q", DOCUMENTS)
        monkeypatch.setenv(name, f" {KEY}\n")
        hosted(service, api_key=None).score("q", DOCUMENTS)
    assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cohear", {"model": "m"}, "provider='cohear' is unknown"),
        ("cohere", {}, "model=None: cohere has several"),
        ("tei", {}, "base_url is missing"),
        ("vllm", {"model": "m", "base_url": "localhost:8000"}, "base_url='localhost:8000' is not an address"),
        ("vllm", {"model": "m", "base_url": "http://u:secret@localhost:8000"}, "contains a user name or password"),
        ("vllm", {"model": "m", "base_url": "http://["}, "is not an address"),
        ("cohere", {"model": "m", "truncate": True}, "cohere has no such option"),
        ("cohere", {"model": "m", "batch_size": 0}, "batch_size=0"),
        ("cohere", {"model": "m", "timeout": "1"}, "timeout='1'"),
        ("cohere", {"model": "m", "api_key": "k\u00e9y-secret"}, "The key in api_key has characters"),
    ],
)
def test_arguments_are_checked(name, options, message):
    with pytest.raises(InputError, match=message) as caught:
        HostedReranker(name, **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_an_address_may_have_the_version_or_not(tail):
    with serving(answer("vllm")) as service:
        hosted(service, "vllm", base_url=service.url + tail).score("q", DOCUMENTS)
    assert service.asked[0].path == "/v1/rerank"


def test_a_deadline_is_not_an_error_of_the_call():
    with serving([Reply(delay=3)] * 2) as service:
        ranking = Reranker(hosted(service), deadline=0.3).rank("q", DOCUMENTS)
    assert ranking.documents == DOCUMENTS
    assert ranking.degraded
    assert [stage.name for stage in ranking.skipped] == ["cohere"]


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1" + "0" * 400])
def test_numbers_that_no_float_holds(number: str):
    body = f'{{"results": [{{"index": 0, "relevance_score": {number}}}]}}'
    with serving([Reply(body=body)]) as service, pytest.raises(StageError, match="has the score"):
        hosted(service, max_retries=0).score("q", ["one"])


def test_an_answer_of_brackets():
    with serving([Reply(body="[" * 100_000)]) as service, pytest.raises(StageError, match="not JSON"):
        hosted(service, max_retries=0).score("q", ["one"])


@pytest.mark.parametrize("path", ["rank", "/rank", "v1/rank", "/v1/rank/"])
def test_a_providers_path_may_lack_its_slash(path):
    def respond(asked):
        return Reply({"results": [{"index": i, "relevance_score": i} for i in range(len(asked.body["documents"]))]})

    with serving(respond) as service:
        HostedReranker(Provider("own", service.url, path), model="m").score("q", DOCUMENTS)
        assert service.asked[0].path == "/" + path.strip("/")


def test_how_an_answer_is_read_is_part_of_the_fingerprint():
    marks = {
        HostedReranker(Provider("own", "http://localhost:1", "/rank", score=score), model="m").fingerprint()
        for score in ("relevance_score", "logit")
    }
    assert len(marks) == 2
