"""``model_type`` -> the module that builds its graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module

from crossrank.architectures.ops import Graphs
from crossrank.checkpoint.config import ModelConfig
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
# What transformers calls a bare body, or one with a head for another task; some of these heads would fit a graph here.
_OTHER_TASK = re.compile(r"\w*(Model|For(?!SequenceClassification)\w+)")
# Where transformers' classifiers of the architectures above have their last layer.
_CLASSIFIER = "classifier."
_OF_TRANSFORMERS = ARCHITECTURES.keys() - {"split_bert"}


def build(config: ModelConfig, weights: Weights) -> Graphs:
    """Build the graphs of a checkpoint.

    :raises UnsupportedModelError: If the architecture is not known, or the checkpoint is not a classifier.
    :raises CheckpointError: If config and weights don't fit each other.
    """
    if config.model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"The architecture {config.model_type!r} has no graph here; known are {', '.join(sorted(ARCHITECTURES))}."
        )
    if _OTHER_TASK.fullmatch(config.architecture):
        raise _not_a_reranker(weights, f"config.json names the architecture {config.architecture!r}")
    module = import_module(f"crossrank.architectures.{ARCHITECTURES[config.model_type]}")
    try:
        graphs: Graphs = module.build(config, weights)
        weights.check_all_read()
    except CheckpointError as error:
        if config.model_type not in _OF_TRANSFORMERS or any(name.startswith(_CLASSIFIER) for name in weights):
            raise
        raise _not_a_reranker(weights, f"there is no tensor {_CLASSIFIER}*") from error
    except RuntimeError as error:  # OpenVINO's, for shapes that don't fit together
        raise CheckpointError(
            f"config.json in {weights.folder} contradicts itself, so no graph can be built of it: {error}"
        ) from error
    return graphs


def _not_a_reranker(weights: Weights, sign: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{weights.folder} is not a reranker: {sign}, so it has no trained layer that turns a pair into a score. "
        "Take a model whose config.json names an architecture that ends in 'ForSequenceClassification'."
    )
