"""Draw the charts of README and docs, and the tables of docs/benchmarks.md and docs/scale.md, from benchmark results.

    python scripts/charts.py     # benchmarks/results/*.json -> docs/assets/*.svg, docs/benchmarks.md, docs/scale.md

Every chart names the processor and the command.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drawing import THEMES, Row, bars, number, plot

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ASSETS = ROOT / "docs" / "assets"


def processor(facts: Mapping[str, Any]) -> str:
    """The machine of a result, short."""
    flags = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx2") if facts["flags"].get(flag)]
    return f"{facts['cores']} cores, {facts['processor']}, {flags[0] if flags else 'no vector flags'}"


def read(name: str) -> dict[str, Any]:
    """A result of a benchmark run."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def throughput_rows(throughput: Mapping[str, Any], prepared: Mapping[str, Any]) -> list[Row]:
    """Pairs a second on Cranfield."""
    systems = throughput["workloads"]["cranfield"]["systems"]
    names = {
        "crossrank": "crossrank, MiniLM-L6",
        "sentence-transformers": "sentence-transformers (default)",
        "sentence-transformers bfloat16": "sentence-transformers, bfloat16",
        "sentence-transformers OpenVINO": "sentence-transformers, OpenVINO",
        "FlashRank int8": "FlashRank, int8",
        "fastembed": "fastembed",
        "infinity": "infinity",
    }
    rows: list[Row] = [
        (label, systems[name]["pairs_per_second"], name == "crossrank")
        for name, label in names.items()
        if name in systems
    ]
    rows += [(label, value, True) for label, value in prepared["chart"].items()]
    return sorted(rows, key=lambda row: -row[1])


def throughput_table(throughput: Mapping[str, Any]) -> str:
    """The table of docs/benchmarks.md."""
    workloads = throughput["workloads"]
    head = "".join(f" {name}, {one['tokens']:.0f} tokens: pairs/s | crossrank is |" for name, one in workloads.items())
    lines = [f"| |{head} Kendall tau | peak memory |", f"|---|{'---:|' * (2 * len(workloads) + 2)}"]
    for name in next(iter(workloads.values()))["systems"]:
        rows = [one["systems"][name] for one in workloads.values()]
        cells = "".join(f" {number(row['pairs_per_second'])} | {row['ratio']:.2f}x |" for row in rows)
        taus = " / ".join(f"{row['tau']:.3f}" for row in rows)
        lines.append(f"| {name} |{cells} {taus} | {number(max(row['peak_mb'] for row in rows))} MB |")
    return "\n".join(lines)


PAIRS = 1e8
# Layers, hidden size and tokens of a pair, for the work on a GPU.
GPU_MODELS = {
    "MiniLM-L6 (6 layers, 384)": (6, 384, 231),
    "BGE base (12 layers, 768)": (12, 768, 231),
    "BGE large (24 layers, 1024)": (24, 1024, 231),
}
# Dense bfloat16 operations a second by the makers' data sheets, and the share that is assumed to be reached.
GPUS = {"L4": 121e12, "A100": 312e12, "H100": 989e12}
SHARE = 0.3


def planning_table(throughput: Mapping[str, Any], prepared: Mapping[str, Any]) -> str:
    """Hours and machines for a hundred million pairs."""
    works = throughput["workloads"]
    rates = {
        f"MiniLM-L6, {works[name]['tokens']:.0f} tokens": works[name]["systems"]["crossrank"]["pairs_per_second"]
        for name in ("cranfield", "wikiqa")
    }
    of = prepared["pairs_per_second"]
    rates["the bundled model, Cranfield"] = of["unprepared"]
    rates["the bundled model, Cranfield, prepared"] = of["prepared, pages warm"]
    lines = ["| | pairs/s | hours on one machine | machines for one day |", "|---|---:|---:|---:|"]
    for name, rate in rates.items():
        hours = PAIRS / rate / 3600
        lines.append(f"| {name} | {number(rate)} | {number(hours)} | {math.ceil(hours / 24)} |")
    return "\n".join(lines)


def gpu_table() -> str:
    """Hours for a hundred million pairs on one GPU, calculated from the operations of a pair."""
    lines = [f"| | operations a pair |{''.join(f' {name} |' for name in GPUS)}", f"|---|---:|{'---:|' * len(GPUS)}"]
    for name, (layers, hidden, tokens) in GPU_MODELS.items():
        # 12 hidden² weights a layer, twice for multiply and add; attention is two products of tokens² by hidden.
        work = layers * (24 * hidden**2 * tokens + 4 * tokens**2 * hidden)
        hours = [PAIRS * work / (SHARE * peak) / 3600 for peak in GPUS.values()]
        lines.append(f"| {name} | {number(work / 1e9)} G |{''.join(f' {number(value)} h |' for value in hours)}")
    return "\n".join(lines)


