"""What products send to a reranker and how they read the response, from their source code in November 2026.

`crossrank doctor` replays these against any server, and the tests against ours. A check gets the response as JSON, with
floats distinct from integers, and raises :class:`UnusableError` with a message for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The model's name in bodies, except for products with a built-in name.
MODEL = "reranker"
QUERY = "how do I undo a commit"
TEXTS = (
    "The museum is open from nine to five and closed on Mondays.",
    "git reset --soft HEAD~1 undoes the last commit and keeps its changes.",
    "git log shows the history of a branch.",
)
Check = Callable[[Any], None]


class UnusableError(Exception):
    """An answer that the product can't read, or reads wrongly."""


@dataclass(frozen=True)
class Step:
    """One request that a product makes.

    :param body: What it posts; ``None`` for a GET.
    :param check: Raises :class:`UnusableError` where its parser would fail.
    """

    path: str
    body: Mapping[str, Any] | None
    check: Check


@dataclass(frozen=True)
class Client:
    """A product's use of a reranker.

    :param setting: What to enter as the URL in its settings, below the server's address.
    :param bare_key: Whether it sends an API key without the word Bearer.
    """

    product: str
    setting: str
    steps: Sequence[Step]
    bare_key: bool = False


# ---- how answers are read ----------------------------------------------------------------------------------------


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise UnusableError(message)


def _at(answer: Any, *path: str) -> Any:
    """Read the value at a path of objects; ``None`` where there is none."""
    for key in path:
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


def _score(value: Any) -> None:
    _need(isinstance(value, float), f"the score {value!r} is not a float literal")
    _need(0 <= value <= 1, f"the score {value!r} is not within 0 and 1")


def _rows(rows: Any, key: str, count: int, allowed: set[str]) -> None:
    _need(isinstance(rows, list), f"a list of results is expected, not {type(rows).__name__}")
    _need(len(rows) == count, f"{count} results are expected, not {len(rows)}")
    for row in rows:
        index = _at(row, "index")
        _need(type(index) is int and 0 <= index < len(TEXTS), f"a result without the index of a document: {row!r}")
        unknown = sorted(set(row) - {"index", key, *allowed})
        _need(not unknown, f"a result has keys that strict parsers refuse: {', '.join(unknown)}")
        _score(row.get(key))
    _need(len({row["index"] for row in rows}) == count, "an index occurs twice")
    scores = [row[key] for row in rows]
    _need(scores == sorted(scores, reverse=True), "the results are not sorted by their score")
    best = max(rows, key=lambda row: float(row[key]))
    _need(best["index"] == 1, "the best document is not the one that answers the question")


def _rerank(path: str, body: Mapping[str, Any], *more: Check) -> Step:
    """A request whose answer has ``results[].{index, relevance_score}``, with documents if the body asks for them."""

    def check(answer: Any) -> None:
        _rows(_at(answer, "results"), "relevance_score", body.get("top_n") or 3, {"document"})
        for row in answer["results"]:
            if body.get("return_documents"):
                document = row.get("document")
                text = document.get("text") if isinstance(document, dict) else document
                _need(text == TEXTS[row["index"]], f"a result's document is {document!r}, not its text")
            else:
                _need("document" not in row, "a result has a document that nobody asked for")
        for each in more:
            each(answer)

    return Step(path, body, check)


def _tei(path: str, **fields: Any) -> Step:
    """A request to TEI with some fields; its answer is a plain array."""

    def check(answer: Any) -> None:
        _rows(answer, "score", fields.get("top_n", 3), {"text"})
        if fields.get("return_text"):
            _need(all(row.get("text") == TEXTS[row["index"]] for row in answer), "a result without its text")

    return Step(path, {"query": QUERY, "texts": TEXTS, **fields}, check)


def _integers(*path: str) -> Check:
    """Check that a number at a path is an integer literal."""

    def check(answer: Any) -> None:
        value = _at(answer, *path)
        _need(type(value) is int, f"{'.'.join(path)} is {value!r}, not an integer")

    return check


def _voyage(answer: Any) -> None:
    _rows(_at(answer, "data"), "relevance_score", 2, {"document"})


def _nvidia(answer: Any) -> None:
    _rows(_at(answer, "rankings"), "logit", 3, set())


def _weaviate(answer: Any) -> None:
    scores = _at(answer, "scores")
    _need(isinstance(scores, list) and len(scores) == 3, "three scores are expected")
    _need([_at(each, "document") for each in scores] == list(TEXTS), "the scores are not in input order")
    for each in scores:
        _score(_at(each, "score"))


def _tei_info(answer: Any) -> None:
    _need(_at(answer, "model_type", "reranker") is not None, "/info does not say that the model is a reranker")
    for key in ("max_input_length", "max_client_batch_size"):
        _need(type(_at(answer, key)) is int, f"/info has no integer {key}")


def _xinference_model(answer: Any) -> None:
    _need(_at(answer, "model_type") == "rerank", "the model's model_type is not 'rerank'")


def _any(answer: Any) -> None:
    """Check only the status."""


# ---- what is sent ------------------------------------------------------------------------------------------------

_RANK = {"query": QUERY, "documents": TEXTS}
_NAMED = {"model": MODEL, **_RANK}

