"""``model_type`` -> the module that builds its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from crossrank.architectures.ops import Graphs
from crossrank.checkpoint.config import ModelConfig
from crossrank.checkpoint.weights import Weights
from crossrank.errors import UnsupportedModelError

ARCHITECTURES: Mapping[str, str] = {
    "bert": "bert",
}


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Build the graphs of a checkpoint.

    :raises UnsupportedModelError: If the architecture is not known, or the checkpoint is not a classifier.
    """
    if config.model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"The architecture {config.model_type!r} has no graph here; known are {', '.join(sorted(ARCHITECTURES))}."
        )
    module = import_module(f"crossrank.architectures.{ARCHITECTURES[config.model_type]}")
    graphs: Graphs = module.build(config, weights)
    return graphs
