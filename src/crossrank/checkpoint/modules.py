"""modules.json -> the modules of a sentence-transformers cross-encoder (version 5.4 on; 6 writes one for every model).

Read from sentence_transformers/base/model.py and base/modules/transformer.py of version 6.2. Only checkpoints that call
themselves a ``CrossEncoder`` are read so: the modules of a bi-encoder make embeddings, not scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint.config import read_json
from crossrank.errors import CheckpointError, UnsupportedModelError

# Keys of the chat template's settings that steer the tokenizer or sentence-transformers itself, not the template.
_NOT_FOR_THE_TEMPLATE = ("padding", "truncation", "max_length", "return_tensors", "restore_suffix")
_KNOWN = ("LogitScore", "Pooling", "Dense")
_TASKS = ("sequence-classification", "text-generation", "feature-extraction")


@dataclass(frozen=True)
class LogitScore:
    """The score is a token's logit at the last position, less that of another token if there is one."""

    yes: int
    no: int | None


@dataclass(frozen=True)
class Dense:
    """A linear layer on the last position's hidden state.

    :param folder: Where its weights are.
    :param inputs: Size of what goes in.
    :param outputs: Size of what comes out; for the last one, the number of labels.
    :param bias: Whether it adds one.
    :param activation: A class name under ``torch.nn``.
    """

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class Modules:
    """A modular cross-encoder.

    :param task: What kind of transformer it is: ``"sequence-classification"``, ``"text-generation"`` or
        ``"feature-extraction"``.
    :param head: What makes the score of it; empty for a sequence classifier, which has its own.
    :param messages: Whether a pair goes through the tokenizer's chat template.
    :param message_format: ``"flat"`` or ``"structured"`` contents of a message; ``None`` if the checkpoint doesn't say.
    :param template_settings: What the chat template is given besides the messages.
    :param prompt: Goes before the query, or is the system message of the chat template; empty for none.
    :param max_length: A limit of tokens that the checkpoint sets, if any.
    """

    task: str
    head: tuple[LogitScore, ...] | tuple[Dense, ...]
    messages: bool
    message_format: str | None
    template_settings: Mapping[str, Any]
    prompt: str
    max_length: int | None


def read_modules(folder: Path) -> Modules | None:
    """Read the modules of a checkpoint; ``None`` if it is not a modular cross-encoder.

    :raises CheckpointError: If a file is damaged or incomplete.
    :raises UnsupportedModelError: If there is a module that crossrank does not know; it is named.
    """
    path = folder / "modules.json"
    settings = read_json(folder / "config_sentence_transformers.json")
    if not path.is_file() or settings.get("model_type") != "CrossEncoder":
        return None
    try:
        listed = [(_kind(entry["type"], folder), str(entry["path"])) for entry in json.loads(path.read_text("utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a list of modules ({error!r}). Download the checkpoint again.") from error
    if not listed or listed[0] != ("Transformer", ""):
        raise _unsupported(folder, f"{listed[0] if listed else 'nothing'} as its first", "a Transformer in the root")
    transformer = read_json(folder / "sentence_bert_config.json")
    task = str(transformer.get("transformer_task", "feature-extraction"))
    if task not in _TASKS:
        raise _unsupported(folder, f"a Transformer for {task!r}", f"Transformers for {', '.join(_TASKS)}")
    processing = transformer.get("processing_kwargs") or {}
    template_settings = dict(processing.get("chat_template") or {})
    length = (processing.get("text") or {}).get("max_length") or template_settings.get("max_length")
    message = (transformer.get("modality_config") or {}).get("message")
    return Modules(
        task=task,
        head=_head(folder, task, listed[1:]),
        messages=message is not None,
        message_format=(message or {}).get("format"),
        template_settings={key: value for key, value in template_settings.items() if key not in _NOT_FOR_THE_TEMPLATE},
        prompt=str((settings.get("prompts") or {}).get(settings.get("default_prompt_name")) or ""),
        max_length=int(length) if length else None,
    )


def refuse_modules(folder: Path, model_type: str, modules: Modules | None) -> None:
    """Refuse what only decoders are scored with here.

    :raises UnsupportedModelError: If a checkpoint of an encoder has more than its own classification head.
    """
    if modules is None:
        return
    if modules.head:
        kinds = " + ".join(type(module).__name__ for module in modules.head)
        raise _unsupported(folder, f"{kinds} behind the encoder {model_type!r}", "these behind decoders only")
    if modules.messages or modules.prompt:
        raise _unsupported(folder, f"a prompt for the encoder {model_type!r}", "prompts for decoders only")


def _kind(name: str, folder: Path) -> str:
    package, _, kind = name.rpartition(".")
    if not package.startswith("sentence_transformers."):
        raise UnsupportedModelError(
            f"{folder} wants the module {name!r}, which is code from outside sentence-transformers. crossrank never "
            "runs code out of a checkpoint."
        )
    return kind


def _head(folder: Path, task: str, listed: list[tuple[str, str]]) -> tuple[LogitScore, ...] | tuple[Dense, ...]:
    kinds = [kind for kind, _ in listed]
    configs = [read_json(folder / path / "config.json") for _, path in listed]
    if unknown := [kind for kind in kinds if kind not in _KNOWN]:
        raise _unsupported(folder, f"the module {unknown[0]}", ", ".join(_KNOWN))
    if task == "sequence-classification" and not kinds:
        return ()
    if task == "text-generation" and kinds == ["LogitScore"]:
        yes, no = configs[0].get("true_token_id"), configs[0].get("false_token_id")
        if not isinstance(yes, int):
            raise CheckpointError(f"{folder / listed[0][1]} names no true_token_id. Download the checkpoint again.")
        return (LogitScore(yes, no),)
    if task == "feature-extraction" and kinds[:1] == ["Pooling"] and set(kinds[1:]) == {"Dense"}:
        return _dense(folder, listed, configs)
    raise _unsupported(
        folder,
        f"{' + '.join(kinds) or 'nothing'} behind a Transformer for {task!r}",
        "nothing behind 'sequence-classification', LogitScore behind 'text-generation', and Pooling + Dense behind "
        "'feature-extraction'",
    )


def _dense(folder: Path, listed: list[tuple[str, str]], configs: list[dict[str, Any]]) -> tuple[Dense, ...]:
    pooling = configs[0].get("pooling_mode")
    if pooling is None:  # how versions before 6 wrote it
        pooling = next((key for key, on in configs[0].items() if key.startswith("pooling_mode_") and on), None)
    if pooling not in ("lasttoken", "pooling_mode_lasttoken"):
        raise _unsupported(folder, f"the module Pooling with the mode {pooling!r}", "Pooling with 'lasttoken'")
    if configs[-1].get("module_output_name") != "scores":
        raise _unsupported(folder, "a last module Dense that puts out no 'scores'", "a last Dense that does")
    layers = []
    for (_, path), config in zip(listed[1:], configs[1:], strict=True):
        if config.get("use_residual"):
            raise _unsupported(folder, "the module Dense with use_residual", "Dense without it")
        try:
            layers.append(
                Dense(
                    folder / path,
                    int(config["in_features"]),
                    int(config["out_features"]),
                    bool(config.get("bias", True)),
                    str(config.get("activation_function", "torch.nn.Tanh")).rpartition(".")[2],
                )
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{folder / path} is incomplete ({error!r}). Download it again.") from error
    return tuple(layers)


def _unsupported(folder: Path, found: str, known: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{folder} is a modular sentence-transformers model with {found}; crossrank knows {known}. "
        "Score it with sentence-transformers itself."
    )
