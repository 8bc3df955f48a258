"""The training loop: sentence-transformers', with small save points, a log, and silent libraries."""

from __future__ import annotations

import csv
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from crossrank.errors import CheckpointError
from crossrank.optional import require
from crossrank.training.base_model import read_up_to
from crossrank.training.in_batch import SimilarBatches

WHOLE = "complete"
_WEIGHTS = "weights.pt"
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "held_out", "held_out_ndcg@10", "held_out_loss")


class Trainer(CrossEncoderTrainer):  # type: ignore[misc]
    """The trainer, with parts that stay in evaluation mode, and save points of the weights that learn.

    :ivar asleep: These parts.
    :ivar lengths: Tokens that the model reads, and that it reads while it learns.
    :ivar batches: Which rows make a batch, where it is not left to chance.
    """

    asleep: list[torch.nn.Module]
    lengths: tuple[int, int]
    batches: SimilarBatches | None = None

    def get_batch_sampler(self, *given: Any, **more: Any) -> Any:
        """Which rows make a batch."""
        return super().get_batch_sampler(*given, **more) if self.batches is None else self.batches

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        """The loss of a batch; dropout would only add noise to what does not learn."""
        for module in self.asleep:
            module.eval()
        return super().compute_loss(model, inputs, *rest, **more)

    def train(self, *given: Any, **more: Any) -> Any:
        """Train; texts are shorter meanwhile."""
        full, shorter = self.lengths
        with self._reading(shorter, then=full):
            return super().train(*given, **more)

    def evaluate(self, *given: Any, **more: Any) -> Any:
        """Figures of the model as it will be saved, which reads as much as it can."""
        full, shorter = self.lengths
        with self._reading(full, then=shorter):
            return super().evaluate(*given, **more)

    @contextmanager
    def _reading(self, length: int, *, then: int) -> Iterator[None]:
        read_up_to(self.model, length)
        try:
            yield
        finally:
            read_up_to(self.model, then)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        learning = {name: p.detach() for name, p in self.model.model.named_parameters() if p.requires_grad}
        torch.save(learning, folder / _WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str, *_: Any) -> None:
        state = torch.load(Path(checkpoint_path) / _WEIGHTS, weights_only=True, map_location=self.model.device)
        learning = {name: p for name, p in self.model.model.named_parameters() if p.requires_grad}
        if state.keys() != learning.keys():
            raise CheckpointError(f"{checkpoint_path} is of another model. Start without --resume.")
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(state[name])

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


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


class TrainingLog(TrainerCallback):  # type: ignore[misc]
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


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no remarks of transformers, datasets and sentence-transformers; errors still raise."""
    datasets = require("datasets", extra="train", purpose="Training")
    theirs = logging.getLogger("sentence_transformers")
    level, verbosity = theirs.level, transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    theirs.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|transformers|sentence_transformers|accelerate)\.")
            yield
    finally:
        theirs.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
