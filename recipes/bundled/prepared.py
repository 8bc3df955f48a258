"""What prepare.py writes, opened for reading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from recipes.bundled.processor import native


class Texts:
    """States, ids and vectors of texts, the states memory-mapped."""

    def __init__(self, folder: Path, name: str) -> None:
        self.offsets = np.load(folder / f"{name}.offsets.npy")
        self.lengths = np.diff(self.offsets)
        self.ids = np.load(folder / f"{name}.ids.npy")
        self.vectors = np.load(folder / f"{name}.vectors.npy")
        self.states = np.load(folder / f"{name}.states.npy", mmap_mode="r")

    def take(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """States ``[n, L, H]`` in the processor's number format, ids and mask ``[n, L]``, and vectors ``[n, H]``."""
        lengths = self.lengths[index]
        longest = -(-int(lengths.max()) // 8) * 8
        states = np.zeros((len(index), longest, self.states.shape[1]), np.float16)
        ids = np.zeros((len(index), longest), np.int64)
        for row, i in enumerate(index):
            begin, end = self.offsets[i], self.offsets[i + 1]
            states[row, : end - begin] = self.states[begin:end]
            ids[row, : end - begin] = self.ids[begin:end]
        mask = torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))
        vectors = torch.from_numpy(self.vectors[index]).float()
        return torch.from_numpy(states).to(native()), torch.from_numpy(ids), mask, vectors


class Prepared:
    """Queries with their candidates.

    A *variant* is one wording of a query; several share a positive. ``lexical`` and ``dense`` are ``[variants, 24]``:
    documents near the top of BM25 and of the bi-encoder, within the query's own source.
    """

    def __init__(self, folder: Path) -> None:
        table = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
        self.query_of = np.array(table["query_of"])
        self.source = np.array(table["source"])
        self.positive = np.array(table["positive"])
        self._weight = np.array(table["weight"], np.float32)
        self.held_out = set(table["held_out"])
        self.queries, self.documents = Texts(folder, "queries"), Texts(folder, "documents")
        self.lexical = np.load(folder / "lexical.npy", mmap_mode="r")
        self.dense = np.load(folder / "dense.npy", mmap_mode="r")
        self.word_weight = np.load(folder / "word_weight.npy").astype(np.float32)
        sources = np.array(json.loads((folder / "document_sources.json").read_text(encoding="utf-8")))
        self._members = {name: np.where(sources == name)[0] for name in np.unique(sources)}

    def positive_of(self, variant: int) -> int:
        """The document that answers it."""
        return int(self.positive[self.query_of[variant]])

    def same_source(self, variant: int) -> np.ndarray:
        """All documents of its source."""
        return self._members[self.source[self.query_of[variant]]]

    def weights(self, variants: np.ndarray) -> np.ndarray:
        """How far their positives are to be trusted, 0 to 1."""
        return self._weight[self.query_of[variants]]

    def training_variants(self) -> np.ndarray:
        """All but those of held-out queries."""
        return np.array([v for v, q in enumerate(self.query_of) if q not in self.held_out])

    def held_out_variants(self) -> np.ndarray:
        """The wordings of held-out queries."""
        return np.array([v for v, q in enumerate(self.query_of) if q in self.held_out])
