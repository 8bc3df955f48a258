"""Arguments and attributes of sentence-transformers' CrossEncoder: taken where they mean something, else explained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from tokenizers import Tokenizer

from crossrank.checkpoint.identity import model_files
from crossrank.checkpoint.source import ModelFiles
from crossrank.engines.load import LoadedModel
from crossrank.errors import InputError

_Model = TypeVar("_Model", bound="SentenceTransformersNames")

BACKENDS = ("torch", "onnx", "openvino")
# Of a keyword dictionary: what changes no score and is therefore not needed.
_NO_EFFECT = frozenset(
    {
        "attn_implementation",
        "classifier_dropout",
        "low_cpu_mem_usage",
        "provider",
        "trust_remote_code",
        "use_fast",
        "use_safetensors",
    }
)
# Of a keyword dictionary: what the constructor takes as an argument of its own -> that argument.
_OWN: Mapping[str, str] = {
    "cache_dir": "cache_folder",
    "device_map": "device",
    "local_files_only": "local_files_only",
    "model_max_length": "max_length",
    "num_labels": "num_labels",
    "revision": "revision",
    "token": "token",
}
_PRECISIONS: Mapping[str, str] = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    # There is no float16 here, so use the default.
    "float16": "auto",
    "half": "auto",
    "auto": "auto",
}
# What sentence-transformers' CrossEncoder has -> what to do instead.
_REMEDIES: Mapping[str, str] = {
    **dict.fromkeys(("fit", "old_fit", "train"), "Train with crossrank train, or crossrank.training.train()."),
    **dict.fromkeys(("bfloat16", "double", "float", "dtype"), "Give the constructor precision=; info() tells which."),
    **dict.fromkeys(("cuda", "xpu", "ipu"), "Give the constructor device=."),
    **dict.fromkeys(("prompts", "default_prompt_name"), "Put the prompt before the query yourself."),
    "evaluate": "Evaluate with crossrank evaluate, or give the model to an evaluator of sentence-transformers.",
    "get_max_seq_length": "Read max_length.",
    "tokenize": "Use tokenizer.encode(query, document).",
    **dict.fromkeys(
        ("push_to_hub", "save_to_hub"),
        "Save with save_pretrained(folder), then upload it: hf upload owner/name folder.",
    ),
    **dict.fromkeys(
        ("start_multi_process_pool", "stop_multi_process_pool"),
        "One process uses all cores by itself; num_threads= sets how many.",
    ),
}
_NO_MODULE = (
    "It has predict(), rank() and score(), and no torch module behind them. For a torch module, load the folder with "
    "sentence-transformers."
)


class MissingAttributeError(InputError, AttributeError):
    """An attribute that sentence-transformers' CrossEncoder has, or takes, and crossrank's has not."""


class ReadOnly(SimpleNamespace):
    """Values that can be read as attributes, and not be set."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would have no effect."""
        raise MissingAttributeError(
            f"{name} can't be set to {value!r}: it would have no effect. Change config.json and load the model again."
        )


def missing_attribute(kind: str, name: str) -> AttributeError:
    """Make the error for an attribute that a model does not have."""
    if name.startswith("_"):  # Python's protocols ask for these
        return AttributeError(f"{kind!r} object has no attribute {name!r}")
    return MissingAttributeError(f"crossrank.{kind} has no attribute {name!r}. {_REMEDIES.get(name, _NO_MODULE)}")


