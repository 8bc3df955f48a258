"""Pairs a second, ours and other libraries' in turns: same weights, same pairs, scores compared.

    python -m benchmarks.throughput                     # needs ../shared/data and .bench-venv: `make bench`
    python -m benchmarks.throughput --synthetic --pairs 64 --systems crossrank sentence-transformers

Each system has a process of its own that stays; only one works at a time, all on the same number of threads. A round
is one turn of each, so that a slow minute of the machine strikes all; the first round warms up and does not count. A
turn is one call with all pairs of the workload: ``predict`` with its default batches (32 pairs in
sentence-transformers), ``rerank_pairs`` in fastembed (64), and query by query in FlashRank and infinity, which have no
other way. Loading is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from tokenizers import Tokenizer

from benchmarks import workloads
from benchmarks.checkpoint import prepared
from benchmarks.machine import available_cores, in_words, machine
from benchmarks.systems import DEFAULT, PEERS, ROOT, SYSTEMS
from benchmarks.workloads import Pair

REFERENCE = "sentence-transformers"
# Thread pools spin for a moment after their work; the next turn starts when they sleep.
PAUSE = 0.5
# Cores that a waiting worker may use before we say so.
MOST_IDLE = 0.02

Turn = dict[str, Any]


class WorkerError(Exception):
    """A system that can't be loaded, or that died."""


class Worker:
    """The process of one system."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        system = SYSTEMS[name]
        if not system.python.exists():
            raise WorkerError(
                f"{system.python.parents[1].name} is missing: `make bench` makes .bench-venv, and benchmarks/server.py "
                "says how to make .bench-infinity"
            )
        try:
            for kind in system.kinds:
                model = prepared(kind, folder, PEERS if kind in ("openvino", "onnx-int8") else None)
        except RuntimeError as error:
            raise WorkerError(str(error)) from error
        self.name = name
        self.log = (folder / f"{name.replace(' ', '-')}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [str(system.python), "-m", "benchmarks.systems", name, str(model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"},
        )
        try:
            self.facts = self._read()
        except WorkerError:
            self.close()
            raise
        self.waiting_since = time.perf_counter()

    def run(self, pairs: Path) -> Turn:
        """One turn: seconds, scores, and what it used while it waited for this turn, in cores."""
        waited = time.perf_counter() - self.waiting_since
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(str(pairs)) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        self.waiting_since = time.perf_counter()
        return {**answer, "idle_cores": answer["idle_cpu"] / waited}

    def close(self) -> None:
        """End the process, which may have ended by itself."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.log.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        ended = {"error": f"it ended by itself; see {self.log.name}"}
        answer = json.loads(line) if line else ended
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


def take_turns(workers: list[Worker], pairs: Path, rounds: int) -> tuple[dict[str, list[Turn]], dict[str, str]]:
    """The turns of each worker after the warm-up, and why some have none."""
    turns: dict[str, list[Turn]] = {worker.name: [] for worker in workers}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for worker in workers:
            if worker.name in failed:
                continue
            time.sleep(PAUSE)
            try:
                turn = worker.run(pairs)
            except (WorkerError, BrokenPipeError) as error:
                failed[worker.name] = str(error)
                continue
            say(f"  round {number or 'to warm up'}: {worker.name}: {turn['seconds']:.2f} s")
            if number:
                turns[worker.name].append(turn)
    return {name: done for name, done in turns.items() if name not in failed}, failed


def compare(turns: dict[str, list[Turn]], pairs: list[Pair]) -> dict[str, dict[str, Any]]:
    """For each system its speed, our speed over its, and how its scores agree with the reference's."""
    ours = next(iter(turns))
    reference = np.array(turns[REFERENCE if REFERENCE in turns else ours][0]["scores"])
    rows = {}
    for name, done in turns.items():
        scores = np.array(done[0]["scores"])
        speeds = [len(pairs) / turn["seconds"] for turn in done]
        ratios = [theirs["seconds"] / own["seconds"] for theirs, own in zip(done, turns[ours], strict=True)]
        rows[name] = {
            "pairs_per_second": statistics.median(speeds),
            "slowest": min(speeds),
            "fastest": max(speeds),
            "ratio": statistics.median(ratios),
            "tau": mean_tau(pairs, scores, reference),
            "max_delta": float(np.abs(scores - reference).max()),
            "spread": float(scores.std()),
            "peak_mb": done[-1]["peak_mb"],
            "idle_cores": max(turn["idle_cores"] for turn in done),
            "seconds": [turn["seconds"] for turn in done],
        }
    return rows


