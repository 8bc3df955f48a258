"""Read a pipeline from a TOML file: the arguments of a Reranker, checked before a model is loaded."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crossrank.errors import CrossRankError, InputError, did_you_mean
from crossrank.optional import require
from crossrank.scoring.cross_encoder import CrossEncoder

# "type" of a stage -> its class.
STAGE_TYPES: Mapping[str, str] = {
    "cross-encoder": "crossrank.ranking.cross_encoder_stage:CrossEncoderStage",
    "first-stage": "crossrank.ranking.first_stage:FirstStage",
    "hosted": "crossrank.ranking.network.hosted:HostedReranker",
    "llm-judge": "crossrank.ranking.judge.llm_judge:LLMJudge",
}
CACHE_TYPES: Mapping[str, str] = {
    "memory": "crossrank.ranking.cache.sqlite_cache:MemoryCache",
    "disk": "crossrank.ranking.cache.sqlite_cache:DiskCache",
}
# Secrets come from the environment, not from a file.
_SECRETS = ("api_key", "token")
# The settings of the pipeline that are not tables, and their types.
_SETTINGS: Mapping[str, str] = {
    "text": "str",
    "score": "str",
    "threshold": "float",
    "top_k": "int",
    "on_error": "str",
    "deadline": "float",
}
# A type in a signature -> the types in TOML, and their name in messages.
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a string"),
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
}


def load_pipeline(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a pipeline file.

    :returns: The arguments of :class:`~crossrank.ranking.reranker.Reranker`.
    :raises InputError: If the file can't be read or used; the message names the file, the key and the value.
    """
    file = os.fspath(path)
    given = _parsed(file)
    try:
        _check_keys("", given, (*_SETTINGS, "cache", "stages"))
        settings = {key: _typed(key, given[key], kind) for key, kind in _SETTINGS.items() if key in given}
        tables = _typed_table("stages", given.get("stages"), list, "Give at least one [[stages]] table.")
        stages = [_made(f"stages[{i}]", table, "type", STAGE_TYPES) for i, table in enumerate(tables)]
        if "cache" in given:
            settings["cache"] = _made("cache", given["cache"], "kind", CACHE_TYPES)
    except InputError as error:
        raise InputError(f"{file!r}: {error}") from error
    return {**settings, "stages": stages}


def _parsed(file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        tomllib = require("tomli", extra="pipeline", purpose="A pipeline file")
    try:
        with Path(file).open("rb") as stream:
            parsed: dict[str, Any] = tomllib.load(stream)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {file!r} (seen from {str(Path.cwd())!r}). Check the path.") from error
    except OSError as error:
        raise InputError(f"{file!r} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file!r} is not TOML: {error}.") from error
    except RecursionError as error:
        raise InputError(f"{file!r}: its arrays or tables are nested too deeply.") from error
    return parsed


def _made(where: str, table: Any, key: str, types: Mapping[str, str]) -> Any:
    """Make a stage or a cache. This checks the names and plain types of its settings; the class checks the values.

    :param key: The key that says which one it is.
    :param types: The values of that key, and their classes.
    """
    given = _typed_table(where, table, dict)
    if key not in given:
        raise InputError(f"{where}: the key {key!r} is missing. Give one of {', '.join(types)}.")
    kind = given.pop(key)
    if kind not in types:
        raise InputError(f"{where}: {key} = {kind!r} is unknown.{_remedy(str(kind), types)}")
    where = f"{where} ({kind})"
    for secret in _SECRETS:
        if secret in given:
            raise InputError(f"{where}: {secret} does not belong in a file. Set it in the environment.")
    module, _, name = types[kind].partition(":")
    cls = getattr(importlib.import_module(module), name)
    parameters = dict(inspect.signature(cls).parameters)
    if parameters.pop("settings", None) is not None:  # the stage passes these on to its model
        parameters = {**inspect.signature(CrossEncoder).parameters, **parameters}
        for name in ("model_name_or_path", "lazy", "old_arguments"):
            parameters.pop(name, None)
    _check_keys(f"{where}: ", given, [key for key in parameters if key not in _SECRETS])
    for key, parameter in parameters.items():
        if key in given:
            _typed(f"{where}: {key}", given[key], str(parameter.annotation))
        elif parameter.default is parameter.empty:
            raise InputError(f"{where}: the key {key!r} is missing.")
    if given.get("name") == "":
        raise InputError(f"{where}: name = '' is empty. Give a name, or leave it out.")
    try:
        return cls(**given)
    except CrossRankError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        shown = ", ".join(f"{key} = {value!r}" for key, value in given.items())
        raise InputError(f"{where}: {shown or 'no settings'} can't be used: {error}.") from error


def _check_keys(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{where}there is no key {key!r}.{_remedy(key, known)}")


def _typed(where: str, value: Any, annotation: str) -> Any:
    """Return a value if it has one of the plain types of an annotation; the class checks other types."""
    names = [name for name in annotation.split(" | ") if name != "None"]
    if not _TYPES.keys() >= set(names):
        return value
    # Python counts True and False as numbers.
    if any(isinstance(value, _TYPES[name][0]) and isinstance(value, bool) == (name == "bool") for name in names):
        return value
    wanted = " or ".join(_TYPES[name][1] for name in names)
    raise InputError(f"{where} = {value!r} can't be used. Give {wanted}.")


def _typed_table(where: str, value: Any, kind: type, remedy: str = "Give a table.") -> Any:
    if not isinstance(value, kind) or not value:
        raise InputError(f"{where} is {'missing or empty' if not value else repr(value)}. {remedy}")
    return dict(value) if isinstance(value, dict) else value


def _remedy(wrong: str, known: Iterable[str]) -> str:
    return did_you_mean(wrong, known) or f" Known: {', '.join(known)}."
