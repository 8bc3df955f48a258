"""The training loop of sentence-transformers, with small save points, a log, and silent libraries."""

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

from crossrank.engines.torch_engine import quiet_transformers
from crossrank.errors import CheckpointError
from crossrank.optional import require
from crossrank.training.base_model import read_up_to
from crossrank.training.in_batch import SimilarBatches

COMPLETE = "complete"
_WEIGHTS = "weights.pt"
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "held_out", "held_out_ndcg@10", "held_out_loss")


class Trainer(CrossEncoderTrainer):  # type: ignore[misc]
    """A trainer whose frozen modules stay in evaluation mode and whose save points hold only trained weights.

    :ivar frozen: Modules that are not trained.
    :ivar lengths: The most tokens that the model reads, and that it reads while training.
    :ivar batches: Chooses the rows of each batch; ``None`` for random batches.
    """

    frozen: list[torch.nn.Module]
    lengths: tuple[int, int]
    batches: SimilarBatches | None = None

    def get_batch_sampler(self, *given: Any, **more: Any) -> Any:
        """Choose the rows of each batch."""
        return super().get_batch_sampler(*given, **more) if self.batches is None else self.batches

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        """Compute the loss of a batch. Frozen modules are in evaluation mode: dropout would only add noise."""
        for module in self.frozen:
            module.eval()
        return super().compute_loss(model, inputs, *rest, **more)

    def train(self, *given: Any, **more: Any) -> Any:
        """Train with the shorter length."""
        full, shorter = self.lengths
        with self._reading(shorter, then=full):
            return super().train(*given, **more)

    def evaluate(self, *given: Any, **more: Any) -> Any:
        """Evaluate with the full length, which the saved model has."""
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
            raise CheckpointError(f"{checkpoint_path} belongs to another model. Start without --resume.")
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.copy_(state[name])

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


class Marks(TrainerCallback):  # type: ignore[misc]
    """Marks a save point once it is complete, so that an interrupted run does not continue from an incomplete one."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the save point."""
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_complete(folder: Path) -> Path | None:
    """Find the newest complete save point of a run, and remove incomplete ones."""
    points = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [point for point in points if (point / COMPLETE).is_file()]
    for point in points:
        if point not in whole:
            shutil.rmtree(point)
    return whole[-1] if whole else None


class EpochNumbers(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of the batches, also when a run continues in the middle of one.

    transformers and accelerate call ``set_epoch`` of samplers, but not in all versions and not always in time.
    """

    def __init__(self, batches: SimilarBatches) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch."""
        self.batches.epoch = int(state.epoch + 1e-6)


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Writes the figures to a CSV file and passes new ones to the progress bar."""

    def __init__(self, path: Path, progress: Callable[[int, int, dict[str, float]], object] | None) -> None:
        self.path = path
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write all figures; the history of a resumed run begins with those before its save point."""
        figures = _without_prefix(logs or {})
        if "train_runtime" in figures:
            return
        with self.path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(map(_without_prefix, state.log_history))
        if self.progress:
            self.progress(state.global_step, state.max_steps, figures)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report a step."""
        if self.progress:
            self.progress(state.global_step, state.max_steps, {})


def _without_prefix(figures: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("eval_"): value for name, value in figures.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and messages of transformers, datasets and sentence-transformers. Errors still raise."""
    datasets = require("datasets", extra="train", purpose="Training")
    theirs = logging.getLogger("sentence_transformers")
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|transformers|sentence_transformers|accelerate)\.")
            yield
    finally:
        theirs.setLevel(level)
