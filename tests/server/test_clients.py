"""Real clients against a real server process; for products that can't be installed, their bodies and parsers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import node
from crossrank import CrossEncoder
from crossrank.server.client_bodies import CLIENTS, QUERY, TEXTS, Client
from serving import Server, serve

KEY = "sk-test-1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "keys").write_text(f"# keys\n{KEY}\n")
    with serve(folder / "log", "--keys-file", str(folder / "keys")) as running:
        running.client.headers["authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return [float(score) for score in CrossEncoder(precision="float32").score([(QUERY, text) for text in TEXTS]).scores]


def same(rows: list[tuple[int, float]], expected: list[float], count: int = 3) -> None:
    order = sorted(range(3), key=lambda i: -expected[i])[:count]
    assert [index for index, _ in rows] == order
    np.testing.assert_allclose([score for _, score in rows], [expected[i] for i in order], atol=1e-5)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.product)
def test_bodies_of_products(client: Client, server: Server) -> None:
    for step in client.steps:
        if step.body is None:
            response = server.client.get(step.path)
        else:
            response = server.post({k: list(v) if isinstance(v, tuple) else v for k, v in step.body.items()}, step.path)
        assert response.status_code == 200
        step.check(response.json())


def test_cohere_v2(server: Server, expected: list[float]) -> None:
    import cohere

    client = cohere.ClientV2(api_key=KEY, base_url=server.url)
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=list(TEXTS), top_n=2, max_tokens_per_doc=100)
    same([(row.index, row.relevance_score) for row in answer.results], expected, 2)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert "'rerank-v3.5' is not served" in (answer.meta.warnings or [""])[0]
    with pytest.raises(cohere.UnprocessableEntityError):
        client.rerank(model="x", query=" ", documents=["a"])
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="wrong", base_url=server.url).rerank(model="x", query=QUERY, documents=["a"])


def test_cohere_v1(server: Server, expected: list[float]) -> None:
    import cohere

    client = cohere.Client(api_key=KEY, base_url=server.url)
    answer = client.rerank(query=QUERY, documents=[{"text": text} for text in TEXTS], return_documents=True)
    same([(row.index, row.relevance_score) for row in answer.results], expected)
    assert [row.document.text for row in answer.results if row.document] == [TEXTS[row.index] for row in answer.results]


def test_langchain_cohere(server: Server, expected: list[float]) -> None:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    compressor = CohereRerank(cohere_api_key=KEY, base_url=server.url, model="bundled", top_n=3)
    found = compressor.compress_documents([Document(text) for text in TEXTS], QUERY)
    same([(TEXTS.index(d.page_content), d.metadata["relevance_score"]) for d in found], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchain_infinity(server: Server, expected: list[float]) -> None:
    from infinity_client.client import Client as InfinityClient
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank
    from langchain_core.documents import Document

    client = InfinityClient(base_url=server.url, headers={"authorization": f"Bearer {KEY}"})
    compressor = InfinityRerank(client=client, model="bundled", top_n=3)
    found = compressor.compress_documents([Document(text) for text in TEXTS], QUERY)
    same([(TEXTS.index(d.page_content), d.metadata["relevance_score"]) for d in found], expected)


def llama_nodes() -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


def test_llama_index_cohere(server: Server, expected: list[float]) -> None:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    found = CohereRerank(api_key=KEY, base_url=server.url, top_n=3).postprocess_nodes(llama_nodes(), query_str=QUERY)
    same([(TEXTS.index(node.text), node.score or 0) for node in found], expected)


def test_llama_index_tei_sends_its_key_bare(server: Server, expected: list[float]) -> None:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    client = TextEmbeddingInference(base_url=server.url, top_n=3, auth_token=KEY)
    found = client.postprocess_nodes(llama_nodes(), query_str=QUERY)
    same([(TEXTS.index(node.text), node.score or 0) for node in found], expected)


def test_haystack_tei(server: Server, expected: list[float]) -> None:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    ranker = HuggingFaceTEIRanker(url=server.url, top_k=3, token=Secret.from_token(KEY))
    found = ranker.run(query=QUERY, documents=[Document(content=text) for text in TEXTS])["documents"]
    same([(TEXTS.index(document.content or ""), document.score or 0) for document in found], expected)


@pytest.mark.parametrize(
    ("provider", "base"),
    [
        ("cohere", ""),
        ("cohere", "/v1/rerank"),
        ("cohere", "/v2/rerank"),
        ("jina_ai", ""),
        ("hosted_vllm", ""),
        ("infinity", ""),
        ("huggingface", ""),
    ],
)
def test_litellm(provider: str, base: str, server: Server, expected: list[float], monkeypatch: Any) -> None:
    # Else it asks the network for a list of prices, three times.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    answer = litellm.rerank(
        model=f"{provider}/reranker",
        query=QUERY,
        documents=list(TEXTS),
        top_n=2,
        api_base=server.url + base,
        api_key=KEY,
        # From infinity it expects documents as bare strings, which no other client of this path does.
        return_documents=provider != "infinity",
    )
    results = [(row["index"], row["relevance_score"]) for row in answer.results or []]
    same(results, expected, 2)


@pytest.mark.npm
@pytest.mark.parametrize("base", ["", "/v1", "/v2"])
def test_vercel_ai_sdk(base: str, server: Server, expected: list[float]) -> None:
    place = node.installed(Path(__file__).parent / "vercel")

    def run(key: str, query: str) -> dict[str, Any]:
        done = subprocess.run(
            ["node", "rerank.mjs", server.url + base, key],
            cwd=place,
            input=json.dumps({"query": query, "documents": TEXTS, "topN": 2}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    ranking = run(KEY, QUERY)["ranking"]
    same([(row["originalIndex"], row["score"]) for row in ranking], expected, 2)
    assert [row["document"] for row in ranking] == [TEXTS[row["originalIndex"]] for row in ranking]
    # The server's own words reach the program.
    assert run("wrong", QUERY) == {
        "status": 401,
        "message": "The API key is not known here. Send the header Authorization: Bearer KEY.",
    }
    assert run(KEY, " ")["status"] == 422


def test_keys_are_asked_for(server: Server) -> None:
    body = {"query": QUERY, "documents": list(TEXTS)}
    for given in ("", "Bearer", "Bearer wrong", KEY[:-1], f"Bearer {KEY} x"):
        refused = server.post(body, authorization=given)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert KEY not in refused.text
    for given in (KEY, f"bearer {KEY}", f"Bearer  {KEY}"):
        assert server.post(body, authorization=given).status_code == 200
    assert server.client.get("/info", headers={"authorization": ""}).status_code == 401
    assert server.client.get("/health", headers={"authorization": ""}).status_code == 200
    assert KEY not in server.log.read_text()
    assert os.environ.get("CROSSRANK_KEYS_FILE") is None


def test_keys_have_limits_and_are_read_again(tmp_path: Path) -> None:
    import signal
    import time
    from concurrent.futures import ThreadPoolExecutor

    keys = tmp_path / "keys"
    keys.write_text("one 1\n")
    with serve(tmp_path / "log", "--keys-file", str(keys)) as server:
        slow = {"query": QUERY, "documents": [f"{text} {i} " * 40 for i, text in enumerate(TEXTS * 10)]}
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(lambda _: server.post(slow, authorization="Bearer one"), range(3)))
        assert {answer.status_code for answer in answers} == {200, 429}
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert int(busy.headers["retry-after"]) >= 1
        body = {"query": QUERY, "documents": list(TEXTS)}
        keys.write_text("two\n")
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while server.post(body, authorization="two").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert server.post(body, authorization="two").status_code == 200
        assert server.post(body, authorization="one").status_code == 401
        keys.write_text("two many\n")
        server.process.send_signal(signal.SIGHUP)
        while "keys not changed" not in server.log.read_text() and time.monotonic() < until:
            time.sleep(0.05)
        assert server.post(body, authorization="two").status_code == 200
