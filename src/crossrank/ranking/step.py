"""A step of a call: one stage's work, with or without a cache of scores before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import StageError
from crossrank.ranking.cache import CachedScore, ScoreCache, key_of
from crossrank.ranking.deadline import run_within
from crossrank.ranking.stage import CacheableStage, Context, Stage, StageScores


class Step:
    """A stage to be run: ``prepare``, then its ``score`` of ``texts`` if there are any, then ``finish``.

    :param stage: The stage.
    :param query: The query.
    :param texts: What the stage is to score; with a cache, known after ``prepare``.
    :param context: Of these texts.
    """

    is_cached = False

    def __init__(self, stage: Stage, query: str, texts: Sequence[str], context: Context) -> None:
        self.stage = stage
        self.query = query
        self.texts = texts
        self.context = context
        self._documents = len(texts)

    @property
    def cache_hits(self) -> int | None:
        """How many scores came out of the cache; ``None`` where none was asked."""
        return None

    def prepare(self) -> None:
        """Look up what is known. May take a while: to be done where the scoring is."""

    def finish(self, scores: StageScores | None) -> StageScores:
        """Join what was scored with what was known.

        :raises StageError: If the stage did not give a score for each document.
        """
        return checked(scores, self._documents)


class CachedStep(Step):
    """A step that asks the stage only for what is not in the cache."""

    is_cached = True

    def __init__(self, stage: Stage, query: str, texts: Sequence[str], context: Context, cache: ScoreCache) -> None:
        super().__init__(stage, query, texts, context)
        self._cache = cache
        self._keys: list[bytes] = []
        self._known: dict[int, CachedScore] = {}
        self._wanted: list[int] = list(range(len(texts)))

    @property
    def cache_hits(self) -> int | None:
        """How many scores came out of the cache; ``None`` where none was asked."""
        return len(self._known) if self._keys else None

    def prepare(self) -> None:
        """Look up the scores, and leave to the stage those that are not there."""
        stage, texts = self.stage, self.texts
        if not isinstance(stage, CacheableStage):
            return
        fingerprint = run_within(self.context.deadline, stage.fingerprint)
        if fingerprint is None:
            return
        self._keys = [key_of(fingerprint, self.query, text) for text in texts]
        found = self._cache.get_many(self._keys)
        read = {i: CachedScore.unpack(value) for i, value in enumerate(found) if value is not None}
        self._known = {i: row for i, row in read.items() if row is not None}
        self._wanted = [i for i in self._wanted if i not in self._known]
        self.texts = [texts[i] for i in self._wanted]
        here = np.array(self._wanted, np.int64)
        context = self.context
        self.context = replace(
            context,
            first_stage=_at(context.first_stage, here),
            positions=_at(context.positions, here),
            earlier={name: _some(scores, here) for name, scores in context.earlier.items()},
        )

    def finish(self, scores: StageScores | None) -> StageScores:
        """Join what was scored with what was known, and remember what is new."""
        if scores is not None or not self._known:
            scores = checked(scores, len(self._wanted))
        if not self._keys:
            return checked(scores, self._documents)
        rows = dict(self._known)
        if scores is not None:
            fresh = {
                i: row for i, row in zip(self._wanted, CachedScore.rows(scores), strict=True) if not np.isnan(row.score)
            }
            self._cache.put_many({self._keys[i]: row.pack() for i, row in fresh.items()})
            rows |= fresh
        return CachedScore.join(rows, self._documents, scores, sum(row.cut for row in self._known.values()))


def checked(scores: StageScores | None, documents: int) -> StageScores:
    """Return scores that are as many as the documents.

    :raises StageError: If they are not.
    """
    if not isinstance(scores, StageScores):
        raise StageError(f"it gave {type(scores).__name__}, not StageScores. Mend the stage.")
    numbers: dict[str, NDArray[np.float64]] = {}
    for name, values in (("scores", scores.scores), ("relevance", scores.relevance)):
        if values is None:
            continue
        try:
            numbers[name] = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise StageError(f"its {name} are no numbers: {error}. Mend the stage.") from error
        if numbers[name].shape != (documents,):
            raise StageError(f"its {name} are {numbers[name].shape} for {documents} documents. Mend the stage.")
    for what, listed in (("passages", scores.passages), ("details", scores.details)):
        if listed is not None and len(listed) != documents:
            raise StageError(f"it gave {len(listed)} {what} for {documents} documents. Mend the stage.")
    return replace(scores, scores=numbers["scores"], relevance=numbers.get("relevance"))


def _at(values: NDArray[Any] | None, here: NDArray[np.int64]) -> NDArray[Any] | None:
    return None if values is None else values[here]


def _some(scores: StageScores, here: NDArray[np.int64]) -> StageScores:
    """What is said of some of the documents; what is said of all of them together is left out."""
    return StageScores(
        scores=scores.scores[here],
        kind=scores.kind,
        relevance=_at(scores.relevance, here),
        passages=None if scores.passages is None else [scores.passages[i] for i in here],
        details=None if scores.details is None else [scores.details[i] for i in here],
    )
