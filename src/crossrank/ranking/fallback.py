"""Stages of which one is enough: the next is asked only where those before it failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from crossrank.errors import InputError, MissingExtraError, StageError
from crossrank.ranking.cross_encoder_stage import as_stage
from crossrank.ranking.limits import check_limits
from crossrank.ranking.stage import ClosableStage, Context, Stage, StageScores
from crossrank.ranking.step import checked
from crossrank.scoring.cross_encoder import CrossEncoder


class FirstThatWorks:
    """A hosted reranker, and the model in the box for when it can't be reached.

    Unlike ``on_error="next_stage"`` it runs one stage where the first works, and the next one gets all the documents.

    :param stages: The one to use, and those that stand in for it, in order. Their own limits are not used.
    :param keep: How many documents go on, best first; by default all.
    :param threshold: The least score with which a document goes on.
    :param name: What it is called in results.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        stages: Iterable[Stage | CrossEncoder],
        *,
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "first-that-works",
    ) -> None:
        check_limits(keep, threshold)
        if isinstance(stages, str) or not isinstance(stages, Iterable):
            raise InputError(f"stages={stages!r} is no list. Give the stage to use and those that stand in for it.")
        self.stages = [as_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)]
        if not self.stages:
            raise InputError("stages is empty. Give the stage to use and those that stand in for it.")
        self.name, self.keep, self.threshold = name, keep, threshold

    def warm_up(self) -> None:
        """Make all of them ready."""
        for stage in self.stages:
            stage.warm_up()

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score with the first stage that can.

        :raises StageError: If none can.
        """
        failures: list[str] = []
        for stage in self.stages:
            try:
                scores = checked(stage.score(query, documents, context), len(documents))
            except (InputError, MissingExtraError):  # noqa: PERF203
                raise
            except Exception as error:
                failures.append(f"{stage.name} failed ({error})")
            else:
                if failures:
                    told = "; ".join([*failures, f"{stage.name} stood in"])
                    scores = replace(scores, degraded="; ".join(filter(None, [told, scores.degraded])))
                return scores
        raise StageError("; ".join(failures), retryable=True)

    def close(self) -> None:
        """Let go of what they hold open."""
        for stage in self.stages:
            if isinstance(stage, ClosableStage):
                stage.close()
