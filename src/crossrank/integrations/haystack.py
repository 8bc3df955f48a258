"""Haystack: a ranker, for pipelines.

Haystack sends usage events to posthog unless ``HAYSTACK_TELEMETRY_ENABLED=False`` is in the environment before it
is imported; this module sends nothing, and leaves the choice to you.

>>> from crossrank.integrations.haystack import CrossRankRanker
>>> ranker = CrossRankRanker(top_k=4)  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
from crossrank.ranking.ranked_documents import Ranking
from crossrank.ranking.reranker import Reranker

if TYPE_CHECKING:
    from haystack import Document, component, default_from_dict, default_to_dict
else:
    require("haystack", extra="haystack", purpose="crossrank.integrations.haystack")
    from haystack import Document, component, default_from_dict, default_to_dict


@component
class CrossRankRanker:
    """Keeps the most relevant documents, best first.

    They come back as copies with the score in ``Document.score`` (``None`` where no stage scored one); the caller's own
    are not touched.

    :param model: A name on the hub, a folder, or ``None`` for the bundled model.
    :param top_k: How many documents to return; by default all.
    :param threshold: The least score with which a document is returned.
    :param text: What is read of a document, such as ``"{title}: {text}"``; by default its content.
    :param deadline: Seconds for a call; the best ranking so far is returned when they are over.
    :param on_error: ``"raise"``, ``"keep_order"`` or ``"next_stage"``.
    :param model_settings: For ``CrossEncoderStage``: ``max_length``, ``precision``, ``long_documents`` and so on.
    :param reranker: A :class:`~crossrank.ranking.reranker.Reranker` of your own instead of all of the above but
        ``top_k``; a pipeline with one can't be written to a file.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        text: str | None = None,
        deadline: float | None = None,
        on_error: str = "raise",
        model_settings: dict[str, Any] | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self._settings = {
            "model": model,
            "top_k": top_k,
            "threshold": threshold,
            "text": text,
            "deadline": deadline,
            "on_error": on_error,
            "model_settings": model_settings,
        }
        self.top_k = top_k
        self._own = reranker is None
        self.reranker = reranker or Reranker(
            [CrossEncoderStage(model, **(model_settings or {}))],
            text=text,
            threshold=threshold,
            deadline=deadline,
            on_error=on_error,
        )

    def warm_up(self) -> None:
        """Load what would make the first call slow.

        :raises CrossRankError: If it can't be loaded.
        """
        self.reranker.warm_up()

    def to_dict(self) -> dict[str, Any]:
        """Settings as what JSON and YAML can hold.

        :raises InputError: If it was made with a reranker of the caller's own.
        """
        if not self._own:
            raise InputError(
                "A CrossRankRanker with a reranker= of its own can't be written to a file: it may hold anything. "
                "Give model= and the other settings instead."
            )
        settings: dict[str, Any] = default_to_dict(self, **self._settings)
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossRankRanker:
        """Make one out of what :meth:`to_dict` gave."""
        made: CrossRankRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank documents.

        :param query: The query.
        :param documents: The documents.
        :param top_k: Instead of the object's own.
        :returns: ``{"documents": [...]}``.
        :raises CrossRankError: As :meth:`crossrank.ranking.reranker.Reranker.rank`.
        """
        return _documents(self.reranker.rank(query, documents, top_k=self.top_k if top_k is None else top_k))

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Rank documents without blocking the event loop; as :meth:`run` otherwise."""
        return _documents(await self.reranker.arank(query, documents, top_k=self.top_k if top_k is None else top_k))


def _documents(ranking: Ranking) -> dict[str, list[Document]]:
    return {"documents": [replace(ranked.document, score=ranked.score) for ranked in ranking]}
