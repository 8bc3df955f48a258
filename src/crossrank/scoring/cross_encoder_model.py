"""The model behind a CrossEncoder: its files, its settings, and what it says about itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crossrank.engines.load import LoadedModel, check_files, load_model
from crossrank.engines.settings import check_settings
from crossrank.prepared.documents import PreparedDocuments, open_prepared
from crossrank.prepared.known_documents import KnownDocuments, parse_bytes
from crossrank.prepared.made_with import check_apart
from crossrank.scoring.activation import ACTIVATIONS, resolve_activation
from crossrank.scoring.calibration import Binding, Calibration
from crossrank.scoring.lazy_model import LazyModel
from crossrank.scoring.migration import SentenceTransformersNames, constructor_arguments
from crossrank.scoring.score_scale import ScoreScale, find_label
from crossrank.tokenization.pair_encoder import Encoder
from crossrank.validation import check_model_name, check_revision

ActivationLike = str | Callable[[Any], Any]


class CrossEncoderModel(LazyModel[LoadedModel], SentenceTransformersNames):
    """What a :class:`~crossrank.scoring.cross_encoder.CrossEncoder` is, before it scores anything.

    :param given: The arguments of its constructor, by name.
    :param old: Older names and keyword dictionaries of sentence-transformers.
    """

    def __init__(self, given: dict[str, Any], old: Mapping[str, Any]) -> None:
        given = constructor_arguments(given, old)
        model = given["model_name_or_path"]
        given["device"] = None if given["device"] is None else str(given["device"])
        check_settings(given["device"], given["precision"], given["max_length"])
        if model is not None:
            check_model_name(model)
        check_revision(given["revision"])
        super().__init__("bundled" if model is None else os.fspath(model), model, given)
        self.label = given["label"]
        activation_fn = given["activation_fn"]
        self._activation = None if activation_fn is None else resolve_activation(activation_fn)
        self.calibration = Calibration.of(given["calibration"], activation_fn)
        prepared = given["prepared"]
        self._documents = KnownDocuments(
            parse_bytes("document_cache", given["document_cache"]),
            None if prepared is None else open_prepared(prepared),
        )
        self._label_index: int | None = None  # known once the model is loaded
        if not given["lazy"]:
            check_files(self._find().folder)

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
    def token_budget(self) -> int:
        """Padded tokens of a batch, as they suit the device."""
        return self._load().engine.token_budget

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

    def _read(self, folder: Path) -> LoadedModel:
        given = self._arguments
        settings = {name: given[name] for name in ("device", "precision", "max_length", "num_threads")}
        loaded = load_model(folder, known=self._documents, **settings)
        self._label_index = find_label(self.label, given["num_labels"], loaded.config.labels, self.name)
        if self.calibration is not None:
            self.calibration.check(self._binding(loaded))
        if self._documents.prepared is not None:
            check_apart(loaded, self.name)
            self._documents.prepared.check(loaded)
        return loaded
