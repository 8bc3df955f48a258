"""Each service's way to ask and answer, on every path; a row of CASES for each dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from crossrank import CrossEncoder
from crossrank.server.app import OTHER_RANK_PATHS, RANK_PATHS
from crossrank.server.dialects import DIALECTS
from serving import Server, serve

QUERY = "how do I undo a commit"
DOCUMENTS = ["git log shows the history", "git reset --soft undoes the last commit", "the museum is closed on Mondays"]

# Dialect -> its body, where its answer has (index, score) pairs, and whether they are sorted.
CASES: dict[str, tuple[dict[str, Any], str, str, bool]] = {
    "rerank": ({"query": QUERY, "documents": DOCUMENTS}, "results", "relevance_score", True),
    "tei": ({"query": QUERY, "texts": DOCUMENTS}, "", "score", True),
    "weaviate": ({"query": QUERY, "documents": DOCUMENTS, "property": ""}, "scores", "score", False),
    "voyage": ({"query": QUERY, "documents": DOCUMENTS, "truncation": True}, "data", "relevance_score", True),
    "score": ({"text_1": QUERY, "text_2": DOCUMENTS}, "data", "score", False),
    "nvidia": (
        {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS], "truncate": "END"},
        "rankings",
        "logit",
        True,
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serve(log, "--model", "bundled", "--model", f"tiny={tiny_bert}") as running:
        yield running


@pytest.fixture(scope="module")
def expected() -> list[float]:
    model = CrossEncoder(precision="float32")
    return [float(score) for score in model.score([(QUERY, text) for text in DOCUMENTS]).scores]


def rows_of(name: str, answer: Any) -> list[tuple[int, float]]:
    _, where, key, _ = CASES[name]
    rows = answer[where] if where else answer
    return [(row.get("index", i), row[key]) for i, row in enumerate(rows)]


def test_a_case_for_each_dialect() -> None:
    assert set(CASES) == {dialect.name for dialect in DIALECTS}


@pytest.mark.parametrize("path", RANK_PATHS + OTHER_RANK_PATHS)
@pytest.mark.parametrize("name", CASES)
def test_the_body_tells_the_dialect_on_every_path(name: str, path: str, server: Server, expected: list[float]) -> None:
    response = server.post(CASES[name][0], path)
    assert response.status_code == 200
    rows = rows_of(name, response.json())
    in_order = sorted(range(3), key=lambda i: -expected[i]) if CASES[name][3] else [0, 1, 2]
    assert [index for index, _ in rows] == in_order
    np.testing.assert_allclose([score for _, score in rows], [expected[i] for i in in_order], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_float_literals_from_0_to_1(name: str, server: Server) -> None:
    body, _, key, _ = CASES[name]
    # A random model with logits far from 0, where a sigmoid is 1 or near 0.
    text = server.post({**body, "model": "tiny"}).text
    literals = re.findall(rf'"{key}": ([^,}}]+)', text)
    assert len(literals) == 3
    for literal in literals:
        assert re.fullmatch(r"[01]\.\d+(e-\d+)?|\d(\.\d+)?e-\d+", literal)
        assert 0 <= float(literal) <= 1
    for literal in re.findall(r'"(?:search_units|total_tokens|input_tokens)": ([^,}]+)', text):
        assert re.fullmatch(r"\d+", literal)


@pytest.mark.parametrize("name", CASES)
def test_nulls_are_unset_and_unknown_fields_ignored(name: str, server: Server) -> None:
    body = CASES[name][0]
    noise = dict.fromkeys(("model", "top_n", "return_documents", "texts", "passages", "text_1", "top_k"))
    answer = server.post({**noise, "overlap_tokens": 80, "priority": 0, "user": {"a": [1]}, **body})
    plain = server.post(body)
    assert answer.status_code == 200
    assert rows_of(name, answer.json()) == rows_of(name, plain.json())


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("rerank", {"message", "detail", "error"}),
        ("tei", {"error", "error_type"}),
        ("weaviate", {"error"}),
        ("voyage", {"detail"}),
        ("score", {"message", "detail", "error"}),
        ("nvidia", {"detail"}),
    ],
)
def test_errors_are_in_the_dialects_own_shape(name: str, keys: set[str], server: Server) -> None:
    body = json.loads(json.dumps(CASES[name][0]).replace(json.dumps(DOCUMENTS[0]), "17"))
    assert body != CASES[name][0]
    response = server.post(body)
    assert response.status_code == 422
    answer = response.json()
    assert set(answer) == keys
    assert isinstance(answer.get("detail", ""), str)
    assert "[0]" in json.dumps(answer)
    assert response.headers["content-type"] == "application/json"


def test_no_extra_keys_in_a_result(server: Server) -> None:
    body = CASES["rerank"][0]
    plain, shown = server.post(body).json(), server.post({**body, "return_documents": "true"}).json()
    assert {frozenset(result) for result in plain["results"]} == {frozenset({"index", "relevance_score"})}
    assert [result["document"] for result in shown["results"]] == [
        {"text": DOCUMENTS[r["index"]]} for r in shown["results"]
    ]
    assert [set(row) for row in server.post({**CASES["tei"][0], "return_text": True}).json()] == 3 * [
        {"index", "text", "score"}
    ]


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 3), (1, 1), (2, 2), (99, 3), ("2", 2), (2.0, 2)])
def test_top_n(top_n: Any, count: int, server: Server) -> None:
    assert len(server.post({**CASES["rerank"][0], "top_n": top_n}).json()["results"]) == count
    assert len(server.post({**CASES["tei"][0], "top_n": top_n}).json()) == count
    assert len(server.post({**CASES["voyage"][0], "top_k": top_n}).json()["data"]) == count


@pytest.mark.parametrize("top_n", [-1, 1.5, True, "many", [], {}])
def test_a_top_n_that_can_not_be_used(top_n: Any, server: Server) -> None:
    response = server.post({**CASES["rerank"][0], "top_n": top_n})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "top_n"


def test_documents_may_be_objects(server: Server, expected: list[float]) -> None:
    objects = [{"text": text, "title": "x", "page": i} for i, text in enumerate(DOCUMENTS)]
    body = {"query": QUERY, "documents": objects, "return_documents": True}
    results = server.post(body).json()["results"]
    np.testing.assert_allclose(
        [result["relevance_score"] for result in results], sorted(expected, reverse=True), atol=1e-5
    )
    assert [result["document"] for result in results] == [objects[result["index"]] for result in results]
    fields = server.post({**body, "rank_fields": ["page", "text"]}).json()["results"]
    joined = CrossEncoder(precision="float32").rank(QUERY, [f"page: {i}\ntext: {t}" for i, t in enumerate(DOCUMENTS)])
    assert [result["index"] for result in fields] == [row["corpus_id"] for row in joined]
    np.testing.assert_allclose(
        [result["relevance_score"] for result in fields], [row["score"] for row in joined], atol=1e-5
    )


def test_pairs_of_several_queries(server: Server) -> None:
    queries = [QUERY, "when is the museum open", "history"]
    body = {"queries": queries, "documents": DOCUMENTS, "model": "bundled"}
    scores = [row["score"] for row in server.post(body, "/score").json()["data"]]
    own = CrossEncoder(precision="float32").predict(list(zip(queries, DOCUMENTS, strict=True)))
    np.testing.assert_allclose(scores, own, atol=1e-5)
    assert server.post({**body, "queries": queries[:2]}, "/score").status_code == 422


def test_our_own_facts(server: Server) -> None:
    long = "a long text about commits " * 2000
    body = {"query": QUERY, "documents": ["short", long], "model": "no-such"}
    model = CrossEncoder(precision="float32")
    cut = int(model.score([(QUERY, long)]).document_tokens_cut[0])
    response = server.post(body, x_request_id="my-id-7")
    answer = response.json()
    facts = answer["crossrank"]
    assert facts["request_id"] == answer["id"] == response.headers["x-request-id"] == "my-id-7"
    assert facts["model_version"] == model.identity
    assert facts["cut"] == [{"index": 1, "tokens": cut}]
    assert facts["skipped"] == []
    assert facts["degraded"] is None
    assert facts["timings"]["total"] > facts["timings"]["scoring"] > 0
    assert answer["model"] == "bundled"
    first, second = answer["meta"]["warnings"]
    assert "'no-such'" in first
    assert "1 documents were longer" in second
    array = server.post({"query": QUERY, "texts": ["short", long]}, x_request_id="my-id-8")
    assert array.headers["x-request-id"] == "my-id-8"
    assert array.headers["x-crossrank-cut"] == f"1={cut}"
    assert array.headers["x-crossrank-model-version"] == model.identity


def test_an_identity_activation_is_served_from_0_to_1(server: Server, tmp_path: Path, tiny_bert: Path) -> None:
    import shutil

    from checkpoints import edit_config

    folder = Path(shutil.copytree(tiny_bert, tmp_path / "raw"))
    edit_config(folder, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    own = CrossEncoder(str(folder), precision="float32")
    logits = own.predict([(QUERY, text) for text in DOCUMENTS])
    with serve(tmp_path / "log", "--model", f"raw={folder}") as raw:
        body = CASES["score"][0]
        scores = [row["score"] for row in raw.post(body).json()["data"]]
        unsquashed = [row["score"] for row in raw.post({**body, "use_activation": False}).json()["data"]]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.astype(float))), atol=1e-5)
    np.testing.assert_allclose(unsquashed, logits, atol=1e-4)


@pytest.mark.parametrize("count", [1, 100, 1000])
def test_scores_are_the_librarys(count: int, server: Server, tiny_bert: Path) -> None:
    passages = (texts.passages() * 10)[:count]
    body = {"model": "tiny", "text_1": QUERY, "text_2": passages}
    answer = server.post(body).json()
    result = CrossEncoder(str(tiny_bert), precision="float32").score([(QUERY, passage) for passage in passages])
    np.testing.assert_allclose([row["score"] for row in answer["data"]], result.scores, atol=1e-5)
    assert [cut["tokens"] for cut in answer["crossrank"]["cut"]] == [c for c in result.document_tokens_cut if c]


@pytest.mark.parametrize(
    ("path", "meant"), [("/v3/rerank", "/v1/rerank"), ("/rank", "/v1/rerank"), ("/x/score", "/score")]
)
def test_a_near_miss_names_the_right_path(path: str, meant: str, server: Server) -> None:
    response = server.post(CASES["rerank"][0], path)
    assert response.status_code == 404
    assert f"POST to {meant} " in response.json()["detail"]
    assert server.client.get("/v1/rerank").status_code == 405
    assert "POST" in server.client.get("/v1/rerank").json()["message"]


def test_no_documents_give_no_results(server: Server) -> None:
    assert server.post({"query": QUERY, "documents": []}).json()["results"] == []
    assert server.post({"query": QUERY, "texts": []}).json() == []
    assert server.post({"query": "  ", "documents": ["a"]}).status_code == 422


@pytest.mark.parametrize("path", ["/health", "/ping", "/ready", "/.well-known/ready", "/.well-known/live", "/meta"])
def test_probes(path: str, server: Server) -> None:
    assert server.client.get(path).status_code == 200


def test_facts_about_models(server: Server) -> None:
    info = server.client.get("/info").json()
    assert "reranker" in info["model_type"]
    assert info["max_input_length"] == 512
    assert info["max_client_batch_size"] >= 1000
    assert [model["id"] for model in server.client.get("/v1/models").json()["data"]] == ["bundled", "tiny"]
    assert server.client.get("/v1/models/tiny").json()["model_type"] == "rerank"
    assert server.client.get("/v1/models/no").json()["id"] == "bundled"


def test_metrics_count(server: Server) -> None:
    before = server.metric("crossrank_pairs_total")
    server.post(CASES["rerank"][0])
    assert server.metric("crossrank_pairs_total") == before + 3
    assert server.metric("crossrank_queue_tokens") == 0


def test_no_text_in_the_log(server: Server) -> None:
    server.post({"query": "a secret question", "documents": ["a secret document", "b"]})
    server.post({"query": "a secret question", "documents": ["a secret document", 7]})
    logged = server.logged()
    assert {"request_id", "ms", "status", "dialect"} <= set(logged[-1])
    assert "secret" not in server.log.read_text()
