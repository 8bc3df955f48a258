"""Facts about reranking services, from their documentation and code in November 2026.

Cohere https://docs.cohere.com/reference/rerank · Jina https://api.jina.ai/redoc · Voyage
https://docs.voyageai.com/reference/reranker-api · text-embeddings-inference
https://huggingface.github.io/text-embeddings-inference · vLLM
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crossrank.ranking.network.json_service import ERROR_PLACES, Place


@dataclass(frozen=True)
class Provider:
    """How to call a service, and how to read its answer.

    :param name: Its name in crossrank.
    :param base_url: Its address; ``None`` for software that you run yourself.
    :param path: The path after the address.
    :param key_names: Environment variables for the key; the first one that is set is used.
    :param needs_key: Whether it needs a key.
    :param needs_model: Whether it needs a model's name.
    :param documents: The request's field for the texts.
    :param top: The request's field for how many results to return; ``None`` if there is none.
    :param fixed: Fields of every request.
    :param truncate: The fields that make it cut long texts, and those that make it refuse them; ``None`` if there is no
        such choice.
    :param max_documents: The most documents of one request; more are split into several requests.
    :param results: Where the list of results is.
    :param index: A result's field for the document's position in the request.
    :param score: A result's field for the score.
    :param tokens: Where the number of tokens is.
    :param cost: Where the cost is, in the provider's unit.
    :param errors: Where an error's message may be.
    """

    name: str
    base_url: str | None
    path: str
    key_names: tuple[str, ...] = ()
    needs_key: bool = False
    needs_model: bool = True
    documents: str = "documents"
    top: str | None = "top_n"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    truncate: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
    max_documents: int = 1000
    results: Place = ("results",)
    index: str = "index"
    score: str = "relevance_score"
    tokens: Place | None = ("usage", "total_tokens")
    cost: Place | None = None
    errors: tuple[Place, ...] = ERROR_PLACES


PROVIDERS: dict[str, Provider] = {
    row.name: row
    for row in (
        Provider(
            name="cohere",
            base_url="https://api.cohere.com",
            path="/v2/rerank",
            key_names=("COHERE_API_KEY", "CO_API_KEY"),
            needs_key=True,
            # The limit is 10,000, but the documentation advises against more than 1,000.
            max_documents=1000,
            tokens=None,
            cost=("meta", "billed_units", "search_units"),
        ),
        Provider(
            name="jina",
            base_url="https://api.jina.ai",
            path="/v1/rerank",
            key_names=("JINA_API_KEY",),
            needs_key=True,
            fixed={"return_documents": False},
            # The documented limit could not be verified; this one is our choice.
            max_documents=1000,
        ),
        Provider(
            name="voyage",
            base_url="https://api.voyageai.com",
            path="/v1/rerank",
            key_names=("VOYAGE_API_KEY",),
            needs_key=True,
            top="top_k",
            fixed={"return_documents": False},
            truncate=({"truncation": True}, {"truncation": False}),
            max_documents=1000,
            results=("data",),
        ),
        Provider(
            name="tei",
            base_url=None,
            path="/rerank",
            needs_model=False,
            documents="texts",
            top=None,
            fixed={"raw_scores": False, "return_text": False},
            truncate=({"truncate": True}, {"truncate": False}),
            # The default of its --max-client-batch-size.
            max_documents=32,
            results=(),
            score="score",
            tokens=None,
        ),
        Provider(
            name="vllm",
            base_url=None,
            path="/v1/rerank",
            # -1 cuts at the model's limit; without it, longer texts are refused.
            truncate=({"truncate_prompt_tokens": -1}, {}),
            max_documents=1000,
        ),
    )
}
