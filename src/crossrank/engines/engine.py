"""The interface of engines: from batches to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossrank.tokenization.batching import Batch


class Engine(Protocol):
    """Runs a model. Safe to call from many threads.

    :ivar token_budget: The padded tokens of a batch that suit its device.
    """

    token_budget: int

    @property
    def facts(self) -> Mapping[str, str | int]:
        """The settings it runs with: ``engine``, ``device``, ``precision``, ``threads``."""

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, labels]``, also for a single label."""
