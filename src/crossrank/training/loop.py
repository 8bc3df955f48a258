"""The training loop: sentence-transformers', with parts that stay as they are and small save points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainer

from crossrank.errors import CheckpointError
from crossrank.training.base import read_up_to
from crossrank.training.in_batch import SimilarBatches

_WEIGHTS = "weights.pt"


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
