"""Write an evaluation for people: tables, and comparisons in words."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from crossrank.cli.terminal import aligned, columns, one_line
from crossrank.evaluation.measures import display_name
from crossrank.evaluation.result import LEVEL, DepthCurve, Evaluation, PairedComparison, System


def write_evaluation(evaluation: Evaluation) -> None:
    """Write the results of one dataset."""
    settings = evaluation.settings
    facts = [f"{len(evaluation.queries)} queries"]
    if "documents" in settings:
        facts += [f"{settings['documents']} documents", f"{settings['candidates']} candidates"]
    if "depth" in settings:
        facts.append(f"the first {settings['depth']} re-ranked")
    print(f"{one_line(evaluation.dataset)}: {', '.join(facts)}\n")
    _table(_measure_rows(evaluation))
    if any(one.pairs for one in evaluation.systems):
        print()
        _table(_speed_rows(evaluation.systems))
    main = [one for one in evaluation.comparisons if one.measure == evaluation.measures[0]]
    if main:
        print(f"\n{display_name(evaluation.measures[0])}, query by query (paired permutation test, Holm's correction):")
        for one in main:
            _paragraph(in_words(one))
    for curve in evaluation.curves:
        print()
        _write_curve(curve)
    if evaluation.findings:
        print("\nWarnings:")
        for finding in evaluation.findings:
            _paragraph(f"[{finding.code}] {finding.text}")
    _write_left_out(evaluation)


def write_summary(evaluations: Sequence[Evaluation]) -> None:
    """Write the main measure of several datasets in one table, with the mean over the datasets."""
    measure = evaluations[0].measures[0]
    names = list(dict.fromkeys(one.name for evaluation in evaluations for one in evaluation.systems))
    rows = [[display_name(measure), "queries", *names]]
    columns: dict[str, list[float]] = {name: [] for name in names}
    for evaluation in evaluations:
        by_name = {one.name: one for one in evaluation.systems}
        cells = []
        for name in names:
            if name in by_name:
                columns[name].append(by_name[name].mean(measure))
                cells.append(_with_interval(by_name[name], measure))
            else:
                cells.append("")
        rows.append([evaluation.dataset, str(len(evaluation.queries)), *cells])
    complete = {name: values for name, values in columns.items() if len(values) == len(evaluations)}
    rows.append(["mean", "", *(number(float(np.mean(complete[n]))) if n in complete else "" for n in names)])
    print(f"All {len(evaluations)} datasets:\n")
    _table(rows)


def in_words(c: PairedComparison) -> str:
    """Describe a comparison: which system is better, by how much, and whether it is significant."""
    ends = f"95 % {signed(c.interval[0])} to {signed(c.interval[1])}"
    chance = f"p {_p(c.p_corrected)}"
    counts = f"won {c.won}, lost {c.lost}, tied {c.tied}"
    if c.p_corrected < LEVEL:
        verb = "beats" if c.difference > 0 else "is worse than"
        return f"{c.after} {verb} {c.before} by {number(abs(c.difference))} ({ends}), {chance}; {counts}"
    text = f"{c.after} against {c.before}: {signed(c.difference)} ({ends}), {chance}, not significant; {counts}"
    return f"{text}. {c.doubt}" if c.doubt else text


def number(value: float) -> str:
    """Format a value between 0 and 1 for tables: ``.382``."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def signed(value: float) -> str:
    """Format a difference with its sign."""
    return ("-" if value < 0 else "+") + number(abs(value))


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {number(value)}"


def _with_interval(system: System, measure: str) -> str:
    low, high = system.intervals[measure]
    return f"{number(system.mean(measure))} ({number(low)}-{number(high)})"


def _measure_rows(evaluation: Evaluation) -> list[list[str]]:
    first, *others = evaluation.measures
    rows = [["", f"{display_name(first)} (95 %)", *map(display_name, others)]]
    rows += [
        [one.name, _with_interval(one, first), *(number(one.mean(measure)) for measure in others)]
        for one in evaluation.systems
    ]
    return rows


def _speed_rows(systems: Sequence[System]) -> list[list[str]]:
    rows = [["", "ms/query", "pairs/s", "pairs", "cut", "runs in"]]
    for one in systems:
        if one.milliseconds_per_query is not None:
            speed = "" if one.pairs_per_second is None else f"{one.pairs_per_second:.0f}"
            cut = "" if one.share_cut is None else f"{one.share_cut:.1%}"
            runs = ", ".join(str(one.facts[key]) for key in ("engine", "precision") if one.facts.get(key))
            rows.append([one.name, f"{one.milliseconds_per_query:.1f}", speed, str(one.pairs), cut, runs])
    return rows


def _write_curve(curve: DepthCurve) -> None:
    print(f"How deep to re-rank with {curve.system}:")
    rows = [["first", *(str(point.depth) for point in curve.points)]]
    rows.append([display_name(curve.measure), *(number(point.value) for point in curve.points)])
    rows.append(["ms/query", *(f"{point.milliseconds:.1f}" for point in curve.points)])
    _table(rows)
    _paragraph(curve.advice)


def _write_left_out(evaluation: Evaluation) -> None:
    first = evaluation.settings.get("left_out_first")
    places: Mapping[str, str] = first if isinstance(first, Mapping) else {}
    if evaluation.left_out:
        print("\nLeft out or changed:")
        for what, count in evaluation.left_out.items():
            where = f" (first: {one_line(places[what])})" if what in places else ""
            _paragraph(f"{count} {what}{where}")


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Write a table with the first column on the left. Columns that don't fit the terminal follow in another block."""
    widths = [max(columns(row[i]) for row in rows) for i in range(len(rows[0]))]
    blocks: list[list[int]] = [[]]
    for i in range(1, len(widths)):
        if blocks[-1] and 2 + widths[0] + sum(2 + widths[k] for k in (*blocks[-1], i)) > _width():
            blocks.append([])
        blocks[-1].append(i)
    for number, block in enumerate(blocks):
        print(end="\n" if number else "")
        cells = [[one_line(row[i]) for i in (0, *block)] for row in rows]
        for line in aligned(cells, right=range(1, len(block) + 1)):
            print(f"  {line}")


def _paragraph(text: str) -> None:
    """Write a text, wrapped to the width of the terminal."""
    print(textwrap.fill(text, _width(), initial_indent="  ", subsequent_indent="    ", break_long_words=False))


def _width() -> int:
    """The width of the terminal; in a pipe nothing is wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20
