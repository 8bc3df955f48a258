"""``crossrank doctor`` against our server, and against small servers that speak one format and get things wrong."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.cli.doctor import _base
from crossrank.cli.main import main
from crossrank.errors import InputError
from crossrank.server.client_bodies import CLIENTS, TEXTS, UnusableError
from serving import serve

# What a server answers: status and JSON, or the bytes of a body.
Answer = tuple[int, Any]


@contextmanager
def small_server(answer: Callable[[str, dict[str, Any] | None, str | None], Answer]) -> Iterator[str]:
    """A server whose ``answer(path, body or None for GET, authorization)`` is all it does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def reply(self, body: dict[str, Any] | None) -> None:
            status, content = answer(self.path, body, self.headers["authorization"])
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


SCORES = {1: 0.93, 2: 0.21, 0: 0.002}


def tei(path: str, body: dict[str, Any] | None, key: str | None) -> Answer:
    """Text Embeddings Inference, in as far as its documentation goes."""
    if path == "/info":
        return 200, {"model_type": {"reranker": {}}, "max_input_length": 512, "max_client_batch_size": 32}
    if path != "/rerank" or body is None:
        return 404, b""
    if "texts" not in body:
        return 422, b"Failed to deserialize the JSON body into the target type: missing field `texts`"
    text = {"text": None} if body.get("return_text") else {}
    return 200, [{"index": i, "score": score, **(text and {"text": TEXTS[i]})} for i, score in SCORES.items()]


def jina(path: str, body: dict[str, Any] | None, key: str | None) -> Answer:
    """A server of one path, which wants a key and the model's right name."""
    if key != "Bearer secret":
        return 401, {"detail": "Unauthorized"}
    if path != "/v1/rerank" or body is None:
        return 404, {"detail": "Not Found"}
    if body.get("model") != "served":
        return 400, {"detail": f"Model {body.get('model')} not found"}
    rows: list[dict[str, Any]] = [{"index": i, "relevance_score": score} for i, score in SCORES.items()]
    if body.get("return_documents"):
        rows = [{**row, "document": {"text": TEXTS[row["index"]]}} for row in rows]
    return 200, {"results": rows[: body.get("top_n") or 3]}


