"""BiEncoder: each text to a vector of its own, and the cosine of two: what a reranker is compared with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.engines.load import LoadedBiEncoder, load_bi_encoder
from crossrank.engines.settings import check_settings
from crossrank.errors import CheckpointError
from crossrank.forks import native_code
from crossrank.progress import progress_of
from crossrank.scoring.lazy_model import LazyModel
from crossrank.tokenization.batching import TOKEN_BUDGET, group_rows
from crossrank.validation import check_choice, check_documents, check_model_name, check_revision, check_text

# Padded tokens of one forward pass, and texts that are tokenized and sorted together: see cross_encoder.py.
CHUNK = 2048

Floats = NDArray[np.float32]
ROLES = ("query", "document")


@dataclass(frozen=True)
class Embeddings:
    """Vectors of texts, in input order, with the facts.

    :param vectors: ``[texts, H]``, float32, each of length 1.
    :param tokens_cut: ``[texts]``, tokens that each lost because it was too long.
    :param tokens: Tokens that went through the model, special tokens included, padding and repeated texts not.
    :param seconds: Wall time, loading the model excluded.
    """

    vectors: Floats
    tokens_cut: NDArray[np.int64]
    tokens: int
    seconds: float


class BiEncoder(LazyModel[LoadedBiEncoder]):
    """Embeds texts with a sentence-transformers or transformers bi-encoder, without torch.

    Construction is cheap: files are found and read at the first use, or by :meth:`load`. One object may be used from
    many threads. Pooling (mean or first token), length limit and prompts are the checkpoint's own.

    :param name_or_folder: A name on the Hugging Face hub, or a folder.
    :param revision: Branch, tag or commit on the hub.
    :param max_length: The most tokens of a text, special tokens included; by default what the model says.
    :param precision: ``"float32"``, ``"bfloat16"``, ``"int8"``, or ``"auto"``: what the environment variable
        ``CROSSRANK_PRECISION`` says, or else the fastest that this processor runs without a change of the ranking.
    :param num_threads: Threads to use; by default ``CROSSRANK_NUM_THREADS``, or all that the process may use.
    :param local_files_only: Never ask the hub.
    :param token: Token for the hub; by default the one that ``hf auth login`` stored.
    :param cache_folder: Where downloads are kept; by default the hub's usual cache.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        name_or_folder: str | os.PathLike[str],
        *,
        revision: str | None = None,
        max_length: int | None = None,
        precision: str = "auto",
        num_threads: int | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        cache_folder: str | Path | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check_settings(None, precision, max_length)
        check_model_name(name_or_folder, "name_or_folder")
        check_revision(revision)
        super().__init__(os.fspath(name_or_folder), name_or_folder, given)

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str | None = None,
        show_progress_bar: bool | Callable[[int], object] | None = None,
    ) -> Floats:
        """Vectors of texts: float32, ``[texts, H]``, each of length 1.

        The arguments and errors are those of :meth:`embed`.
        """
        return self.embed(texts, role=role, show_progress_bar=show_progress_bar).vectors

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: str | None = None,
        show_progress_bar: bool | Callable[[int], object] | None = None,
    ) -> Embeddings:
        """Embed texts and say how it was done.

        :param texts: A text that occurs twice is embedded once.
        :param role: ``"query"`` or ``"document"``, for a model whose texts have a prompt by what they are; by default
            the checkpoint's default prompt, which most have none of.
        :param show_progress_bar: By default shown on a terminal when it takes over two seconds. A function is called
            instead with the number of texts that were just done.
        :raises InputError: If a text is not a string, or the role is not known.
        :raises ModelError: If the model can't be loaded.
        """
        checked = check_documents(texts)
        if role is not None:
            check_choice("role", role, ROLES, ", or leave it out")
        model = self._load()
        found = model.embedding
        prompt = {None: found.default_prompt, "query": found.query_prompt, "document": found.document_prompt}[role]
        started = time.perf_counter()
        row_of: dict[str, int] = {}
        inverse = np.fromiter((row_of.setdefault(text, len(row_of)) for text in checked), np.int64, len(checked))
        distinct = list(row_of)
        vectors = np.zeros((len(distinct), model.engine.size), np.float32)
        cut = np.zeros(len(distinct), np.int64)
        tokens = 0
        with progress_of(len(checked), show_progress_bar, unit="text") as progress:
            for start in range(0, len(distinct), CHUNK):
                chunk = [prompt + text for text in distinct[start : start + CHUNK]]
                chunk = [text.lower() for text in chunk] if model.embedding.lowercase else chunk
                with native_code():
                    encoded, cut[start : start + CHUNK] = model.encoder.encode(chunk)
                lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
                for rows in group_rows(lengths, np.arange(len(encoded)), TOKEN_BUDGET):
                    batch = model.encoder.assemble(encoded, rows)
                    with native_code():
                        vectors[start + rows] = model.engine.embed(batch)
                    if not np.isfinite(vectors[start + rows]).all():
                        raise CheckpointError(
                            f"{self.name} gives vectors with NaN or infinity. Its weights are damaged, or they "
                            "overflow: try precision='float32', or download it again."
                        )
                    tokens += batch.tokens
                    progress(len(rows))
            progress(len(checked) - len(distinct))
        return Embeddings(vectors[inverse], cut[inverse], tokens, time.perf_counter() - started)

    def cosine(
        self,
        query: str,
        documents: Sequence[str],
        *,
        show_progress_bar: bool | Callable[[int], object] | None = False,
    ) -> Floats:
        """Cosines of a query with documents, ``[documents]``, each with its prompt if the model has such.

        :raises InputError: If a text is not a string.
        :raises ModelError: If the model can't be loaded.
        """
        vector = self.encode([check_text(query, "query")], role="query", show_progress_bar=False)[0]
        return np.asarray(self.encode(documents, role="document", show_progress_bar=show_progress_bar) @ vector)

    def info(self) -> Mapping[str, Any]:
        """Say what the model is and what it runs with. Loads it.

        :raises ModelError: If it can't be loaded.
        """
        files, model = self._find(), self._load()
        return {
            "model": self.name,
            "folder": str(files.folder),
            "revision": files.revision,
            "architecture": model.config.model_type,
            "dimension": model.engine.size,
            "pooling": model.embedding.pooling,
            "usable_length": model.config.usable_length,
            "max_length": model.encoder.max_length,
            "query_prompt": model.embedding.query_prompt,
            "document_prompt": model.embedding.document_prompt,
            **model.engine.facts,
        }

    def _read(self, folder: Path) -> LoadedBiEncoder:
        settings = {name: self._arguments[name] for name in ("precision", "max_length", "num_threads")}
        return load_bi_encoder(folder, **settings)
