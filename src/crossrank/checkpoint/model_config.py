"""config.json and the files next to it -> a frozen ModelConfig."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossrank.errors import CheckpointError, UnsupportedModelError
from crossrank.validation import is_finite_number

# A tokenizer that was saved without a limit has a number like 1e30.
_NO_LIMIT = 1_000_000
# The smallest values that these keys of config.json may have.
_LEAST: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), 1),
    **dict.fromkeys(("dim", "n_layers", "n_heads", "hidden_dim"), 1),  # DistilBERT's names for these four
    **dict.fromkeys(("vocab_size", "embedding_size", "num_labels", "max_position_embeddings"), 1),
    "max_document_length": 2,  # of models that encode texts separately
    "type_vocab_size": 0,
    "pad_token_id": -1,
}
_EPSILONS = ("layer_norm_eps", "norm_eps", "rms_norm_eps")
# Far more than any classifier has. A limit, because names take memory.
_MAX_LABELS = 100_000
_WORDS = ("hidden_act", "activation", "hidden_activation")
# Architectures that count positions from the id after the padding's. No token can use the rows up to it, so with a
# padding id of 1, a table of 514 rows allows 512 tokens.
_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta", "xlm_roberta_flash")
# Configuration classes in the auto_map of checkpoints that bring their own code -> our architecture that computes the
# same without it.
REWRITTEN: Mapping[str, str] = {
    "configuration.NewConfig": "new",
    "configuration_bert.JinaBertConfig": "jina_bert",
    "configuration_xlm_roberta.XLMRobertaFlashConfig": "xlm_roberta_flash",
}


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a checkpoint.

    :param model_type: The architecture's name, as in ``config.json``.
    :param architecture: The first of ``architectures``, such as ``BertForSequenceClassification``; empty if unnamed.
    :param labels: The label names in the order of the logits.
    :param activation: The checkpoint's own activation, a class name under ``torch.nn`` such as ``"Sigmoid"``,
        or ``None`` if it names none.
    :param usable_length: The most tokens a pair may have, special tokens included.
    :param raw: All of ``config.json``, for keys that only one architecture needs.
    """

    model_type: str
    architecture: str
    labels: tuple[str, ...]
    activation: str | None
    usable_length: int
    raw: Mapping[str, Any] = field(repr=False)

    def get(self, key: str, default: Any) -> Any:
        """Value of a key of ``config.json``; ``default`` if it is missing or null."""
        value = self.raw.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        """Value of a key of ``config.json``.

        :raises CheckpointError: If the key is missing.
        """
        if self.raw.get(key) is None:
            raise CheckpointError(
                f"config.json of this {self.model_type!r} checkpoint lacks the key {key!r}. "
                "Download the checkpoint again, or save it again with transformers' save_pretrained()."
            )
        return self.raw[key]

    def only(self, key: str, *known: Any) -> None:
        """Refuse a checkpoint that sets a key to an unsupported value. A missing or null key is fine.

        :raises UnsupportedModelError: If the value is not one of ``known``.
        """
        value = self.raw.get(key)
        if value is not None and value not in known:
            raise UnsupportedModelError(
                f"config.json of this {self.model_type!r} checkpoint has {key}={value!r}, which is not "
                f"supported. Supported values: {', '.join(map(repr, known))}. Use another checkpoint."
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; an empty one if the file does not exist.

    :raises CheckpointError: If the file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}. Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}). Download the checkpoint again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {type(value).__name__}, not a JSON object. Download the checkpoint again."
        )
    return value


