"""Scores of a document's windows -> the document's.

FirstP and MaxP: Z. Dai and J. Callan, "Deeper Text Understanding for IR with Contextual Neural Language Modeling",
SIGIR 2019, section 3. The mean of the best k lies between MaxP (k = 1) and their AvgP (k = all).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

# From the relevance of a document's windows, ``[windows]``, and k, to those whose logits are averaged.
Chosen = Callable[[NDArray[np.float64], int], NDArray[np.int64]]


def best_first(relevance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices from the best window to the worst, ties in the order of the text; ``[windows]``."""
    return np.argsort(-relevance, kind="stable")


# What each strategy takes of a document. "truncate" has one window, as "first" has.
AGGREGATIONS: Mapping[str, Chosen] = {
    "truncate": lambda relevance, k: np.zeros(1, np.int64),
    "first": lambda relevance, k: np.zeros(1, np.int64),
    "max": lambda relevance, k: best_first(relevance)[:1],
    "mean_top_k": lambda relevance, k: best_first(relevance)[:k],
}


def aggregate(
    strategy: str, logits: NDArray[np.float32], relevance: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float32], int]:
    """Combine the logits of a document's windows. Logits are averaged, not probabilities.

    :param strategy: A key of ``AGGREGATIONS``.
    :param logits: ``[windows, labels]``.
    :param relevance: ``[windows]``, how relevant each window is.
    :param k: How many windows ``"mean_top_k"`` takes; a document with fewer windows uses all of them.
    :returns: The document's logits, ``[labels]``, and the index of its best window.
    """
    chosen = AGGREGATIONS[strategy](relevance, k)
    return logits[chosen].mean(axis=0, dtype=np.float64).astype(np.float32), int(best_first(relevance)[0])


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` of ``count`` windows, evenly spread, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
