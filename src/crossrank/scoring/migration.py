"""Arguments and attributes of sentence-transformers' CrossEncoder: taken where they mean something, else explained."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from crossrank.errors import InputError

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
    # There is no float16 here: "auto" is the fastest precision that keeps the ranking.
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
                raise InputError(f"backend={value!r} is not known: leave it out. The engine is OpenVINO in any case.")
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
