"""CrossEncoder: the whole path from texts to scores, readable from top to bottom."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.checkpoint.identity import model_files
from crossrank.checkpoint.source import ModelFiles, resolve
from crossrank.engines.load import LoadedModel, check_files, load_model
from crossrank.engines.settings import check_settings
from crossrank.errors import CheckpointError, InputError
from crossrank.forks import native_code, renew_lock_after_fork
from crossrank.optional import require
from crossrank.prepared.documents import PreparedDocuments, check_apart, open_prepared
from crossrank.prepared.known_documents import KnownDocuments, parse_bytes
from crossrank.progress import progress_of
from crossrank.scoring.activation import ACTIVATIONS, resolve_activation, softmax
from crossrank.scoring.calibration import Binding, Calibration
from crossrank.scoring.migration import (
    MissingAttributeError,
    ReadOnly,
    check_call,
    constructor_arguments,
    missing_attribute,
)
from crossrank.scoring.pickling import Reloadable
from crossrank.scoring.score_scale import ScoreScale, find_label
from crossrank.tokenization.batching import Batch, make_batches
from crossrank.tokenization.pair_encoder import EncodedPairs, Encoder
from crossrank.types import PairScores, PreparedId
from crossrank.validation import (
    check_batch_size,
    check_documents,
    check_model_name,
    check_pairs,
    check_revision,
    check_text,
    check_threshold,
    check_top_k,
    is_single_pair,
)

# Padded tokens of one forward pass: enough to keep the processor's units busy, little enough for its caches.
# Measured in docs/performance-log.md.
TOKEN_BUDGET = 2048
# Pairs that are tokenized, sorted and scored together; what bounds the memory.
CHUNK = 2048
# Memory for documents that were read: some 900 of Cranfield's length in bfloat16.
DOCUMENT_CACHE = "128MB"

ActivationLike = str | Callable[[Any], Any]


class CrossEncoder(Reloadable):
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
    :param trust_remote_code: Accepted so that existing code runs. Code out of checkpoints is never run; a model that
        needs it is refused when it is loaded.
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
        ``tokenizer_kwargs``, ``backend``, ...), see docs/migrate.md.
    :raises InputError: If a setting can't be used.
    :raises ModelError: If there is no such model, or its files can't be used.
    """

    _SETTABLE = frozenset({"max_length", "max_seq_length", "activation_fn", "default_activation_function"})

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
        given = {name: value for name, value in locals().items() if name not in ("self", "old_arguments")}
        given = constructor_arguments(given, old_arguments)
        model, device = given["model_name_or_path"], given["device"]
        given["device"] = device = None if device is None else str(device)
        check_settings(device, given["precision"], given["max_length"])
        if model is not None:
            check_model_name(model)
        check_revision(given["revision"])
        self._arguments = given
        self.name = "bundled" if model is None else os.fspath(model)
        self.label = label
        activation_fn = given["activation_fn"]
        self._activation = None if activation_fn is None else resolve_activation(activation_fn)
        self.calibration = Calibration.of(calibration, activation_fn)
        self._documents = KnownDocuments(
            parse_bytes("document_cache", document_cache), None if prepared is None else open_prepared(prepared)
        )
        self._label_index: int | None = None  # known once the model is loaded
        self._lock = threading.Lock()
        self._files: ModelFiles | None = None
        self._loaded: LoadedModel | None = None
        renew_lock_after_fork(self)
        if not lazy:
            check_files(self._find().folder)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would have no effect, such as ``model.device = "cuda"``."""
        if not name.startswith("_") and name in {"name", "label", "calibration"}:
            known = name not in self.__dict__  # set once, by the constructor
        else:
            known = name.startswith("_") or name in self._SETTABLE
        if not known:
            raise MissingAttributeError(
                f"{name} can't be set to {value!r}: it would have no effect. Pass it to the constructor if it takes "
                f"it; what can be set is {', '.join(sorted(self._SETTABLE))}."
            )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """Say what to do instead of what only a torch module has."""
        raise missing_attribute("CrossEncoder", name)

    def __repr__(self) -> str:
        return f"CrossEncoder({self.name!r}, {'loaded' if self._loaded else 'not loaded yet'})"

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
            :class:`~crossrank.types.PreparedId` of one that is prepared.
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
        self, encoded: EncodedPairs, batch_size: int | None = None, *, token_budget: int = TOKEN_BUDGET
    ) -> Iterator[Batch]:
        """Cut encoded pairs, longest first, into batches under the budget of tokens. Each is assembled when asked for.

        :param batch_size: The most pairs of one batch.
        :param token_budget: The most tokens of one batch, padding included; a single pair may exceed it.
        """
        return make_batches(
            encoded.lengths,
            encoded.pairs[:, 1],
            partial(self._load().encoder.assemble, encoded),
            token_budget=token_budget,
            most_rows=batch_size,
            apart=encoded.apart,
        )

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

    # ---- the model ---------------------------------------------------------------------------------------------

    def load(self) -> CrossEncoder:
        """Find, read and compile the model now rather than at the first call.

        :raises ModelError: If that fails.
        """
        self._load()
        return self

    def info(self) -> Mapping[str, Any]:
        """Say what the model is and what it runs with. Loads it.

        :raises ModelError: If it can't be loaded.
        """
        model = self._load()
        files = self._find()
        config = model.config
        return {
            "model": self.name,
            "folder": str(files.folder),
            "revision": files.revision,
            "architecture": config.model_type,
            "layers": config.raw.get("num_hidden_layers", config.raw.get("n_layers")),
            "hidden_size": config.raw.get("hidden_size", config.raw.get("dim")),
            "usable_length": config.usable_length,
            "max_length": model.encoder.max_length,
            "identity": model.files.identity,
            "labels": list(config.labels),
            "activation": self.scale().activation.kind,
            "calibration": None if self.calibration is None else self.calibration.digest,
            "prepared": None if self._documents.prepared is None else self._documents.prepared.stats(),
            "document_cache": self.document_cache,
            **model.engine.facts,
        }

    def binding(self) -> Binding:
        """What a calibration of this model is bound to. Loads it, and reads all of its weights once.

        :raises ModelError: If it can't be loaded.
        """
        return self._binding(self._load())

    def _binding(self, model: LoadedModel) -> Binding:
        return Binding(
            model=self.name,
            revision=self._find().revision,
            architecture=model.config.model_type,
            identity=model.files.identity,
            precision=str(model.engine.facts["precision"]),
            max_length=model.encoder.max_length,
            label=None if self._label_index is None else model.config.labels[self._label_index],
        )

    @property
    def identity(self) -> str:
        """Digest of every file that the scores depend on, 16 hexadecimal digits; copies of a model have the same.

        Loads the model. The files are hashed once, when this is first asked for.

        :raises ModelError: If it can't be loaded, or the files changed since it was.
        """
        return self._load().files.identity

    @property
    def prepared(self) -> PreparedDocuments | None:
        """The prepared documents that it was made with."""
        return self._documents.prepared

    @property
    def document_cache(self) -> Mapping[str, Any] | None:
        """What is kept in memory of documents, and how often it was of use; ``None`` for a model that keeps none."""
        return self._documents.facts() if self._load().config.model_type == "split_bert" else None

    @property
    def encoder(self) -> Encoder:
        """What tokenizes pairs for this model."""
        return self._load().encoder

    def scale(self, activation_fn: ActivationLike | None = None) -> ScoreScale:
        """How logits become scores: the label that counts, and the activation.

        The caller's activation goes first, then the object's or its calibration, then the checkpoint's own; without
        any it is sigmoid for a single score and identity for several.

        :param activation_fn: Instead of the model's own.
        :raises InputError: If it is not known, or the model is calibrated and it is not ``"identity"``.
        """
        config = self._load().config
        labels, label = config.labels, self._label_index
        single = len(labels) == 1 or label is not None
        # The softmax share of one label of several is a probability, whatever the checkpoint does with all of them.
        own = config.activation.lower() if config.activation and (label is None or len(labels) == 1) else None
        if activation_fn is not None:
            chosen = resolve_activation(activation_fn)
            if self.calibration is not None:
                self.calibration.only_raw(chosen, activation_fn)
        elif self.calibration is not None:
            chosen = self.calibration.activation
        elif self._activation is not None:
            chosen = self._activation
        else:
            chosen = ACTIVATIONS[own if own is not None and own in ACTIVATIONS else "sigmoid" if single else "identity"]
        return ScoreScale(self.name, labels, label, chosen)

    @property
    def max_length(self) -> int:
        """The most tokens of a pair. If it is set, the model is loaded again at the next use."""
        return self._load().encoder.max_length

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        check_settings(None, "auto", value)
        with self._lock:
            self._arguments = {**self._arguments, "max_length": value}
            self._loaded = None

    max_seq_length = max_length

    @property
    def activation_fn(self) -> Any:
        """The function from logits to scores: what was given, else the name of the checkpoint's own."""
        given = self._arguments["activation_fn"]
        return given if given is not None else self.scale().activation.kind

    @activation_fn.setter
    def activation_fn(self, value: ActivationLike | None) -> None:
        if self.calibration is not None:
            Calibration.of(self.calibration, value)
        self._activation = None if value is None else resolve_activation(value)
        self._arguments = {**self._arguments, "activation_fn": value}

    default_activation_function = activation_fn

    @property
    def num_labels(self) -> int:
        """How many logits the model gives."""
        return len(self._load().config.labels)

    @property
    def tokenizer(self) -> Tokenizer:
        """A copy of the model's ``tokenizers.Tokenizer``; to change it changes no score."""
        return Tokenizer.from_str(self._load().encoder.tokenizer.to_str())

    @property
    def config(self) -> ReadOnly:
        """``config.json`` with its keys as attributes, which can't be set."""
        config = self._load().config
        known = {"num_labels": len(config.labels), "id2label": dict(enumerate(config.labels))}
        return ReadOnly(**{**config.raw, **known})

    @property
    def model_card_data(self) -> ReadOnly:
        """Takes the results of sentence-transformers' evaluators and drops them, as there is no model card."""
        return ReadOnly(set_evaluation_metrics=lambda *_: None)

    @property
    def device(self) -> str:
        """What the model runs on, such as ``"cpu"``."""
        return self._arguments["device"] or "cpu"

    def to(self, device: Any) -> CrossEncoder:
        """Return the model if it runs on this device already.

        :raises InputError: If it does not: a model stays where it was loaded.
        """
        check_call(self.device, device=device)
        return self

    def cpu(self) -> CrossEncoder:
        """Return the model if it runs on the CPU; see :meth:`to`."""
        return self.to("cpu")

    def eval(self) -> CrossEncoder:
        """Return the model: it is always ready to score."""
        return self

    def half(self) -> CrossEncoder:
        """Return the model as it is: ``precision="auto"`` is the fastest that keeps the ranking."""
        return self

    def save_pretrained(self, path: str | os.PathLike[str], **_no_effect: Any) -> None:
        """Copy the model's files to a folder, which is made.

        sentence-transformers' other arguments, such as ``safe_serialization``, have no effect: files stay as they are.

        :raises OSError: If it can't be written.
        """
        source = self._find().folder
        for file in model_files(source):
            target = Path(path) / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    save = save_pretrained

    def _find(self) -> ModelFiles:
        if self._files is None:
            given = self._arguments
            source = {name: given[name] for name in ("revision", "token", "cache_folder", "local_files_only")}
            self._files = resolve(given["model_name_or_path"], **source)
        return self._files

    def _load(self) -> LoadedModel:
        loaded = self._loaded
        if loaded is None:
            with self._lock, native_code():
                if self._loaded is None:
                    given = self._arguments
                    settings = {name: given[name] for name in ("device", "precision", "max_length", "num_threads")}
                    loaded = load_model(self._find().folder, known=self._documents, **settings)
                    self._label_index = find_label(self.label, given["num_labels"], loaded.config.labels, self.name)
                    if self.calibration is not None:
                        self.calibration.check(self._binding(loaded))
                    if self._documents.prepared is not None:
                        check_apart(loaded, self.name)
                        self._documents.prepared.check(loaded)
                    self._loaded = loaded
                loaded = self._loaded
        return loaded


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
