"""Spark in local mode: the same scores as a single call, the model loaded once in a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossrank import CrossEncoder, InputError
from crossrank.integrations.spark import rank_frame, rerank_udf

pytestmark = pytest.mark.java
ROWS = [(f"{i:03d}", f"wing flow {i % 3}", f"heat wave plate {i}") for i in range(40)]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    # Workers import crossrank from where this process does.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
    )
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    session = builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def scores(tiny_bert: Path) -> dict[str, float]:
    model = CrossEncoder(tiny_bert, precision="float32")
    return {row[0]: float(score) for row, score in zip(ROWS, model.predict([row[1:] for row in ROWS]), strict=True)}


def test_the_udf(session: Any, tiny_bert: Path, scores: dict[str, float]) -> None:
    frame = session.createDataFrame([*ROWS, ("null", None, "text")], "id string, query string, text string")
    rerank = rerank_udf(str(tiny_bert), precision="float32", num_threads=1)
    found = {row["id"]: row["score"] for row in frame.withColumn("score", rerank("query", "text")).collect()}
    assert found.pop("null") is None
    assert found == pytest.approx(scores, abs=1e-5)


def test_lists_of_documents(session: Any, tiny_bert: Path, scores: dict[str, float]) -> None:
    lists = [(row[1], [other[2] for other in ROWS if other[1] == row[1]]) for row in ROWS[:3]]
    frame = session.createDataFrame(lists, "query string, documents array<string>").repartition(2)
    ranked = rank_frame(frame, model=str(tiny_bert), precision="float32", num_threads=1, top_k=3)
    by_text = {(row[1], row[2]): scores[row[0]] for row in ROWS}
    rows = ranked.collect()
    assert len(rows) == 3
    for row in rows:
        documents = next(documents for query, documents in lists if query == row["query"])
        best = sorted((by_text[row["query"], text] for text in documents), reverse=True)[:3]
        assert row["rerank_scores"] == pytest.approx(best, abs=1e-5)
        assert [documents[i] for i in row["rerank_positions"]] == row["documents"]
        assert row["rerank_error"] is None


def test_a_missing_column(session: Any, tiny_bert: Path) -> None:
    frame = session.createDataFrame([("a", "b")], "query string, other string")
    with pytest.raises(InputError, match="No column of documents"):
        rank_frame(frame, model=str(tiny_bert))
