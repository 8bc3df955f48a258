"""LlamaIndex: a node postprocessor, for query engines and retrievers.

>>> from crossrank.integrations.llama_index import CrossRankPostprocessor
>>> postprocessor = CrossRankPostprocessor(top_k=4)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.ranking.ranked_documents import Ranking
from crossrank.ranking.reranker import Reranker

require("llama_index.core", extra="llama-index", purpose="crossrank.integrations.llama_index")

from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle  # noqa: E402


class CrossRankPostprocessor(BaseNodePostprocessor):
    """Keeps the most relevant nodes, best first.

    It returns new ``NodeWithScore`` objects around the same nodes, with the score of the last stage (``None`` if no
    stage scored it). The model reads the text that an embedding model would read, with metadata.

    :ivar reranker: A :class:`~crossrank.ranking.reranker.Reranker`; by default the bundled model. The ``text=`` of
        your own reranker decides what it reads of a node.
    :ivar top_k: How many nodes to return; by default all that the reranker keeps.
    """

    reranker: Any = None
    top_k: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Use the bundled model if no reranker is given."""
        super().model_post_init(context)
        if self.reranker is None:
            self.reranker = Reranker(text=_text)

    @classmethod
    def class_name(cls) -> str:
        """Its name in LlamaIndex."""
        return "CrossRankPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _nodes(self.reranker.rank(_query(query_bundle), nodes, top_k=self.top_k))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _nodes(await self.reranker.arank(_query(query_bundle), nodes, top_k=self.top_k))


def _text(node: NodeWithScore) -> str:
    text: str = node.node.get_content(metadata_mode=MetadataMode.EMBED)
    return text


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise InputError("There is no query to rank by. Pass query_str= or query_bundle= to postprocess_nodes.")
    text: str = query_bundle.query_str
    return text


def _nodes(ranking: Ranking) -> list[NodeWithScore]:
    return [NodeWithScore(node=ranked.document.node, score=ranked.score) for ranked in ranking]
