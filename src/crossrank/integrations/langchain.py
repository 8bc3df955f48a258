"""LangChain: a document compressor, for ``ContextualCompressionRetriever`` and your own chains.

>>> from crossrank.integrations.langchain import CrossRankCompressor
>>> compressor = CrossRankCompressor(top_k=4)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossrank.optional import require
from crossrank.ranking.ranked_documents import Ranking
from crossrank.ranking.reranker import Reranker

require("langchain_core", extra="langchain", purpose="crossrank.integrations.langchain")

from langchain_core.callbacks import Callbacks  # noqa: E402
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402


class CrossRankCompressor(BaseDocumentCompressor):
    """Keeps the most relevant documents, best first.

    It returns copies with their metadata and id, and with ``relevance_score`` in the metadata (missing if no stage
    scored the document). The original documents do not change.

    :ivar reranker: A :class:`~crossrank.ranking.reranker.Reranker`; by default the bundled model.
    :ivar top_k: How many documents to return; by default all that the reranker keeps.
    """

    reranker: Any = None
    top_k: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Use the bundled model if no reranker is given."""
        if self.reranker is None:
            self.reranker = Reranker()

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Rank documents.

        :raises CrossRankError: As :meth:`crossrank.ranking.reranker.Reranker.rank`.
        """
        return _documents(self.reranker.rank(query, documents, top_k=self.top_k))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Rank documents without blocking the event loop.

        :raises CrossRankError: As :meth:`crossrank.ranking.reranker.Reranker.arank`.
        """
        return _documents(await self.reranker.arank(query, documents, top_k=self.top_k))


def _documents(ranking: Ranking) -> list[Document]:
    return [
        ranked.document.model_copy(
            update={
                "metadata": {key: value for key, value in ranked.document.metadata.items() if key != "relevance_score"}
                | ({} if ranked.score is None else {"relevance_score": ranked.score})
            }
        )
        for ranked in ranking
    ]
