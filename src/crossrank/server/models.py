"""The models and pipelines of a server, by name: loaded if needed, replaced without downtime, unloaded if too many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.checkpoint.model_registry import ModelRegistry, Version
from crossrank.errors import CheckpointError, CrossRankError, InputError, ModelNotFoundError
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.server.logs import log
from crossrank.server.settings import Settings

BUNDLED, REGISTRY = "bundled", "registry:"
# Each model scores these pairs before it serves; /ready reports the result.
GOLDEN_PAIRS = (
    ("how do I undo a commit", "git reset --soft HEAD~1 undoes the last commit and keeps its changes."),
    ("how do I undo a commit", "The museum is open from nine to five and closed on Mondays."),
)
# Kinds of scores between 0 and 1. For all other kinds, the server returns the sigmoid of the logit.
_BOUNDED = frozenset({"sigmoid", "softmax", "calibrated"})


@dataclass(eq=False)
class Loaded:
    """One version of a model or a pipeline, ready to serve. A request keeps it from beginning to end.

    :param version: The version's name if it is from a registry, else the model's identity.
    :param activation: The activation for the scores, if not the model's own.
    :param size: Bytes of its files.
    :param users: Requests that are using it.
    """

    runs: CrossEncoder | Reranker
    version: str
    activation: str | None = None
    size: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)
    users: int = 0

    def see_new_documents(self) -> None:
        """Find documents that were prepared since."""
        if isinstance(self.runs, CrossEncoder) and self.runs.prepared is not None:
            self.runs.prepared.refresh()
            self.info = {**self.info, "prepared": self.runs.prepared.stats()}

    def facts(self) -> dict[str, Any]:
        """Its entry in /info."""
        if not isinstance(self.runs, CrossEncoder):
            return dict(self.info)
        return {**self.info, "document_cache": self.runs.document_cache}


@dataclass(eq=False)
class Entry:
    """A name, the model or pipeline that it names, and the loaded version."""

    name: str
    where: str | None
    options: Mapping[str, Any]
    is_pipeline: bool = False
    loaded: Loaded | None = None
    used: float = 0.0
    error: str | None = None  # why the latest version is not in use
    refused: str | None = None  # that version's name, if it is from a registry
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def registry(self) -> ModelRegistry | None:
        """The registry that it follows, if any."""
        return ModelRegistry(self.where[len(REGISTRY) :]) if self.where and self.where.startswith(REGISTRY) else None


class UnknownModelError(InputError):
    """The model's name is unknown."""


