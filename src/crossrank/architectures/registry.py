"""``model_type`` -> the module that builds its graphs, for a whole classifier or only its body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import Graphs, Node
from crossrank.checkpoint.model_config import ModelConfig
from crossrank.checkpoint.weights import Weights
from crossrank.errors import CheckpointError, UnsupportedModelError

ARCHITECTURES: Mapping[str, str] = {
    "bert": "bert",
    "camembert": "roberta",
    "deberta-v2": "deberta_v2",
    "distilbert": "distilbert",
    "electra": "electra",
    "gte": "gte",
    "jina_bert": "jina_bert",
    "modernbert": "modernbert",
    "new": "gte",
    "roberta": "roberta",
    "split_bert": "split_bert",
    "xlm-roberta": "roberta",
    "xlm_roberta_flash": "xlm_roberta_flash",
}
# Prefixes of a body's tensors in a checkpoint that was saved with a head. A bare body has no prefix.
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
# transformers' names for a bare body, or one with a head for another task. Some of these heads would fit a graph here.
_OTHER_TASK = re.compile(r"\w*(Model|For(?!SequenceClassification)\w+)")
# The last layer of transformers' classifiers for the architectures above.
_CLASSIFIER = "classifier."
_OF_TRANSFORMERS = ARCHITECTURES.keys() - {"split_bert"}


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Build the graphs of a checkpoint.

    :raises UnsupportedModelError: If the architecture is unknown, or the checkpoint is not a classifier.
    :raises CheckpointError: If config and weights don't match.
    """
    if config.model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"The architecture {config.model_type!r} is not supported. Use one of {', '.join(sorted(ARCHITECTURES))}."
        )
    if _OTHER_TASK.fullmatch(config.architecture):
        raise _not_a_reranker(weights, f"config.json names the architecture {config.architecture!r}")
    module = import_module(f"crossrank.architectures.{ARCHITECTURES[config.model_type]}")
    try:
        with _contradictions(weights):
            graphs: Graphs = module.build(config, weights)
            weights.check_all_read()
    except CheckpointError as error:
        if config.model_type not in _OF_TRANSFORMERS or any(name.startswith(_CLASSIFIER) for name in weights):
            raise
        raise _not_a_reranker(weights, f"there is no tensor {_CLASSIFIER}*") from error
    return graphs


def build_states(config: ModelConfig, weights: Weights, *, first_only: bool) -> Any:
    """Build a graph of ``input_ids`` and ``attention_mask``, ``[B, L]``, to the last layer's states.

    :param first_only: The first token's states alone, ``[B, 1, H]``; else all, ``[B, L, H]``.
    :returns: An ``openvino.Model``.
    :raises UnsupportedModelError: If the architecture is unknown.
    :raises CheckpointError: If config and weights don't match.
    """
    inputs, states, name = build_body(config, weights, first_only=first_only)
    return ov.Model([states], inputs, f"{name}_states")


def build_body(
    config: ModelConfig, weights: Weights, *, first_only: bool, typed: bool = False
) -> tuple[list[Node], Node, str]:
    """Build the nodes of a body.

    :param first_only: The first token's states alone, ``[B, 1, H]``; else all, ``[B, L, H]``.
    :param typed: Read token types, if the model has them; otherwise all tokens have type 0.
    :returns: The inputs, ``input_ids`` and ``attention_mask`` first, the states, and the architecture's name.
    :raises UnsupportedModelError: If the architecture is unknown.
    :raises CheckpointError: If config and weights don't match.
    """
    if config.model_type not in BODIES:
        raise UnsupportedModelError(
            f"The architecture {config.model_type!r} is not supported as a body without a head. Supported are "
            f"{', '.join(sorted(BODIES))}. Use a model of one of these."
        )
    name = ARCHITECTURES[config.model_type]
    prefix = next((prefix for prefix in _PREFIXES[name] if any(key.startswith(prefix) for key in weights)), "")
    module = import_module(f"crossrank.architectures.{name}")
    with _contradictions(weights):
        inputs, states = module.body(config, weights.under(prefix), first_only=first_only, typed=typed)
        weights.check_all_read(prefix)
    return inputs, states, name


@contextmanager
def _contradictions(weights: Weights) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # OpenVINO's error for shapes that don't match
        raise CheckpointError(
            f"config.json in {weights.folder} contradicts itself, so no graph can be built from it: {error}"
        ) from error


def _not_a_reranker(weights: Weights, sign: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{weights.folder} is not a reranker: {sign}, so it has no trained layer that turns a pair into a score. "
        "Take a model whose config.json names an architecture that ends in 'ForSequenceClassification'."
    )
