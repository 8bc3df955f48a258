"""A table of rows -> the same table with scores. All engines use it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crossrank.data.columns import roles_of
from crossrank.errors import CrossRankError, InputError, PreparedError
from crossrank.pairs import PreparedId
from crossrank.ranking.documents import DocumentReader
from crossrank.ranking.reranker import Reranker
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.validation import check_top_k

# The columns that are added.
SCORE, SCORES, RANKS = "rerank_score", "rerank_scores", "rerank_ranks"
POSITIONS, ERROR = "rerank_positions", "rerank_error"


@dataclass
class Counts:
    """How much was scored."""

    rows: int = 0
    pairs: int = 0
    cut: int = 0
    bad: int = 0
    tokens: int = 0
    documents: int = 0
    documents_prepared: int = 0
    seconds: float = 0.0

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the counts of a part's record."""
        for one in fields(Counts):
            setattr(self, one.name, getattr(self, one.name) + record[one.name])


@dataclass
class _Row:
    """A row of a table; of a pair, ``documents`` has one."""

    query: Any
    documents: Any
    texts: list[str] = field(default_factory=list)
    error: str | None = None
    scores: list[float | None] = field(default_factory=list)
    ranks: list[int | None] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def keep_best(self, top_k: int) -> None:
        placed = sorted((rank, place) for place, rank in enumerate(self.ranks) if rank is not None)
        self.positions = [place for _, place in placed[:top_k]]
        self.documents = [self.documents[place] for place in self.positions]
        self.scores = [self.scores[place] for place in self.positions]