class ModelStore:
    """All models and pipelines of a server. Call its methods from the event loop; loading runs in threads.

    :raises InputError: If a name is given twice, or a setting can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        names = ("precision", "max_length", "num_threads", "document_cache")
        common = {name: getattr(settings, name) for name in names}
        self.entries: dict[str, Entry] = {}
        for name, given in settings.models.items():
            options = {"model": given} if isinstance(given, str) else dict(given)
            where = options.pop("model", BUNDLED)
            self.entries[name] = Entry(name, None if where == BUNDLED else where, {**common, **options})
        for name, given in settings.pipelines.items():
            if name in self.entries:
                raise InputError(f"The name {name!r} is given to a model and to a pipeline. Rename one of them.")
            if not isinstance(given, str):
                raise InputError(f"The pipeline {name!r} is {given!r}. Give the path of its TOML file.")
            self.entries[name] = Entry(name, given, {}, is_pipeline=True)
        if not self.entries:
            self.entries[BUNDLED] = Entry(BUNDLED, None, common)
        self.default = next(iter(self.entries))
        if settings.prepared is not None:
            first = self.entries[self.default]
            if first.is_pipeline:
                raise InputError(
                    f"prepared={str(settings.prepared)!r} is for a model, and the default here is the pipeline "
                    f"{first.name!r}. Name the folder in the pipeline's file: prepared = in its stage."
                )
            first.options = {"prepared": settings.prepared, **first.options}
        for entry in self.entries.values():
            if not entry.is_pipeline:
                CrossEncoder(None, **{"revision": None, **entry.options, "calibration": None})  # checks the options

    # ---- for requests ------------------------------------------------------------------------------------------

    def find(self, name: str | None) -> tuple[Entry, str | None]:
        """Find the model for a request's model name, and a warning if the name is unknown.

        :raises UnknownModelError: If the name is unknown and ``strict_models`` is set.
        """
        if name is None or name in self.entries:
            return self.entries[name or self.default], None
        known = ", ".join(self.entries)
        if self._settings.strict_models:
            raise UnknownModelError(f"There is no model {name[:200]!r} here. There are: {known}.")
        return self.entries[self.default], f"model {name[:200]!r} is not served here, {self.default!r} answered"

    @asynccontextmanager
    async def use(self, entry: Entry) -> AsyncIterator[Loaded]:
        """Hold the version in use for one request; load it if necessary.

        :raises CrossRankError: If it can't be loaded.
        """
        loaded = await self.load(entry)
        loaded.users += 1
        entry.used = time.monotonic()
        try:
            yield loaded
        finally:
            loaded.users -= 1

    async def load(self, entry: Entry) -> Loaded:
        """Load a model that is not loaded, and unload others to free memory.

        :raises CrossRankError: If it can't be loaded.
        """
        if entry.loaded is None:
            async with entry.lock:
                if entry.loaded is None:
                    try:
                        entry.loaded = await asyncio.to_thread(_open, entry)
                    except CrossRankError as error:
                        entry.error = str(error)
                        raise
                    entry.error = None
                    entry.used = time.monotonic()
                    self._make_room()
        return entry.loaded

    def _make_room(self) -> None:
        most = self._settings.max_model_bytes
        loaded = [(entry, entry.loaded) for entry in self.entries.values() if entry.loaded is not None]
        total = sum(held.size for _, held in loaded)
        for entry, held in sorted(loaded, key=lambda pair: pair[0].used)[:-1]:
            if most is None or total <= most:
                return
            if held.users == 0:
                entry.loaded = None
                total -= held.size
                log.info("model unloaded for room", extra={"facts": {"model": entry.name}})

    # ---- changes without downtime------------------------------------------------------------------------------

    async def reload(self, name: str | None = None) -> dict[str, dict[str, Any]]:
        """Load the version on disk beside the one in use. If it passes the check it takes over, else the old one stays.

        :param name: One entry; by default all loaded ones.
        :returns: The outcome for each name.
        """
        entries = [self.entries[name]] if name is not None else list(self.entries.values())
        return {entry.name: await self._reload(entry) for entry in entries if entry.loaded is not None}

    async def _reload(self, entry: Entry) -> dict[str, Any]:
        async with entry.lock:
            old = entry.loaded
            before = old.version if old else None
            try:
                new = await asyncio.to_thread(_open, entry)
            except (CrossRankError, OSError) as error:
                entry.error = str(error)
                log.error("reload failed", extra={"facts": {"model": entry.name, "serving": before, "why": str(error)}})
                return {"status": "failed", "version": before, "reason": str(error)}
            entry.error = entry.refused = None
            if old is not None and new.version == before and not entry.is_pipeline:
                await asyncio.to_thread(old.see_new_documents)
                return {"status": "unchanged", "version": before}
            entry.loaded = new
            log.info("reloaded", extra={"facts": {"model": entry.name, "version": new.version, "before": before}})
            return {"status": "reloaded", "version": new.version, "before": before}

    async def watch(self) -> None:
        """Follow the registries until cancelled."""
        while True:
            await asyncio.sleep(self._settings.watch_seconds)
            for entry in self.entries.values():
                if entry.registry is None or entry.loaded is None:
                    continue
                try:
                    current = await asyncio.to_thread(entry.registry.current)
                except (CrossRankError, OSError) as error:
                    entry.error = str(error)
                    continue
                if current is not None and current.name not in (entry.loaded.version, entry.refused):
                    outcome = await self._reload(entry)
                    entry.refused = current.name if outcome["status"] == "failed" else None

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return the version in use and the last error for each name."""
        return {
            entry.name: {
                "kind": "pipeline" if entry.is_pipeline else "model",
                "loaded": entry.loaded is not None,
                "version": entry.loaded.version if entry.loaded else None,
                "error": entry.error,
                **(entry.loaded.facts() if entry.loaded else {}),
            }
            for entry in self.entries.values()
        }


# ---- in a thread -------------------------------------------------------------------------------------------------


def _open(entry: Entry) -> Loaded:
    if entry.is_pipeline:
        assert entry.where is not None
        reranker = Reranker.from_file(entry.where).warm_up()
        return Loaded(reranker, f"file-{Path(entry.where).stat().st_mtime_ns:x}", info={"stages": list(reranker.names)})
    registry, version, where = entry.registry, None, entry.where
    if registry is not None:
        version = _current(registry)
        # Before the first version, use the bundled model, from which `crossrank learn` starts.
        where = str(version.folder) if version else None
    model = CrossEncoder(where, **entry.options).load()
    info = model.info()
    loaded = Loaded(
        model,
        version.name if version else model.identity,
        activation=None if info["activation"] in _BOUNDED else "sigmoid",
        size=sum(path.stat().st_size for path in Path(info["folder"]).rglob("*") if path.is_file()),
        info={name: info[name] for name in ("architecture", "max_length", "precision", "threads", "prepared")},
    )
    _check(loaded, entry.name)
    return loaded


def _current(registry: ModelRegistry) -> Version | None:
    """The version in use, checked; ``None`` if the registry is empty."""
    if not registry.folder.is_dir():
        raise ModelNotFoundError(
            f"There is no registry {str(registry.folder)!r} (seen from {str(Path.cwd())!r}). Check the path; to begin "
            "with an empty one, make the folder."
        )
    version = registry.current()
    if version is not None:
        registry.check(version)
    return version


def _check(loaded: Loaded, name: str) -> None:
    """Score the golden pairs.

    :raises CheckpointError: If a working model can't have these scores.
    """
    assert isinstance(loaded.runs, CrossEncoder)
    result = loaded.runs.score(GOLDEN_PAIRS, activation_fn=loaded.activation, show_progress_bar=False)
    if result.relevance is None:
        raise InputError(
            f"{name} has {result.logits.shape[1]} labels. Say which means relevant, in the file of --config: "
            f"[models.{name}] with model = and label =."
        )
    scores = np.asarray(result.scores)
    if not np.isfinite(result.logits).all() or scores.min() < 0 or scores.max() > 1 or np.ptp(result.logits) == 0:
        raise CheckpointError(
            f"{name}: two different pairs have the logits {result.logits.ravel().tolist()}, so this model is broken. "
            "Is its weights file complete? Take another version."
        )
