"""Values per query of several systems -> intervals of their means, and each pair of systems compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.result import Comparison
from crossrank.evaluation.significance import holm, intervals, permutation_p

Floats = NDArray[np.float64]

# Values of one measure that differ by less are the same: the tool's own rounding.
SAME = 1e-9


def mean_intervals(values: Mapping[str, Floats], *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the means, measure by measure."""
    ends = intervals(np.stack(list(values.values()), axis=1), seed=seed)
    return {measure: (float(low), float(high)) for measure, (low, high) in zip(values, ends, strict=True)}


def compare_all(
    systems: Sequence[tuple[str, Mapping[str, Floats]]], measures: Sequence[str], *, seed: int = 0
) -> list[Comparison]:
    """Compare every two systems on every measure: the later one in the list against the earlier one.

    :param systems: Names, and measure -> ``[queries]``.
    """
    pairs = list(combinations(range(len(systems)), 2))
    if not pairs:
        return []
    columns = [
        np.where(np.abs(difference) < SAME, 0.0, difference)
        for measure in measures
        for a, b in pairs
        for difference in [systems[b][1][measure] - systems[a][1][measure]]
    ]
    differences = np.stack(columns, axis=1)
    p = permutation_p(differences, seed=seed).reshape(len(measures), len(pairs))
    corrected = np.stack([holm(row) for row in p])
    ends = intervals(differences, seed=seed)
    found = []
    for m, measure in enumerate(measures):
        for i, (a, b) in enumerate(pairs):
            column = m * len(pairs) + i
            d = differences[:, column]
            found.append(
                Comparison(
                    before=systems[a][0],
                    after=systems[b][0],
                    measure=measure,
                    difference=float(d.mean()),
                    interval=(float(ends[column, 0]), float(ends[column, 1])),
                    p=float(p[m, i]),
                    p_corrected=float(corrected[m, i]),
                    won=int((d > 0).sum()),
                    lost=int((d < 0).sum()),
                    tied=int((d == 0).sum()),
                )
            )
    return found
