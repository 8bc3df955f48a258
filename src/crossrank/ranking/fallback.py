"""A stage with fallbacks: each one runs only if all before it failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from crossrank.errors import InputError, MissingExtraError, StageError
from crossrank.ranking.cross_encoder_stage import as_stage
from crossrank.ranking.stage import ClosableStage, Context, PairScorer, Stage, StageScores
from crossrank.ranking.stage_call import checked, reason_of
from crossrank.validation import check_threshold, check_top_k


class FirstThatWorks:
    """Uses the first stage that works, such as a hosted reranker, or the bundled model if the service is down.

    Unlike with ``on_error="next_stage"``, only one stage's scores are used, and a fallback gets all documents. No
    fallback runs after the call was cancelled or its time was up.

    :param stages: The stage to use, then its fallbacks. Their own ``keep`` and ``threshold`` are not used.
    :param keep: How many documents to pass on, best first; by default all.
    :param threshold: The lowest score that a document needs to be passed on.
    :param name: Its name in results.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        stages: Iterable[Stage | PairScorer],
        *,
        keep: int | None = None,
        threshold: float | None = None,
        name: str = "first-that-works",
    ) -> None:
        check_top_k(keep, "keep")
        check_threshold(threshold)
        if isinstance(stages, str) or not isinstance(stages, Iterable):
            raise InputError(f"stages={stages!r} is not a list. Give the stage to use and its fallbacks.")
        self.stages = [as_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)]
        if not self.stages:
            raise InputError("stages is empty. Give the stage to use and its fallbacks.")
        self.name, self.keep, self.threshold = name, keep, threshold

    def warm_up(self) -> None:
        """Warm up all stages."""
        for stage in self.stages:
            stage.warm_up()

    def score(self, query: str, documents: Sequence[str], context: Context) -> StageScores:
        """Score with the first stage that works.

        :raises StageError: If all stages fail.
        """
        failures: list[str] = []
        for stage in self.stages:
            if failures and (context.cancelled.is_set() or context.deadline.expired):
                why = "the call was cancelled" if context.cancelled.is_set() else "the time was up"
                raise StageError(f"{'; '.join(failures)}; {why} before {stage.name} could run", retryable=True)
            try:
                scores = checked(stage.score(query, documents, context), len(documents))
            except (InputError, MissingExtraError):
                raise
            except Exception as error:
                failures.append(f"{stage.name} failed ({reason_of(error)})")
            else:
                if failures:
                    fallback = "; ".join([*failures, f"{stage.name} was used instead"])
                    scores = replace(scores, degraded="; ".join(filter(None, [fallback, scores.degraded])))
                return scores
        raise StageError("; ".join(failures), retryable=True)

    def close(self) -> None:
        """Close all stages."""
        for stage in self.stages:
            if isinstance(stage, ClosableStage):
                stage.close()
