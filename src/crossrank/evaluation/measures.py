"""Measures, by ir-measures: what they are called, and their value for each query."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.optional import require

DEFAULT = ("nDCG@10", "RR@10", "Success@1", "Success@3", "Success@10", "AP", "R@100")
# What they are called elsewhere; ir-measures knows MRR, MAP, NDCG and Recall itself.
ALIASES = {"Hit": "Success", "HitRate": "Success", "HR": "Success"}
# How tables call them, by the name before "@".
SHOWN = {"RR": "MRR", "Success": "Hit", "AP": "MAP", "R": "Recall"}
_CHUNK = 256  # queries that are handed to ir-measures at a time

Qrels = Mapping[str, Mapping[str, int]]


def parse(names: Sequence[str]) -> list[Any]:
    """Turn names into ir-measures's measures.

    :raises InputError: If there is none, or one is not known.
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
                f"Give for instance: {', '.join(DEFAULT)}; all are on https://ir-measur.es/en/latest/measures.html."
            ) from error
    if not found:
        raise InputError("There is no measure. Name one, such as nDCG@10.")
    return list(dict.fromkeys(found))


def shown(measure: str) -> str:
    """How tables call a measure: ``"RR@10"`` as ``"MRR@10"``."""
    stem, at, rest = measure.partition("@")
    return SHOWN.get(stem, stem) + at + rest


def per_query(
    measures: Sequence[Any], qrels: Qrels, rankings: Callable[[int], Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Calculate each measure for each query, against all judgements.

    Ranks go in as scores, so that equal scores are broken by the ranking's own order and not by the tool's own rule.
    A query with nothing ranked counts 0.

    :param qrels: Query -> document -> grade. Its order is the order of the result.
    :param rankings: The number of a query -> its documents, best first.
    :returns: Name of the measure -> ``[queries]``.
    """
    values = {str(measure): np.zeros(len(qrels)) for measure in measures}
    cutoffs = [measure.params.get("cutoff") for measure in measures]
    most = None if None in cutoffs else max(cutoffs)  # what no measure looks at need not be handed over
    for judgements, run in _chunks(qrels, rankings, most):
        ir_measures = require("ir_measures", extra="evaluation", purpose="Measuring rankings")
        try:
            for one in ir_measures.iter_calc(measures, judgements, run):
                values[str(one.measure)][int(one.query_id)] = one.value
        except (ValueError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            names = ", ".join(map(str, measures))
            raise InputError(f"ir-measures can't calculate all of {names}: {error}. Leave that one out.") from error
    return values


def _chunks(
    qrels: Qrels, rankings: Callable[[int], Sequence[str]], most: int | None
) -> Iterator[tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]]:
    """Give judgements and runs of some queries, named by numbers: tools behind ir-measures can't read all names."""
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
            # Only of these queries: each call goes over all judgements that it is given.
            yield judgements, run
