"""In LangChain's own chains: an in-memory vector store, its retriever, the compressor behind it."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from crossrank.integrations.langchain import CrossRankCompressor
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.cross_encoder import CrossEncoder

QUERY = "how do I undo a commit"
TEXTS = [
    "The museum is open on Sundays.",
    "To undo a commit, run git revert with its hash.",
    "A commit records a snapshot.",
    "Bake it for an hour.",
]
DOCUMENTS = [Document(page_content=text, metadata={"n": i}, id=str(i)) for i, text in enumerate(TEXTS)]


class CompressedRetriever(BaseRetriever):
    """What ContextualCompressionRetriever does, whose package is not part of the core."""

    base: BaseRetriever
    compressor: BaseDocumentCompressor

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.base.invoke(query, config={"callbacks": run_manager.get_child()})
        return list(self.compressor.compress_documents(found, query, callbacks=run_manager.get_child()))

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        found = await self.base.ainvoke(query, config={"callbacks": run_manager.get_child()})
        return list(await self.compressor.acompress_documents(found, query, callbacks=run_manager.get_child()))


@pytest.fixture(scope="module")
def retriever() -> BaseRetriever:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents(DOCUMENTS)
    return store.as_retriever(search_kwargs={"k": 4})


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    return CrossEncoder().rank(QUERY, TEXTS)


def check(got: list[Document], expected: list[dict[str, Any]]) -> None:
    assert [document.metadata["n"] for document in got] == [row["corpus_id"] for row in expected]
    assert [document.id for document in got] == [str(row["corpus_id"]) for row in expected]
    assert [document.page_content for document in got] == [TEXTS[row["corpus_id"]] for row in expected]
    scores = [document.metadata["relevance_score"] for document in got]
    assert scores == pytest.approx([row["score"] for row in expected], abs=1e-5)


def test_a_retriever(retriever: BaseRetriever, expected: list[dict[str, Any]]) -> None:
    compressed = CompressedRetriever(base=retriever, compressor=CrossRankCompressor(top_k=2))
    check(compressed.invoke(QUERY), expected[:2])
    check(asyncio.run(compressed.ainvoke(QUERY)), expected[:2])


def test_a_chain(retriever: BaseRetriever, expected: list[dict[str, Any]]) -> None:
    compressor = CrossRankCompressor()
    chain = {"documents": retriever, "query": RunnablePassthrough()} | RunnableLambda(
        lambda given: compressor.compress_documents(given["documents"], given["query"]),
        afunc=lambda given: compressor.acompress_documents(given["documents"], given["query"]),
    )
    check(chain.invoke(QUERY), expected)
    check(asyncio.run(chain.ainvoke(QUERY)), expected)


def test_a_pipeline_of_ones_own_and_an_empty_result(expected: list[dict[str, Any]]) -> None:
    reranker = Reranker([CrossEncoderStage(keep=3)], threshold=0.999999)
    assert CrossRankCompressor(reranker=reranker).compress_documents(DOCUMENTS, QUERY) == []
    assert CrossRankCompressor().compress_documents([], QUERY) == []


def test_the_callers_documents_are_not_touched() -> None:
    given = copy.deepcopy(DOCUMENTS)
    given[0].metadata["relevance_score"] = "mine"
    before = copy.deepcopy(given)
    got = CrossRankCompressor().compress_documents(given, QUERY)
    assert given == before
    assert all(isinstance(document.metadata["relevance_score"], float) for document in got)
