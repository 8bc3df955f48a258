"""Training runs of a few seconds, for the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

import texts
from crossrank.training.settings import Settings
from crossrank.training.trainer import train
from crossrank.training.training_result import TrainingResult

MakePairs = Callable[..., Path]
PAIRS = [pair for pair in texts.pairs(80, queries=8) if len(pair[1]) < 600]
QUICK = Settings(
    epochs=2, batch_size=8, max_length=48, learning_rate=1e-3, average_with_base=0.0, precision="float32", evaluations=4
)


def quick(**changes: Any) -> Settings:
    return Settings(**{**QUICK.as_dict(), **changes})


def run(pairs: Path, base: Path | None, output: Path, settings: Settings = QUICK, **more: Any) -> TrainingResult:
    return train(pairs, output, settings, base=base, **more)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")
