"""TrainingResult: what a training run made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossrank.training.comparison import Comparison


@dataclass(frozen=True)
class TrainingResult:
    """What a run made.

    :param output: The model's folder.
    :param steps: Optimizer steps that were taken.
    :param stopped_early: Whether that was before the end, because nothing got better.
    :param batch_size: Pairs (or lists, or triplets) of a forward pass, after any halving for want of memory.
    :param seconds: Of this process.
    :param comparison: Base, BM25 and the result on the held-out queries; ``None`` where nothing was held out.
    """

    output: Path
    steps: int
    stopped_early: bool
    batch_size: int
    accumulate: int
    seconds: float
    comparison: Comparison | None
