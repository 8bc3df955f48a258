"""RegistryModel: a model that follows its registry, and changes between two calls, never within one."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from crossrank.checkpoint.identity import model_files
from crossrank.checkpoint.model_registry import ModelRegistry, Version
from crossrank.errors import CrossRankError, CrossRankWarning, ModelNotFoundError
from crossrank.forks import renew_lock_after_fork
from crossrank.pairs import PairScores
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.lazy_model import Reloadable
from crossrank.validation import check_seconds


class RegistryModel(Reloadable):
    """The version in use of a :class:`~crossrank.checkpoint.model_registry.ModelRegistry`, for a process that stays.

    A call takes the version that is in use when it begins and keeps it to its end. Every ``check_every`` seconds at
    most, the call that comes then looks for a newer one and loads it; calls of other threads go on with the old one
    meanwhile. If a version can't be loaded, a warning says so once, and the old one stays.

    For several calls that belong together take :meth:`current`: it gives a plain ``CrossEncoder`` that never changes.

    :param folder: The registry.
    :param check_every: Seconds between two looks at the registry; 0 looks at every call.
    :param settings: As :class:`~crossrank.scoring.cross_encoder.CrossEncoder` takes them.
    :raises InputError: If a setting can't be used.
    """

    def __init__(self, folder: str | os.PathLike[str], *, check_every: float = 5.0, **settings: Any) -> None:
        self._arguments = {"folder": folder, "check_every": check_every, **settings}
        check_seconds("check_every", check_every, zero=True, remedy="0 looks at every call.")
        self.registry = ModelRegistry(folder)
        self.name = os.fspath(folder)
        self._check_every = check_every
        self._settings = settings
        CrossEncoder(None, **settings, lazy=True)  # checks the settings now
        self._lock = threading.Lock()
        self._look_at = 0.0
        # Replaced in one step, so that a thread sees either pair, never half of each.
        self._held: tuple[Version, CrossEncoder] | None = None
        # The version that could not be loaded; it is tried again only when its files change.
        self._refused: tuple[str, object] | None = None
        renew_lock_after_fork(self)

    def __getattr__(self, name: str) -> Any:
        """Everything else that a ``CrossEncoder`` has, of the version in use."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.current(), name)

    def __repr__(self) -> str:
        held = self._held
        return f"RegistryModel({self.name!r}, {held[0].name if held else 'not loaded yet'})"

    # ---- calls -------------------------------------------------------------------------------------------------

    def score(self, pairs: Any, **options: Any) -> PairScores:
        """As :meth:`CrossEncoder.score`, with the version in use."""
        return self.current().score(pairs, **options)

    def predict(self, *args: Any, **options: Any) -> Any:
        """As :meth:`CrossEncoder.predict`, with the version in use."""
        return self.current().predict(*args, **options)

    def rank(self, *args: Any, **options: Any) -> list[dict[str, Any]]:
        """As :meth:`CrossEncoder.rank`, with the version in use."""
        return self.current().rank(*args, **options)

    def info(self) -> Mapping[str, Any]:
        """As :meth:`CrossEncoder.info`, with the version in use as ``revision``."""
        version, model = self._look()
        return {**model.info(), "model": self.name, "revision": version.name}

    def load(self) -> RegistryModel:
        """Load the version in use now rather than at the first call.

        :raises ModelError: If that fails.
        """
        self._look()
        return self

    # ---- versions ----------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Name of the version in use, such as ``"2-b81d77c4"``."""
        return self._look()[0].name

    def current(self) -> CrossEncoder:
        """Give the version in use, loaded.

        :raises ModelNotFoundError: If the registry has none yet.
        :raises ModelError: If the first one can't be loaded.
        """
        return self._look()[1]

    def _look(self) -> tuple[Version, CrossEncoder]:
        held = self._held
        if held is not None and time.monotonic() < self._look_at:
            return held
        # Whoever has nothing to go on with waits; the others let one look and go on.
        if not self._lock.acquire(blocking=held is None):
            assert held is not None  # for the type checker; otherwise it would have waited
            return held
        try:
            if self._held is None or time.monotonic() >= self._look_at:
                self._held = self._newest(self._held)
                self._look_at = time.monotonic() + self._check_every
            return self._held
        finally:
            self._lock.release()

    def _newest(self, held: tuple[Version, CrossEncoder] | None) -> tuple[Version, CrossEncoder]:
        wanted = None
        try:
            wanted = self.registry.current()
            if wanted is None:
                raise ModelNotFoundError(
                    f"{self.name!r} has no version in use. Put one there: crossrank promote CANDIDATE --registry "
                    f"{self.name}, or ModelRegistry({self.name!r}).publish(folder) and switch()."
                )
            if held is not None and (held[0] == wanted or self._refused == _mark(wanted)):
                return held
            return wanted, CrossEncoder(wanted.folder, **self._settings).load()
        except (CrossRankError, OSError) as error:
            if held is None:
                raise
            if self._refused != _mark(wanted):
                self._refused = _mark(wanted)
                warnings.warn(
                    f"{self.name!r} names {wanted.name if wanted else 'nothing'} as its version in use, but that can't "
                    f"be loaded: {error} {held[0].name} stays in use in this process.",
                    CrossRankWarning,
                    stacklevel=5,
                )
            return held


def _mark(version: Version | None) -> tuple[str, object]:
    """Tell apart a version whose files changed since it could not be loaded."""
    if version is None:
        return "", None
    facts = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in model_files(version.folder)]
    return version.name, tuple(facts)
