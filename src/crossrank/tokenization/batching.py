"""Encoded pairs -> length-sorted batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Lengths up to the first number are rounded up to a multiple of the second; longer ones to a multiple of the last. An
# engine prepares every new shape, so few lengths are better: there are 28 up to 512. See docs/performance-log.md.
_STEPS = ((64, 8), (256, 16))
_STEP_ABOVE = 32
# Padded tokens of one batch. On a CPU: enough to keep its units busy, little enough for its caches; measured in
# docs/performance-log.md. A GPU would be idle most of the time, so it gets as many as 32 pairs of 512 tokens.
TOKEN_BUDGET = 2048
GPU_TOKEN_BUDGET = 32 * 512
# If documents are encoded separately, a batch may have this many times more pairs than the budget has documents,
# because a further pair then costs little.
_PAIRS_PER_DOCUMENT = 4


@dataclass(frozen=True)
class Batch:
    """Arrays for one forward pass.

    :param inputs: Name of the engine's input -> array; ``input_ids`` and ``attention_mask`` are
        ``[batch, length]``. The encoder of a model kind documents further inputs.
    :param rows: For each row of the batch, its index among the encoded pairs.
    :param tokens: How many of the tokens are text or special tokens, not padding.
    """

    inputs: Mapping[str, NDArray[Any]]
    rows: NDArray[np.int64]
    tokens: int


def padded_length(length: int, most: int) -> int:
    """``length`` rounded up to one of few lengths, but not past ``most``."""
    step = next((step for end, step in _STEPS if length <= end), _STEP_ABOVE)
    return max(length, min(-(-length // step) * step, most))


def rows_of_next(most: int, left: int) -> int:
    """Rows of the next batch: all that are left if they fit, else a power of two, so that few shapes occur."""
    return left if left <= most else 1 << (max(1, most).bit_length() - 1)


def group_rows(
    lengths: NDArray[np.int64],
    documents: NDArray[np.int64],
    token_budget: int,
    most_rows: int | None = None,
    *,
    apart: bool = False,
) -> Iterator[NDArray[np.int64]]:
    """Cut the pairs, longest first, into groups whose padded size stays within the budget.

    All groups but the last have a power of two of pairs, so that few shapes have to be prepared.

    Longest first, so that the peak of memory comes first. Pairs with the same document are adjacent, because a model
    that encodes documents separately then encodes it once.

    :param lengths: Tokens of each pair.
    :param documents: Index of each pair's document.
    :param token_budget: The most tokens, padding included, of one batch; a single pair may exceed it.
    :param most_rows: The most pairs of one batch.
    :param apart: Whether the lengths are of the document alone, which is encoded once for all of its pairs. The
        budget then counts each document once, and groups may have any number of pairs.
    """
    order = np.lexsort((documents, -lengths))
    sorted_documents = documents[order]
    # The number of each pair's document, counted along the order.
    nth = np.cumsum(np.append(0, np.diff(sorted_documents) != 0))
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        room = max(1, token_budget // max(1, padded_length(longest, token_budget)))
        if apart:
            end = int(np.searchsorted(nth, nth[start] + room))
            end = min(end, start + _PAIRS_PER_DOCUMENT * room, start + (most_rows or len(order)))
        else:
            end = start + rows_of_next(min(room, most_rows or room), len(order) - start)
        yield order[start:end]
        start = end


def fill(rows: Sequence[Sequence[int]], length: int, value: int) -> NDArray[np.int64]:
    """Rows of ids, padded on the right: ``[len(rows), length]``."""
    filled = np.full((len(rows), length), value, dtype=np.int64)
    for row, ids in enumerate(rows):
        filled[row, : len(ids)] = ids
    return filled
