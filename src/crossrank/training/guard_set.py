"""The guard set that comes with crossrank: general queries, to see that a model has not forgotten how to rank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossrank.data.corpus import MemoryCorpus
from crossrank.data.dataset import Dataset, assemble
from crossrank.data.text_lines import Notes, Place, numbered, record
from crossrank.data.trec import RunRow

FILE = Path(__file__).parent / "guard" / "guard.jsonl.gz"
NAME = "the guard set"


def load_guard() -> Dataset:
    """Read it; its README says where the texts are from."""
    documents: dict[str, str] = {}
    queries: dict[str, tuple[Place, Mapping[str, Any]]] = {}
    for place, line in numbered(FILE):
        row = record(place, line)
        if "document" in row:
            documents[str(row["document"])] = row["text"]
        else:
            queries[f"g{len(queries) + 1}"] = (place, row)
    rows = [
        RunRow(place, name, str(document), rank, -float(rank))
        for name, (place, row) in queries.items()
        for rank, document in enumerate(row["candidates"], start=1)
    ]
    qrels = {name: {str(row["positive"]): 1} for name, (_, row) in queries.items()}
    places = {name: place for name, (place, _) in queries.items()}
    texts = {name: row["query"] for name, (_, row) in queries.items()}
    return assemble(
        NAME, texts, MemoryCorpus(documents), (qrels, places, FILE), Notes(), rows=(rows, FILE), first_stage="BM25"
    )