def constructor_arguments(given: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Put the older names and keyword dictionaries of sentence-transformers into crossrank's own arguments.

    :param given: crossrank's own arguments, by name, with their defaults.
    :param old: What else the constructor was called with.
    :raises InputError: If an argument can't be honoured; it is named.
    """
    found = dict(given)
    dictionaries: dict[str, Mapping[str, Any]] = {}
    for name, value in old.items():
        if name in _ALIASES:
            _set(found, _ALIASES[name], value, name)
        elif name in _DICTIONARIES:
            if value is not None and not isinstance(value, Mapping):
                raise InputError(f"{name}={value!r} is not a dictionary. Leave it out.")
            dictionaries[name] = value or {}
        elif name == "backend":
            if value not in (None, *BACKENDS):
                raise InputError(f"backend={value!r} is not known: leave it out. crossrank always uses OpenVINO here.")
        elif name in _ACCEPTED:
            if _ACCEPTED[name] and value:
                raise InputError(f"{name}={value!r} has no effect here. {_ACCEPTED[name]}")
        else:
            raise TypeError(f"CrossEncoder.__init__() got an unexpected keyword argument {name!r}")
    for name, values in dictionaries.items():
        for key, value in values.items():
            _from_dictionary(found, name, key, value)
    return found


_ALIASES: Mapping[str, str] = {
    "model_name": "model_name_or_path",
    "cache_dir": "cache_folder",
    "default_activation_function": "activation_fn",
    "activation_fct": "activation_fn",
}
_DICTIONARIES = (
    "model_kwargs",
    "automodel_args",
    "tokenizer_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_kwargs",
    "config_args",
)
# Arguments without a meaning here -> what to say to a value; an empty text takes any value.
_ACCEPTED: Mapping[str, str] = {
    "trust_remote_code": "",
    "model_card_data": "",
    "keep_in_fp32_modules": "",
    "classifier_dropout": "",
    "modules": "Save the modules to a folder and name that.",
    "prompts": "Put the prompt before the query yourself, or use a checkpoint that has it.",
    "default_prompt_name": "Put the prompt before the query yourself, or use a checkpoint that has it.",
}


def _set(found: dict[str, Any], name: str, value: Any, called: str) -> None:
    if value is None:
        return
    if found.get(name) not in (None, value):
        raise InputError(f"{called}={value!r} and {name}={found[name]!r} are both given. Leave one out.")
    found[name] = value


def _from_dictionary(found: dict[str, Any], name: str, key: str, value: Any) -> None:
    if key in ("torch_dtype", "dtype"):
        wanted = str(value).removeprefix("torch.")
        if wanted not in _PRECISIONS:
            raise InputError(f"{name}: {key}={value!r} is not known: give precision='float32', 'bfloat16' or 'int8'.")
        if found["precision"] == "auto":
            found["precision"] = _PRECISIONS[wanted]
    elif key in _OWN:
        if value:
            _set(found, _OWN[key], value, f"{name}: {key}")
    elif key not in _NO_EFFECT and value is not None:
        raise InputError(
            f"{name}: {key}={value!r} has no effect here. Leave it out; max_length, precision, device and num_threads "
            "are arguments of CrossEncoder itself."
        )


def check_call(running_on: str, **given: Any) -> None:
    """Check arguments of a call that have a meaning only in sentence-transformers.

    :param running_on: What the model runs on.
    :param given: ``prompt``, ``prompt_name``, ``pool`` and the call's own ``device``.
    :raises InputError: If one of them can't be honoured.
    """
    for name in ("prompt", "prompt_name"):
        if given.get(name):
            raise InputError(
                f"{name}={given[name]!r} has no effect here. Put the prompt before the query yourself. If you meant "
                "another argument, give it by its name, such as batch_size=32."
            )
    if given.get("pool") is not None:
        raise InputError("pool= has no effect here: one process uses all cores. Leave it out.")
    wanted = given.get("device")
    if wanted is not None and str(wanted) != running_on:
        raise InputError(
            f"The model runs on {running_on!r} and can't be moved or converted to {wanted!r}. Make another one: "
            "CrossEncoder(..., device=..., precision=...)."
        )


class SentenceTransformersNames:
    """What code written for sentence-transformers reads from, sets on and calls of a model."""

    _SETTABLE = frozenset({"max_length", "max_seq_length", "activation_fn", "default_activation_function"})
    # Set once, by the constructor.
    _FIXED = frozenset({"name", "label", "calibration"})

    # What the model itself has.
    _arguments: dict[str, Any]
    _find: Callable[[], ModelFiles]
    _load: Callable[[], LoadedModel]

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would have no effect, such as ``model.device = "cuda"``."""
        first = name in self._FIXED and name not in self.__dict__
        if not (first or name.startswith("_") or name in self._SETTABLE):
            raise MissingAttributeError(
                f"{name} can't be set to {value!r}: it would have no effect. Pass it to the constructor if it takes "
                f"it; what can be set is {', '.join(sorted(self._SETTABLE))}."
            )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """Say what to do instead of what only a torch module has."""
        raise missing_attribute(type(self).__name__, name)

    @property
    def tokenizer(self) -> Tokenizer:
        """A copy of the model's ``tokenizers.Tokenizer``; to change it changes no score."""
        return Tokenizer.from_str(self._load().encoder.tokenizer.to_str())

    @property
    def config(self) -> ReadOnly:
        """``config.json`` with its keys as attributes, which can't be set."""
        config = self._load().config
        known = {"num_labels": len(config.labels), "id2label": dict(enumerate(config.labels))}
        return ReadOnly(**{**config.raw, **known})

    @property
    def model_card_data(self) -> ReadOnly:
        """Takes the results of sentence-transformers' evaluators and drops them, as there is no model card."""
        return ReadOnly(set_evaluation_metrics=lambda *_: None)

    @property
    def device(self) -> str:
        """What the model runs on, such as ``"cpu"``."""
        return self._arguments["device"] or "cpu"

    def to(self: _Model, device: Any) -> _Model:
        """Return the model if it runs on this device already.

        :raises InputError: If it does not: a model stays where it was loaded.
        """
        check_call(self.device, device=device)
        return self

    def cpu(self: _Model) -> _Model:
        """Return the model if it runs on the CPU; see :meth:`to`."""
        return self.to("cpu")

    def eval(self: _Model) -> _Model:
        """Return the model: it is always ready to score."""
        return self

    def half(self: _Model) -> _Model:
        """Return the model as it is: ``precision="auto"`` is the fastest that keeps the ranking."""
        return self

    def save_pretrained(self, path: str | os.PathLike[str], **_no_effect: Any) -> None:
        """Copy the model's files to a folder, which is made.

        sentence-transformers' other arguments, such as ``safe_serialization``, have no effect: files stay as they are.

        :raises OSError: If it can't be written.
        """
        source = self._find().folder
        for file in model_files(source):
            target = Path(path) / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    save = save_pretrained
