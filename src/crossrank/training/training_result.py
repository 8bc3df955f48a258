"""The result of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossrank.training.held_out import HeldOutComparison


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    :param output: The folder of the model.
    :param steps: Number of optimizer steps.
    :param stopped_early: Whether training stopped before the end because there was no improvement.
    :param batch_size: Rows of a forward pass, after any halving to fit in memory.
    :param accumulate: Batches per optimizer step.
    :param seconds: Time in this process.
    :param comparison: Base, BM25 and the result on the held-out queries; ``None`` if nothing was held out.
    """

    output: Path
    steps: int
    stopped_early: bool
    batch_size: int
    accumulate: int
    seconds: float
    comparison: HeldOutComparison | None
