"""LlamaIndex: a node postprocessor, for query engines and retrievers.

>>> from crossrank.integrations.llama_index import CrossRankPostprocessor
>>> postprocessor = CrossRankPostprocessor(top_k=4)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.ranking.ranked_documents import Ranking
from crossrank.ranking.reranker import Reranker

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
else:
    require("llama_index.core", extra="llama-index", purpose="crossrank.integrations.llama_index")
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle


class CrossRankPostprocessor(BaseNodePostprocessor):
    """Keeps the most relevant nodes, best first.

    Each comes back as a new ``NodeWithScore`` around the same node; its score is the last stage's, ``None`` where none
    scored it. The model reads what an embedding model would read of a node, metadata included.

    :param reranker: What ranks; by default the bundled model. One of your own reads nodes as it says.
    :param top_k: How many nodes to return; by default what the reranker keeps.
    """

    reranker: Any = None
    top_k: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Take the bundled model where no reranker is given."""
        super().model_post_init(context)
        if self.reranker is None:
            self.reranker = Reranker(text=_text)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex knows it by."""
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
