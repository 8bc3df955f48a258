"""The files of a bi-encoder -> its pooling and its prompts.

Read from sentence_transformers 6.2 (sentence_transformer/modules/pooling.py, base/model.py) and the files that versions
2 to 5 saved. A plain transformers checkpoint has none of these files and gets mean pooling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint.model_config import ModelConfig, read_json
from crossrank.checkpoint.modules import list_modules, read_pooling
from crossrank.errors import CheckpointError, UnsupportedModelError

POOLINGS = ("mean", "cls")
# The prompts of documents by the names that sentence-transformers looks for, in its order.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_HEAD = re.compile(r"\w+For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice)")


@dataclass(frozen=True)
class Embedding:
    """Settings of a bi-encoder besides its graph.

    :param pooling: ``"mean"`` over all tokens, or ``"cls"``: the first token.
    :param lowercase: Convert texts to lower case before tokenizing.
    :param query_prompt: Put before a query; empty for none.
    :param document_prompt: Put before a document.
    :param default_prompt: Put before a text when the caller gives no role.
    """

    pooling: str
    lowercase: bool
    query_prompt: str
    document_prompt: str
    default_prompt: str


def read_embedding(folder: Path, config: ModelConfig, weight_names: list[str]) -> Embedding:
    """Read these settings from a checkpoint.

    :param weight_names: Names of all its tensors.
    :raises UnsupportedModelError: If it is a cross-encoder, or has an unknown module, which the message names.
    :raises CheckpointError: If a file is damaged.
    """
    settings = read_json(folder / "config_sentence_transformers.json")
    listed = list_modules(folder)
    _refuse_cross_encoder(folder, config, settings, listed is not None, weight_names)
    pooling = "mean"
    if listed is not None:
        if not listed or listed[0] != ("Transformer", ""):
            raise _unsupported(folder, f"{listed[0][0] if listed else 'nothing'!r} as its first module")
        others = [(kind, path) for kind, path in listed[1:] if kind != "Normalize"]
        for kind, _ in others:
            if kind != "Pooling":
                raise _unsupported(folder, f"the module {kind}")
        if len(others) > 1:
            raise _unsupported(folder, "more than one module Pooling")
        pooling = _pooling(folder, others[0][1]) if others else "mean"
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) or text is None for text in prompts.values()):
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'} has prompts={prompts!r}; names and their texts are "
            "expected. Download the checkpoint again."
        )
    document = next((name for name in _DOCUMENT_PROMPTS if name in prompts), "")
    return Embedding(
        pooling=pooling,
        lowercase=bool(read_json(folder / "sentence_bert_config.json").get("do_lower_case", False)),
        query_prompt=prompts.get("query") or "",
        document_prompt=prompts.get(document) or "",
        default_prompt=prompts.get(settings.get("default_prompt_name")) or "",
    )


def _pooling(folder: Path, path: str) -> str:
    pooling = read_pooling(folder / path)
    if len(pooling.modes) != 1 or pooling.modes[0] not in POOLINGS:
        raise _unsupported(folder, f"the module Pooling with the mode {' + '.join(pooling.modes)}")
    if not pooling.include_prompt:
        raise _unsupported(folder, "the module Pooling that leaves out the prompt (include_prompt is false)")
    return pooling.modes[0]


def _refuse_cross_encoder(
    folder: Path, config: ModelConfig, settings: Mapping[str, Any], modular: bool, weight_names: list[str]
) -> None:
    if settings.get("model_type") == "CrossEncoder" or config.model_type == "split_bert":
        sign = "it calls itself a cross-encoder"
    elif modular:
        return  # the modules make it a bi-encoder, even if the body was trained for something else
    elif _HEAD.fullmatch(config.architecture):
        sign = f"config.json names the architecture {config.architecture!r}"
    elif any(name.startswith("classifier.") for name in weight_names):
        sign = "it has a classifier"
    else:
        return
    raise UnsupportedModelError(
        f"{folder} is not a bi-encoder: {sign}. A bi-encoder turns each text into a vector of its own, such as "
        "sentence-transformers/all-MiniLM-L6-v2; a cross-encoder goes into CrossEncoder(...)."
    )


def _unsupported(folder: Path, found: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{folder} is a sentence-transformers model with {found}; crossrank knows Transformer, Pooling with the mode "
        f"{' or '.join(POOLINGS)}, and Normalize. Take a bi-encoder made of these, or embed with sentence-transformers."
    )
