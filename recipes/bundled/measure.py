"""nDCG@10 of a model on test collections, beside BM25 and the bi-encoder's cosine; and the calibration of its score."""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG

from crossrank import CrossEncoder

COLLECTIONS = ("cranfield", "scifact", "cosqa", "wikiqa", "xquad-en")


@dataclass(frozen=True)
class Collection:
    """Texts, the first stage's candidates in its order, and judgements."""

    queries: dict[str, str]
    documents: dict[str, str]
    candidates: dict[str, list[str]]
    qrels: list[ir_measures.Qrel]


def read(folder: Path, most_queries: int | None = None) -> Collection:
    """A collection in BEIR's layout with ``candidates.tsv``."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    documents = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    excluded: set[tuple[str, str]] = set()
    if (folder / "source_documents.tsv").is_file():
        excluded = {(row[0], row[1]) for row in _tsv(folder / "source_documents.tsv")}
    qrels = [ir_measures.Qrel(row[0], row[1], int(row[2])) for row in _tsv(folder / "qrels" / "test.tsv")]
    judged = sorted({qrel.query_id for qrel in qrels} & set(queries))
    if most_queries is not None and len(judged) > most_queries:
        judged = sorted(np.random.default_rng(1).permutation(judged)[:most_queries].tolist())
    chosen = set(judged)
    candidates: dict[str, list[str]] = {query: [] for query in judged}
    for query, document, *_ in _tsv(folder / "candidates.tsv"):
        if query in chosen and (query, document) not in excluded:
            candidates[query].append(document)
    return Collection(queries, documents, candidates, [qrel for qrel in qrels if qrel.query_id in chosen])


def _tsv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def ndcg(collection: Collection, scores: Callable[[str, list[str]], np.ndarray]) -> np.ndarray:
    """nDCG@10 of each query, a query without candidates counting 0."""
    run = [
        ir_measures.ScoredDoc(query, document, float(score))
        for query, documents in collection.candidates.items()
        if documents
        for document, score in zip(documents, _strict(scores(query, documents)), strict=True)
    ]
    by_query = {m.query_id: m.value for m in ir_measures.iter_calc([nDCG @ 10], collection.qrels, run)}
    return np.array([by_query.get(query, 0.0) for query in collection.candidates])


def _strict(scores: np.ndarray) -> np.ndarray:
    """Ranks as scores, so that ties are broken by the candidates' order and not by the tool's own rule."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = -np.arange(len(scores))
    return ranks


def interval(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % of the means of resampled queries (percentile bootstrap)."""
    random = np.random.default_rng(0)
    means = values[random.integers(0, len(values), (draws, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def model_scores(collection: Collection, model: CrossEncoder) -> Callable[[str, list[str]], np.ndarray]:
    """All pairs in one call: a document that many queries share is read once for each group of them."""
    pairs = [(query, document) for query, documents in collection.candidates.items() for document in documents]
    result = model.score([(collection.queries[q], collection.documents[d]) for q, d in pairs])
    table = defaultdict(dict)
    for (query, document), logit in zip(pairs, result.logits[:, 0], strict=True):
        table[query][document] = float(logit)
    return lambda query, documents: np.array([table[query][document] for document in documents])


def cosine_scores(collection: Collection, folder: Path) -> Callable[[str, list[str]], np.ndarray]:
    """The bi-encoder's cosine."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(folder), device="cpu")
    names = sorted({document for documents in collection.candidates.values() for document in documents})
    options = {"normalize_embeddings": True, "batch_size": 32, "show_progress_bar": False}
    d = dict(zip(names, encoder.encode([collection.documents[name] for name in names], **options), strict=True))
    asked = list(collection.candidates)
    q = dict(zip(asked, encoder.encode([collection.queries[name] for name in asked], **options), strict=True))
    return lambda query, documents: np.array([q[query] @ d[document] for document in documents])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--model", help="folder or name; by default the bundled model")
    parser.add_argument("--body", type=Path, help="also measure the cosine of this bi-encoder")
    parser.add_argument("--collections", nargs="+", default=COLLECTIONS)
    parser.add_argument("--queries", type=int, help="at most so many queries of each collection")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    model = CrossEncoder(args.model, precision=args.precision)
    figures = {}
    for name in args.collections:
        collection = read(args.data / name, args.queries)
        systems = {
            "BM25": lambda _query, documents: -np.arange(len(documents), dtype=float),
            "crossrank": model_scores(collection, model),
        }
        if args.body is not None:
            systems["cosine"] = cosine_scores(collection, args.body)
        row = {}
        for system, scores in systems.items():
            values = ndcg(collection, scores)
            row[system] = {"ndcg@10": float(values.mean()), "interval": interval(values), "queries": len(values)}
        figures[name] = row
        shown = "  ".join(
            f"{system} {one['ndcg@10']:.3f} ({one['interval'][0]:.3f} to {one['interval'][1]:.3f})"
            for system, one in row.items()
        )
        print(f"{name:10s} {shown}", flush=True)
    print(f"mean       {np.mean([row['crossrank']['ndcg@10'] for row in figures.values()]):.4f}")
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
