"""PreparedDocuments: documents that a model has encoded once, stored on disk for any number of queries."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint.source import resolve
from crossrank.data.text_lines import cut
from crossrank.engines.load import LoadedModel, load_model
from crossrank.engines.settings import check_settings
from crossrank.errors import InputError, PreparedError
from crossrank.forks import native_code, renew_lock_after_fork
from crossrank.prepared.made_with import MadeWith, check_apart, made_with, refuse_another
from crossrank.prepared.rows import STORAGE, pack, unpack
from crossrank.prepared.store import DIRECTORY, Row, Store
from crossrank.tokenization.split_encoder import ReadText, Text
from crossrank.validation import check_choice, shown

# Documents are added in groups of this size, so a killed process loses at most one group.
_SECONDS = 3.0
_TEXTS, _MOST_TEXTS = 64, 256


@dataclass(frozen=True)
class StoredText:
    """Replaces the text of a prepared document that was named by its id."""

    row: Row


@dataclass(frozen=True)
class Added:
    """The result of :meth:`PreparedDocuments.add`.

    :param read: Documents that were encoded, because they were new or changed.
    :param unchanged: Documents that were already stored.
    :param tokens: Tokens that were encoded.
    :param seconds: Wall time.
    """

    read: int
    unchanged: int
    tokens: int
    seconds: float


class PreparedDocuments:
    """Documents encoded by the bundled model, or one trained from it, and stored in a folder.

    ``CrossEncoder(prepared=folder)`` finds them by text, and ``CrossEncoder.rank_ids`` by id. Many
    readers may use a folder while one process adds to it; each sees the state of when it opened it, until
    :meth:`refresh`. One object may be used from many threads.

    :param folder: The folder; created with the first documents.
    :param model: The model that encodes them: a hub name, a folder, or ``None`` for the bundled model.
    :param storage: ``"int8"`` (about 390 bytes a token for the bundled model), ``"float16"`` (770) or ``"int4"`` (220).
        An existing folder keeps its own.
    :param precision: As for ``CrossEncoder``; ranking must use the same.
    :param max_length: As for ``CrossEncoder``; ranking must use the same.
    :param num_threads: As for ``CrossEncoder``.
    :raises InputError: If a setting can't be used.
    :raises PreparedError: If the folder can't be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        *,
        storage: str | None = None,
        precision: str = "auto",
        max_length: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        check_settings(None, precision, max_length)
        if storage is not None:
            check_choice("storage", storage, STORAGE)
        self.folder = Path(folder)
        self._model = model
        self._settings: dict[str, Any] = {
            "device": None,
            "precision": precision,
            "max_length": max_length,
            "num_threads": num_threads,
        }
        self._storage = storage
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._loaded: LoadedModel | None = None
        self._store: Store | None = None
        if (self.folder / DIRECTORY).exists():
            self._open(Store(self.folder))

    def __repr__(self) -> str:
        return f"PreparedDocuments({str(self.folder)!r}, {len(self)} documents)"

    def __len__(self) -> int:
        return 0 if self._store is None else len(self._store)

    # ---- writing -----------------------------------------------------------------------------------------------

    def add(
        self,
        ids: Iterable[str],
        texts: Iterable[str],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> Added:
        """Encode documents that are new or whose text has changed.

        They are written in groups: a stopped call keeps the groups it has added, and the same call resumes from there.

        :param ids: Strings that are not empty. A document that is stored with another text is replaced.
        :param texts: One text for each id.
        :param progress: Called with the number of documents that were just added.
        :raises InputError: If an id or a text is not a string, or an id has two texts.
        :raises PreparedError: If the folder belongs to another model, is being written by another process, or can't be
            written.
        :raises ModelError: If the model can't be loaded.
        """
        wanted = _checked(ids, texts)
        started = time.perf_counter()
        store, model = self._writable()
        read = tokens = 0
        progress = progress or (lambda done: None)
        with store.writer() as writer:
            store.refresh()
            new = []
            for identifier, text in wanted.items():
                digest = _digest(text)
                there = store.by_id(identifier)
                if there is None or there.digest != digest or store.data(there) is None:
                    new.append((identifier, text, digest))
            progress(len(wanted) - len(new))
            at, size = 0, _TEXTS
            while at < len(new):
                before = time.perf_counter()
                group = new[at : at + size]
                tokens += self._add(writer, store, model, group)
                read += len(group)
                at += len(group)
                progress(len(group))
                size = max(1, min(_MOST_TEXTS, int(len(group) * _SECONDS / max(1e-3, time.perf_counter() - before))))
            store.refresh()
            facts = store.stats()
            if facts["bytes_unused"] > max(64 << 20, facts["bytes"]):
                writer.compact()
        return Added(read, len(wanted) - read, tokens, time.perf_counter() - started)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents; unknown ids are ignored.

        :returns: How many were removed.
        :raises PreparedError: If the folder is being written by another process, or can't be written.
        """
        names = [_checked_id(identifier, i) for i, identifier in enumerate(ids)]
        if self._store is None:
            return 0
        before = len(self)
        with self._store.writer() as writer:
            writer.remove(names)
        return before - len(self)

    def prune(self, keep: Iterable[str]) -> int:
        """Remove all documents but these.

        :returns: How many were removed.
        :raises PreparedError: As :meth:`remove`.
        """
        kept = set(keep)
        return 0 if self._store is None else self.remove([row.id for row in self._store.rows() if row.id not in kept])

    def compact(self) -> None:
        """Free the disk space of removed documents. Readers that have the folder open can go on.

        :raises PreparedError: As :meth:`remove`.
        """
        if self._store is not None:
            with self._store.writer() as writer:
                writer.compact(wasted=0.0)

    def repair(self) -> list[str]:
        """Check every document's checksum, and remove damaged documents.

        :returns: Their ids; :meth:`add` encodes them again.
        :raises PreparedError: As :meth:`remove`.
        """
        if self._store is None:
            return []
        self._store.refresh()
        damaged = [row.id for row in self._store.rows() if self._store.data(row) is None]
        if damaged:
            self.remove(damaged)
        return damaged

    # ---- reading -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """See documents that other processes have added and removed since.

        :raises PreparedError: If the folder is damaged.
        """
        if self._store is not None:
            self._store.refresh()
        elif (self.folder / DIRECTORY).exists():
            self._open(Store(self.folder))

    def stats(self) -> dict[str, Any]:
        """Return the number of documents, tokens and bytes, and the model that encoded them.

        ``bytes`` counts documents in use, ``bytes_unused`` what a compaction frees.
        """
        if self._store is None:
            return {"folder": str(self.folder), "documents": 0}
        made = {key: value for key, value in asdict(self.made_with).items() if key != "hidden"}
        model = self._store.meta["model"]
        return {"folder": str(self.folder), **self._store.stats(), "storage": self.storage, "model": model, **made}

    @property
    def made_with(self) -> MadeWith:
        """The model and settings that the states depend on.

        :raises PreparedError: If the folder has no documents yet.
        """
        meta = self._needed().meta
        return MadeWith(meta["identity"], meta["precision"], int(meta["max_length"]), int(meta["hidden"]))

    @property
    def storage(self) -> str:
        """``"int8"``, ``"float16"`` or ``"int4"``."""
        return self._storage or "int8"

    def find(self, text: Hashable) -> ReadText | None:
        """Return a document's states by its text; ``None`` if it is missing or damaged."""
        if self._store is None:
            return None
        row = text.row if isinstance(text, StoredText) else self._store.by_digest(_digest(str(text)))
        data = None if row is None else self._store.data(row)
        if row is None or data is None:
            return None
        return unpack(data, row.tokens, self._hidden, self.storage, row.tokens_cut)

    def stored(self, ids: Sequence[str]) -> list[StoredText]:
        """Return placeholders for the texts of documents.

        :raises PreparedError: If an id is unknown, or its document is damaged; the message names it.
        """
        store = self._needed()
        found = []
        for i, identifier in enumerate(ids):
            row = store.by_id(_checked_id(identifier, i))
            if row is None:
                raise PreparedError(
                    f"The id {cut(identifier)} is not among the {len(self)} documents of {str(self.folder)!r}. Add "
                    "the document with crossrank prepare, or call refresh() if another process has added it."
                )
            if store.data(row) is None:
                raise PreparedError(
                    f"The document with the id {cut(identifier)} is damaged in "
                    f"{str(store.segment_path(row.segment))!r}. Run: crossrank prepare FILE -o {self.folder} --repair"
                )
            found.append(StoredText(row))
        return found

    def check(self, model: LoadedModel) -> None:
        """Refuse a model that did not make the states.

        :raises PreparedError: If it is another model or has other settings; the message says what to run.
        """
        refuse_another(self.made_with, made_with(model), self.folder, self._needed().meta["model"])

    # ---- the model ---------------------------------------------------------------------------------------------

    def _open(self, store: Store) -> None:
        with self._lock:
            stored = store.meta["storage"]
            if self._storage not in (None, stored):
                raise PreparedError(
                    f"{str(self.folder)!r} is stored as {stored}, not as {self._storage}. Leave storage out, or "
                    "prepare into another folder."
                )
            self._storage = stored
            self._hidden = int(store.meta["hidden"])
            self._store = store

    def _needed(self) -> Store:
        if self._store is None:
            raise PreparedError(
                f"{str(self.folder)!r} holds no prepared documents. Make them with: "
                f"crossrank prepare FILE -o {self.folder}"
            )
        return self._store

    def load(self) -> LoadedModel:
        """Load the model that encodes documents.

        :raises InputError: If it doesn't encode documents separately.
        :raises ModelError: If it can't be loaded.
        """
        with self._lock:
            if self._loaded is None:
                files = resolve(self._model)
                with native_code():
                    loaded = load_model(files.folder, **self._settings)
                check_apart(loaded, files.name)
                self._loaded = loaded
            return self._loaded

    def _writable(self) -> tuple[Store, LoadedModel]:
        model = self.load()
        with self._lock:
            if self._store is None:
                made = {key: str(value) for key, value in asdict(made_with(model)).items()}
                name = "bundled" if self._model is None else os.fspath(self._model)
                self._open(Store.create(self.folder, {**made, "storage": self.storage, "model": name}))
            self.check(model)
            return self._needed(), model

    def _add(self, writer: Any, store: Store, model: LoadedModel, group: Sequence[tuple[str, str, bytes]]) -> int:
        """Encode a group of documents and add them; return the number of encoded tokens."""
        encoder: Any = model.encoder
        engine: Any = model.engine
        # A text that is stored under another id, or occurs twice in the group, is encoded once.
        new: dict[bytes, str] = {}
        known: dict[bytes, Row] = {}
        for _, text, digest in group:
            there = writer.by_digest(digest)
            if there is not None and store.data(there) is not None:
                known[digest] = there
            else:
                new.setdefault(digest, text)
        with native_code():
            texts: list[Text] = encoder.documents(list(new.values()))
            states = dict(zip(new, engine.read(texts, None, exact=True), strict=True)) if texts else {}
        documents, written = [], set()
        for identifier, _, digest in group:
            row, read = known.get(digest), states.get(digest)
            if row is not None:
                documents.append((identifier, digest, row.tokens, row.tokens_cut, b""))
            elif read is not None:
                data = b"" if digest in written else pack(read, self.storage)
                documents.append((identifier, digest, len(read.ids), read.tokens_cut, data))
                written.add(digest)
        writer.add(documents)
        return sum(len(read.ids) for read in states.values())


def open_prepared(given: str | os.PathLike[str] | PreparedDocuments) -> PreparedDocuments:
    """Open a folder of prepared documents for ranking.

    :raises InputError: If it is neither a folder's name nor prepared documents.
    :raises PreparedError: If the folder has none, or can't be used.
    """
    if not isinstance(given, (str, os.PathLike, PreparedDocuments)):
        raise InputError(f"prepared={shown(given)}; give the folder that crossrank prepare wrote.")
    documents = given if isinstance(given, PreparedDocuments) else PreparedDocuments(given)
    _ = documents.made_with
    return documents


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _checked(ids: Iterable[str], texts: Iterable[str]) -> Mapping[str, str]:
    """Documents by id."""
    if isinstance(ids, (str, bytes)) or isinstance(texts, (str, bytes)):
        raise InputError("ids and texts must be lists of strings of the same length. For one document: [text].")
    names, contents = list(ids), list(texts)
    if len(names) != len(contents):
        raise InputError(f"There are {len(names)} ids and {len(contents)} texts. Give one id for each text.")
    wanted: dict[str, str] = {}
    for i, (identifier, text) in enumerate(zip(names, contents, strict=True)):
        identifier = _checked_id(identifier, i)
        if not isinstance(text, str):
            raise InputError(f"texts[{i}] is {shown(text)}, not a string. Pass the text itself, or str(...) of it.")
        if wanted.setdefault(identifier, text) != text:
            raise InputError(
                f"ids[{i}] is {shown(identifier)}, which already names another text. Give each document an id of "
                "its own."
            )
    return wanted


def _checked_id(identifier: Any, position: int) -> str:
    if not isinstance(identifier, str) or not identifier:
        raise InputError(f"ids[{position}] is {shown(identifier)}; an id is a string that is not empty.")
    try:
        identifier.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"ids[{position}] is {shown(identifier)}, which has half of a surrogate pair. Give valid Unicode text."
        ) from error
    return str(identifier)