class RankBatch:
    """Scores the rows of tables. The first call loads the model.

    Use it for ``map_batches`` of Ray Data, a pandas UDF, or your own loop. It can be pickled; another process then
    loads the model again. A row is a query with a document, or a query with a list of documents (strings, or structs
    with a text field).

    - A pair gets ``rerank_score``.
    - A list gets ``rerank_scores`` and ``rerank_ranks`` (1 is best), aligned with its documents; documents that a
      pipeline left out get null. With ``top_k`` the list itself is cut to the best documents, best first, and gets
      ``rerank_scores`` and ``rerank_positions`` (positions in the original list, from 0).
    - A row that can't be scored gets null, and the reason in ``rerank_error``.

    All other columns stay unchanged.

    :param model: As for :class:`~crossrank.CrossEncoder`; ``None`` for the bundled model.
    :param pipeline: A pipeline's TOML file, instead of a model. It needs lists of documents.
    :param query: The column of queries; by default found by its name.
    :param documents: The column of documents or lists of documents; by default found by its name.
    :param text: The field of a document with its text, or a template; see ``Reranker``.
    :param top_k: Keep only the best documents of each list.
    :param settings: For :class:`~crossrank.CrossEncoder`, such as ``precision`` or ``max_length``.
    :raises InputError: If a setting can't be used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        pipeline: str | os.PathLike[str] | None = None,
        query: str | None = None,
        documents: str | None = None,
        text: str | None = None,
        top_k: int | None = None,
        **settings: Any,
    ) -> None:
        if pipeline is not None and (model is not None or settings):
            given = ", ".join(["model"] * (model is not None) + sorted(settings))
            raise InputError(f"pipeline={os.fspath(pipeline)!r} has its own models. Leave out {given}.")
        check_top_k(top_k)
        self.arguments: Mapping[str, Any] = {
            "model": model,
            "pipeline": pipeline,
            "query": query,
            "documents": documents,
            "text": text,
            "top_k": top_k,
            **settings,
        }
        self.top_k = top_k
        self._model = CrossEncoder(model, **settings) if pipeline is None else None
        self._reranker = None if pipeline is None else Reranker.from_file(pipeline)
        self._prepared = None if self._model is None else self._model.prepared
        by_id = self._prepared is not None if self._reranker is None else self._reranker.takes_ids
        self._reader = DocumentReader(text, ids=by_id)
        self.counts = Counts()

    def __reduce__(self) -> Any:
        return partial(RankBatch, **self.arguments), ()

    def load(self) -> RankBatch:
        """Load the model now.

        :raises ModelError: If that fails.
        """
        if self._model is not None:
            self._model.load()
        elif self._reranker is not None:
            self._reranker.warm_up()
        return self

    @property
    def identity(self) -> str:
        """The identity of the model, or of the pipeline's file."""
        if self._model is not None:
            return self._model.identity
        return "pipeline " + hashlib.sha256(Path(self.arguments["pipeline"]).read_bytes()).hexdigest()[:16]

    def columns(self, schema: pa.Schema) -> tuple[str, str]:
        """Return the column of queries and the column of documents.

        :raises InputError: If one of them is missing or has a type that can't be used.
        """
        names = schema.names
        for argument in ("query", "documents"):
            if (name := self.arguments[argument]) is not None and name not in names:
                raise InputError(f"{argument}={name!r} is not a column. The columns are: {', '.join(names)}.")
        documents = self.arguments["documents"]
        given = {"query": self.arguments["query"], "document": documents, "documents": documents}
        roles = roles_of(names, {role: name for role, name in given.items() if name})
        query = next(iter(roles.get("query", [])), None)
        documents = documents or next(iter(roles.get("documents") or roles.get("document") or []), None)
        if query is None or documents is None:
            missing = "queries" if query is None else "documents"
            raise InputError(
                f"No column of {missing} was found among {', '.join(names)}. Name it with query= or documents= "
                "(--query-column, --documents-column)."
            )
        if not _is_text(schema.field(query).type):
            raise InputError(f"The column {query!r} is {schema.field(query).type}; queries are text.")
        for name in (SCORE, SCORES, RANKS, POSITIONS, ERROR):
            if name in names:
                raise InputError(f"The column {name!r} exists already and would be overwritten. Rename it first.")
        kind = schema.field(documents).type
        inner = kind.value_type if _is_list(kind) else kind
        if not (_is_text(inner) or pa.types.is_struct(inner)):
            raise InputError(f"The column {documents!r} is {kind}; documents are text, structs, or lists of these.")
        if not _is_list(kind) and self._reranker is not None:
            raise InputError(
                f"A pipeline ranks lists of documents, but the column {documents!r} has one document per row."
            )
        if not _is_list(kind) and self.top_k is not None:
            raise InputError(f"top_k is for lists of documents, but the column {documents!r} has one document per row.")
        return query, documents

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the result, with ``rerank_error``.

        :raises InputError: As :meth:`columns`.
        """
        _, documents = self.columns(schema)
        if not _is_list(schema.field(documents).type):
            return schema.append(pa.field(SCORE, pa.float64())).append(pa.field(ERROR, pa.string()))
        if self.top_k is not None:
            index = schema.get_field_index(documents)
            schema = schema.set(index, pa.field(documents, pa.list_(schema.field(documents).type.value_type)))
        second = RANKS if self.top_k is None else POSITIONS
        for name, kind in ((SCORES, pa.float64()), (second, pa.int32())):
            schema = schema.append(pa.field(name, pa.list_(kind)))
        return schema.append(pa.field(ERROR, pa.string()))

    def __call__(self, batch: Any) -> Any:
        """Score a table.

        :param batch: A pyarrow table or record batch, a pandas data frame, or a dictionary of columns; the result has
            the same type.
        :raises InputError: If a column is missing.
        :raises CrossRankError: If the model fails.
        """
        if isinstance(batch, pa.Table):
            return self.score_table(batch)
        if isinstance(batch, pa.RecordBatch):
            return self.score_table(pa.Table.from_batches([batch])).combine_chunks().to_batches()[0]
        if isinstance(batch, Mapping):
            table = pa.table({name: pa.array(list(values)) for name, values in batch.items()})
            scored = self.score_table(table)
            return {**batch, **{name: scored[name].to_pylist() for name in scored.column_names if name not in batch}}
        if hasattr(batch, "iloc"):
            return self.score_table(pa.Table.from_pandas(batch, preserve_index=False)).to_pandas()
        raise InputError(f"A batch of type {type(batch).__name__} can't be read. Give a pyarrow table or a data frame.")

    def score_table(self, table: pa.Table) -> pa.Table:
        """Score a table; see :meth:`__call__`. Adds to ``counts``."""
        started = time.perf_counter()
        query_column, document_column = self.columns(table.schema)
        lists = _is_list(table.schema.field(document_column).type)
        columns = (table[query_column].to_pylist(), table[document_column].to_pylist())
        rows = [self._row(query, given, lists) for query, given in zip(*columns, strict=True)]
        good = [row for row in rows if row.error is None]
        if self._model is not None:
            self._score(self._model, good)
        elif self._reranker is not None:
            self._rank(self._reranker, good)
        for row in rows:
            if self.top_k is not None and row.error is None:
                row.keep_best(self.top_k)
        self.counts.rows += len(rows)
        self.counts.pairs += sum(len(row.texts) for row in good)
        self.counts.bad += sum(row.error is not None for row in rows)
        self.counts.seconds += time.perf_counter() - started
        return self._table(table, document_column, lists, rows)

    def _row(self, query: Any, given: Any, lists: bool) -> _Row:
        if query is None:
            return _Row(query, given, error="the query is null")
        if given is None:
            return _Row(query, given, error="the documents are null" if lists else "the document is null")
        documents = given if lists else [given]
        try:
            texts = [candidate.text for candidate in self._reader.read(documents)]
            if self._prepared is not None:
                self._prepared.stored([text for text in texts if isinstance(text, PreparedId)])
        except (InputError, PreparedError) as problem:
            return _Row(query, documents, error=str(problem))
        return _Row(query, documents, texts)

    def _score(self, model: CrossEncoder, rows: list[_Row]) -> None:
        """Score all pairs in one call."""
        pairs = [(row.query, text) for row in rows for text in row.texts]
        if not pairs:
            return
        result = model.score(pairs, show_progress_bar=False)
        if result.relevance is None:
            raise InputError(
                f"The model has {result.logits.shape[1]} labels. Choose the one that means relevant: label= (--label)."
            )
        self.counts.cut += result.pairs_cut
        self.counts.tokens += result.tokens
        self.counts.documents += result.documents
        self.counts.documents_prepared += result.documents_prepared
        start = 0
        for row in rows:
            here = slice(start, start + len(row.texts))
            row.scores = result.scores[here].tolist()
            order = np.argsort(-result.relevance[here], kind="stable")
            row.ranks = (np.argsort(order) + 1).tolist()
            start = here.stop

    def _rank(self, pipeline: Reranker, rows: list[_Row]) -> None:
        """Rank each row's documents; those that the pipeline leaves out get ``None``."""
        for row in rows:
            row.scores, row.ranks = [None] * len(row.documents), [None] * len(row.documents)
            try:
                ranking = pipeline.rank(row.query, row.documents)
            except CrossRankError as error:
                row.error = str(error)
                continue
            for ranked in ranking:
                row.scores[ranked.first_stage_position] = ranked.score
                row.ranks[ranked.first_stage_position] = ranked.rank
            self.counts.cut += ranking.pairs_cut
            self.counts.tokens += ranking.tokens

    def _table(self, table: pa.Table, document_column: str, lists: bool, rows: list[_Row]) -> pa.Table:
        """The table with the added columns."""
        schema = self.schema(table.schema)
        columns = {name: table[name] for name in table.column_names}

        def add(name: str, value_of: Callable[[_Row], Any]) -> None:
            values = [value_of(row) if row.error is None else None for row in rows]
            columns[name] = pa.array(values, schema.field(name).type)

        if not lists:
            add(SCORE, lambda row: row.scores[0])
        elif self.top_k is None:
            add(SCORES, lambda row: row.scores)
            add(RANKS, lambda row: row.ranks)
        else:
            columns[document_column] = pa.array([row.documents for row in rows], schema.field(document_column).type)
            add(SCORES, lambda row: row.scores)
            add(POSITIONS, lambda row: row.positions)
        columns[ERROR] = pa.array([row.error for row in rows], pa.string())
        return pa.table(columns, schema=schema)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")
