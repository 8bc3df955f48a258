"""An evaluation as JSON, for scripts; docs/evaluation.md lists the fields."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from crossrank.evaluation.result import Evaluation, Histogram, System


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Turn an evaluation into what :mod:`json` can write; values per query are in the order of ``queries``."""
    return {
        "dataset": evaluation.dataset,
        "queries": list(evaluation.queries),
        "measures": list(evaluation.measures),
        "systems": [_system(one, evaluation) for one in evaluation.systems],
        "comparisons": [asdict(one) for one in evaluation.comparisons],
        "curves": [asdict(one) for one in evaluation.curves],
        "histograms": [_histogram(one) for one in evaluation.histograms],
        "findings": [asdict(one) for one in evaluation.findings],
        "left_out": dict(evaluation.left_out),
        "settings": dict(evaluation.settings),
    }


def per_query_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Make a row for each query and system: dataset, query, system, the measures, milliseconds."""
    return [
        {
            "dataset": evaluation.dataset,
            "query": query,
            "system": system.name,
            **{measure: float(system.values[measure][i]) for measure in evaluation.measures},
            "milliseconds": None if system.milliseconds is None else float(system.milliseconds[i]),
        }
        for i, query in enumerate(evaluation.queries)
        for system in evaluation.systems
    ]


def _system(one: System, evaluation: Evaluation) -> dict[str, Any]:
    times = one.milliseconds
    return {
        "name": one.name,
        "kind": one.kind,
        "means": {measure: one.mean(measure) for measure in evaluation.measures},
        "intervals": {measure: list(ends) for measure, ends in one.intervals.items()},
        "values": {measure: one.values[measure].tolist() for measure in evaluation.measures},
        "top": {
            query: [
                {"document": d.document, "score": d.score if math.isfinite(d.score) else None, "grade": d.grade}
                for d in shown
            ]
            for query, shown in one.top.items()
        },
        "milliseconds": None if times is None else times.tolist(),
        "milliseconds_per_query": None if times is None else float(times.mean()),
        "pairs": one.pairs,
        "seconds": one.seconds,
        "pairs_per_second": one.pairs / one.seconds if one.seconds else None,
        "pairs_cut": one.pairs_cut,
        "ties": one.ties,
        "facts": dict(one.facts),
    }


def _histogram(one: Histogram) -> dict[str, Any]:
    return {
        "system": one.system,
        "edges": one.edges.tolist(),
        "relevant": one.relevant.tolist(),
        "irrelevant": one.irrelevant.tolist(),
        "reliability": [list(row) for row in one.reliability],
    }
