"""What `crossrank batch` costs beside the scoring itself: engines, workers, skewed rows, and inputs of growing size.

    python -m benchmarks.scale                      # all of it, about ten minutes on two cores
    python -m benchmarks.scale --parts engines      # one part

All texts are made up. `engines` compares the same pairs scored in process, by `crossrank batch`, by Ray with 1 and 2
workers, and by Spark; each worker has one thread. `skew` compares an input in which one row in a hundred is a hundred
times as long with an even one of as many tokens. `growth` grows the input with a tiny model, so that the time is what
reading, cutting and writing cost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import in_words, machine
from benchmarks.systems import ROOT
from benchmarks.workloads import synthetic

PARTS = ("engines", "skew", "growth")
DOCUMENTS = 20


def lists(queries: int, words: int = 60) -> pa.Table:
    """Queries with twenty documents each."""
    pairs = synthetic(queries * DOCUMENTS, queries=queries, words=words)
    return pa.table(
        {
            "id": [f"{i}" for i in range(queries)],
            "query": [pairs[i * DOCUMENTS][0] for i in range(queries)],
            "documents": [[text for _, text in pairs[i * DOCUMENTS : (i + 1) * DOCUMENTS]] for i in range(queries)],
        }
    )


def run(code: str, *arguments: str) -> dict[str, Any]:
    """A process of its own that prints JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{code}\nended with {done.returncode}:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


_IN_PROCESS = """
import json, sys, time
import pyarrow.parquet as pq
from crossrank import CrossEncoder
model = CrossEncoder(num_threads=1, document_cache=0).load()
rows = pq.read_table(sys.argv[1]).to_pylist()
pairs = [(row["query"], text) for row in rows for text in row["documents"]]
model.predict(pairs[:20])
started = time.perf_counter()
model.predict(pairs, show_progress_bar=False)
print(json.dumps({"seconds": time.perf_counter() - started, "pairs": len(pairs)}))
"""
_BATCH = """
import json, resource, sys, time
from crossrank.batch import BatchJob, RankBatch
source, output, engine, workers, pairs = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
rank = RankBatch(num_threads=1, document_cache=0) if len(sys.argv) < 7 else RankBatch(sys.argv[6], num_threads=1)
chosen = None
if engine == "ray":
    import ray
    from crossrank.integrations.ray_data import ray_engine
    ray.init(num_cpus=max(2, workers), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    chosen = ray_engine(workers=workers)
else:
    rank.load()
started = time.perf_counter()
summary = BatchJob(source, output, rank, part_pairs=pairs).run(engine=chosen)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - started, "scoring": summary.seconds, "pairs": summary.pairs,
                  "peak_mb": peak * (1 if sys.platform == "darwin" else 1024) / 1e6}))
"""
_SPARK = """
import json, sys, time
from pyspark.sql import SparkSession
from crossrank.integrations.spark import rank_frame
session = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
           .config("spark.sql.execution.arrow.maxRecordsPerBatch", "1000").getOrCreate())
session.sparkContext.setLogLevel("ERROR")
frame = session.read.parquet(sys.argv[1])
rank_frame(frame.limit(1), num_threads=1, document_cache=0).collect()
started = time.perf_counter()
rank_frame(frame, num_threads=1, document_cache=0).write.mode("overwrite").parquet(sys.argv[2])
print(json.dumps({"seconds": time.perf_counter() - started}))
session.stop()
"""


