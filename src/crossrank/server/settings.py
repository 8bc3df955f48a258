"""Settings of a server: from flags, then the environment, then a TOML file, then the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crossrank.errors import InputError
from crossrank.prepared.known_documents import parse_bytes
from crossrank.scoring.cross_encoder import DOCUMENT_CACHE

PREFIX = "CROSSRANK_"


def _named(given: Any) -> Any:
    """``"a=x, b=y"`` or a list of such to a dictionary; a value without a name is named by its last part."""
    if isinstance(given, str):
        given = [part.strip() for part in given.split(",") if part.strip()]
    if not isinstance(given, list):
        return given
    pairs = [part.partition("=") for part in given]
    return {name if sep else Path(name.partition(":")[2] or name).stem: value if sep else name
            for name, sep, value in pairs}  # fmt: skip


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    return path


Named = Annotated[dict[str, str | dict[str, Any]], NoDecode, BeforeValidator(_named)]
Memory = Annotated[int, BeforeValidator(partial(parse_bytes, "value"))]
Bytes = Annotated[Memory, Field(gt=0)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """All settings. A field's name is the key in the file; ``CROSSRANK_`` and the name in capitals is its variable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(7997, ge=0, le=65535, description="port to listen on; 0 for any free one")
    models: Named = Field(
        {}, description="NAME=FOLDER, NAME=HUB-NAME, NAME=registry:FOLDER or bundled; the first is the default"
    )
    pipelines: Named = Field({}, description="NAME=FILE.toml: a pipeline to serve like a model")
    prepared: Path | None = Field(None, description="folder that 'crossrank prepare' wrote, for the default model")
    preload: bool = Field(False, description="load all models at the start, not at their first requests")
    strict_models: bool = Field(
        False, description="answer 404 for an unknown model, instead of using the default model"
    )
    max_model_bytes: Bytes | None = Field(
        None,
        description="size limit of the loaded models, such as 2GB; above it, the least recently used one is unloaded",
    )
    precision: str = Field("auto", description="number format to compute in: auto, float32, bfloat16 or int8")
    max_length: Count | None = Field(
        None, description="maximum tokens of a query and a document together; by default the model's limit"
    )
    num_threads: Count | None = Field(None, description="number of threads; by default one per core")
    document_cache: Memory = Field(
        parse_bytes("document_cache", DOCUMENT_CACHE),
        description="memory per model for documents that it has encoded, such as 1GB; 0 for none",
    )
    max_documents: Count = Field(10_000, description="maximum documents per request")
    max_body_bytes: Bytes = Field(32_000_000, description="largest request body, such as 64MB")
    max_query_characters: Count = Field(32_768, description="maximum characters of a query")
    max_document_characters: Count = Field(
        200_000, description="maximum characters read of each document; the rest is reported as cut"
    )
    max_queue_tokens: Count = Field(
        4_000_000, description="maximum tokens waiting, as estimated; further requests get status 429"
    )
    timeout_ms: Count | None = Field(
        None,
        description="time limit per request; the answer has what was scored by then. X-Request-Timeout-Ms overrides it",
    )
    keys_file: ExistingFile | None = Field(None, description="file of API keys, one per line: KEY, or KEY MAX-REQUESTS")
    watch_seconds: float = Field(2.0, gt=0, description="seconds between checks for new versions in registries")
    grace_seconds: Count = Field(30, description="seconds to finish accepted requests when the server stops")
    body_seconds: Count = Field(60, description="seconds that a client may take to send a request")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_texts: bool = Field(False, description="log the queries")
    feedback: str | None = Field(
        None, description="where to store feedback: sqlite:///feedback.db or postgresql://HOST/NAME (default: nowhere)"
    )
    feedback_rate: float = Field(
        0.0, ge=0, le=1, description="share of rankings to store; a request with store: true is always stored"
    )
    feedback_texts: Literal["full", "digest"] = Field(
        "full", description="what to store of queries and documents: full (their texts) or digest (ids and hashes)"
    )
    feedback_days: Count | None = Field(None, description="delete stored rankings after this many days")
    feedback_max_bytes: Bytes | None = Field(
        None,
        description="limit on the texts of stored rankings, such as 1GB; above it, the oldest rankings are deleted",
    )
    feedback_queue: Count = Field(
        1000, description="maximum rankings waiting for the database; further ones are not stored"
    )
    shuffle_top: int = Field(
        0, ge=0, description="shuffle this many top ranks in some of the stored rankings, to measure click bias"
    )
    share: float = Field(0.05, ge=0, le=1, description="share of the stored rankings to shuffle with --shuffle-top")
    tls_cert: ExistingFile | None = Field(None, description="certificate file, for https")
    tls_key: ExistingFile | None = Field(None, description="the certificate's private key")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take flags first, then the environment; :func:`read_settings` adds the file."""
        return (init_settings,)


def read_settings(
    flags: Mapping[str, Any], file: str | os.PathLike[str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """Put the sources together; the first that has a value wins.

    :param flags: Fields by name, those given on the command line.
    :param file: A TOML file.
    :returns: The settings, and for each field where its value came from.
    :raises InputError: If a value can't be used, or the file can't be read.
    """
    sources: dict[str, Mapping[str, Any]] = {"flag": flags}
    environment = EnvSettingsSource(Settings)()
    sources |= {f"environment, {PREFIX}{name.upper()}": {name: value} for name, value in environment.items()}
    if file is not None:
        sources[os.fspath(file)] = _toml(Path(file))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, given in sources.items():
        for name, value in given.items():
            if name not in values:
                values[name], origins[name] = value, origin
    try:
        return Settings(**values), origins
    except ValidationError as error:
        raise InputError("; ".join(_complaint(detail, origins) for detail in error.errors())) from error


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r} (seen from {str(Path.cwd())!r}). Check the path.")
    try:
        return TomlConfigSettingsSource(Settings, path)()
    except (ValueError, OSError) as error:
        raise InputError(f"{str(path)!r} can't be read as TOML: {error}.") from error


def _complaint(detail: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{name} is not a setting ({origins.get(name)}). Settings are: {', '.join(Settings.model_fields)}."
    message = str(detail["msg"]).removeprefix("Value error, ").removesuffix(".")
    return f"{name}={detail['input']!r} ({origins.get(name.partition('.')[0], 'default')}) can't be used: {message}."
