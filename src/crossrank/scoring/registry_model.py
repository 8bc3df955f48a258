"""RegistryModel: a model that follows its registry, and changes between two calls, never within one."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from crossrank.checkpoint.model_registry import ModelRegistry, Version
from crossrank.errors import CrossRankError, CrossRankWarning, InputError, ModelNotFoundError
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.types import PairScores


class RegistryModel:
    """The version in use of a :class:`~crossrank.checkpoint.model_registry.ModelRegistry`, for a process that stays.

    A call takes the version that is in use when it begins and keeps it to its end. Every ``check_every`` seconds at
    most, the call that comes then looks for a newer one and loads it; calls of other threads go on with the old one
    meanwhile. A version that can't be loaded is told once, and the old one stays.

    For several calls that belong together take :meth:`current`: it gives a plain ``CrossEncoder`` that never changes.

    :param folder: The registry.
    :param check_every: Seconds between two looks at the registry; 0 looks at every call.
    :param settings: As :class:`~crossrank.scoring.cross_encoder.CrossEncoder` takes them.
    :raises InputError: If a setting can't be used.
    """

    def __init__(self, folder: str | os.PathLike[str], *, check_every: float = 5.0, **settings: Any) -> None:
        if not isinstance(check_every, (int, float)) or isinstance(check_every, bool) or not check_every >= 0:
            raise InputError(f"check_every={check_every!r} is not a number of seconds. 0 looks at every call.")
        self.registry = ModelRegistry(folder)
        self.name = os.fspath(folder)
        self._check_every = check_every
        self._settings = settings
        CrossEncoder(None, **settings)  # complains of the settings now
        self._lock = threading.Lock()
        self._look_at = 0.0
        # Replaced in one step, so that a thread sees either pair, never half of each.
        self._held: tuple[Version, CrossEncoder] | None = None
        self._refused: str | None = None

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
            if held is not None and held[0] == wanted:
                return held
            return wanted, CrossEncoder(wanted.folder, **self._settings).load()
        except (CrossRankError, OSError) as error:
            if held is None:
                raise
            trouble = wanted.name if wanted else "nothing"
            if self._refused != trouble:
                self._refused = trouble
                warnings.warn(
                    f"{self.name!r} names {trouble} as its version in use, but that can't be loaded: {error} "
                    f"{held[0].name} stays in use here.",
                    CrossRankWarning,
                    stacklevel=5,
                )
            return held
