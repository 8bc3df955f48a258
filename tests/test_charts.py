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
    made = [*pages, *sorted((ROOT / "docs" / "assets").glob("throughput-*.svg"))]
    assert len(made) == 4
    before = [path.read_text(encoding="utf-8") for path in made]
    subprocess.run([sys.executable, "scripts/charts.py"], cwd=ROOT, check=True)
    assert [path.read_text(encoding="utf-8") for path in made] == before


def test_readmes_ratios_are_those_of_the_results() -> None:
    systems = json.loads((ROOT / "benchmarks/results/throughput.json").read_text(encoding="utf-8"))["workloads"]
    ratios = [systems[name]["systems"]["sentence-transformers"]["ratio"] for name in ("cranfield", "wikiqa")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    claimed = re.search(r"(\d\.\d) times \(long texts\) and (\d\.\d) times \(short texts\)", readme)
    assert claimed is not None
    assert [float(number) for number in claimed.groups()] == [round(ratio, 1) for ratio in ratios]
