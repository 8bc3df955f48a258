"""CrossEncoder: the whole path from texts to scores, readable from top to bottom."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CheckpointError, InputError
from crossrank.forks import native_code
from crossrank.optional import require
from crossrank.pairs import PairScores, PreparedId
from crossrank.prepared.documents import PreparedDocuments
from crossrank.progress import progress_of
from crossrank.scoring.activation import softmax
from crossrank.scoring.calibration import Calibration
from crossrank.scoring.cross_encoder_model import ActivationLike, CrossEncoderModel
from crossrank.scoring.migration import check_call
from crossrank.tokenization.batching import Batch, group_rows
from crossrank.tokenization.pair_encoder import EncodedPairs
from crossrank.validation import (
    check_batch_size,
    check_documents,
    check_pairs,
    check_text,
    check_threshold,
    check_top_k,
    is_single_pair,
)

# Documents that were read before only go through the head: fewer, larger batches of them are faster.
_KNOWN_PER_NEW = 4
# Pairs that are tokenized, sorted and scored together; what bounds the memory.
CHUNK = 2048
# Memory for documents that were read: some 900 of Cranfield's length in bfloat16.
DOCUMENT_CACHE = "128MB"


class CrossEncoder(CrossEncoderModel):
    """Scores and ranks pairs of texts with a cross-encoder.

    The constructor finds the files and checks them, so that a model that is not there is an error at once; it is read
    and compiled at the first use, or by :meth:`load`. One object may be used from many threads and in forked processes,
    and can be pickled: a copy loads the model again. A fork waits until no other thread is loading the model or running
    a batch.

    :param model_name_or_path: A name on the Hugging Face hub, a folder, or ``None`` for the bundled model.
    :param num_labels: How many labels you expect; a model with another number is refused when it is loaded.
    :param max_length: The most tokens of a pair, special tokens included; by default what the model can do, and never
        more.
    :param device: ``"cpu"`` (the default), or ``"cuda"`` and ``"mps"`` with the extra ``torch``.
    :param precision: ``"float32"``, ``"bfloat16"``, ``"int8"``, or ``"auto"``: what the environment variable
        ``CROSSRANK_PRECISION`` says, or else the fastest that this processor runs without a change of the ranking.
    :param num_threads: Threads that run the model; by default ``CROSSRANK_NUM_THREADS``, or all that the process may
        use. The tokenizer's threads are its own, for the whole process: set the environment variable
        ``RAYON_NUM_THREADS`` before the first use, or ``TOKENIZERS_PARALLELISM=false`` for none.
    :param revision: Branch, tag or commit on the hub.
    :param activation_fn: From logits to scores: ``"identity"``, ``"sigmoid"``, ``"softmax"``, ``"tanh"``, a function on
        NumPy arrays, or a torch module. By default the checkpoint's own, else sigmoid for a single label and identity
        for several.
    :param label: For a model of several labels: the name or index of the one that means "relevant". The score is then
        its softmax probability.
    :param token: Token for the hub; by default the one that ``hf auth login`` stored.
    :param cache_folder: Where downloads are kept; by default the hub's usual cache.
    :param local_files_only: Never ask the hub.
    :param calibration: A file of ``crossrank calibrate``, or a :class:`~crossrank.scoring.calibration.Calibration`.
        Scores are then its probabilities; raw ones are had with ``activation_fn="identity"`` in a call.
    :param document_cache: Memory for what a model that reads documents apart (the bundled one, or one trained from it)
        has read of documents, so that later calls with the same documents take a fraction of the time: a text such as
        ``"128MB"``, or a number of bytes; 0 for none. Other models have no use for it.
    :param prepared: Documents that ``crossrank prepare`` has read for this model: their folder, or
        :class:`~crossrank.prepared.documents.PreparedDocuments`. Documents are found by their texts; others are read
        as ever, and counted.
    :param lazy: Find and check the files at the first use instead.
    :param old_arguments: Older names and keyword dictionaries of sentence-transformers (``model_kwargs``,
        ``tokenizer_kwargs``, ``backend``, ...), see docs/migrate.md. ``trust_remote_code`` has no effect: code
        from checkpoints is never run.
    :raises InputError: If a setting can't be used.
    :raises ModelError: If there is no such model, or its files can't be used.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: ActivationLike | None = None,
        device: str | None = None,
        *,
        precision: str = "auto",
        num_threads: int | None = None,
        revision: str | None = None,
        label: str | int | None = None,
        token: str | bool | None = None,
        cache_folder: str | Path | None = None,
        local_files_only: bool = False,
        calibration: str | os.PathLike[str] | Calibration | None = None,
        document_cache: str | int = DOCUMENT_CACHE,
        prepared: str | os.PathLike[str] | PreparedDocuments | None = None,
        lazy: bool = False,
        **old_arguments: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__", "old_arguments")}
        super().__init__(given, old_arguments)

    # ---- the path ----------------------------------------------------------------------------------------------

    def score(
        self,
        pairs: Sequence[Sequence[str]],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | Callable[[int], object] | None = None,
        activation_fn: ActivationLike | None = None,
    ) -> PairScores:
        """Score pairs and say how it was done.

        :param pairs: ``(query, document)`` pairs; a pair that occurs twice is scored once. The document may be the
            :class:`~crossrank.pairs.PreparedId` of one that is prepared.
        :param batch_size: The most pairs of one forward pass; by default as many as fit a budget of tokens.
        :param show_progress_bar: By default shown on a terminal when it takes over two seconds. A function is called
            instead with the number of pairs that were just done.
        :param activation_fn: Instead of the model's own.
        :raises InputError: If something is not a pair of strings.
        :raises ModelError: If the model can't be loaded.
        """
        # 1) Check what was given; the first call loads the model.
        texts = self._with_prepared(check_pairs(pairs))
        most_pairs = check_batch_size(batch_size)
        scale = self.scale(activation_fn)
        scale.check_activation()
        started = time.perf_counter()
        logits = np.empty((len(texts), len(scale.labels)), np.float32)
        query_cut, document_cut = np.zeros((2, len(texts)), np.int64)
        tokens = 0
        known: Counter[str] = Counter()
        with progress_of(len(texts), show_progress_bar) as progress:
            for chunk in _chunks(texts):
                # 2) Tokenize; a pair that occurs twice is kept once.
                encoded = self.encode([texts[i] for i in chunk])
                known.update(encoded.documents_known)
                distinct = np.empty((len(encoded.pairs), len(scale.labels)), np.float32)
                # 3) Run batches of pairs of similar length.
                for batch in self.batches(encoded, most_pairs):
                    distinct[batch.rows] = self.forward(batch)
                    tokens += batch.tokens
                    progress(len(batch.rows))
                # 4) Put the results in the order of the input.
                logits[chunk] = distinct[encoded.inverse]
                query_cut[chunk] = encoded.query_cut[encoded.inverse]
                document_cut[chunk] = encoded.document_cut[encoded.inverse]
                progress(len(encoded.inverse) - len(encoded.pairs))
        # 5) Apply the activation, in float64; the ranking goes by the raw logits.
        scores, relevance = scale.apply(logits)
        return PairScores(
            scores=scores,
            logits=logits,
            relevance=relevance,
            kind=scale.activation.kind,
            query_tokens_cut=query_cut,
            document_tokens_cut=document_cut,
            tokens=tokens,
            seconds=time.perf_counter() - started,
            **known,
        )

    def _with_prepared(self, pairs: list[tuple[str, str]]) -> Sequence[tuple[str, Any]]:
        """Put what is on disk in the place of ids."""
        ids = [document for _, document in pairs if isinstance(document, PreparedId)]
        if not ids:
            return pairs
        if self.prepared is None:
            raise InputError(
                "Documents can be ranked by their ids only if they are prepared: CrossEncoder(prepared='prepared/')."
            )
        self._load()  # refuses documents that were prepared for another model
        stored = iter(self.prepared.stored(ids))
        return [(query, next(stored) if isinstance(document, PreparedId) else document) for query, document in pairs]

    # The steps of `score` one by one, for those who schedule them: the server puts batches of many requests in turn.

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Tokenize pairs, each distinct text once; see :class:`~crossrank.tokenization.pair_encoder.EncodedPairs`."""
        encoder = self._load().encoder
        with native_code():
            encoded = encoder.encode(pairs)
        self._documents.count(**encoded.documents_known)
        return encoded

    def batches(
        self, encoded: EncodedPairs, batch_size: int | None = None, *, token_budget: int | None = None
    ) -> Iterator[Batch]:
        """Cut encoded pairs, longest first, into batches under the budget of tokens. Each is assembled when asked for.

        :param batch_size: The most pairs of one batch.
        :param token_budget: The most tokens of one batch, padding included; by default :attr:`token_budget`. A single
            pair may exceed it. Documents that were all read before may have four times as many.
        """
        encoder = self._load().encoder
        budget = self.token_budget if token_budget is None else token_budget
        budget *= _KNOWN_PER_NEW if encoded.all_known else 1
        groups = group_rows(encoded.lengths, encoded.pairs[:, 1], budget, batch_size, apart=encoded.apart)
        return (encoder.assemble(encoded, rows) for rows in groups)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Run one batch: its logits, ``[batch, labels]``.

        :raises CheckpointError: If the model gives another number of logits than it has labels, or NaN or infinity.
        """
        model = self._load()
        with native_code():
            logits = model.engine.forward(batch)
        labels = len(model.config.labels)
        if logits.shape != (len(batch.rows), labels):
            raise CheckpointError(
                f"{self.name} gives logits of shape {logits.shape} for {len(batch.rows)} pairs, but config.json has "
                f"{labels} labels. List the labels of the model in id2label of config.json."
            )
        if not np.isfinite(logits).all():
            raise CheckpointError(
                f"{self.name} gives scores that are NaN or infinite, which can't be ranked. Its weights are damaged, "
                f"or they overflow in {model.engine.facts['precision']}: try precision='float32', or download it again."
            )
        return logits

    def activate(
        self, logits: NDArray[np.float32], activation_fn: ActivationLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Turn logits ``[pairs, labels]`` into ``scores`` and ``relevance`` as :class:`PairScores` has them."""
        return self.scale(activation_fn).apply(logits)

    def predict(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationLike | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        sentences: Any = None,
        activation_fct: ActivationLike | None = None,
        num_workers: int | None = None,
    ) -> Any:
        """Scores of pairs, as ``sentence_transformers.CrossEncoder.predict`` returns them.

        :param inputs: A list of ``(query, document)`` pairs, or one pair.
        :param batch_size: The most pairs of one forward pass; by default as many as fit a budget of tokens.
        :param show_progress_bar: By default shown on a terminal when it takes over two seconds.
        :param activation_fn: Instead of the model's own.
        :param apply_softmax: For a model of several labels: softmax over them.
        :param convert_to_numpy: If false, a list of torch tensors is returned.
        :param convert_to_tensor: If true, one torch tensor is returned; overrides ``convert_to_numpy``.
        :param sentences: The older name of ``inputs``.
        :param activation_fct: The older name of ``activation_fn``.
        :param device: The model's own; another is refused, as are ``prompt``, ``prompt_name`` and ``pool``.
        :param num_workers: Accepted so that existing code runs; it has no effect, and neither has ``chunk_size``.
        :returns: float32, ``[pairs]`` for one label and ``[pairs, labels]`` for several; for one pair the first row.
        :raises InputError: If something is not a pair of strings.
        """
        check_call(self.device, prompt=prompt, prompt_name=prompt_name, device=device, pool=pool)
        given = sentences if inputs is None else inputs
        single = is_single_pair(given)
        result = self.score(
            [given] if single else given,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fct if activation_fn is None else activation_fn,
        )
        scores = result.scores
        if apply_softmax and scores.ndim > 1:
            scores = softmax(scores)
        values: Any = scores.astype(np.float32)
        if convert_to_tensor or not convert_to_numpy:
            torch = require("torch", extra="torch", purpose="A torch tensor as the result")
            values = torch.from_numpy(values)
            values = values if convert_to_tensor else list(values)
        return values[0] if single else values

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationLike | None = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        threshold: float | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        apply_softmax: bool | None = None,
        activation_fct: ActivationLike | None = None,
        num_workers: int | None = None,
    ) -> list[dict[str, Any]]:
        """Documents from the most to the least relevant, as ``sentence_transformers.CrossEncoder.rank`` returns them.

        Sorted by raw logit, ties by input order.

        :param query: One query.
        :param documents: The documents' texts.
        :param top_k: How many to return; by default all.
        :param return_documents: Whether each row carries its ``text``.
        :param batch_size: The most pairs of one forward pass; by default as many as fit a budget of tokens.
        :param show_progress_bar: By default shown on a terminal when it takes over two seconds.
        :param activation_fn: Instead of the model's own.
        :param threshold: Leave out documents that score less; on the scale of the scores that are returned.
        :param activation_fct: The older name of ``activation_fn``.
        :param device: The model's own; another is refused, as are ``prompt``, ``prompt_name`` and ``pool``.
        :param num_workers: Accepted so that existing code runs. Like ``chunk_size``, ``convert_to_numpy``,
            ``convert_to_tensor`` and ``apply_softmax`` it has no effect.
        :returns: Rows ``{"corpus_id": int, "score": float}``, with ``"text"`` if asked for.
        :raises InputError: If a text is not a string, ``top_k`` is below 1, ``threshold`` is not finite, or the
            model has several labels and none is named.
        """
        check_text(query, "query")
        texts = check_documents(documents)
        check_top_k(top_k)
        check_call(self.device, prompt=prompt, prompt_name=prompt_name, device=device, pool=pool)
        least = check_threshold(threshold)
        self.scale().check_single()
        result = self.score(
            [(query, text) for text in texts],
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fct if activation_fn is None else activation_fn,
        )
        order = result.order if least is None else result.order[result.scores[result.order] >= least]
        rows: list[dict[str, Any]] = [{"corpus_id": int(i), "score": float(result.scores[i])} for i in order[:top_k]]
        if return_documents:
            for row in rows:
                row["text"] = texts[row["corpus_id"]]
        return rows

    def rank_ids(
        self,
        query: str,
        ids: Sequence[str],
        top_k: int | None = None,
        *,
        threshold: float | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationLike | None = None,
    ) -> list[dict[str, Any]]:
        """Prepared documents from the most to the least relevant, by their ids; no text is needed.

        :param query: One query.
        :param ids: Ids that the documents were prepared with.
        :param top_k: How many to return; by default all.
        :param threshold: Leave out documents that score less.
        :param show_progress_bar: By default shown on a terminal when it takes over two seconds.
        :param activation_fn: Instead of the model's own.
        :returns: Rows ``{"id": str, "corpus_id": int, "score": float}``; ``corpus_id`` is the position in ``ids``.
        :raises PreparedError: If an id was not prepared; the message names it.
        :raises InputError: If the model was made without ``prepared``, or an argument can't be used.
        """
        check_text(query, "query")
        names = check_documents(ids)
        check_top_k(top_k)
        least = check_threshold(threshold)
        result = self.score_ids(query, names, show_progress_bar=show_progress_bar, activation_fn=activation_fn)
        order = result.order if least is None else result.order[result.scores[result.order] >= least]
        return [{"id": names[i], "corpus_id": int(i), "score": float(result.scores[i])} for i in order[:top_k]]

    def score_ids(
        self,
        query: str,
        ids: Sequence[str],
        *,
        show_progress_bar: bool | Callable[[int], object] | None = None,
        activation_fn: ActivationLike | None = None,
    ) -> PairScores:
        """Score a query with prepared documents, by their ids; as :meth:`score` does with texts.

        :raises PreparedError: If an id was not prepared; the message names it.
        :raises InputError: If the model was made without ``prepared``.
        """
        pairs = [(query, PreparedId(one)) for one in check_documents(ids)]
        return self.score(pairs, show_progress_bar=show_progress_bar, activation_fn=activation_fn)


def _chunks(texts: Sequence[tuple[str, Any]]) -> Iterator[NDArray[np.int64]]:
    """Cut pairs into chunks, those of one document together: a document is read once, however many pairs it has."""
    numbers: dict[Any, int] = {}
    document = np.fromiter((numbers.setdefault(text, len(numbers)) for _, text in texts), np.int64, len(texts))
    order = np.argsort(document, kind="stable")
    # Where the pairs of each document begin, along the order.
    begins = np.append(np.searchsorted(document[order], np.arange(len(numbers))), len(texts))
    start = 0
    while start < len(texts):
        fitting = int(begins[np.searchsorted(begins, start + CHUNK, side="right") - 1])
        end = fitting if fitting > start else min(start + CHUNK, len(texts))
        yield order[start:end]
        start = end
