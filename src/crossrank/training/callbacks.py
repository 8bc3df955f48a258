"""What is told while a run goes on: a progress bar, a table of figures, and which save points are whole."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from crossrank.training.in_batch import SimilarBatches

WHOLE = "complete"
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "held_out", "held_out_ndcg@10", "held_out_loss")


class Marks(TrainerCallback):  # type: ignore[misc]
    """Marks a save point once it is whole: a run that was killed while writing one goes on from the one before."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A save point was written."""
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def last_whole(folder: Path) -> Path | None:
    """The newest whole save point of a run; others are removed."""
    points = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [point for point in points if (point / WHOLE).is_file()]
    for point in points:
        if point not in whole:
            shutil.rmtree(point)
    return whole[-1] if whole else None


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells batches that are other ones in every epoch which epoch it is, also in the middle of one after a kill.

    transformers and accelerate tell it to samplers with ``set_epoch``, but not in all versions, nor always in time.
    """

    def __init__(self, batches: SimilarBatches) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An epoch begins, or goes on."""
        self.batches.epoch = int(state.epoch + 1e-6)


class Figures(TrainerCallback):  # type: ignore[misc]
    """Writes a line of figures whenever there are some, and hands them to the progress bar."""

    def __init__(self, path: Path, progress: Callable[[int, int, dict[str, float]], object] | None) -> None:
        self.path = path
        self.progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget what was written after the save point from which the run goes on, for it is done again."""
        rows = []
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if (row["step"] or "").isdigit()]
            rows = [row for row in rows if int(row["step"]) <= state.global_step]
        with self.path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """There are figures."""
        figures = {key.removeprefix("eval_"): value for key, value in (logs or {}).items()}
        if "train_runtime" in figures:
            return
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, _COLUMNS, extrasaction="ignore").writerow({"step": state.global_step, **figures})
        if self.progress:
            self.progress(state.global_step, state.max_steps, figures)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done."""
        if self.progress:
            self.progress(state.global_step, state.max_steps, {})
