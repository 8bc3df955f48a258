"""crossrank: from search results to the right order.

>>> from crossrank import CrossEncoder
>>> CrossEncoder().rank("capital of France", ["Berlin is in Germany.", "Paris is France's capital."])[0]["corpus_id"]
1
"""

from __future__ import annotations

from crossrank.errors import (
    CheckpointError,
    CrossRankError,
    CrossRankWarning,
    DownloadError,
    InputError,
    MissingExtraError,
    ModelAccessError,
    ModelError,
    ModelNotFoundError,
    StageError,
    UnsupportedModelError,
)
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.types import PairScores

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CrossEncoder",
    "CrossRankError",
    "CrossRankWarning",
    "DownloadError",
    "InputError",
    "MissingExtraError",
    "ModelAccessError",
    "ModelError",
    "ModelNotFoundError",
    "PairScores",
    "StageError",
    "UnsupportedModelError",
    "__version__",
]
