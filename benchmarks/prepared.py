"""Prepared documents: what they save, and what their storage costs in agreement.

    python -m benchmarks.prepared speed --json benchmarks/results/prepared.json  # 100 of Cranfield's for one query
    python -m benchmarks.prepared agreement --queries 40  # nDCG@10 and Kendall tau, by collection and storage
    python -m benchmarks.prepared growth                  # made-up states: lookup as the store grows

Needs ../shared/data, but for ``growth``. Reports go to standard output, with the processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks.machine import available_cores, in_words, machine
from benchmarks.systems import ROOT
from benchmarks.throughput import PAUSE, Worker
from benchmarks.workloads import Source, read_collection
from crossrank import CrossEncoder, PreparedDocuments
from crossrank.prepared.rows import STORAGE
from crossrank.prepared.store import Store

PEER = "sentence-transformers, MiniLM-L6"
COLLECTIONS = ("cranfield", "scifact", "cosqa", "wikiqa", "xquad-en")


def chosen(source: Source, queries: int) -> list[str]:
    """Some judged queries, seeded."""
    order = sorted(query for query in source.candidates if source.qrels.get(query))
    random.Random(0).shuffle(order)
    return order[:queries]


def ndcg(grades: list[int], ideal: list[int]) -> float:
    """nDCG at 10, gains as in trec_eval."""

    def total(values: list[int]) -> float:
        return sum(value / np.log2(rank + 2) for rank, value in enumerate(values[:10]))

    return total(grades) / max(total(sorted(ideal, reverse=True)), 1e-9)


def agreement(names: list[str], queries: int, threads: int | None, storages: list[str]) -> None:
    """Print a row for each collection and storage."""
    print(f"{'collection':10} {'storage':8} {'nDCG@10':>8} {'change':>8} {'tau':>7} {'MB':>6}")
    for name in names:
        source = read_collection(name)
        asked = chosen(source, queries)
        texts = {d: source.documents[d] for query in asked for d in source.candidates[query]}
        pairs = [(source.queries[query], texts[d]) for query in asked for d in source.candidates[query]]
        ends = np.cumsum([len(source.candidates[query]) for query in asked])[:-1]
        plain = np.split(CrossEncoder(document_cache=0, num_threads=threads).score(pairs).logits[:, 0], ends)
        before = _mean_ndcg(source, asked, plain)
        print(f"{name:10} {'none':8} {before:8.4f}")
        for storage in storages:
            with tempfile.TemporaryDirectory() as folder:
                documents = PreparedDocuments(folder, storage=storage, num_threads=threads)
                documents.add(texts, texts.values())
                model = CrossEncoder(prepared=documents, document_cache=0, num_threads=threads)
                result = model.score(pairs)
                assert result.documents_prepared == result.documents
                got = np.split(result.logits[:, 0], ends)
                tau = np.mean([kendalltau(a, b).statistic for a, b in zip(plain, got, strict=True) if len(a) > 1])
                after = _mean_ndcg(source, asked, got)
                size = documents.stats()["bytes"] / 1e6
                print(f"{name:10} {storage:8} {after:8.4f} {after - before:+8.4f} {tau:7.4f} {size:6.1f}", flush=True)


def _mean_ndcg(source: Source, asked: list[str], scores: list[Any]) -> float:
    values = []
    for query, found in zip(asked, scores, strict=True):
        qrels, candidates = source.qrels[query], source.candidates[query]
        order = np.argsort(-found, kind="stable")
        values.append(ndcg([qrels.get(candidates[i], 0) for i in order], list(qrels.values())))
    return float(np.mean(values))


def speed(rounds: int) -> dict[str, Any]:
    """Measure milliseconds for 100 documents of Cranfield and one query, in turns, sentence-transformers too."""
    source = read_collection("cranfield")
    asked = chosen(source, rounds + 1)
    peer = Worker("sentence-transformers", ROOT / "build" / "benchmarks", available_cores())
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "prepared"
        texts = {d: source.documents[d] for query in asked for d in source.candidates[query][:100]}
        PreparedDocuments(stored).add(texts, texts.values())
        systems = {
            "unprepared": CrossEncoder(document_cache=0),
            "cached in memory": CrossEncoder(document_cache="1GB"),
            "prepared, pages warm": CrossEncoder(prepared=stored, document_cache=0),
            "prepared, by id": CrossEncoder(prepared=stored, document_cache=0),
            "prepared, pages dropped": CrossEncoder(prepared=stored, document_cache=0),
        }
        took: dict[str, list[float]] = {name: [] for name in (*systems, PEER)}
        taus = []
        for turn, query in enumerate(asked):
            ids = source.candidates[query][:100]
            systems["cached in memory"].score([(source.queries[query], texts[d]) for d in ids])
            # Another query on the same documents, so that its own states are read.
            other = source.queries[asked[turn - 1]]
            pairs = [(other, texts[d]) for d in ids]
            found: dict[str, Any] = {}
            for name, model in systems.items():
                if name.endswith("dropped"):
                    _drop(stored)
                began = time.perf_counter()
                found[name] = model.score_ids(other, ids) if name.endswith("by id") else model.score(pairs)
                took[name].append(1000 * (time.perf_counter() - began))
            logits = {name: result.logits[:, 0] for name, result in found.items()}
            taus.append(kendalltau(logits["unprepared"], logits["prepared, pages warm"]).statistic)
            assert all(np.abs(one - logits["unprepared"]).max() < 0.5 for one in logits.values())
            (Path(folder) / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
            time.sleep(PAUSE)
            took[PEER].append(1000 * peer.run(Path(folder) / "pairs.json")["seconds"])
            time.sleep(PAUSE)
    peer.close()
    took = {name: values[1:] for name, values in took.items()}  # the first turn warms up
    rates = {name: 100_000 / statistics.median(values) for name, values in took.items()}
    for name, values in took.items():
        print(f"{name:40} median {statistics.median(values):7.1f} ms   best {min(values):7.1f} ms")
    print(f"Kendall tau of prepared and unprepared: {np.mean(taus):.4f}")
    labels = {
        "unprepared": "crossrank, bundled model",
        "cached in memory": "crossrank, bundled model, cached",
        "prepared, pages warm": "crossrank, bundled model, prepared",
    }
    return {
        "rounds": rounds,
        "tokens": found["unprepared"].tokens / 100,
        "tau": float(np.mean(taus)),
        "milliseconds": took,
        "pairs_per_second": rates,
        "chart": {label: rates[name] for name, label in labels.items()},
    }


def _drop(folder: Path) -> None:
    """Ask the system to forget what it has of the files; pages that are mapped may stay."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