def engines_table(scale: Mapping[str, Any]) -> str:
    """What engines cost besides the scoring."""
    lines = ["| | pairs/s | more time than in process | start |", "|---|---:|---:|---:|"]
    for name, row in scale["engines"]["systems"].items():
        # Two workers are to be compared with one, not with the process.
        over = f"{100 * row['overhead']:.0f} %" if "2" not in name else ""
        lines.append(f"| {name} | {number(row['pairs_per_second'])} | {over} | {max(0, row['start_seconds']):.1f} s |")
    return "\n".join(lines)


def growth_table(scale: Mapping[str, Any]) -> str:
    """What a row costs besides the scoring, as inputs grow."""
    lines = ["| rows | microseconds a row | peak memory |", "|---:|---:|---:|"]
    for size, row in scale["growth"].items():
        lines.append(f"| {int(size):,} | {row['us_a_row']:.0f} | {row['peak_mb']:.0f} MB |")
    costs = scale["skew"]["skewed_costs"]
    more = f"{abs(100 * costs):.0f} % {'more' if costs > 0 else 'less'}"
    return "\n".join([*lines, "", f"The uneven input took {more} time per token than the even one."])


def startup_table(startup: Mapping[str, Any]) -> str:
    """From the start of Python to the first score, and the memory of a hundred documents."""
    lines = ["| | wall time | processor time | peak memory | with 100 documents |", "|---|---:|---:|---:|---:|"]
    for name, first in startup["first_score"].items():
        most = startup["peak_mb"][name]["100"]
        cells = f"{first['wall']:.2f} s | {first['cpu']:.2f} s | {number(first['peak_mb'])} MB | {number(most)} MB"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def prepared_table(prepared: Mapping[str, Any]) -> str:
    """What a query with a hundred documents costs."""
    lines = ["| | median | best | pairs/s |", "|---|---:|---:|---:|"]
    for name, times in prepared["milliseconds"].items():
        rate = number(prepared["pairs_per_second"][name])
        lines.append(f"| {name} | {statistics.median(times):.0f} ms | {min(times):.0f} ms | {rate} |")
    return "\n".join(lines)


def latency_table(latency: Mapping[str, Any]) -> str:
    """Milliseconds of queries that are new to each system."""
    lines = []
    for name, systems in latency["results"].items():
        sizes = list(next(iter(systems.values()))["sizes"])
        head = "".join(f" {size} {'document' if size == '1' else 'documents'} |" for size in sizes)
        lines += [f"| {name} | first query |{head}", f"|---|---:|{'---:|' * len(sizes)}"]
        for system, one in systems.items():
            cells = "".join(f" {number(row['p50'])} / {number(row['p95'])} |" for row in one["sizes"].values())
            lines.append(f"| {system} | {number(one['first_ms'])} |{cells}")
        lines.append("")
    return "\n".join(lines[:-1])


def repeats_table(latency: Mapping[str, Any]) -> str:
    """How many times as long a new query takes as the same one again."""
    results = latency["results"]
    sizes = list(next(iter(next(iter(results.values())).values()))["sizes"])
    lines = [f"| |{''.join(f' {name}, {size} |' for name in results for size in sizes)}"]
    lines.append(f"|---|{'---:|' * (len(results) * len(sizes))}")
    for system in next(iter(results.values())):
        times = [results[name][system]["sizes"][size]["fresh_over_again"] for name in results for size in sizes]
        lines.append(f"| {system} |{''.join(f' {one:.2f} |' for one in times)}")
    return "\n".join(lines)


def share(value: float) -> str:
    """A measure between 0 and 1, with three digits."""
    return f"{value:.3f}".lstrip("0")


def difference(comparison: Mapping[str, Any]) -> str:
    """A gain and its p-value."""
    p = comparison["p_corrected"]
    return f"{comparison['difference']:+.3f}, ".replace("0.", ".") + ("p < .001" if p < 0.001 else f"p = {share(p)}")


