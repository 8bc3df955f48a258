"""The bundled guard set: general queries that show whether a model got worse outside its training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossrank.data.dataset import Dataset
from crossrank.data.text_lines import numbered, record

FILE = Path(__file__).parent / "guard" / "guard.jsonl.gz"
NAME = "the guard set"


def load_guard() -> Dataset:
    """Read the guard set. Its README lists the sources of the texts."""
    rows = [record(place, line) for place, line in numbered(FILE)]
    documents = {str(row["document"]): row["text"] for row in rows if "document" in row}
    queries = {f"g{number}": row for number, row in enumerate((row for row in rows if "query" in row), start=1)}
    dataset = Dataset.from_dicts(
        {name: row["query"] for name, row in queries.items()},
        documents,
        {name: {str(row["positive"]): 1} for name, row in queries.items()},
        candidates={name: row["candidates"] for name, row in queries.items()},
        name=NAME,
    )
    return replace(dataset, first_stage="BM25")
