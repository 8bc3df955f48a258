"""What reading long documents in windows saves of a ranking: short texts, hidden inside long ones.

Each candidate of a query, the relevant one among them, is put at a random place between paragraphs that answer other
queries. Printed is nDCG@10 of every way to read the result, beside what the short texts alone score.

    python -m benchmarks.long_documents --queries 50 --candidates 20
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ir_measures

from benchmarks.workloads import DATA, read_collection
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.long_documents import LongDocuments, score_long

SETTINGS = {
    "truncate": LongDocuments("truncate"),
    "first": LongDocuments("first"),
    "max": LongDocuments("max"),
    "mean_top_k (k=3)": LongDocuments("mean_top_k"),
}
MORE = {
    "max, windows of 256": LongDocuments("max", window=256),
    "max, windows of 128": LongDocuments("max", window=128),
    "mean_top_k, windows of 256": LongDocuments("mean_top_k", window=256),
    "max, no overlap": LongDocuments("max", overlap=0),
    "max, overlap of 128": LongDocuments("max", overlap=128),
    "max, at most 2 windows": LongDocuments("max", max_windows=2),
}


@dataclass(frozen=True)
class Case:
    """A query and its candidates; ``hidden`` are the same ones, long."""

    query_id: str
    query: str
    ids: Sequence[str]
    short: Sequence[str]
    hidden: Sequence[str]
    # Where each short text stands in its long one.
    places: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Collection:
    cases: Sequence[Case]
    qrels: dict[str, dict[str, int]]


def make(
    name: str, queries: int, candidates: int, *, words: int = 1500, data: Path = DATA, seed: int = 0
) -> Collection:
    """Hide the candidates of some queries in paragraphs that no candidate of the query is.

    :param words: About how long the long documents are; where the short text stands in it is drawn evenly.
    """
    source = read_collection(name, data)
    chosen = random.Random(seed)
    judged = [query for query in sorted(source.candidates) if max(source.qrels.get(query, {"": 0}).values()) > 0]
    cases = []
    for query in chosen.sample(judged, min(queries, len(judged))):
        ids = source.candidates[query][:candidates]
        others = sorted(set(source.documents) - set(source.candidates[query]) - set(source.qrels[query]))
        texts = [_hide(source.documents[i], [source.documents[o] for o in others], words, chosen) for i in ids]
        hidden, places = zip(*texts, strict=True)
        short = [source.documents[i] for i in ids]
        cases.append(Case(query, source.queries[query], ids, short, hidden, places))
    return Collection(cases, {case.query_id: source.qrels[case.query_id] for case in cases})


def _hide(text: str, others: Sequence[str], words: int, chosen: random.Random) -> tuple[str, tuple[int, int]]:
    around: list[str] = []
    while sum(len(other.split()) for other in around) < words:
        around.append(chosen.choice(others))
    before = around[: chosen.randint(0, len(around))]
    start = len("\n\n".join([*before, ""]))
    return "\n\n".join([*before, text, *around[len(before) :]]), (start, start + len(text))


def ndcg(collection: Collection, run: dict[str, dict[str, float]]) -> float:
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], collection.qrels, run)[ir_measures.nDCG @ 10])


def rank_short(model: CrossEncoder, collection: Collection) -> float:
    """nDCG@10 with the short texts alone."""
    pairs = [(case.query, text) for case in collection.cases for text in case.short]
    return ndcg(collection, _run(collection, model.score(pairs).relevance))


def rank_hidden(model: CrossEncoder, collection: Collection, settings: LongDocuments) -> dict[str, float]:
    """nDCG@10 with the long texts, what was read, and how often a relevant document's passage overlaps the text."""
    pairs = [(case.query, text) for case in collection.cases for text in case.hidden]
    result = score_long(model, pairs, settings)
    places = [place for case in collection.cases for place in case.places]
    relevant = [collection.qrels[case.query_id].get(i, 0) > 0 for case in collection.cases for i in case.ids]
    found = [
        min(end, stop) - max(start, begin) >= (stop - begin) / 2
        for (start, end), (begin, stop), counts in zip(result.passages, places, relevant, strict=True)
        if counts
    ]
    return {
        "ndcg": ndcg(collection, _run(collection, result.relevance)),
        "passage_found": sum(found) / max(1, len(found)),
        "windows": int(result.windows.sum()),
        "left_out": int(result.windows_left_out.sum()),
        "tokens": result.tokens,
        "seconds": result.seconds,
    }


def _run(collection: Collection, relevance: Sequence[float]) -> dict[str, dict[str, float]]:
    scores = iter(relevance)
    return {case.query_id: {i: float(next(scores)) for i in case.ids} for case in collection.cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", default="xquad-en", choices=("xquad-en", "wikiqa"))
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--words", type=int, default=1500, help="of a long document (default: 1500)")
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--more", action="store_true", help="other windows, overlaps and limits too")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    collection = make(args.collection, args.queries, args.candidates, words=args.words, data=args.data)
    model = CrossEncoder(args.model)
    short = rank_short(model, collection)
    print(
        f"{args.collection}: {len(collection.cases)} queries, {args.candidates} candidates, {args.words} words around"
    )
    print("| read | nDCG@10 | of the loss regained | passage found | windows | left out | tokens |")
    print("|---|---|---|---|---|---|---|")
    print(f"| the short texts alone | {short:.3f} | | | | | |")
    figures: dict[str, object] = {"short": short}
    base = None
    for name, settings in {**SETTINGS, **(MORE if args.more else {})}.items():
        row = rank_hidden(model, collection, settings)
        base = row["ndcg"] if base is None else base
        regained = (row["ndcg"] - base) / (short - base) if short > base else float("nan")
        cells = [f"{row['ndcg']:.3f}", f"{regained:.0%}", f"{row['passage_found']:.0%}"]
        print(
            "|",
            " | ".join([name, *cells, *(str(row[key]) for key in ("windows", "left_out", "tokens"))]),
            "|",
            flush=True,
        )
        figures[name] = {**row, "regained": regained}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