def quality_table(collections: Mapping[str, Any]) -> str:
    """nDCG@10 with intervals and tests."""
    lines = [
        "| | queries | BM25 | all-MiniLM-L6-v2 cosine | the bundled model | against BM25 | against the cosine |",
        "|---|---:|---|---|---|---|---|",
    ]
    for name, one in collections.items():
        cells = []
        for kind in ("first stage", "bi-encoder", "cross-encoder"):
            system = one["systems"][kind]
            mean = f"**{share(system['mean'])}**" if kind == "cross-encoder" else share(system["mean"])
            cells.append(f"{mean} ({' to '.join(map(share, system['interval']))})")
        tests = {test["before"]: test for test in one["comparisons"] if test["after"] == "bundled model"}
        gains = [difference(tests[name]) for name in list(tests)]
        lines.append(f"| {name} | {one['queries']} | {' | '.join(cells)} | {' | '.join(gains)} |")
    return "\n".join(lines)


def quality_charts(quality: Mapping[str, Any], theme: Mapping[str, str]) -> dict[str, str]:
    """nDCG@10 by latency and by depth."""
    collections, milliseconds = quality["collections"], quality["milliseconds"]

    def mean(kind: str) -> float:
        return sum(one["systems"][kind]["mean"] for one in collections.values()) / len(collections)

    command = "python -m benchmarks.quality; details in docs/benchmarks.md."
    points = {
        "all-MiniLM-L6-v2, vectors stored": [(milliseconds["bi-encoder, vectors stored"], mean("bi-encoder"))],
        "all-MiniLM-L6-v2": [(milliseconds["bi-encoder"], mean("bi-encoder"))],
        "crossrank, prepared": [(milliseconds["crossrank, prepared"], mean("cross-encoder"))],
        "crossrank": [(milliseconds["crossrank"], mean("cross-encoder"))],
    }
    by_latency = plot(
        "Quality and latency",
        points,
        [f"100 Cranfield abstracts a query. {processor(quality['machine'])}.", f"{command}"],
        ("milliseconds a query", "nDCG@10, mean of five collections"),
        theme,
        ticks=((1, 10, 100, 1000, 3000), (0.55, 0.60, 0.65, 0.70, 0.75)),
        ours=("crossrank", "crossrank, prepared"),
        level=("BM25 alone", mean("first stage")),
    )
    by_depth = plot(
        "More candidates, better rankings: the bundled model",
        {name: [tuple(point) for point in one["depths"]] for name, one in collections.items()},
        [command],
        ("candidates of BM25 that are reranked", "nDCG@10"),
        theme,
        ticks=((5, 10, 20, 50, 100), (0.3, 0.5, 0.7, 0.9, 1.0)),
        ours=list(collections),
    )
    return {"quality": by_latency, "depth": by_depth}


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its ``<!-- NAME -->`` and ``<!-- end -->``."""
    for name, table in tables.items():
        start = page.index(f"<!-- {name} -->") + len(f"<!-- {name} -->")
        end = page.index("<!-- end -->", start)
        page = f"{page[:start]}\n{table}\n{page[end:]}"
    return page


def main() -> None:
    ASSETS.mkdir(parents=True, exist_ok=True)
    throughput, prepared = read("throughput"), read("prepared")
    rows = throughput_rows(throughput, prepared)
    tokens = throughput["workloads"]["cranfield"]["tokens"]
    caption = [
        f"Cranfield abstracts, {tokens:.0f} tokens a pair. {processor(throughput['machine'])}.",
        "python -m benchmarks.throughput and benchmarks.prepared; details in docs/benchmarks.md.",
    ]
    quality, latency, scale = read("quality"), read("latency"), read("scale")
    write_tables(
        "benchmarks",
        {
            "throughput": throughput_table(throughput),
            "startup": startup_table(read("startup")),
            "prepared": prepared_table(prepared),
            "latency": latency_table(latency),
            "repeats": repeats_table(latency),
            "quality": quality_table(quality["collections"]),
        },
    )
    where = f"{processor(scale['machine'])}, commit {scale['machine']['commit']}."
    write_tables(
        "scale",
        {
            "planning": planning_table(throughput, prepared),
            "gpus": gpu_table(),
            "engines": f"{engines_table(scale)}\n\n{where}",
            "growth": growth_table(scale),
        },
    )
    for name, theme in THEMES.items():
        charts = {
            "throughput": bars("Query-document pairs a second", rows, caption, "", theme),
            **quality_charts(quality, theme),
        }
        for chart, drawn in charts.items():
            (ASSETS / f"{chart}-{name}.svg").write_text(drawn, encoding="utf-8")


def write_tables(name: str, tables: Mapping[str, str]) -> None:
    """Put tables into a page of docs/."""
    page = ROOT / "docs" / f"{name}.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
