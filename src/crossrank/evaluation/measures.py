"""Measures of ir-measures: their names, and their values for each query."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.optional import require

DEFAULT = ("nDCG@10", "RR@10", "Success@1", "Success@3", "Success@10", "AP", "R@100")
# Other names of measures. ir-measures itself knows MRR, MAP, NDCG and Recall.
ALIASES = {"Hit": "Success", "HitRate": "Success", "HR": "Success"}
# Their names in tables, without "@" and the cutoff.
SHOWN = {"RR": "MRR", "Success": "Hit", "AP": "MAP", "R": "Recall"}
_CHUNK = 256  # queries that are passed to ir-measures at a time

Qrels = Mapping[str, Mapping[str, int]]


def parse(names: Sequence[str]) -> list[Any]:
    """Turn names into measures of ir-measures.

    :raises InputError: If there are none, or one is unknown.
    :raises MissingExtraError: If ir-measures is not installed.
    """
    ir_measures = require("ir_measures", extra="evaluation", purpose="Measuring rankings")
    found = []
    for name in names:
        stem, at, rest = name.partition("@")
        try:
            found.append(ir_measures.parse_measure(ALIASES.get(stem, stem) + at + rest))
        except (NameError, ValueError, TypeError, SyntaxError, AttributeError) as error:
            raise InputError(
                f"{name!r} is not a measure that ir-measures knows ({error}). "
                f"Examples: {', '.join(DEFAULT)}. All measures: https://ir-measur.es/en/latest/measures.html."
            ) from error
    if not found:
        raise InputError("There is no measure. Give one, such as nDCG@10.")
    return list(dict.fromkeys(found))


def display_name(measure: str) -> str:
    """Give the name of a measure in tables: ``"RR@10"`` becomes ``"MRR@10"``."""
    stem, at, rest = measure.partition("@")
    return SHOWN.get(stem, stem) + at + rest


def per_query(
    measures: Sequence[Any], qrels: Qrels, rankings: Callable[[int], Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Calculate each measure for each query, against all judgements.

    Ranks are passed as scores, so that the order of the ranking breaks ties and not the rule of the tool. A query with
    an empty ranking counts 0.

    :param qrels: Query -> document -> grade. The result has the same order.
    :param rankings: The number of a query -> its documents, best first.
    :returns: Name of the measure -> ``[queries]``.
    """
    values = {str(measure): np.zeros(len(qrels)) for measure in measures}
    cutoffs = [measure.params.get("cutoff") for measure in measures]
    most = None if None in cutoffs else max(cutoffs)  # documents below every cutoff are not needed
    for judgements, run in _chunks(qrels, rankings, most):
        ir_measures = require("ir_measures", extra="evaluation", purpose="Measuring rankings")
        try:
            for one in ir_measures.iter_calc(measures, judgements, run):
                values[str(one.measure)][int(one.query_id)] = one.value
        except (ValueError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            names = ", ".join(map(str, measures))
            raise InputError(
                f"ir-measures can't calculate all of {names}: {error}. Leave out the measure that fails."
            ) from error
    return values


def _chunks(
    qrels: Qrels, rankings: Callable[[int], Sequence[str]], most: int | None
) -> Iterator[tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]]:
    """Give judgements and runs of some queries, with numbers as names: not every tool can read all names."""
    queries = list(qrels)
    for start in range(0, len(queries), _CHUNK):
        part = queries[start : start + _CHUNK]
        run: dict[str, dict[str, float]] = {}
        judgements: dict[str, dict[str, int]] = {}
        for i, query in enumerate(part, start=start):
            names: dict[str, str] = {}
            documents = rankings(i)[:most]
            if len(documents):
                run[str(i)] = {names.setdefault(d, str(len(names))): -float(rank) for rank, d in enumerate(documents)}
            judgements[str(i)] = {names.setdefault(d, str(len(names))): grade for d, grade in qrels[query].items()}
        if run:
            # Only judgements of these queries, because each call goes through all that it gets.
            yield judgements, run
