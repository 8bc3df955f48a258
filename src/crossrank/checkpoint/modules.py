"""modules.json -> the modules of a sentence-transformers cross-encoder (version 5.4 on; 6 writes one for every model).

Read from sentence_transformers/base/model.py and base/modules/transformer.py of version 6.2. It reads only
checkpoints of a ``CrossEncoder``, because the modules of a bi-encoder make embeddings, not scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint.model_config import read_json
from crossrank.errors import CheckpointError, UnsupportedModelError

# Keys of the chat template's settings that are for the tokenizer or sentence-transformers, not for the template.
_NOT_FOR_THE_TEMPLATE = ("padding", "truncation", "max_length", "return_tensors", "restore_suffix")
_KNOWN = ("LogitScore", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
_TASKS = ("sequence-classification", "text-generation", "feature-extraction")
_LAST_STATES = "last_hidden_state"
# Names that modules use for the states of all tokens, the pooled vector, and the logits.
TOKENS, POOLED, SCORES = "token_embeddings", "sentence_embedding", "scores"
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# The modes in files of versions before 6. Several may be on; their vectors are then concatenated in this order.
_OLD_MODES: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Activations of Dense, by their class name under torch.nn, all with torch's default settings.
DENSE_ACTIVATIONS = (
    *("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"),
    *("ELU", "SELU", "LeakyReLU", "Mish", "Softplus", "Hardswish"),
)


@dataclass(frozen=True)
class LogitScore:
    """The score is a token's logit at the last position, minus that of another token if there is one."""

    yes: int
    no: int | None


@dataclass(frozen=True)
class Pooling:
    """Pools the states of all tokens to one vector.

    :param modes: One or more of ``POOLING_MODES``; the vectors of several are concatenated.
    :param include_prompt: Include the tokens of the prompt and those before it.
    """

    modes: tuple[str, ...]
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation.

    :param folder: Where its weights are.
    :param inputs: Size of the input.
    :param outputs: Size of the output; for the layer of the scores, the number of labels.
    :param bias: Whether it has a bias.
    :param activation: One of ``DENSE_ACTIVATIONS``.
    :param residual: Whether the input is added to the output, through a matrix if the sizes differ.
    :param source: Name of the input, such as ``"sentence_embedding"``.
    :param target: Name of the output, such as ``"scores"``.
    """

    folder: Path
    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "Tanh"
    residual: bool = False
    source: str = POOLED
    target: str = POOLED


@dataclass(frozen=True)
class LayerNorm:
    """Normalises the pooled vector to mean 0 and variance 1, then scales and shifts it."""

    folder: Path
    size: int


@dataclass(frozen=True)
class Normalize:
    """Scales vectors to length 1."""

    source: str = POOLED
    target: str = POOLED


Module = LogitScore | Pooling | Dense | LayerNorm | Normalize


@dataclass(frozen=True)
class Modules:
    """A modular cross-encoder.

    :param task: The kind of transformer: ``"sequence-classification"``, ``"text-generation"`` or
        ``"feature-extraction"``.
    :param head: The modules that make the score; empty for a sequence classifier, which has its own head.
    :param messages: Whether a pair goes through the tokenizer's chat template.
    :param message_format: ``"flat"`` or ``"structured"`` contents of a message; ``None`` if the checkpoint doesn't say.
    :param template_settings: Arguments of the chat template besides the messages.
    :param prompt: Put before the query, or used as the system message of the chat template; empty for none.
    :param max_length: A limit of tokens that the checkpoint sets, if any.
    """

    task: str
    head: tuple[Module, ...]
    messages: bool
    message_format: str | None
    template_settings: Mapping[str, Any]
    prompt: str
    max_length: int | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names of the last ``Dense`` that outputs scores; empty if there is none."""
        scores = [layer for layer in self.head if isinstance(layer, Dense) and layer.target == SCORES]
        return tuple(f"LABEL_{i}" for i in range(scores[-1].outputs)) if scores else ()


