"""crossrank: from search results to the right order.

>>> from crossrank import CrossEncoder
>>> CrossEncoder().rank("capital of France", ["Berlin is in Germany.", "Paris is France's capital."])[0]["corpus_id"]
1
"""

from __future__ import annotations

import importlib
import typing

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
    PreparedError,
    StageError,
    UnsupportedModelError,
)

if typing.TYPE_CHECKING:
    from crossrank.checkpoint.model_registry import ModelRegistry
    from crossrank.pairs import PairScores
    from crossrank.prepared.documents import PreparedDocuments
    from crossrank.ranking.breaker import CircuitBreaker
    from crossrank.ranking.cache.sqlite_cache import DiskCache, MemoryCache
    from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
    from crossrank.ranking.fallback import FirstThatWorks
    from crossrank.ranking.first_stage import FirstStage
    from crossrank.ranking.judge.llm_judge import LLMJudge
    from crossrank.ranking.network.hosted import HostedReranker
    from crossrank.ranking.network.providers import Provider
    from crossrank.ranking.ranked_documents import RankedDocument, Ranking
    from crossrank.ranking.reranker import Reranker
    from crossrank.ranking.stage import Context, Stage, StageScores
    from crossrank.scoring.bi_encoder import BiEncoder
    from crossrank.scoring.calibration import Calibration
    from crossrank.scoring.cross_encoder import CrossEncoder
    from crossrank.scoring.long_documents import LongDocuments
    from crossrank.scoring.registry_model import RegistryModel

__version__ = "0.1.0"

# Public names that are imported when they are first used, so that each use of the package starts fast.
_LAZY = {
    "BiEncoder": "crossrank.scoring.bi_encoder",
    "Calibration": "crossrank.scoring.calibration",
    "CircuitBreaker": "crossrank.ranking.breaker",
    "Context": "crossrank.ranking.stage",
    "CrossEncoder": "crossrank.scoring.cross_encoder",
    "CrossEncoderStage": "crossrank.ranking.cross_encoder_stage",
    "DiskCache": "crossrank.ranking.cache.sqlite_cache",
    "FirstStage": "crossrank.ranking.first_stage",
    "FirstThatWorks": "crossrank.ranking.fallback",
    "HostedReranker": "crossrank.ranking.network.hosted",
    "LLMJudge": "crossrank.ranking.judge.llm_judge",
    "LongDocuments": "crossrank.scoring.long_documents",
    "MemoryCache": "crossrank.ranking.cache.sqlite_cache",
    "ModelRegistry": "crossrank.checkpoint.model_registry",
    "PairScores": "crossrank.pairs",
    "PreparedDocuments": "crossrank.prepared.documents",
    "Provider": "crossrank.ranking.network.providers",
    "RankedDocument": "crossrank.ranking.ranked_documents",
    "Ranking": "crossrank.ranking.ranked_documents",
    "RegistryModel": "crossrank.scoring.registry_model",
    "Reranker": "crossrank.ranking.reranker",
    "Stage": "crossrank.ranking.stage",
    "StageScores": "crossrank.ranking.stage",
}

__all__ = [
    "BiEncoder",
    "Calibration",
    "CheckpointError",
    "CircuitBreaker",
    "Context",
    "CrossEncoder",
    "CrossEncoderStage",
    "CrossRankError",
    "CrossRankWarning",
    "DiskCache",
    "DownloadError",
    "FirstStage",
    "FirstThatWorks",
    "HostedReranker",
    "InputError",
    "LLMJudge",
    "LongDocuments",
    "MemoryCache",
    "MissingExtraError",
    "ModelAccessError",
    "ModelError",
    "ModelNotFoundError",
    "ModelRegistry",
    "PairScores",
    "PreparedDocuments",
    "PreparedError",
    "Provider",
    "RankedDocument",
    "Ranking",
    "RegistryModel",
    "Reranker",
    "Stage",
    "StageError",
    "StageScores",
    "UnsupportedModelError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
