"""Spark: scores rows as ``crossrank batch`` does; each Python worker loads the model once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossrank.batch.score_table import RankBatch
from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.scoring.cross_encoder import CrossEncoder

# The models of a worker process, which Spark uses for many tasks.
_models: dict[str, CrossEncoder] = {}
_batches: dict[str, RankBatch] = {}


def rerank_udf(model: str | None = None, **settings: Any) -> Any:
    """Make a pandas UDF from a column of queries and a column of documents to their scores, as double.

    >>> frame.withColumn("score", rerank_udf()("query", "text"))  # doctest: +SKIP

    :param model: As for :class:`~crossrank.CrossEncoder`. A folder must exist on each worker.
    :param settings: For :class:`~crossrank.CrossEncoder`.
    :raises MissingExtraError: If Spark is not installed.
    """
    require("pyspark", extra="spark", purpose="rerank_udf")
    import pandas as pd
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import DoubleType

    def rerank(query: Any, document: Any) -> Any:
        known = _models.setdefault(repr((model, sorted(settings.items()))), CrossEncoder(model, **settings))
        there = query.notna() & document.notna()
        scores = pd.Series([None] * len(query), dtype="float64", index=query.index)
        pairs = list(zip(query[there], document[there], strict=True))
        if pairs:
            scores[there] = known.score(pairs, show_progress_bar=False).scores
        return scores

    # The annotations tell Spark to pass columns as pandas Series.
    rerank.__annotations__ = {"query": pd.Series, "document": pd.Series, "return": pd.Series}
    return pandas_udf(rerank, DoubleType())


def rank_frame(frame: Any, **arguments: Any) -> Any:
    """Score the rows of a Spark data frame: pairs, or queries with lists of documents.

    The result has all columns of the frame, and those of :class:`~crossrank.batch.RankBatch`, with
    ``rerank_error``.

    :param frame: A ``pyspark.sql.DataFrame``.
    :param arguments: For :class:`~crossrank.batch.RankBatch`.
    :raises InputError: If a column is missing or can't be used.
    :raises MissingExtraError: If Spark is not installed.
    """
    require("pyspark", extra="spark", purpose="rank_frame")
    import pyarrow as pa
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    rank = RankBatch(**arguments)
    given = to_arrow_schema(frame.schema)
    wanted = rank.schema(given)

    def score(batches: Iterator[Any]) -> Iterator[Any]:
        known = _batches.setdefault(repr(sorted(map(repr, arguments.items()))), RankBatch(**arguments))
        for batch in batches:
            yield from known(pa.Table.from_batches([batch])).cast(wanted).combine_chunks().to_batches()

    if not hasattr(frame, "mapInArrow"):
        raise InputError(f"rank_frame takes a Spark data frame, not {type(frame).__name__}.")
    return frame.mapInArrow(score, from_arrow_schema(wanted))