def doctor(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, str]]:
    """The exit code, and for each product the reason why it does not work."""
    code = main(["doctor", *args, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert all(one["works"] is (one["reason"] == "") for one in found["products"])
    return code, {one["product"]: one["reason"] for one in found["products"]}


def test_our_server_works_with_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with serve(tmp_path / "log", "--strict-models", "--keys-file", str(tmp_path / "keys")) as server:
        # LibreChat has a model's name built in; everyone else sends the given one.
        code, reasons = doctor(capsys, server.url, "--key", "secret", "--model", "bundled")
        assert {product for product, reason in reasons.items() if reason} == {"LibreChat"}
        assert "POST /v1/rerank: 404 Not Found: There is no model" in reasons["LibreChat"]
        assert code == 3
        code, reasons = doctor(capsys, server.url)
        assert code == 3
        assert all("401 Unauthorized" in reason for reason in reasons.values() if "/.well-known" not in reason)
        assert all("--key" in reason for reason in reasons.values())
    with serve(tmp_path / "log2") as server:
        assert doctor(capsys, server.url) == (0, dict.fromkeys((client.product for client in CLIENTS), ""))
        assert main(["doctor", f"{server.url}/v1/rerank"]) == 0
        shown = capsys.readouterr().out
        assert f"{len(CLIENTS)} of {len(CLIENTS)} products would work with {server.url}" in shown
        assert "would not work" not in shown
        assert [line.split() for line in shown.splitlines() if "Open WebUI" in line] == [
            ["Open", "WebUI", f"{server.url}/v1/rerank"]
        ]


def test_a_server_that_speaks_tei_only(capsys: pytest.CaptureFixture[str]) -> None:
    with small_server(tei) as url:
        code, reasons = doctor(capsys, url)
        assert code == 3
        assert {product for product, reason in reasons.items() if not reason} == {
            "Dify, Text Embeddings Inference",
            "RAGFlow, HuggingFace",
            "Continue, TEI",
            "Elasticsearch, hugging_face",
            "Milvus, tei",
            "LlamaIndex, TEI",
            "Haystack, TEI",
        }
        assert reasons["Open WebUI"] == "POST /v1/rerank: 404 Not Found"
        assert reasons["Dify, LocalAI"].startswith("POST /rerank: 422 Unprocessable Entity: Failed to deserialize")
        # TEI has no top_n, and LiteLLM trusts it.
        assert reasons["LiteLLM, huggingface"] == "POST /rerank: 2 results are expected, not 3"
        code, reasons = doctor(capsys, url, "--product", "haystack, tei", "--product", "Continue, TEI")
        assert (code, reasons) == (0, {"Haystack, TEI": "", "Continue, TEI": ""})


def test_key_and_model_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with small_server(jina) as url:
        _, reasons = doctor(capsys, url)
        assert reasons["Open WebUI"].endswith("Unauthorized Give the key with --key or in CROSSRANK_API_KEY.")
        monkeypatch.setenv("CROSSRANK_API_KEY", "secret")
        _, reasons = doctor(capsys, url)
        assert reasons["Open WebUI"] == "POST /v1/rerank: 400 Bad Request: Model reranker not found"
        _, reasons = doctor(capsys, url, "--model", "served")
        assert reasons["Open WebUI"] == reasons["Dify, OpenAI-compatible"] == reasons["LiteLLM, jina_ai"] == ""
        assert "jina-reranker-v2-base-multilingual not found" in reasons["LibreChat"]
        assert reasons["FastGPT"] == "POST /v1/rerank: meta.tokens.input_tokens is None, not an integer"


def answering(content: Any) -> Callable[..., Answer]:
    return lambda *_: (200, content)


GOOD = [{"index": i, "relevance_score": score} for i, score in SCORES.items()]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"results": [{**row, "relevance_score": 1} for row in GOOD]}, "the score 1 is not a float literal"),
        ({"results": [{**row, "relevance_score": -4.5} for row in GOOD]}, "the score -4.5 is not within 0 and 1"),
        ({"results": [{**row, "document": "x"} for row in GOOD]}, "a document that nobody asked for"),
        ({"results": [{**row, "id": "a"} for row in GOOD]}, "a result has keys that strict parsers refuse: id"),
        ({"results": GOOD[:2]}, "3 results are expected, not 2"),
        ({"results": GOOD[::-1]}, "not sorted"),
        ({"results": [{**GOOD[0], "index": 0}, {**GOOD[1]}, {**GOOD[2], "index": 1}]}, "not the one that answers"),
        ({"results": [GOOD[0], GOOD[0], GOOD[0]]}, "an index occurs twice"),
        ({"results": [{"index": 3, "relevance_score": 0.5}] * 3}, "without the index of a document"),
        ({"results": None}, "a list of results is expected"),
        ([], "a list of results is expected"),
        (b'{"results": [{"index": 1, "relevance_score": NaN}]}', "has NaN, which is not JSON"),
        (b"<html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_answers_that_can_not_be_read(content: Any, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with small_server(answering(content)) as url:
        code, reasons = doctor(capsys, url, "--product", "Open WebUI")
    assert code == 3
    assert reason in reasons["Open WebUI"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(0, 1) | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["results", "data", "rankings", "scores", "index", "relevance_score", "score", "document"])
            | st.sampled_from(["model_type", "reranker", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(ANY_JSON)
def test_no_answer_breaks_a_check(answer: Any) -> None:
    for client in CLIENTS:
        for step in client.steps:
            with contextlib.suppress(UnusableError):
                step.check(answer)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://127.0.0.1:7997", "http://127.0.0.1:7997"),
        ("127.0.0.1:7997/", "http://127.0.0.1:7997"),
        ("http://h/v1/rerank", "http://h"),
        ("https://h/a/v2/rerank/", "https://h/a"),
        ("http://h/rerank", "http://h"),
        ("http://h/v1", "http://h"),
    ],
)
def test_paths_to_rerank_are_left_out(given: str, base: str) -> None:
    assert _base(given) == base


@pytest.mark.parametrize("url", ["", "ftp://h", "http://", "http://h:99999", "http://a b", "http://h:x"])
def test_what_is_no_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="is not the URL of a server"):
        _base(url)
    assert main(["doctor", url]) == 1
    assert capsys.readouterr().err.startswith("crossrank: error: ")


def test_no_server_and_unknown_products(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1 can't be reached: " in capsys.readouterr().err
    assert main(["doctor", "http://127.0.0.1:1", "--product", "Open WebU"]) == 1
    assert "There is no product 'Open WebU'. Did you mean 'Open WebUI'?" in capsys.readouterr().err
