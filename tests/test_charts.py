"""Charts and tables show the figures of the benchmark results that are in the repository."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_charts_and_tables_are_those_of_the_results() -> None:
    pages = [ROOT / "docs" / name for name in ("benchmarks.md", "scale.md")]
    made = [*pages, *sorted((ROOT / "docs" / "assets").glob("*.svg"))]
    assert len(made) == 8
    before = [path.read_text(encoding="utf-8") for path in made]
    subprocess.run([sys.executable, "scripts/charts.py"], cwd=ROOT, check=True)
    assert [path.read_text(encoding="utf-8") for path in made] == before


def test_readmes_gain_of_prepared_documents_is_that_of_the_results() -> None:
    rates = json.loads((ROOT / "benchmarks/results/prepared.json").read_text(encoding="utf-8"))["pairs_per_second"]
    claimed = re.search(r"is then (\d+) times as fast", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert claimed is not None
    assert int(claimed[1]) == round(rates["prepared, pages warm"] / rates["unprepared"])


def test_readmes_ratios_are_those_of_the_results() -> None:
    systems = json.loads((ROOT / "benchmarks/results/throughput.json").read_text(encoding="utf-8"))["workloads"]
    ratios = [systems[name]["systems"]["sentence-transformers"]["ratio"] for name in ("cranfield", "wikiqa")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    claimed = re.search(r"(\d\.\d) times \(long texts\) and (\d\.\d) times \(short texts\)", readme)
    assert claimed is not None
    assert [float(number) for number in claimed.groups()] == [round(ratio, 1) for ratio in ratios]


def test_readmes_gains_are_those_of_the_benchmarks() -> None:
    table = (
        (ROOT / "docs/benchmarks.md")
        .read_text(encoding="utf-8")
        .partition("<!-- quality -->")[2]
        .partition("<!-- end -->")[0]
    )
    rows = re.findall(r"\| [+](\.\d+), p [<=] (\.\d+) \| [+]\.\d+, p [<=] (\.\d+) \|$", table, re.MULTILINE)
    gains, over_bm25, over_cosine = zip(*rows, strict=True)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"raises BM25's nDCG@10 by {min(gains)} to {max(gains)}." in readme
    assert all(float(p) < 0.05 for p in over_bm25)
    assert (len(rows), sum(float(p) < 0.05 for p in over_cosine)) == (5, 3)
    assert "On five English test collections" in readme
    assert "significantly on three of them" in readme
