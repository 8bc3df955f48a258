"""How one system's scores lie: of relevant documents and of the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.result import Histogram

BINS = 40


def histogram(
    system: str,
    raw: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    probabilities: NDArray[np.float64] | None,
) -> Histogram:
    """Count raw scores; and, of probabilities, how often each tenth of the range was right.

    What is not judged counts as irrelevant, as in the measures.

    :param raw: ``[pairs]``, as are the others.
    """
    edges = np.histogram_bin_edges(raw, BINS) if len(raw) else np.linspace(0, 1, BINS + 1)
    return Histogram(
        system,
        edges,
        np.histogram(raw[relevant], edges)[0].astype(np.int64),
        np.histogram(raw[~relevant], edges)[0].astype(np.int64),
        [] if probabilities is None else _reliability(probabilities, relevant),
    )


def _reliability(probabilities: NDArray[np.float64], relevant: NDArray[np.bool_]) -> list[tuple[float, float, int]]:
    tenth = np.minimum((probabilities * 10).astype(int), 9)
    return [
        (float(probabilities[here].mean()), float(relevant[here].mean()), int(here.sum()))
        for i in range(10)
        if (here := tenth == i).any()
    ]