CLIENTS: tuple[Client, ...] = (
    Client("Open WebUI", "/v1/rerank", [_rerank("/v1/rerank", {**_NAMED, "top_n": 3})]),
    Client("LightRAG", "/v1/rerank", [_rerank("/v1/rerank", {**_NAMED, "top_n": 3})]),
    Client("Dify, OpenAI-compatible", "/v1", [_rerank("/v1/rerank", {**_NAMED, "top_n": 2, "return_documents": True})]),
    Client("Dify, Text Embeddings Inference", "", [Step("/info", None, _tei_info), _tei("/rerank", return_text=True)]),
    Client(
        "Dify, Xinference",
        "",
        [
            Step(f"/v1/models/{MODEL}", None, _xinference_model),
            _rerank("/v1/rerank", {**_NAMED, "top_n": None, "return_documents": True, "return_len": None}),
        ],
    ),
    Client("Dify, GPUStack", "", [_rerank("/v1/rerank", {**_NAMED, "top_n": 3})]),
    Client("Dify, LocalAI", "", [_rerank("/rerank", {**_NAMED, "top_n": 3})]),
    Client("Dify, Ollama", "", [_rerank("/api/rerank", _NAMED)]),
    Client("RAGFlow, OpenAI-compatible", "/v1", [_rerank("/v1/rerank", {**_NAMED, "top_n": 3})]),
    Client(
        "RAGFlow, Xinference", "", [_rerank("/v1/rerank", {**_NAMED, "return_documents": "true", "return_len": "true"})]
    ),
    Client("RAGFlow, HuggingFace", "", [_tei("/rerank", raw_scores=False, truncate=True)]),
    Client(
        "RAGFlow, NVIDIA",
        "/v1",
        [
            Step(
                "/v1/reranking",
                {
                    "model": MODEL,
                    "query": {"text": QUERY},
                    "passages": [{"text": text} for text in TEXTS],
                    "truncate": "END",
                },
                _nvidia,
            )
        ],
    ),
    Client(
        "LibreChat",
        "/v1/rerank",
        [
            _rerank(
                "/v1/rerank",
                {**_RANK, "model": "jina-reranker-v2-base-multilingual", "top_n": 3, "return_documents": True},
            )
        ],
    ),
    Client("FastGPT", "/v1", [_rerank("/v1/rerank", _NAMED, _integers("meta", "tokens", "input_tokens"))]),
    Client("Cherry Studio, Jina", "", [_rerank("/v1/rerank", {**_NAMED, "top_n": 3})]),
    Client("Cherry Studio, Voyage", "", [Step("/v1/rerank", {**_NAMED, "top_k": 2, "truncation": True}, _voyage)]),
    Client("Cherry Studio, TEI", "", [_tei("/v1/rerank", return_text=True)]),
    Client(
        "Continue, TEI",
        "",
        [
            Step("/info", None, _tei_info),
            _tei("/rerank", return_text=False, raw_scores=False, truncation_direction="Right", truncate=True),
        ],
    ),
    Client("Elasticsearch, hugging_face", "/rerank", [_tei("/rerank", return_text=True)]),
    Client("Elasticsearch, custom", "/v1/rerank", [_rerank("/v1/rerank", {**_RANK, "top_n": 3})]),
    Client("OpenSearch connector", "/v2/rerank", [_rerank("/v2/rerank", _NAMED)]),
    Client(
        "Weaviate, reranker-transformers",
        "",
        [
            Step("/.well-known/ready", None, _any),
            Step("/meta", None, _any),
            Step("/rerank", {**_RANK, "property": ""}, _weaviate),
        ],
    ),
    Client("Milvus, vllm", "", [_rerank("/rerank", {**_RANK, "truncate_prompt_tokens": 512})]),
    Client("Milvus, tei", "", [_tei("/rerank", truncate=True, truncation_direction="Right")]),
    Client(
        "Milvus, cohere",
        "/v2/rerank",
        [
            _rerank(
                "/v2/rerank", {**_NAMED, "max_tokens_per_doc": 4096}, _integers("meta", "billed_units", "search_units")
            )
        ],
    ),
    Client(
        "Cohere SDK, v1",
        "",
        [
            _rerank(
                "/v1/rerank",
                {"query": QUERY, "documents": [{"text": text} for text in TEXTS], "return_documents": True},
            )
        ],
    ),
    Client(
        "Cohere SDK, v2 (LangChain, LlamaIndex, Haystack)",
        "",
        [_rerank("/v2/rerank", {**_NAMED, "top_n": 2, "max_tokens_per_doc": 4096, "priority": 0})],
    ),
    Client("Vercel AI SDK, Cohere", "/v2", [_rerank("/v2/rerank", {**_NAMED, "top_n": 2})]),
    Client("LangChain4j, Cohere or Jina", "/v1", [_rerank("/v1/rerank", _NAMED)]),
    Client("LangChain, Infinity", "", [_rerank("/rerank", _NAMED)]),
    Client("LlamaIndex, TEI", "", [_tei("/rerank")], bare_key=True),
    Client("Haystack, TEI", "", [_tei("/rerank", raw_scores=False, truncate=True, truncation_direction="Right")]),
    Client("LiteLLM, cohere", "", [_rerank("/v2/rerank", {**_NAMED, "top_n": 2})]),
    Client("LiteLLM, jina_ai", "", [_rerank("/v1/rerank", {**_NAMED, "top_n": 2})]),
    Client("LiteLLM, hosted_vllm", "", [_rerank("/rerank", {**_NAMED, "top_n": 2})]),
    Client("LiteLLM, infinity", "", [_rerank("/rerank", {**_NAMED, "top_n": 2}, _integers("usage", "prompt_tokens"))]),
    Client(
        "LiteLLM, huggingface",
        "",
        [_tei("/rerank", top_n=2, return_text=False, truncate=False, truncation_direction="Right")],
    ),
)
