"""In-batch negatives: the documents of the other queries in a batch.

Documents of random other queries are too easy as negatives. So a batch combines queries whose positives are similar,
in new combinations in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers.cross_encoder import CrossEncoder, losses
from torch.nn import functional
from torch.utils.data import BatchSampler

from crossrank.data.bm25 import Bm25
from crossrank.training.checks import same_query
from crossrank.training.loss_inputs import Columns


class SimilarBatches(BatchSampler):  # type: ignore[misc]
    """Batches of similar queries. Each positive of a query occurs once per epoch, each time with other negatives.

    :param columns: Rows of ``query``, ``positive`` and negatives.
    :param batch_size: Rows of a batch.
    :ivar epoch: Set it before each epoch. The batches depend only on it and on the seed.
    :raises MissingExtraError: If bm25s is not installed.
    """

    def __init__(self, columns: Columns, batch_size: int, seed: int) -> None:
        self.batch_size, self.drop_last, self.seed, self.epoch = batch_size, False, seed, 0
        rows: dict[tuple[str, str], list[int]] = {}
        for number, pair in enumerate(zip(columns.data["query"], columns.data["positive"], strict=True)):
            rows.setdefault(pair, []).append(number)
        self._rows = list(rows.values())
        self._queries = [query for query, _ in rows]
        self._likeness = Bm25([positive for _, positive in rows])
        numbers = {query: number for number, query in enumerate(dict.fromkeys(map(same_query, self._queries)))}
        self._query_of = np.array([numbers[same_query(query)] for query in self._queries])

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Rows of each batch."""
        drawn = np.random.default_rng((self.seed, self.epoch))
        left = drawn.permutation(len(self._rows))
        batches = []
        while len(left):
            likeness = self._likeness.scores(self._queries[left[0]])[left]
            # Positives of one query must not be negatives of each other.
            likeness[self._query_of[left] == self._query_of[left[0]]] = -1
            likeness[0] = np.inf
            most = min(self.batch_size, len(left))
            limit = np.partition(likeness, len(left) - most)[len(left) - most]
            found = np.flatnonzero(likeness >= limit)
            chosen = found[np.argsort(-likeness[found], kind="stable")][:most]
            batches.append(left[chosen])
            left = np.delete(left, chosen)
        for number in drawn.permutation(len(batches)):
            rows = [self._rows[one] for one in batches[number]]
            yield [of_positive[self.epoch % len(of_positive)] for of_positive in rows]


class _OnlyIrrelevant:
    """Samples negatives of a query from documents in the batch that are not known to be relevant for it."""

    num_negatives: int
    relevant: Mapping[str, set[str]]
    _again: torch.Tensor

    def get_in_batch_negatives(self, anchors: Sequence[str], candidates: Sequence[list[str]]) -> list[list[str]]:
        """Return ``num_negatives`` documents for each query, and repeat its positive if there are too few."""
        batch = list(dict.fromkeys(text for column in candidates for text in column))
        drawn = []
        for place, query in enumerate(anchors):
            own = {column[place] for column in candidates} | self.relevant[same_query(query)]
            others = [text for text in batch if text not in own]
            drawn.append([others[i] for i in torch.randperm(len(others))[: self.num_negatives]])
        most = max(map(len, drawn))
        filled = [some + [positive] * (most - len(some)) for some, positive in zip(drawn, candidates[0], strict=True)]
        columns = [list(column) for column in zip(*filled, strict=True)]
        # calculate_loss gets only the logits.
        rows = zip(candidates[0], *columns, *candidates[1:], strict=True)
        self._again = torch.tensor([[text in row[:place] for place, text in enumerate(row)] for row in rows])
        return columns

    def calculate_loss(self, logits: Sequence[torch.Tensor], batch_size: int) -> torch.Tensor:
        """Cross-entropy with the first document of each query as the positive. Repeated documents count once."""
        of_queries = torch.cat(list(logits)).reshape(-1, batch_size).T
        of_queries = of_queries.masked_fill(self._again.to(of_queries.device), -torch.inf)
        return functional.cross_entropy(of_queries, torch.zeros(batch_size, dtype=torch.long, device=of_queries.device))


class InBatchLoss(_OnlyIrrelevant, losses.MultipleNegativesRankingLoss):  # type: ignore[misc]
    """The loss with all pairs in one pass, so that a model like the bundled one encodes each text once."""

    def forward(self, inputs: list[list[str]], labels: Any, **more: Any) -> torch.Tensor:
        """The loss of a batch.

        :param inputs: Queries, positives and columns of negatives.
        """
        queries, *own = inputs
        columns = [own[0], *self.get_in_batch_negatives(queries, own), *own[1:]]
        pairs = [pair for column in columns for pair in zip(queries, column, strict=True)]
        loss: torch.Tensor = self.calculate_loss([self.call_model_with_pairs(pairs, **more)], len(queries))
        return loss


class CachedInBatchLoss(_OnlyIrrelevant, losses.CachedMultipleNegativesRankingLoss):  # type: ignore[misc]
    """The same loss in mini-batches, which takes less memory but computes each twice."""


def in_batch_loss(
    kind: type[InBatchLoss | CachedInBatchLoss], model: CrossEncoder, columns: Columns, negatives: int, **more: Any
) -> InBatchLoss | CachedInBatchLoss:
    """Make one of the two losses.

    :param columns: The training data. A positive of a query is never one of its negatives.
    :param negatives: How many documents of the batch to use as negatives of a query.
    """
    # On logits: with the default, a sigmoid, scores near 1 hardly differ.
    loss = kind(model, num_negatives=negatives, scale=1.0, activation_fn=torch.nn.Identity(), **more)
    loss.relevant = {}
    for query, positive in zip(columns.data["query"], columns.data["positive"], strict=True):
        loss.relevant.setdefault(same_query(query), set()).add(positive)
    return loss
