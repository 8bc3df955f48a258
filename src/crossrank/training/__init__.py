"""Training and promotion of models. Only ``train`` imports torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from crossrank.training.settings import Settings

if TYPE_CHECKING:
    from crossrank.training.learning import learn
    from crossrank.training.promotion import promote
    from crossrank.training.trainer import train

__all__ = ["Settings", "learn", "promote", "train"]

_LAZY = {"learn": "learning", "promote": "promotion", "train": "trainer"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
