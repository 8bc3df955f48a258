"""A pipeline out of a TOML file, checked before anything is loaded."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from crossrank.errors import CrossRankError, InputError
from crossrank.optional import require
from crossrank.ranking.cache import MemoryCache, ScoreCache
from crossrank.ranking.course import ON_ERROR

# What "type" may be -> where its class is.
STAGE_TYPES: Mapping[str, str] = {
    "cross-encoder": "crossrank.ranking.cross_encoder_stage:CrossEncoderStage",
    "first-stage": "crossrank.ranking.first_stage:FirstStage",
    "hosted": "crossrank.ranking.hosted:HostedReranker",
    "llm-judge": "crossrank.ranking.llm_judge:LLMJudge",
}
# What no file should hold: secrets come from the environment.
_SECRETS = ("api_key", "token")
# The plain kinds of settings, as signatures write them.
_KINDS: Mapping[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool}
# Settings that only Python can give.
_NOT_IN_FILES = frozenset({"self", "settings", "client", "transport", "clock"})


def load_pipeline(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a pipeline's file.

    :returns: The arguments of :class:`~crossrank.ranking.reranker.Reranker`.
    :raises InputError: If the file can't be read or used; says the file, the key, the value and what is allowed.
    :raises MissingExtraError: If pydantic is not installed.
    """
    file = os.fspath(path)
    given = _checked(file, _parsed(file))
    cache = given.pop("cache", None)
    stages = [_stage(file, i, dict(stage)) for i, stage in enumerate(given.pop("stages"))]
    return {**given, "stages": stages, "cache": None if cache is None else _cache(file, cache)}


def _parsed(file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        tomllib = require("tomli", extra="pipeline", purpose="A pipeline out of a file")
    try:
        with Path(file).open("rb") as stream:
            parsed: dict[str, Any] = tomllib.load(stream)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {file!r} (seen from {str(Path.cwd())!r}). Check the path.") from error
    except OSError as error:
        raise InputError(f"{file!r} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file!r} is not TOML: {error}.") from error
    return parsed


@lru_cache(maxsize=1)
def _schema() -> Any:
    pydantic = require("pydantic", extra="pipeline", purpose="A pipeline out of a file")
    from typing import Annotated, Literal

    count, seconds = Annotated[int, pydantic.Field(ge=1)], Annotated[float, pydantic.Field(gt=0)]
    strict = {"extra": "forbid", "strict": True}
    cache = pydantic.create_model(
        "Cache",
        __config__=strict,
        kind=(Literal["memory", "disk"], ...),
        path=(str | None, None),
        max_bytes=(count | None, None),
    )
    stage = pydantic.create_model(
        "StageTable",
        __config__={"extra": "allow", "strict": True},
        type=(Literal[tuple(STAGE_TYPES)], ...),
        name=(Annotated[str, pydantic.Field(min_length=1)] | None, None),
        keep=(count | None, None),
        threshold=(float | None, None),
    )
    return pydantic.create_model(
        "Pipeline",
        __config__=strict,
        text=(str | None, None),
        score=(str | None, None),
        threshold=(float | None, None),
        top_k=(count | None, None),
        on_error=(Literal[ON_ERROR], "raise"),
        deadline=(seconds | None, None),
        cache=(cache | None, None),
        stages=(Annotated[list[stage], pydantic.Field(min_length=1)], ...),  # type: ignore[valid-type]
    )


def _checked(file: str, given: Mapping[str, Any]) -> dict[str, Any]:
    schema = _schema()
    pydantic = require("pydantic", extra="pipeline", purpose="A pipeline out of a file")
    try:
        checked: dict[str, Any] = schema.model_validate(given).model_dump(exclude_unset=True)
    except pydantic.ValidationError as error:
        raise InputError(_told(file, error.errors()[0], len(error.errors()), schema)) from error
    return checked


def _told(file: str, error: Mapping[str, Any], count: int, schema: Any) -> str:
    key = _key(error["loc"])
    more = f" ({count - 1} more after this.)" if count > 1 else ""
    if error["type"] == "extra_forbidden":
        known = list(schema.model_fields) if len(error["loc"]) == 1 else ["kind", "path", "max_bytes"]
        return f"{file!r}: there is no key {key!r}. {_near(str(error['loc'][-1]), known)}{more}"
    if error["type"] == "missing":
        allowed = f" Allowed: {', '.join(STAGE_TYPES)}." if error["loc"][-1] == "type" else ""
        return f"{file!r}: the key {key!r} is missing.{allowed}{more}"
    return f"{file!r}: {key} = {error['input']!r} can't be used. {error['msg']}.{more}"


def _stage(file: str, i: int, given: dict[str, Any]) -> Any:
    """Make a stage; its settings' names are checked against what its class takes."""
    kind = given.pop("type")
    where = f"{file!r}: stages[{i}] ({kind})"
    for secret in _SECRETS:
        if secret in given:
            raise InputError(f"{where}: {secret} does not belong into a file. Set it in the environment.")
    module, _, name = STAGE_TYPES[kind].partition(":")
    cls = getattr(importlib.import_module(module), name)
    known = _settings_of(cls)
    for key in given:
        if key not in known:
            raise InputError(f"{where}: there is no key {key!r}. {_near(key, known)}")
    for key, parameter in inspect.signature(cls).parameters.items():
        if key in given and not _is_of(given[key], parameter.annotation):
            raise InputError(f"{where}: {key} = {given[key]!r} can't be used. It takes {parameter.annotation}.")
        takes_one = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if takes_one and parameter.default is parameter.empty and key not in given:
            raise InputError(f"{where}: the key {key!r} is missing.")
    try:
        return cls(**given)
    except CrossRankError as error:
        raise InputError(f"{where}: {error}") from error
    except TypeError as error:
        shown = ", ".join(f"{key} = {value!r}" for key, value in given.items())
        raise InputError(f"{where}: {shown or 'no settings'} can't be used: {error}.") from error


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is of one of the plain kinds that a signature names; all others the class itself checks."""
    kinds = set(str(annotation).split(" | ")) - {"None"}
    if not kinds <= _KINDS.keys():
        return True
    # True and False are numbers for Python, not for people.
    return any(isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind == "bool") for kind in kinds)


def _settings_of(cls: Any) -> list[str]:
    names = list(inspect.signature(cls).parameters)
    if "settings" in names:
        # What a stage hands on to its model.
        from crossrank.scoring.cross_encoder import CrossEncoder

        names += list(inspect.signature(CrossEncoder).parameters)[1:]
    return [name for name in dict.fromkeys(names) if name not in (*_NOT_IN_FILES, *_SECRETS)]


def _cache(file: str, given: Mapping[str, Any]) -> ScoreCache:
    limits = {} if given.get("max_bytes") is None else {"max_bytes": given["max_bytes"]}
    path = given.get("path")
    if (given["kind"] == "disk") != (path is not None):
        raise InputError(f"{file!r}: cache.kind = {given['kind']!r} and cache.path = {path!r}: a path is for 'disk'.")
    if path is None:
        return MemoryCache(**limits)
    from crossrank.ranking.disk_cache import DiskCache

    return DiskCache(path, **limits)


def _key(place: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
