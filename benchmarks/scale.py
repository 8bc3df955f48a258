"""What `crossrank batch` costs besides the scoring: engines, workers, uneven rows, and inputs of growing size.

    python -m benchmarks.scale                      # everything, about five minutes on two idle cores
    python -m benchmarks.scale --parts engines      # one part

The texts are made up. Each worker has one thread.

- `engines` scores the same pairs in one process, by `crossrank batch`, on Ray with 1 and 2 workers, and on Spark. Each
  runs a small and a large input. The difference between the two is the cost of the pairs; the rest is the start.
- `skew` compares an input in which one row in a hundred is a hundred times as long with an even one of as many tokens.
- `growth` grows the input with a tiny model, so that the time goes into reading, splitting and writing.
- `memory` takes minutes more and runs only if it is named: 200,000 pairs with the bundled model, all texts different.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.checkpoint import prepared
from benchmarks.machine import in_words, machine
from benchmarks.workloads import synthetic

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scale.json"
DEFAULT = ("engines", "skew", "growth")
DOCUMENTS = 20
# One core for each worker, whatever it runs in.
ENVIRONMENT = {"PYSPARK_PYTHON": sys.executable, "RAYON_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
PACKAGES = ("crossrank", "openvino", "pyarrow", "ray", "pyspark")


def run(code: str, *arguments: object) -> dict[str, Any]:
    """Run Python code in its own process; it prints JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
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
started = time.perf_counter()
rows = pq.read_table(sys.argv[1]).to_pylist()
model.predict([(row["query"], text) for row in rows for text in row["documents"]], show_progress_bar=False)
print(json.dumps({"seconds": time.perf_counter() - started}))
"""
_BATCH = """
import json, resource, sys, time
from crossrank.batch import BatchJob, RankBatch
source, output, part_pairs, workers, model = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
rank = RankBatch(*model, num_threads=1, document_cache=0)
engine = None
if workers:
    import ray
    from crossrank.integrations.ray_data import ray_engine
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    engine = ray_engine(workers=workers)
else:
    rank.load()
started = time.perf_counter()
summary = BatchJob(source, output, rank, part_pairs=part_pairs).run(engine=engine)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "scoring": summary.seconds, "tokens": summary.tokens, "peak_mb": peak / 1e6}))
"""
_SPARK = """
import json, sys, time
from pyspark.sql import SparkSession
from crossrank.integrations.spark import rank_frame
session = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
           .config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
           .config("spark.sql.execution.arrow.maxRecordsPerBatch", "1000").getOrCreate())
