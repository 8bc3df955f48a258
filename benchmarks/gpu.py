"""Pairs a second on a GPU: crossrank's torch engine at several token budgets, and sentence-transformers, in turns.

    python -m benchmarks.gpu                                     # needs a CUDA device and ../shared/data
    python -m benchmarks.gpu --device cpu --synthetic --pairs 64 # shows that the script works

All score the same pairs with the same weights in one precision, in one process. A turn is one call with all pairs,
from texts to scores. A round is one turn of each; the first round warms up and does not count. Loading is not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workloads
from benchmarks.checkpoint import prepared
from benchmarks.machine import in_words, machine
from benchmarks.systems import ROOT
from benchmarks.throughput import mean_tau, mean_tokens
from benchmarks.workloads import Pair

PACKAGES = ("crossrank", "sentence-transformers", "torch", "transformers")
Score = Callable[[list[Pair]], np.ndarray]


def systems(folder: Path, args: argparse.Namespace) -> tuple[dict[str, Score], str]:
    """Each way to score, the reference last, and the precision of all."""
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    from crossrank import CrossEncoder
    from crossrank.engines.torch_engine import TorchEngine

    engine = TorchEngine(folder, device=args.device, precision=args.precision)
    precision = str(engine.facts["precision"])
    tokenizes = CrossEncoder(folder, precision="float32")
    theirs = Theirs(str(folder), device=args.device, model_kwargs={"dtype": precision}, local_files_only=True)

    def ours(budget: int) -> Score:
        def score(pairs: list[Pair]) -> np.ndarray:
            encoded = tokenizes.encode(pairs)
            logits = np.empty(len(encoded.pairs), np.float32)
            for batch in tokenizes.batches(encoded, token_budget=budget):
                logits[batch.rows] = engine.forward(batch)[:, 0]
            return logits[encoded.inverse]

        return score

    def reference(rows: int) -> Score:
        return lambda pairs: np.asarray(
            theirs.predict(pairs, batch_size=rows, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        )

    found = {f"crossrank, {budget} tokens": ours(budget) for budget in args.token_budgets}
    return found | {f"sentence-transformers, {rows} pairs": reference(rows) for rows in args.batch_sizes}, precision


def measure(ways: dict[str, Score], pairs: list[Pair], rounds: int) -> dict[str, dict[str, Any]]:
    """Speed and agreement of each; the reference is the last one."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        for name, score in ways.items():
            started = time.perf_counter()
            scores[name] = score(pairs)
            if number:
                seconds[name].append(time.perf_counter() - started)
    reference = scores[list(ways)[-1]]
    return {
        name: {
            "pairs_per_second": len(pairs) / statistics.median(taken),
            "slowest": len(pairs) / max(taken),
            "fastest": len(pairs) / min(taken),
            "tau": mean_tau(pairs, scores[name], reference),
            "max_delta": float(np.abs(scores[name] - reference).max()),
            "spread": float(scores[name].std()),
            "seconds": taken,
        }
        for name, taken in seconds.items()
    }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, mps or cpu (%(default)s)")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16 (%(default)s)")
    parser.add_argument("--data", type=Path, default=workloads.DATA, help="folder of the collections")
    parser.add_argument("--synthetic", action="store_true", help="made-up texts instead of the collections")
    parser.add_argument("--pairs", type=int, default=workloads.PAIRS, help="the most pairs of a workload (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (%(default)s)")
    parser.add_argument("--token-budgets", type=int, nargs="+", default=[2048, 8192, 32768], metavar="N")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 32], metavar="N")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="where checkpoints are kept")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()

    texts = workloads.workloads(args.synthetic, args.pairs, args.data)
    folder = prepared("minilm", args.folder)
    ways, precision = systems(folder, args)
    facts = machine()
    device = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    results = {}
    for name, pairs in texts.items():
        found = measure(ways, pairs, args.rounds)
        results[name] = {"pairs": len(pairs), "tokens": mean_tokens(pairs, folder), "systems": found}
        print(f"\n| {name}, {results[name]['tokens']:.0f} tokens | pairs/s | Kendall tau | max \\|Δlogit\\| |")
        print("|---|---:|---:|---:|")
        for system, row in found.items():
            speed = f"{row['pairs_per_second']:.0f} ({row['slowest']:.0f}-{row['fastest']:.0f})"
            print(f"| {system} | {speed} | {row['tau']:.4f} | {row['max_delta']:.1e} |")
    versions = {package: metadata.version(package) for package in PACKAGES}
    print(f"\n{device}, {precision}; medians of {args.rounds} rounds in turns (slowest-fastest).")
    print(in_words(facts))
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if args.json:
        loaded = {"device": device, "precision": precision, "versions": versions}
        figures = {"machine": facts, "rounds": args.rounds, "loaded": loaded, "workloads": results}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