# A reader in a process of its own: it opens the folder, finds 100 documents twenty times, and prints its memory.
_READER = """
import random, statistics, sys, time
from pathlib import Path
from crossrank.prepared.store import Store
def private():  # without the pages of files, which the system may take back
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1e3
before, began = private(), time.perf_counter()
store, took = Store(Path(sys.argv[1])), []
opened = 1000 * (time.perf_counter() - began)
for seed in range(20):
    numbers = random.Random(seed).sample(range(int(sys.argv[2])), 100)
    began = time.perf_counter()
    assert all(store.data(store.by_id(f"d{i}")) for i in numbers)
    took.append(1000 * (time.perf_counter() - began))
print(f"opened in {opened:.0f} ms   100 found in {statistics.median(took):.2f} ms   "
      f"{private() - before:.1f} MB of its own")
"""


def growth(sizes: list[int]) -> None:
    """Print what finding 100 documents costs as a store of made-up documents grows; their states are 1 kB each."""
    data = bytes(range(256)) * 4
    meta = {"identity": "made", "precision": "float32", "max_length": "512", "hidden": "384", "storage": "int8"}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder), {**meta, "model": "made-up"})
        there = 0
        for size in sizes:
            began = time.perf_counter()
            while there < size:
                group = range(there, min(there + 20_000, size))
                with store.writer() as writer:
                    writer.add([(f"d{i}", hashlib.md5(b"%d" % i).digest(), 2, 0, data) for i in group])
                there = group.stop
            wrote = time.perf_counter() - began
            store.refresh()
            disk = store.stats()["bytes_on_disk"] / 1e6
            reader = [sys.executable, "-c", _READER, folder, str(size)]
            found = subprocess.run(reader, capture_output=True, text=True, check=True).stdout.strip()
            print(f"{size:9} documents   {disk:8.1f} MB   written in {wrote:.1f} s   {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "agreement", "growth"))
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--collections", nargs="+", default=list(COLLECTIONS))
    parser.add_argument("--storage", nargs="+", choices=STORAGE, default=list(STORAGE))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=12, help="queries that speed counts (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures of speed here")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    if args.what == "speed":
        versions = {name: metadata.version(name) for name in ("crossrank", "openvino")}
        figures = {"machine": machine(), "versions": versions, **speed(args.rounds)}
        print(in_words(machine()))
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    elif args.what == "agreement":
        print(in_words(machine()))
        agreement(args.collections, args.queries, args.threads, args.storage)
    else:
        growth(args.sizes)


if __name__ == "__main__":
    main()
