"""Keeping the libraries underneath from writing over our own lines."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

from crossrank.optional import require


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no remarks of transformers, datasets and sentence-transformers; errors still raise."""
    datasets = require("datasets", extra="train", purpose="Training")
    theirs = logging.getLogger("sentence_transformers")
    level, verbosity = theirs.level, transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    theirs.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|transformers|sentence_transformers|accelerate)\.")
            yield
    finally:
        theirs.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
