"""How long one query takes: fresh queries, one after the other, as an application sends them.

    python -m benchmarks.latency                      # needs ../shared/data and .bench-venv: `make bench`
    python -m benchmarks.latency --synthetic --queries 8 --systems crossrank

Each system has a process of its own; only one works at a time. A turn is a number of queries with 1, 9, 20 or 100
documents that the system has not seen, so that texts and shapes are new. Then the same queries come again. The first
query of a process is reported by itself. A steady system answers fresh queries as fast as repeated ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workloads
from benchmarks.checkpoint import prepared
from benchmarks.machine import available_cores, in_words, machine
from benchmarks.systems import PEERS, ROOT, SYSTEMS
from benchmarks.workloads import Pair

DOCUMENTS = (1, 9, 20, 100)
DEFAULT = (
    "crossrank bundled",
    "crossrank",
    "sentence-transformers",
    "sentence-transformers OpenVINO",
    "FlashRank int8",
)
# Queries in the first second of a process warm it up: they count as such.
WARM_UP_SECONDS = 1.0


def queries_of(name: str, data: Path, documents: int, queries: int) -> list[list[Pair]]:
    """Queries of a collection with their first candidates, in a seeded order; none has fewer than ``documents``."""
    grouped: dict[str, list[Pair]] = {}
    for pair in workloads.collection(name, 10**9, data):
        grouped.setdefault(pair[0], []).append(pair)
    flat = [pairs for pairs in grouped.values() if len(pairs) >= min(documents, 20)]
    if documents <= 20:
        return [pairs[:documents] for pairs in flat[:queries]]
    # Collections of few candidates (WikiQA's sentences): documents of several queries make one list.
    everything = [pair[1] for pairs in flat for pair in pairs]
    texts = list(dict.fromkeys(everything))
    starts = np.linspace(0, max(0, len(texts) - documents), min(queries, len(flat))).astype(int)
    return [
        [(pairs[0][0], text) for text in texts[at : at + documents]] for pairs, at in zip(flat, starts, strict=False)
    ]


def synthetic_queries(documents: int, queries: int) -> list[list[Pair]]:
    """Made-up queries with documents of 10 to 70 words."""
    return [workloads.synthetic(documents, queries=1, words=40, seed=1000 * documents + i) for i in range(queries)]


def worker(name: str, model: str, threads: int, work: Path) -> None:
    """Load a system, warm it up, time each query twice, and print the seconds as JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sizes: dict[str, list[list[Pair]]] = json.loads(work.read_text(encoding="utf-8"))
    score, facts = SYSTEMS[name].open(Path(model), threads)

    def timed(pairs: list[Pair]) -> float:
        started = time.perf_counter()
        score([tuple(pair) for pair in pairs])
        return time.perf_counter() - started

    smallest = next(iter(sizes.values()))
    first = timed(smallest[0])
    turns = {}
    for size, lists in sizes.items():
        begun = time.perf_counter()
        warm = 0
        while time.perf_counter() - begun < WARM_UP_SECONDS and warm < len(lists) // 2:
            timed(lists[warm])
            warm += 1
        fresh = [timed(pairs) for pairs in lists[warm:]]
        again = [timed(pairs) for pairs in lists[warm:]]
        turns[size] = {"fresh": fresh, "again": again}
    answers.write(json.dumps({"first": first, "facts": facts, "turns": turns}))
    answers.flush()


def row(turn: dict[str, list[float]]) -> dict[str, float]:
    """Milliseconds at the median and at 95 %, and how much slower a fresh query is than the same one again."""
    fresh, again = np.array(turn["fresh"]) * 1e3, np.array(turn["again"]) * 1e3
    return {
        "queries": len(fresh),
        "p50": float(np.median(fresh)),
        "p95": float(np.quantile(fresh, 0.95)),
        "again_p50": float(np.median(again)),
        "fresh_over_again": float(np.median(fresh) / np.median(again)),
    }


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=workloads.DATA, help="folder of the collections")
    parser.add_argument("--synthetic", action="store_true", help="made-up texts instead of the collections")
    parser.add_argument("--queries", type=int, default=40, help="queries of each size (%(default)s)")
    parser.add_argument("--documents", type=int, nargs="+", default=DOCUMENTS, help="documents of a query")
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, default=DEFAULT, metavar="NAME", help=", ".join(SYSTEMS)
    )
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each (%(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="where checkpoints are kept")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    names = ("synthetic",) if args.synthetic else workloads.COLLECTIONS
    results: dict[str, dict[str, Any]] = {}
    for collection in names:
        work = args.folder / f"latency-{collection}.json"
        sizes = {
            str(n): synthetic_queries(n, args.queries)
            if args.synthetic
            else queries_of(collection, args.data, n, args.queries)
            for n in args.documents
        }
        work.write_text(json.dumps(sizes), encoding="utf-8")
        for name in args.systems:
            system = SYSTEMS[name]
            for kind in system.kinds:
                model = prepared(kind, args.folder, PEERS if kind in ("openvino", "onnx-int8") else None)
            command = [str(system.python), "-m", "benchmarks.latency", "--worker", name, str(model), str(args.threads)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
            done = subprocess.run(
                [*command, str(work)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            answer = json.loads(done.stdout)
            rows = {size: row(turn) for size, turn in answer["turns"].items()}
            results.setdefault(collection, {})[name] = {
                "first_ms": answer["first"] * 1e3,
                "sizes": rows,
                **answer["facts"],
            }
    report(args, results)


def report(args: argparse.Namespace, results: dict[str, dict[str, Any]]) -> None:
    """Print a table for each collection, and write the figures."""
    for collection, systems in results.items():
        head = [f"{size} documents: p50 / p95 ms, fresh over repeated" for size in args.documents]
        print(f"\n| {collection} | first ms | {' | '.join(head)} |\n|---|---:|{'---|' * len(head)}")
        for name, one in systems.items():
            cells = [f"{r['p50']:.1f} / {r['p95']:.1f}, {r['fresh_over_again']:.2f}" for r in one["sizes"].values()]
            print(f"| {name} | {one['first_ms']:.0f} | {' | '.join(cells)} |")
    facts = machine()
    print(f"\n{args.threads} threads each. {in_words(facts)}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": facts, "threads": args.threads, "results": results}
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
