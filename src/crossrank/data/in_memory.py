"""Read data in memory: data frames, Hugging Face datasets, lists of dictionaries, datasets of ir_datasets.

None of these packages is imported: objects are recognized by their methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crossrank.errors import InputError

# Names of the columns of judgements and runs: ir_measures', TREC's, BEIR's.
QUERY_COLUMNS = ("query_id", "qid", "query-id", "query")
DOCUMENT_COLUMNS = ("doc_id", "docno", "corpus-id", "document")
GRADE_COLUMNS = ("relevance", "label", "grade", "score", "rel")
SCORE_COLUMNS = ("score", "similarity")


def records(table: Any) -> Iterator[Mapping[str, object]]:
    """Give the rows of a pandas, polars or Hugging Face table, or of an iterable of mappings or named tuples.

    NaN, which is how pandas marks missing values, becomes ``None``.

    :raises InputError: If it is none of these.
    """
    if hasattr(table, "iter_rows"):  # polars
        yield from table.iter_rows(named=True)
        return
    if hasattr(table, "to_dict") and hasattr(table, "itertuples"):  # pandas
        for row in table.to_dict("records"):
            yield {str(name): None if value is None or value != value else value for name, value in row.items()}
        return
    if isinstance(table, (str, bytes)) or not isinstance(table, Iterable):
        raise InputError(f"{type(table).__name__} is not a table. Give a data frame or a list of dictionaries.")
    for number, row in enumerate(table):
        if isinstance(row, Mapping):
            yield row
        elif hasattr(row, "_asdict"):
            yield row._asdict()
        else:
            raise InputError(f"Row {number} is a {type(row).__name__}, not a dictionary. Give one dictionary per row.")


def by_query(table: Any, values: tuple[str, ...], what: str) -> dict[str, dict[str, float]]:
    """Give a run or judgements as query -> document -> number.

    :param table: Such a mapping, in which documents may also be a list, best first; or a table with three columns.
    :param values: Possible names of the column with the numbers.
    :param what: The name of the data in messages.
    :raises InputError: If a column is missing, or a value is not a number.
    """
    found: dict[str, dict[str, float]] = {}
    try:
        if isinstance(table, Mapping):
            for query, documents in table.items():
                if isinstance(documents, Mapping):
                    found[str(query)] = {str(document): float(value) for document, value in documents.items()}
                else:
                    found[str(query)] = {str(document): -float(rank) for rank, document in enumerate(documents, 1)}
            return found
        for row in records(table):
            query, document, value = (_first(row, names, what) for names in (QUERY_COLUMNS, DOCUMENT_COLUMNS, values))
            found.setdefault(str(query), {})[str(document)] = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: {error}. Give numbers, as {{query: {{document: number}}}}.") from error
    return found


def is_ir_dataset(source: Any) -> bool:
    """Whether an object has the methods of a dataset of ir_datasets."""
    return all(hasattr(source, name) for name in ("docs_iter", "queries_iter", "qrels_iter"))


def from_ir_dataset(source: Any) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, float]]]:
    """Read queries, documents and judgements of a dataset of ir_datasets."""
    queries = {one.query_id: str(one.default_text()) for one in source.queries_iter()}
    documents = {one.doc_id: str(one.default_text()) for one in source.docs_iter()}
    return queries, documents, by_query(source.qrels_iter(), GRADE_COLUMNS, "the judgements")


def _first(row: Mapping[str, object], names: tuple[str, ...], what: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InputError(
        f"{what}: a row has no {' or '.join(names)}; it has {', '.join(row) or 'nothing'}. Rename the column."
    )
