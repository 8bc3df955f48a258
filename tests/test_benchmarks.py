"""The benchmark runs and compares scores; its timings are not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_throughput_compares_two_systems(tmp_path: Path) -> None:
    systems = ["crossrank float32", "sentence-transformers"]
    command = [sys.executable, "-m", "benchmarks.throughput", "--synthetic", "--pairs", "16", "--rounds", "1"]
    places = ["--folder", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(
        [*command, *places, "--systems", *systems], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["left_out"] == {}
    workload = figures["workloads"]["synthetic"]
    assert workload["pairs"] == 16
    assert list(workload["systems"]) == systems
    ours = workload["systems"]["crossrank float32"]
    assert ours["max_delta"] <= 1e-4
    assert ours["tau"] > 0.999
    assert ours["spread"] > 0.05
    assert ours["pairs_per_second"] > 0
    assert all(f"| {name} |" in done.stdout for name in systems)


def test_missing_collections_are_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--data", str(tmp_path), "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert f"{tmp_path / 'cranfield'} is missing" in done.stderr
    assert "--synthetic" in done.stderr


def test_latency_times_fresh_and_repeated_queries(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.latency", "--synthetic", "--queries", "4", "--documents", "1", "3"]
    places = ["--folder", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    systems = ["--systems", "crossrank bundled", "crossrank"]
    done = subprocess.run(
        [*command, *places, *systems], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "figures.json").read_text())["results"]["synthetic"]
    for name in ("crossrank bundled", "crossrank"):
        assert results[name]["first_ms"] > 0
        one, three = results[name]["sizes"]["1"], results[name]["sizes"]["3"]
        assert one["queries"] >= 2
        assert 0 < one["p50"] <= one["p95"]
        assert three["fresh_over_again"] > 0
        assert f"| {name} |" in done.stdout


def test_the_gpu_benchmark_runs_on_the_cpu(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--synthetic", "--pairs", "16", "--rounds", "1", "--token-budgets", "2048", "8192"]
    places = ["--folder", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    command = [sys.executable, "-m", "benchmarks.gpu", *options, "--batch-sizes", "32", *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())["workloads"]["synthetic"]["systems"]
    assert list(found) == ["crossrank, 2048 tokens", "crossrank, 8192 tokens", "sentence-transformers, 32 pairs"]
    for row in found.values():
        assert row["max_delta"] <= 1e-4
        assert row["tau"] > 0.999
        assert row["spread"] > 0.05
        assert row["pairs_per_second"] > 0
