"""The bodies of the architectures alone: token ids to hidden states, for bi-encoders and modular cross-encoders."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import Node
from crossrank.architectures.registry import ARCHITECTURES
from crossrank.checkpoint.config import ModelConfig
from crossrank.checkpoint.weights import Weights
from crossrank.errors import CheckpointError, UnsupportedModelError

# What stands before the body's names in a checkpoint that was saved with a head; a bare body has nothing there.
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "bert": ("bert.",),
    "deberta_v2": ("deberta.",),
    "distilbert": ("distilbert.",),
    "electra": ("electra.",),
    "gte": ("new.", "gte."),
    "jina_bert": ("bert.",),
    "modernbert": ("model.",),
    "roberta": ("roberta.",),
    "xlm_roberta_flash": ("roberta.",),
}
BODIES = frozenset(kind for kind, module in ARCHITECTURES.items() if module in _PREFIXES)


def build_states(config: ModelConfig, weights: Weights, *, first_only: bool) -> Any:
    """Build a graph of ``input_ids`` and ``attention_mask``, ``[B, L]``, to the last layer's states.

    :param first_only: The first token's states alone, ``[B, 1, H]``; else all, ``[B, L, H]``.
    :returns: An ``openvino.Model``.
    :raises UnsupportedModelError: If the architecture is not known.
    :raises CheckpointError: If config and weights don't fit each other.
    """
    inputs, states, name = build_body(config, weights, first_only=first_only)
    return ov.Model([states], inputs, f"{name}_states")


def build_body(
    config: ModelConfig, weights: Weights, *, first_only: bool, typed: bool = False
) -> tuple[list[Node], Node, str]:
    """Build the nodes of a body.

    :param first_only: The first token's states alone, ``[B, 1, H]``; else all, ``[B, L, H]``.
    :param typed: Whether token types are read, by a model that has them; without, all tokens are of type 0.
    :returns: The inputs, ``input_ids`` and ``attention_mask`` first, the states, and the architecture's name.
    :raises UnsupportedModelError: If the architecture is not known.
    :raises CheckpointError: If config and weights don't fit each other.
    """
    if config.model_type not in BODIES:
        raise UnsupportedModelError(
            f"The architecture {config.model_type!r} has no graph here as a body without a head; known are "
            f"{', '.join(sorted(BODIES))}. Take a model of one of these."
        )
    name = ARCHITECTURES[config.model_type]
    prefix = next((prefix for prefix in _PREFIXES[name] if any(key.startswith(prefix) for key in weights)), "")
    module = import_module(f"crossrank.architectures.{name}")
    try:
        inputs, states = module.body(config, weights.under(prefix), first_only=first_only, typed=typed)
        weights.check_all_read(prefix)
    except RuntimeError as error:  # OpenVINO's, for shapes that don't fit together
        raise CheckpointError(
            f"config.json in {weights.folder} contradicts itself, so no graph can be built of it: {error}"
        ) from error
    return inputs, states, name
