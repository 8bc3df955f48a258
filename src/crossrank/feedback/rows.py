"""Stored feedback as rows that ``train``, ``learn`` and ``evaluate`` read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from crossrank.data.forms import judgements_of
from crossrank.data.judgements import ReadReport, ReadSettings, Row
from crossrank.feedback.judgement import labels_of_order
from crossrank.feedback.store import Judged
from crossrank.feedback.tables import JudgementRow, RankingRow


def ranking_rows(judged: Iterable[Judged]) -> Iterator[dict[str, Any]]:
    """A row for each judgement, in the format of feedback in docs/training.md. Rankings without texts are left out.

    All rows have the same keys; missing values are ``None``. Judgements without any signal for a document are left out.
    """
    for one in judged:
        if one.ranking.has_texts:
            documents = [one.ranking.documents[index] for index in one.ranking.shown]
            for judgement in one.judgements:
                signals = _signals(one.ranking, judgement)
                if any(value is not None for value in signals.values()):
                    yield {
                        "query": one.ranking.query,
                        "documents": documents,
                        **signals,
                        "request_id": one.ranking.request_id,
                        "time": datetime.fromtimestamp(judgement.time, timezone.utc).isoformat(),
                        "model": one.ranking.model,
                        "model_version": one.ranking.model_version,
                        "shuffled": one.ranking.shuffled,
                    }


def labels_of(ranking: RankingRow, judgement: JudgementRow) -> dict[int, float]:
    """A judgement's labels by document index: the same that reading from a file would give."""
    signals = {name: value for name, value in _signals(ranking, judgement).items() if value is not None}
    if not signals:
        return {}
    fields = {"query": "-", "documents": [str(index) for index in ranking.shown], **signals}
    found = judgements_of(Row(ranking.request_id, 0, fields), ReadSettings(), ReadReport())
    return {int(one.document): one.label for one in found}


def mean_labels(one: Judged) -> dict[int, float]:
    """Labels of a ranking's documents by index: the mean over all users who judged them."""
    given: dict[int, list[float]] = {}
    for judgement in one.judgements:
        for index, label in labels_of(one.ranking, judgement).items():
            given.setdefault(index, []).append(label)
    return {index: sum(labels) / len(labels) for index, labels in given.items()}


def pair_rows(judged: Iterable[Judged]) -> Iterator[dict[str, Any]]:
    """``query``, ``document``, ``label``: a row for each document that a judgement labels."""
    for one in judged:
        if one.ranking.has_texts:
            for judgement in one.judgements:
                for index, label in labels_of(one.ranking, judgement).items():
                    yield {"query": one.ranking.query, "document": _text(one.ranking, index), "label": label}


def triplet_rows(judged: Iterable[Judged]) -> Iterator[dict[str, Any]]:
    """``query``, ``positive``, ``negative``: each relevant document of a ranking with each irrelevant one."""
    for one in judged:
        if one.ranking.has_texts:
            labels = mean_labels(one)
            negatives = [_text(one.ranking, index) for index, label in labels.items() if label < 0.5]
            for index, label in labels.items():
                if label >= 0.5:
                    for negative in negatives:
                        yield {
                            "query": one.ranking.query,
                            "positive": _text(one.ranking, index),
                            "negative": negative,
                        }


def _text(ranking: RankingRow, index: int) -> str:
    return str(ranking.documents[index]["text"])


def _signals(ranking: RankingRow, judgement: JudgementRow) -> dict[str, list[Any] | None]:
    """Clicked places, counted from 1, and for each other signal a list with one value per document shown."""
    shown = ranking.shown
    stars = {int(index): value for index, value in (judgement.stars or {}).items()}
    votes = {int(index): value for index, value in (judgement.helpful or {}).items()}
    labels = labels_of_order(shown, judgement.preferred) if judgement.preferred is not None else {}
    # Stars and votes judge one document directly, so they override the labels from the order.
    labels = {index: label for index, label in labels.items() if index not in stars and index not in votes}
    clicked = judgement.clicked
    return {
        "clicked": None if clicked is None else sorted(shown.index(document) + 1 for document in clicked),
        "stars": _spread(stars, shown),
        "votes": _spread(votes, shown),
        "label": _spread(labels, shown),
    }


def _spread(values: dict[int, Any], shown: list[int]) -> list[Any] | None:
    return [values.get(index) for index in shown] if values else None
