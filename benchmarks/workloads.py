"""What is scored: pairs of a query and a document, from the test collections or made up. Standard library only."""

from __future__ import annotations

import csv
import json
import random
from itertools import groupby
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
COLLECTIONS = ("cranfield", "wikiqa")
PAIRS = 1600

Pair = tuple[str, str]

_TEXT = (
    "boundary layer flow pressure wing model heat transfer surface theory method results experiments number plate "
    "supersonic velocity mach laminar turbulent temperature equations solution effects shock wave body cylinder "
    "stability analysis nozzle drag ratio friction coefficient angle attack distribution stress buckling shell "
    "panel flutter jet stream gas the of and in a to is for with on at by from are was be this that an which it as "
    "has been were also between"
)


def collection(name: str, pairs: int, data: Path = DATA) -> list[Pair]:
    """The first ``pairs`` of a collection's candidates, whole queries together, the queries in a seeded order.

    :raises SystemExit: If the collection is not there.
    """
    folder = data / name
    if not (folder / "candidates.tsv").is_file():
        raise SystemExit(
            f"{folder} is missing: candidates.tsv, corpus.jsonl and queries.jsonl (BEIR's layout) are read from there. "
            "Name the folder of the collections with --data, or run on made-up texts with --synthetic."
        )
    documents = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in _lines(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")}
    with (folder / "candidates.tsv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    candidates = {query: [row[1] for row in group] for query, group in groupby(rows, key=lambda row: row[0])}
    order = sorted(candidates)
    random.Random(0).shuffle(order)
    found = dict.fromkeys((queries[query], documents[document]) for query in order for document in candidates[query])
    return list(found)[:pairs]


def synthetic(pairs: int, *, queries: int = 4, words: int = 60, seed: int = 0) -> list[Pair]:
    """Made-up pairs: documents of ``words / 4`` to ``words * 7 / 4`` words, as many for each query."""
    chosen, vocabulary = random.Random(seed), _TEXT.split()
    asked = [" ".join(chosen.choices(vocabulary, k=8)) for _ in range(queries)]
    lengths = [chosen.randint(words // 4, words * 7 // 4) for _ in range(pairs)]
    return [(asked[i * queries // pairs], " ".join(chosen.choices(vocabulary, k=k))) for i, k in enumerate(lengths)]


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
