"""How many candidates to re-rank: the measure at several depths, from one scoring pass.

More candidates can make the ranking worse: M. Jacob and others, Drowning in Documents (arXiv 2411.11767).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.result import LEVEL, DepthCurve, DepthPoint
from crossrank.evaluation.significance import holm, permutation_p

STEPS = (5, 10, 20, 50, 100, 200, 500, 1000)
# A difference from the highest mean that is large in practice; if it is not significant, there are too few queries.
CLEAR = 0.02

Floats = NDArray[np.float64]


def depths_up_to(most: int) -> list[int]:
    """Give the depths to show: the usual ones up to the most candidates."""
    return [step for step in STEPS if step < most] + [most] if most else []


def depth_curve(
    system: str,
    measure: str,
    depths: Sequence[int],
    values: Floats,
    first_stage: Floats,
    milliseconds: Sequence[float],
    *,
    seed: int = 0,
) -> DepthCurve:
    """Compare each depth with the one that has the highest mean, by paired permutation tests.

    ``best`` is the smallest depth that is not significantly worse (p of 0.05 or more, without correction).
    ``harmful_after`` is the depth with the highest mean, if a larger depth is significantly worse (with Holm's
    correction over all larger depths).

    :param depths: ``[depths]``, rising.
    :param values: ``[depths, queries]``.
    :param first_stage: ``[queries]``, with nothing re-ranked.
    :param milliseconds: ``[depths]``, per query.
    """
    means = values.mean(1)
    top = int(means.argmax())
    p = permutation_p((values - values[top]).T, seed=seed)
    within = [i for i in range(top + 1) if p[i] >= LEVEL]
    best = within[0]
    deeper = holm(p[top + 1 :])
    harmful = bool((deeper < LEVEL).any())
    points = [
        DepthPoint(depth, float(mean), float(cost))
        for depth, mean, cost in zip(depths, means, milliseconds, strict=True)
    ]
    gain = float(means[top] - first_stage.mean())
    p_gain = float(permutation_p((values[top] - first_stage)[:, None], seed=seed)[0])
    advice = _advice(points, best, top, harmful, gain, p_gain)
    return DepthCurve(system, measure, points, depths[best], depths[top] if harmful else None, advice)


def _advice(points: Sequence[DepthPoint], best: int, top: int, harmful: bool, gain: float, p_gain: float) -> str:
    if gain <= 0 or p_gain >= LEVEL:
        return (
            "At no depth is re-ranking measurably better than the order of the first stage "
            f"({gain:+.3f} at best, p = {p_gain:.3f}): these queries give no reason to re-rank with it."
        )
    chosen, last = points[best], points[-1]
    words = f"Re-rank the first {chosen.depth}"
    if chosen.milliseconds < last.milliseconds:
        part = chosen.milliseconds / last.milliseconds
        words += f": that takes {part:.0%} of the time of {last.depth}, and"
    else:
        words += ":"
    words += (
        f" no depth does measurably better ({chosen.value:.3f} there, {points[top].value:.3f} at {points[top].depth})."
        if best != top
        else f" that gives the highest value ({chosen.value:.3f}), and fewer is measurably worse."
        if best
        else f" that gives the highest value ({chosen.value:.3f})."
    )
    if points[top].value - chosen.value > CLEAR:
        words += (
            " That difference is large, but there are too few queries to confirm it: more queries may favour a "
            "larger depth."
        )
    if harmful:
        words += f" More than {points[top].depth} makes it worse ({last.value:.3f} at {last.depth})."
    elif top == len(points) - 1 and best == top:
        words += " More candidates than there are here may help further."
    return words