def load_config(folder: Path) -> ModelConfig:
    """Read ``config.json`` and the length limits and activation from the files next to it.

    :raises CheckpointError: If ``config.json`` is missing, damaged, or names no ``model_type``.
    :raises UnsupportedModelError: If the model needs its own code.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json, so it is not a model folder.")
    raw = read_json(path)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            f"{path} names no model_type, so its architecture is unknown. "
            "Use the config.json that was saved with the weights."
        )
    if raw.get("auto_map"):
        model_type = _rewritten(folder, raw["auto_map"])
    _check_values(path, raw)
    architectures = raw.get("architectures")
    return ModelConfig(
        model_type=model_type,
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        labels=_labels(folder, raw),
        activation=_activation(folder, raw),
        usable_length=_usable_length(folder, model_type, raw),
        raw=raw,
    )


def _rewritten(folder: Path, auto_map: Any) -> str:
    """Find our architecture for a checkpoint that needs its own code, named ``repository--module.Class``."""
    name = str(auto_map.get("AutoConfig", "")) if isinstance(auto_map, dict) else ""
    code = name.rpartition("--")[2]
    if code not in REWRITTEN:
        raise UnsupportedModelError(
            f"{folder} needs code from its repository (auto_map in config.json; trust_remote_code=True in "
            "transformers). crossrank never runs code from checkpoints. Use a model of a supported "
            "architecture, such as cross-encoder/ettin-reranker-32m-v1 or BAAI/bge-reranker-v2-m3; docs/models.md "
            "says of each published reranker whether it runs."
        )
    return REWRITTEN[code]


def _check_values(path: Path, raw: Mapping[str, Any]) -> None:
    for key, least in _LEAST.items():
        value = raw.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise CheckpointError(
                f"{path} has {key}={value!r}; an integer of at least {least} is expected. Download it again."
            )
    if (labels := raw.get("num_labels") or 0) > _MAX_LABELS:
        raise CheckpointError(f"{path} has num_labels={labels}; {_MAX_LABELS} is the limit. Download it again.")
    for key in _EPSILONS:
        if raw.get(key) is not None and not (is_finite_number(raw[key]) and raw[key] >= 0):
            raise CheckpointError(
                f"{path} has {key}={raw[key]!r}; a number of 0 or more is expected. Download it again."
            )
    for key in _WORDS:
        if raw.get(key) is not None and not isinstance(raw[key], str):
            raise CheckpointError(f"{path} has {key}={raw[key]!r}; a name is expected. Download the checkpoint again.")


def _labels(folder: Path, raw: Mapping[str, Any]) -> tuple[str, ...]:
    names = raw.get("id2label")
    if isinstance(names, dict) and names:
        try:
            return tuple(str(names[key]) for key in sorted(names, key=int))
        except ValueError as error:
            raise CheckpointError(
                f"id2label in {folder / 'config.json'} has keys that are not numbers: {', '.join(sorted(names))}. "
                'Number the labels in the order of the logits: {"0": "no", "1": "yes"}.'
            ) from error
    # transformers writes id2label only when it differs from its default of two labels.
    return tuple(f"LABEL_{i}" for i in range(raw.get("num_labels") or 2))


def _activation(folder: Path, raw: Mapping[str, Any]) -> str | None:
    """Look in all places where sentence-transformers has stored it, newest first; only names in torch.nn count."""
    places = (
        read_json(folder / "config_sentence_transformers.json").get("activation_fn"),
        settings.get("activation_fn") if isinstance(settings := raw.get("sentence_transformers"), dict) else None,
        raw.get("sbert_ce_default_activation_function"),
    )
    for name in places:
        if isinstance(name, str) and name.startswith("torch.nn."):
            return name.rpartition(".")[2]
    return None


def _usable_length(folder: Path, model_type: str, raw: Mapping[str, Any]) -> int:
    limits = [
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
        read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
        # For a model that encodes texts separately, the tokenizer's limit is for a whole pair.
        raw.get("max_document_length"),
    ]
    positions = _positions(model_type, raw)
    if positions is not None and positions < 1:
        raise CheckpointError(
            f"{folder / 'config.json'} has max_position_embeddings={raw.get('max_position_embeddings')}, which "
            "leaves no positions for tokens. Download the checkpoint again."
        )
    limits.append(positions)
    usable = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < _NO_LIMIT]
    return min(usable) if usable else 512


def _positions(model_type: str, raw: Mapping[str, Any]) -> int | None:
    """The most tokens for which there are positions; ``None`` if config.json does not say."""
    rows = raw.get("max_position_embeddings")
    if not isinstance(rows, int) or rows <= 0:
        return None
    if model_type not in _AFTER_PADDING:
        return rows
    padding = raw.get("pad_token_id")
    return rows - 1 - (padding if isinstance(padding, int) else 1)