def engines(folder: Path, queries: int, rounds: int) -> dict[str, Any]:
    """The same pairs through each engine, in turns: seconds, and over those in process."""
    source = folder / "lists.parquet"
    pq.write_table(lists(queries), source, row_group_size=max(1, queries // 8))
    pairs = str(queries * DOCUMENTS // 8)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds):
        target = folder / f"out-{number}"
        turns = {
            "in process": lambda: run(_IN_PROCESS, str(source)),
            "batch, local": lambda t=target: run(_BATCH, str(source), f"{t}-local", "local", "1", pairs),
            "batch, Ray, 1 worker": lambda t=target: run(_BATCH, str(source), f"{t}-ray1", "ray", "1", pairs),
            "batch, Ray, 2 workers": lambda t=target: run(_BATCH, str(source), f"{t}-ray2", "ray", "2", pairs),
            "Spark, 1 task": lambda t=target: run(_SPARK, str(source), f"{t}-spark"),
        }
        for name, turn in turns.items():
            seconds.setdefault(name, []).append(turn()["seconds"])
    base = statistics.median(seconds["in process"])
    count = queries * DOCUMENTS
    return {
        name: {
            "seconds": statistics.median(took),
            "pairs_per_second": count / statistics.median(took),
            "over_in_process": statistics.median(took) / base - 1,
        }
        for name, took in seconds.items()
    }


def skew(folder: Path, rounds: int) -> dict[str, Any]:
    """Even rows, and rows of which one in a hundred is a hundred times as long; as many tokens are read of both."""
    chosen = random.Random(0)
    short, long = "flow wing heat", " ".join(["flow wing heat"] * 100)
    # What is beyond the model's 449 tokens is cut, so both inputs are compared by the tokens that are read.
    texts = {"skewed": [long if i % 100 == 0 else short for i in range(4000)]}
    read = sum(min(449, text.count(" ") + 1) for text in texts["skewed"])
    each = max(1, read // 4000)
    texts["even"] = [" ".join(chosen.choices(["flow", "wing", "heat"], k=each)) for _ in range(4000)]
    seconds: dict[str, list[float]] = {name: [] for name in texts}
    tokens = {}
    for name, rows in texts.items():
        table = pa.table(
            {"query": [f"query {i % 7}" for i in range(4000)], "text": [f"{i} {row}" for i, row in enumerate(rows)]}
        )
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=1000)
    for number in range(rounds):
        for name in texts:
            output = folder / f"{name}-{number}"
            answer = run(_BATCH, str(folder / f"{name}.parquet"), str(output), "local", "1", "1000")
            seconds[name].append(answer["scoring"])
            records = [json.loads(path.read_text()) for path in (output / "_parts").glob("*.json")]
            tokens[name] = sum(record["tokens"] for record in records)
    rates = {name: tokens[name] / statistics.median(took) for name, took in seconds.items()}
    return {"tokens": tokens, "tokens_per_second": rates, "skewed_costs": rates["even"] / rates["skewed"] - 1}


def growth(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Microseconds a row and peak memory as the input grows, with a model that costs next to nothing."""
    from benchmarks.checkpoint import prepared

    tiny = prepared("tiny", folder)
    rows = {}
    for size in sizes:
        source = folder / f"growth-{size}.parquet"
        with pq.ParquetWriter(
            source, pa.schema([("id", pa.string()), ("query", pa.string()), ("text", pa.string())])
        ) as w:
            for start in range(0, size, 10_000):
                part = range(start, min(size, start + 10_000))
                w.write_table(
                    pa.table(
                        {"id": [f"{i}" for i in part], "query": ["q"] * len(part), "text": [f"wing {i}" for i in part]}
                    )
                )
        answer = run(_BATCH, str(source), str(folder / f"growth-out-{size}"), "local", "1", "20000", str(tiny))
        rows[str(size)] = {"us_a_row": answer["seconds"] / size * 1e6, "peak_mb": answer["peak_mb"]}
        source.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--queries", type=int, default=400, help="with 20 documents each, for the engines (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows of the growth")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks" / f"scale-{time.time_ns()}")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if "engines" in args.parts:
        results["engines"] = engines(args.folder, args.queries, args.rounds)
    if "skew" in args.parts:
        results["skew"] = skew(args.folder, args.rounds)
    if "growth" in args.parts:
        results["growth"] = growth(args.folder, args.sizes)
    facts = machine()
    print(json.dumps(results, indent=2))
    print(in_words(facts))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": facts, **results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