session.sparkContext.setLogLevel("ERROR")
started = time.perf_counter()
frame = rank_frame(session.read.parquet(sys.argv[1]), num_threads=1, document_cache=0)
frame.write.mode("overwrite").parquet(sys.argv[2])
print(json.dumps({"seconds": time.perf_counter() - started}))
session.stop()
"""


def engines(folder: Path, queries: int, rounds: int) -> dict[str, Any]:
    """Score the same pairs with each engine, in turns.

    An input has 16 parts, so that two workers end at about the same time.
    """
    sizes = {"small": 16, "large": 16 + queries // 16 * 16}
    for name, count in sizes.items():
        pq.write_table(lists(count), folder / f"{name}.parquet", row_group_size=count // 16)
    turns = {
        "in process": lambda source, output: run(_IN_PROCESS, source),
        "batch": lambda source, output: run(_BATCH, source, output, 10**6, 0),
        "Ray, 1 worker": lambda source, output: run(_BATCH, source, output, 10**6, 1),
        "Ray, 2 workers": lambda source, output: run(_BATCH, source, output, 10**6, 2),
        "Spark, 1 task": lambda source, output: run(_SPARK, source, output),
    }
    seconds: dict[str, dict[str, list[float]]] = {name: {"small": [], "large": []} for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            for size, took in seconds[name].items():
                took.append(turn(folder / f"{size}.parquet", folder / f"{size}-{name}-{number}")["seconds"])
    pairs = (sizes["large"] - sizes["small"]) * DOCUMENTS
    rows = {}
    for name, both in seconds.items():
        small, large = (statistics.median(both[size]) for size in ("small", "large"))
        rows[name] = {"pairs_per_second": pairs / (large - small), "start_seconds": small, "seconds": both}
    base = rows["in process"]
    for row in rows.values():
        row["overhead"] = base["pairs_per_second"] / row["pairs_per_second"] - 1
        row["start_seconds"] -= sizes["small"] * DOCUMENTS / base["pairs_per_second"]
    return {"pairs": pairs, "systems": rows}


def lists(queries: int, words: int = 60, seed: int = 0) -> pa.Table:
    """Queries with twenty documents each."""
    pairs = synthetic(queries * DOCUMENTS, queries=queries, words=words, seed=seed)
    texts = [[text for _, text in pairs[start : start + DOCUMENTS]] for start in range(0, len(pairs), DOCUMENTS)]
    return pa.table({"query": [query for query, _ in pairs[::DOCUMENTS]], "documents": texts})


def skew(folder: Path, rounds: int) -> dict[str, Any]:
    """Compare even rows with rows of which one in a hundred has a hundred times the text."""
    count, chosen = 8000, random.Random(0)
    lengths = {"skewed": [300 if i % 100 == 0 else 3 for i in range(count)], "even": [6] * count}
    tokens, seconds = {}, {name: list[float]() for name in lengths}
    for name, words in lengths.items():
        texts = [f"{i} {' '.join(chosen.choices(['flow', 'wing', 'heat'], k=k))}" for i, k in enumerate(words)]
        table = pa.table({"query": [f"query {i % 7}" for i in range(count)], "text": texts})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=2000)
    for number in range(rounds):
        for name in lengths:
            answer = run(_BATCH, folder / f"{name}.parquet", folder / f"{name}-{number}", 2000, 0)
            seconds[name].append(answer["scoring"])
            tokens[name] = answer["tokens"]
    rates = {name: tokens[name] / statistics.median(took) for name, took in seconds.items()}
    return {
        "rows": count,
        "tokens": tokens,
        "tokens_per_second": rates,
        "skewed_costs": rates["even"] / rates["skewed"] - 1,
    }


def growth(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Measure microseconds a row and peak memory as the input grows, with a model that costs next to nothing.

    What a thousand rows take is the start, and is left out.
    """
    tiny = prepared("tiny", folder)
    seconds, peaks = {}, {}
    for size in [1000, *sizes]:
        source = folder / f"growth-{size}.parquet"
        schema = pa.schema([("id", pa.int64()), ("query", pa.string()), ("text", pa.string())])
        with pq.ParquetWriter(source, schema) as writer:
            for start in range(0, size, 10_000):
                numbers = range(start, min(size, start + 10_000))
                columns = [list(numbers), [f"q{i % 100}" for i in numbers], [f"wing {i}" for i in numbers]]
                writer.write_table(pa.table(columns, schema=schema))
        answer = run(_BATCH, source, folder / f"growth-out-{size}", 20_000, 0, tiny)
        source.unlink()
        seconds[size], peaks[size] = answer["seconds"], answer["peak_mb"]
    return {
        str(size): {"us_a_row": (seconds[size] - seconds[1000]) / (size - 1000) * 1e6, "peak_mb": peaks[size]}
        for size in sizes
    }


def memory(folder: Path) -> dict[str, Any]:
    """Score 200,000 pairs of different texts with the bundled model."""
    with pq.ParquetWriter(folder / "many.parquet", lists(1).schema) as writer:
        for number in range(20):
            writer.write_table(lists(500, words=8 * (1 + number % 4), seed=number))
    answer = run(_BATCH, folder / "many.parquet", folder / "many", 20_000, 0)
    return {"pairs": 200_000, "peak_mb": answer["peak_mb"], "seconds": answer["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=(*DEFAULT, "memory"), default=DEFAULT)
    parser.add_argument("--queries", type=int, default=160, help="with 20 documents each, for engines (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of engines (%(default)s); skew has two more")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows, for growth")
    parser.add_argument("--json", type=Path, default=RESULT, help="where the figures go (%(default)s)")
    args = parser.parse_args()

    facts = machine()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    results: dict[str, Any] = {"machine": facts, "versions": versions}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if "engines" in args.parts:
            results["engines"] = engines(folder, args.queries, args.rounds)
        if "skew" in args.parts:
            results["skew"] = skew(folder, args.rounds + 2)
        if "growth" in args.parts:
            results["growth"] = growth(folder, args.sizes)
        if "memory" in args.parts:
            results["memory"] = memory(folder)
    text = json.dumps(results, indent=2)
    print(text, in_words(facts), sep="\n")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