def list_modules(folder: Path) -> list[tuple[str, str]] | None:
    """Read ``modules.json``: class name and folder of each module; ``None`` if the file does not exist.

    :raises CheckpointError: If the file is damaged.
    :raises UnsupportedModelError: If a module is not part of sentence-transformers.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        entries = [(str(entry["type"]), str(entry["path"])) for entry in json.loads(path.read_text("utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a list of modules ({error!r}). Download the checkpoint again.") from error
    for name, _ in entries:
        if not name.startswith("sentence_transformers."):
            raise UnsupportedModelError(
                f"{folder} needs the module {name!r}, which is code from outside sentence-transformers. crossrank "
                "never runs code from checkpoints. Use a model made of sentence-transformers' own modules."
            )
    return [(name.rpartition(".")[2], path) for name, path in entries]


def read_modules(folder: Path) -> Modules | None:
    """Read the modules of a checkpoint; ``None`` if it is not a modular cross-encoder.

    :raises CheckpointError: If a file is damaged or incomplete.
    :raises UnsupportedModelError: If it has an unknown module, which the message names.
    """
    settings = read_json(folder / "config_sentence_transformers.json")
    listed = list_modules(folder) if settings.get("model_type") == "CrossEncoder" else None
    if listed is None:
        return None
    if not listed or listed[0] != ("Transformer", ""):
        raise _unsupported(folder, f"{listed[0] if listed else 'nothing'} as its first", "a Transformer in the root")
    transformer = read_json(folder / "sentence_bert_config.json")
    task = str(transformer.get("transformer_task", "feature-extraction"))
    if task not in _TASKS:
        raise _unsupported(folder, f"a Transformer for {task!r}", f"Transformers for {', '.join(_TASKS)}")
    if transformer.get("do_lower_case"):
        raise _unsupported(folder, "do_lower_case", "tokenizers that say themselves what they lowercase")
    modalities = transformer.get("modality_config") or {}
    output = (modalities.get("text") or {}).get("method_output_name", _LAST_STATES)
    if task == "feature-extraction" and output != _LAST_STATES:
        raise _unsupported(
            folder, f"a Transformer that puts out {output!r}", f"Transformers that put out {_LAST_STATES!r}"
        )
    processing = transformer.get("processing_kwargs") or {}
    template_settings = dict(processing.get("chat_template") or {})
    length = (processing.get("text") or {}).get("max_length") or template_settings.get("max_length")
    message = modalities.get("message")
    return Modules(
        task=task,
        head=_head(folder, task, listed[1:]),
        messages=message is not None,
        message_format=(message or {}).get("format"),
        template_settings={key: value for key, value in template_settings.items() if key not in _NOT_FOR_THE_TEMPLATE},
        prompt=str((settings.get("prompts") or {}).get(settings.get("default_prompt_name")) or ""),
        max_length=int(length) if length else None,
    )


def refuse_for_encoders(folder: Path, model_type: str, modules: Modules) -> None:
    """Refuse settings that only decoders have.

    :raises UnsupportedModelError: If a checkpoint of an encoder has them.
    """
    if any(isinstance(module, LogitScore) for module in modules.head):
        raise _unsupported(folder, f"LogitScore behind the encoder {model_type!r}", "LogitScore behind decoders only")
    if modules.messages:
        raise _unsupported(
            folder, f"a chat template for the encoder {model_type!r}", "chat templates for decoders only"
        )


def read_pooling(folder: Path) -> Pooling:
    """Read the config of a module ``Pooling``.

    :raises CheckpointError: If there is none.
    :raises UnsupportedModelError: If it names a mode that sentence-transformers does not have.
    """
    config = read_json(folder / "config.json")
    if not config:
        raise CheckpointError(f"{folder} has no config.json. Download the checkpoint again.")
    mode: Any = config.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in _OLD_MODES.items() if config.get(key)] or ["mean"]
    modes = (mode,) if isinstance(mode, str) else tuple(map(str, mode))
    if not modes or not set(modes) <= set(POOLING_MODES):
        raise _unsupported(
            folder.parent,
            f"the module Pooling with the mode {' + '.join(modes) or 'none'}",
            f"Pooling with {', '.join(POOLING_MODES)}",
        )
    return Pooling(modes, include_prompt=config.get("include_prompt") is not False)


def _head(folder: Path, task: str, listed: list[tuple[str, str]]) -> tuple[Module, ...]:
    kinds = [kind for kind, _ in listed]
    if unknown := [kind for kind in kinds if kind not in _KNOWN]:
        raise _unsupported(folder, f"the module {unknown[0]}", ", ".join(_KNOWN))
    if task == "sequence-classification" and not kinds:
        return ()
    if task == "text-generation" and kinds == ["LogitScore"]:
        config = read_json(folder / listed[0][1] / "config.json")
        yes, no = config.get("true_token_id"), config.get("false_token_id")
        if not isinstance(yes, int):
            raise CheckpointError(f"{folder / listed[0][1]} names no true_token_id. Download the checkpoint again.")
        return (LogitScore(yes, no),)
    if task == "feature-extraction" and "Pooling" in kinds and "LogitScore" not in kinds:
        head = tuple(_module(kind, folder / path) for kind, path in listed if kind != "Dropout")  # only for training
        if not any(isinstance(layer, Dense) and layer.target == SCORES for layer in head):
            raise _unsupported(folder, "no module Dense that puts out 'scores'", "heads with such a Dense")
        return head
    raise _unsupported(
        folder,
        f"{' + '.join(kinds) or 'nothing'} behind a Transformer for {task!r}",
        "nothing behind 'sequence-classification', LogitScore behind 'text-generation', and Pooling with Dense, "
        "LayerNorm, Normalize and Dropout behind 'feature-extraction'",
    )


def _module(kind: str, folder: Path) -> Module:
    if kind == "Pooling":
        return read_pooling(folder)
    config = read_json(folder / "config.json")
    try:
        if kind == "LayerNorm":
            return LayerNorm(folder, int(config["dimension"]))
        source = str(config.get("module_input_name") or POOLED)
        target = str(config.get("module_output_name") or source)
        if kind == "Normalize":
            return Normalize(source, target)
        return Dense(
            folder,
            int(config["in_features"]),
            int(config["out_features"]),
            bias=bool(config.get("bias", True)),
            activation=_activation(folder, str(config.get("activation_function", "torch.nn.Tanh"))),
            residual=bool(config.get("use_residual", False)),
            source=source,
            target=target,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} is incomplete ({error!r}). Download it again.") from error


def _activation(folder: Path, name: str) -> str:
    package, _, kind = name.rpartition(".")
    if not package.startswith("torch.nn") or kind not in DENSE_ACTIVATIONS:
        raise _unsupported(
            folder.parent,
            f"the activation {name!r} in {folder.name}",
            f"torch.nn's {', '.join(DENSE_ACTIVATIONS)}",
        )
    return kind


def _unsupported(folder: Path, found: str, known: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{folder} is a modular sentence-transformers model with {found}; crossrank knows {known}. "
        "Score it with sentence-transformers itself."
    )