def mean_tau(pairs: list[Pair], scores: np.ndarray, reference: np.ndarray) -> float:
    """Kendall's tau-b of each query's documents, the mean over queries of at least two."""
    taus = []
    for _, group in groupby(range(len(pairs)), key=lambda i: pairs[i][0]):
        rows = list(group)
        if len(rows) > 1:
            taus.append(kendalltau(scores[rows], reference[rows]).statistic)
    return float(np.nanmean(taus))


def table(results: dict[str, dict[str, Any]], ours: str) -> str:
    """Markdown: a row for each system; tau of each workload, the largest difference of all."""
    names = [name for name in SYSTEMS if any(name in result["systems"] for result in results.values())]
    head = ["", *(f"{name}, {one['tokens']:.0f} tokens: pairs/s | {ours} is" for name, one in results.items())]
    lines = [" | ".join([*head, "Kendall tau", "max \\|Δlogit\\|", "peak RSS"])]
    lines.append(" | ".join(["---", *["---:"] * (2 * len(results) + 3)]))
    for name in names:
        rows = [result["systems"].get(name) for result in results.values()]
        cells = [
            f"{one['pairs_per_second']:.0f} ({one['slowest']:.0f}-{one['fastest']:.0f}) | {one['ratio']:.2f}x"
            if one
            else "- | -"
            for one in rows
        ]
        there = [one for one in rows if one]
        taus = " / ".join(f"{one['tau']:.4f}" for one in there)
        delta = max(one["max_delta"] for one in there)
        lines.append(" | ".join([name, *cells, taus, f"{delta:.1e}", f"{there[-1]['peak_mb']:.0f} MB"]))
    return "\n".join(f"| {line.strip()} |" for line in lines)


def mean_tokens(pairs: list[Pair], model: Path, most: int = 512) -> float:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(most)
    return float(np.mean([len(encoding) for encoding in tokenizer.encode_batch(pairs)]))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=workloads.DATA, help="folder of the collections")
    parser.add_argument("--synthetic", action="store_true", help="made-up texts instead of the collections")
    parser.add_argument("--pairs", type=int, default=workloads.PAIRS, help="the most pairs of a workload (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (%(default)s)")
    known = ", ".join(SYSTEMS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT, metavar="NAME", help=known)
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each (%(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="where checkpoints are kept")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()

    texts = workloads.workloads(args.synthetic, args.pairs, args.data)
    loaded: list[Worker] = []
    left_out: dict[str, str] = {}
    results: dict[str, dict[str, Any]] = {}
    try:
        for name in args.systems:
            say(f"loading {name}")
            try:
                loaded.append(Worker(name, args.folder, args.threads))
            except WorkerError as error:
                left_out[name] = str(error)
        workers = loaded
        for name, pairs in texts.items():
            path = args.folder / f"{name}.json"
            path.write_text(json.dumps(pairs), encoding="utf-8")
            tokens = mean_tokens(pairs, args.folder / "minilm")
            say(f"{name}: {len(pairs)} pairs, {tokens:.0f} tokens a pair")
            turns, failed = take_turns(workers, path, args.rounds)
            left_out |= failed
            workers = [worker for worker in workers if worker.name not in failed]
            if turns:
                results[name] = {"pairs": len(pairs), "tokens": tokens, "systems": compare(turns, pairs)}
    finally:
        for worker in loaded:
            worker.close()
    report(args, loaded, results, left_out)


def report(
    args: argparse.Namespace, workers: list[Worker], results: dict[str, dict[str, Any]], left_out: dict[str, str]
) -> None:
    facts = machine()
    if not results:
        raise SystemExit("nothing could be measured: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
    print(table(results, workers[0].name) + "\n")
    described = ", ".join(f"{name} {result['pairs']} pairs" for name, result in results.items())
    print(f"{described}; medians of {args.rounds} rounds in turns (slowest-fastest); {args.threads} threads each.")
    reference = REFERENCE if any(worker.name == REFERENCE for worker in workers) else workers[0].name
    print(f"Scores are compared with those of {reference}; tau is the mean over queries.")
    print(in_words(facts))
    for worker in workers:
        versions = ", ".join(f"{package} {version}" for package, version in worker.facts["versions"].items())
        print(f"{worker.name}: {worker.facts['precision']}; {versions}")
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    for workload, result in results.items():
        for name, row in result["systems"].items():
            if row["idle_cores"] > MOST_IDLE:
                print(f"mind: {name} used {row['idle_cores']:.2f} cores while it waited ({workload})")
    if args.json:
        loaded = {worker.name: worker.facts for worker in workers}
        settings = {"rounds": args.rounds, "threads": args.threads}
        figures = {"machine": facts, **settings, "loaded": loaded, "workloads": results, "left_out": left_out}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
