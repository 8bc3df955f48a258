"""What is scored: pairs of a query and a document, from the test collections or made up. Standard library only."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Source:
    """A test collection: texts by id, candidates by query, best first, and grades."""

    documents: dict[str, str]
    queries: dict[str, str]
    candidates: dict[str, list[str]]
    qrels: dict[str, dict[str, int]]


def read_collection(name: str, data: Path = DATA) -> Source:
    """Read a collection.

    :raises SystemExit: If it is not there.
    """
    folder = data / name
    if not (folder / "candidates.tsv").is_file():
        raise SystemExit(
            f"{folder} is missing: candidates.tsv, corpus.jsonl and queries.jsonl (BEIR's layout) are read from there. "
            "Name the folder of the collections with --data, or run on made-up texts with --synthetic."
        )
    candidates: dict[str, list[str]] = {}
    for query, document, *_ in _rows(folder / "candidates.tsv"):
        candidates.setdefault(query, []).append(document)
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade in _rows(folder / "qrels" / "test.tsv"):
        qrels.setdefault(query, {})[document] = int(grade)
    return Source(
        {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in _lines(folder / "corpus.jsonl")},
        {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")},
        candidates,
        qrels,
    )


def collection(name: str, pairs: int, data: Path = DATA) -> list[Pair]:
    """The first ``pairs`` of a collection's candidates, whole queries together, the queries in a seeded order.

    :raises SystemExit: If the collection is not there.
    """
    source = read_collection(name, data)
    order = sorted(source.candidates)
    random.Random(0).shuffle(order)
    found = dict.fromkeys(
        (source.queries[query], source.documents[document]) for query in order for document in source.candidates[query]
    )
    return list(found)[:pairs]


def workloads(made_up: bool, pairs: int, data: Path) -> dict[str, list[Pair]]:
    """The pairs of each workload, by name: made up, or of the collections."""
    if made_up:
        return {"synthetic": synthetic(pairs)}
    return {name: collection(name, pairs, data) for name in COLLECTIONS}


def synthetic(pairs: int, *, queries: int = 4, words: int = 60, seed: int = 0) -> list[Pair]:
    """Made-up pairs: documents of ``words / 4`` to ``words * 7 / 4`` words, as many for each query."""
    chosen, vocabulary = random.Random(seed), _TEXT.split()
    asked = [" ".join(chosen.choices(vocabulary, k=8)) for _ in range(queries)]
    lengths = [chosen.randint(words // 4, words * 7 // 4) for _ in range(pairs)]
    return [(asked[i * queries // pairs], " ".join(chosen.choices(vocabulary, k=k))) for i, k in enumerate(lengths)]


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
