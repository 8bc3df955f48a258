"""In Haystack's own pipelines: a document store, a BM25 retriever, the ranker behind it."""

from __future__ import annotations

import asyncio
import copy
import os
from typing import Any

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported

import haystack
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.core import serialization
from haystack.document_stores.in_memory import InMemoryDocumentStore

from crossrank.errors import InputError
from crossrank.integrations.haystack import CrossRankRanker
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.cross_encoder import CrossEncoder

QUERY = "how do I undo a commit"
TEXTS = [
    "A commit records a snapshot, which you undo later.",
    "To undo a commit, run git revert with its hash.",
    "Do commit often, and do it early.",
    "How do I bake it? For an hour.",
]
DOCUMENTS = [Document(id=str(i), content=text, meta={"n": i}) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    return CrossEncoder().rank(QUERY, TEXTS)


def check(got: list[Document], expected: list[dict[str, Any]]) -> None:
    assert [document.id for document in got] == [str(row["corpus_id"]) for row in expected]
    assert [document.meta["n"] for document in got] == [row["corpus_id"] for row in expected]
    assert [document.score for document in got] == pytest.approx([row["score"] for row in expected], abs=1e-5)


def connected(pipeline: Any, ranker: CrossRankRanker) -> Any:
    store = InMemoryDocumentStore()
    store.write_documents(DOCUMENTS)
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=4))
    pipeline.add_component("ranker", ranker)
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


INPUTS = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}


def test_a_pipeline(expected: list[dict[str, Any]]) -> None:
    pipeline = connected(Pipeline(), CrossRankRanker(top_k=2))
    check(pipeline.run(INPUTS)["ranker"]["documents"], expected[:2])
    more = {**INPUTS, "ranker": {"query": QUERY, "top_k": 3}}
    check(pipeline.run(more)["ranker"]["documents"], expected[:3])


def test_an_async_pipeline(expected: list[dict[str, Any]]) -> None:
    # Haystack 2 has a class of its own for it.
    pipeline = connected(getattr(haystack, "AsyncPipeline", Pipeline)(), CrossRankRanker())
    check(asyncio.run(pipeline.run_async(INPUTS))["ranker"]["documents"], expected)


def test_a_pipeline_comes_back_from_yaml(expected: list[dict[str, Any]]) -> None:
    ranker = CrossRankRanker(top_k=2, threshold=0.01, text="{n}: {text}", model_settings={"max_length": 64})
    if hasattr(serialization, "allow_deserialization_module"):  # Haystack 3 reads classes of its own only
        serialization.allow_deserialization_module("crossrank.integrations.haystack")
    again = Pipeline.loads(connected(Pipeline(), ranker).dumps()).get_component("ranker")
    assert again.to_dict() == ranker.to_dict()
    assert (again.top_k, again.reranker.threshold) == (2, 0.01)
    assert again.run(QUERY, DOCUMENTS) == ranker.run(QUERY, DOCUMENTS)


def test_the_callers_documents_are_not_touched(expected: list[dict[str, Any]]) -> None:
    given = copy.deepcopy(DOCUMENTS)
    ranker = CrossRankRanker()
    ranker.warm_up()
    check(ranker.run(QUERY, given)["documents"], expected)
    assert given == DOCUMENTS
    assert ranker.run(QUERY, []) == {"documents": []}


def test_a_reranker_of_ones_own_is_used_and_not_written() -> None:
    ranker = CrossRankRanker(reranker=Reranker(threshold=0.999999))
    assert ranker.run(QUERY, DOCUMENTS) == {"documents": []}
    with pytest.raises(InputError, match="can't be written"):
        ranker.to_dict()
