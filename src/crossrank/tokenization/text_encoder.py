"""One text -> ids: for models that encode each text alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.errors import InputError
from crossrank.tokenization.batching import Batch, fill, padded_length
from crossrank.tokenization.pair_encoder import tokenize


class TextEncoder:
    """The encoder of bi-encoders: ``input_ids`` and ``attention_mask``, ``[batch, length]``.

    :param tokenizer: With truncation and padding off.
    :param max_length: The most tokens of a text, special tokens included.
    :param pad_id: The token id that fills up a row; it is masked.
    :raises InputError: If ``max_length`` leaves no room for a token.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, pad_id: int) -> None:
        probe = tokenizer.encode("a")
        special = probe.special_tokens_mask
        start = special.index(0) if 0 in special else 0
        end = len(special) - special[::-1].index(0) if 0 in special else 0
        self._prefix, self._suffix = probe.ids[:start], probe.ids[end:]
        self.specials = len(self._prefix) + len(self._suffix)
        if max_length < self.specials + 1:
            raise InputError(
                f"max_length={max_length} is too short: this model puts {self.specials} special tokens around a text, "
                f"so at least {self.specials + 1} are needed."
            )
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._pad = pad_id

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.int64]]:
        """Ids of each text, special tokens included, and the number of tokens cut; ``[texts]``."""
        room = self.max_length - self.specials
        whole = tokenize(self._tokenizer, texts)
        cut = np.fromiter((max(0, len(ids) - room) for ids in whole), np.int64, len(whole))
        return [[*self._prefix, *ids[:room], *self._suffix] for ids in whole], cut

    def assemble(self, encoded: Sequence[Sequence[int]], rows: NDArray[np.int64]) -> Batch:
        """Pad some texts to the longest."""
        ids = [encoded[row] for row in rows]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        length = padded_length(int(lengths.max()), self.max_length)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        return Batch({"input_ids": fill(ids, length, self._pad), "attention_mask": mask}, rows, int(lengths.sum()))
