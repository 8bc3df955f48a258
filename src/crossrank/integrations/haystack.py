"""Haystack: a ranker, for pipelines.

Haystack sends usage events to PostHog unless ``HAYSTACK_TELEMETRY_ENABLED=False`` is set before it is imported. This
module sends nothing and does not change that setting.

>>> from crossrank.integrations.haystack import CrossRankRanker
>>> ranker = CrossRankRanker(top_k=4)  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
from crossrank.ranking.ranked_documents import Ranking
from crossrank.ranking.reranker import Reranker

require("haystack", extra="haystack", purpose="crossrank.integrations.haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402


@component
class CrossRankRanker:
    """Keeps the most relevant documents, best first.

    It returns copies with the score in ``Document.score`` (``None`` if no stage scored it). The original documents do
    not change.

    :param model: A name on the hub, a folder, or ``None`` for the bundled model.
    :param top_k: How many documents to return; by default all.
    :param threshold: The lowest score with which a document is returned.
    :param text: What the model reads of a document, such as ``"{title}: {text}"``; by default its content.
    :param deadline: Seconds for a call. When they are over, the best ranking so far is returned.
    :param on_error: ``"raise"``, ``"keep_order"`` or ``"next_stage"``.
    :param model_settings: For ``CrossEncoderStage``: ``max_length``, ``precision``, ``long_documents`` and so on.
    :param reranker: Your own :class:`~crossrank.ranking.reranker.Reranker`, which replaces all settings above but
        ``top_k``. A Haystack pipeline with one can't be written to a file.
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
        """Load what the first call would load.

        :raises CrossRankError: If it can't be loaded.
        """
        self.reranker.warm_up()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values.

        :raises InputError: If it was made with the caller's own reranker.
        """
        if not self._own:
            raise InputError(
                "A CrossRankRanker with reranker= can't be written to a file, because it may contain anything. "
                "Give model= and the other settings instead."
            )
        settings: dict[str, Any] = default_to_dict(self, **self._settings)
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossRankRanker:
        """Make one from the result of :meth:`to_dict`."""
        made: CrossRankRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank documents.

        :param top_k: Overrides the object's own.
        :returns: ``{"documents": [...]}``.
        :raises CrossRankError: As :meth:`crossrank.ranking.reranker.Reranker.rank`.
        """
        return _documents(self.reranker.rank(query, documents, top_k=self.top_k if top_k is None else top_k))

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Rank documents as :meth:`run` does, without blocking the event loop."""
        return _documents(await self.reranker.arank(query, documents, top_k=self.top_k if top_k is None else top_k))


def _documents(ranking: Ranking) -> dict[str, list[Document]]:
    return {"documents": [replace(ranked.document, score=ranked.score) for ranked in ranking]}
