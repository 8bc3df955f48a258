"""In LlamaIndex's own query engine: an index, its retriever, the postprocessor, a mock model to answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import MockEmbedding, SummaryIndex, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from crossrank.errors import InputError
from crossrank.integrations.llama_index import CrossRankPostprocessor
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.cross_encoder import CrossEncoder

QUERY = "how do I undo a commit"
TEXTS = [
    "The museum is open on Sundays.",
    "To undo a commit, run git revert with its hash.",
    "A commit records a snapshot.",
    "Bake it for an hour.",
]
NODES = [TextNode(text=text, id_=str(i), metadata={"title": f"page {i}"}) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    return CrossEncoder().rank(QUERY, [node.get_content(metadata_mode=MetadataMode.EMBED) for node in NODES])


def check(got: list[NodeWithScore], expected: list[dict[str, Any]]) -> None:
    assert [node.node.id_ for node in got] == [str(row["corpus_id"]) for row in expected]
    assert [node.score for node in got] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert [node.metadata["title"] for node in got] == [f"page {row['corpus_id']}" for row in expected]


@pytest.mark.parametrize("kind", ["summary", "vector"])
def test_a_query_engine(kind: str, expected: list[dict[str, Any]]) -> None:
    if kind == "summary":
        retriever = SummaryIndex(NODES).as_retriever()
    else:
        retriever = VectorStoreIndex(NODES, embed_model=MockEmbedding(embed_dim=8)).as_retriever(similarity_top_k=4)
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=[CrossRankPostprocessor(top_k=2)]
    )
    check(engine.query(QUERY).source_nodes, expected[:2])
    check(asyncio.run(engine.aquery(QUERY)).source_nodes, expected[:2])


def test_the_callers_nodes_are_not_touched(expected: list[dict[str, Any]]) -> None:
    given = [NodeWithScore(node=node, score=0.5) for node in NODES]
    got = CrossRankPostprocessor().postprocess_nodes(given, query_str=QUERY)
    check(got, expected)
    assert [node.score for node in given] == [0.5] * len(NODES)
    assert all(one.node is NODES[int(one.node.id_)] for one in got)


def test_a_reranker_of_ones_own_reads_what_it_is_told() -> None:
    own = CrossRankPostprocessor(reranker=Reranker(text=lambda node: node.node.text), top_k=1)
    (best,) = own.postprocess_nodes([NodeWithScore(node=node) for node in NODES], query_str=QUERY)
    assert best.score == pytest.approx(CrossEncoder().rank(QUERY, TEXTS)[0]["score"], abs=1e-5)


def test_no_query_is_told() -> None:
    with pytest.raises(InputError, match="query_str="):
        CrossRankPostprocessor().postprocess_nodes([NodeWithScore(node=NODES[0])])


def test_none_in_none_out() -> None:
    assert CrossRankPostprocessor().postprocess_nodes([], query_str=QUERY) == []
    assert CrossRankPostprocessor.class_name() == "CrossRankPostprocessor"
