"""What is scored and what comes of it: ids of prepared documents, and the scores of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError


class PreparedId(str):
    """The id of a prepared document, in place of its text: what the model has read of it is looked up by the id."""

    __slots__ = ()


@dataclass(frozen=True)
class PairScores:
    """Scores of pairs, in input order.

    :param scores: ``[pairs]``, or ``[pairs, labels]`` if the model has several labels and none was chosen; float64.
    :param logits: ``[pairs, labels]``, the model's raw output; float32.
    :param relevance: ``[pairs]``, what to rank by: the raw logit of the label that means relevant, or the scores if the
        caller's own function may change the order; ``None`` if the model has several labels and none was chosen.
    :param kind: What ``scores`` are: ``"logit"``, ``"sigmoid"``, ``"softmax"``, ``"tanh"``, ``"calibrated"`` if they
        are probabilities from a calibration, or ``"custom"`` if the caller's own function made them.
    :param query_tokens_cut: ``[pairs]``, tokens that the query lost because the pair was too long.
    :param document_tokens_cut: ``[pairs]``, tokens that the document lost.
    :param tokens: Tokens that the model read, with special tokens, without padding and repeated pairs.
    :param seconds: Wall time, without loading the model.
    :param documents: Distinct documents, for a model that reads queries and documents separately; else 0.
    :param documents_cached: How many of them were read in an earlier call and kept in memory.
    :param documents_prepared: How many of them were read by ``crossrank prepare``.
    """

    scores: NDArray[np.float64]
    logits: NDArray[np.float32]
    relevance: NDArray[np.float64] | None
    kind: str
    query_tokens_cut: NDArray[np.int64]
    document_tokens_cut: NDArray[np.int64]
    tokens: int
    seconds: float
    documents: int = field(default=0, kw_only=True)
    documents_cached: int = field(default=0, kw_only=True)
    documents_prepared: int = field(default=0, kw_only=True)

    @property
    def order(self) -> NDArray[np.int64]:
        """Indices of the pairs from the most to the least relevant, ties in input order; ``[pairs]``.

        :raises InputError: If the model has several labels and none was chosen.
        """
        if self.relevance is None:
            raise InputError(
                f"There are scores of {self.logits.shape[1]} labels, so there is no single score to rank by. "
                "Choose the label that means relevant: CrossEncoder(..., label=...)."
            )
        return np.argsort(-self.relevance, kind="stable")

    @property
    def pairs_cut(self) -> int:
        """How many pairs lost a token."""
        return int(np.count_nonzero(self.query_tokens_cut + self.document_tokens_cut))
