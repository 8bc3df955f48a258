"""The results of an evaluation as plain data, for the terminal, JSON and the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossrank.data.corpus import Corpus
from crossrank.evaluation.calibration.curves import ReliabilityPoint

Floats = NDArray[np.float64]
LEVEL = 0.05  # p-values below this are significant


class Shown(NamedTuple):
    """A document near the top of a ranking.

    :param score: Its raw score; the logit for a reranker.
    :param grade: Its judgement; ``None`` if it is not judged.
    """

    document: str
    score: float
    grade: int | None


class CorpusTexts(Mapping[str, str]):
    """The texts of a corpus by identifier. A text is read when it is needed."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __getitem__(self, name: str) -> str:
        return self._corpus.text(self._corpus.index[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._corpus.ids)

    def __len__(self) -> int:
        return len(self._corpus.ids)


@dataclass(frozen=True)
class System:
    """A system that ranks the candidates.

    :param name: Its name in tables, such as ``"BM25"``.
    :param kind: ``"first stage"``, ``"bi-encoder"``, ``"cross-encoder"`` or ``"run"``.
    :param values: Measure -> its value for each query, ``[queries]``, in the order of :attr:`Evaluation.queries`.
    :param intervals: Measure -> the ends of the 95 % interval of its mean (bootstrap over queries).
    :param top: Query -> its first documents, best first.
    :param milliseconds: Time of each query, ``[queries]``; ``None`` if nothing was computed.
    :param pairs_cut: Number of pairs from which tokens were cut.
    :param ties: Candidates whose raw score equals that of another candidate of the query.
    :param facts: How it ran (engine, precision, threads, revision, ...).
    """

    name: str
    kind: str
    values: Mapping[str, Floats]
    intervals: Mapping[str, tuple[float, float]]
    top: Mapping[str, Sequence[Shown]]
    milliseconds: Floats | None = None
    pairs: int = 0
    seconds: float = 0.0
    pairs_cut: int = 0
    ties: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)

    def mean(self, measure: str) -> float:
        """The mean of a measure over all queries."""
        return float(self.values[measure].mean())

    @property
    def milliseconds_per_query(self) -> float | None:
        """The mean time of a query; ``None`` if nothing was computed."""
        return None if self.milliseconds is None or not len(self.milliseconds) else float(self.milliseconds.mean())

    @property
    def pairs_per_second(self) -> float | None:
        """How fast pairs were scored; ``None`` if nothing was computed."""
        return self.pairs / self.seconds if self.seconds else None

    @property
    def share_cut(self) -> float | None:
        """The share of the pairs from which tokens were cut; ``None`` without pairs."""
        return self.pairs_cut / self.pairs if self.pairs else None

    def to_dict(self) -> dict[str, Any]:
        """All of it for :mod:`json`."""
        tops = {
            query: [{**one._asdict(), "score": one.score if math.isfinite(one.score) else None} for one in shown]
            for query, shown in self.top.items()
        }
        return {
            **vars(self),
            "means": {measure: self.mean(measure) for measure in self.values},
            "intervals": {measure: list(ends) for measure, ends in self.intervals.items()},
            "values": {measure: values.tolist() for measure, values in self.values.items()},
            "top": tops,
            "milliseconds": None if self.milliseconds is None else self.milliseconds.tolist(),
            "milliseconds_per_query": self.milliseconds_per_query,
            "pairs_per_second": self.pairs_per_second,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class PairedComparison:
    """Two systems on one measure, query by query.

    :param queries: How many queries both were measured on.
    :param means: Of ``before`` and of ``after``.
    :param difference: The mean of ``after`` minus the mean of ``before``.
    :param interval: Ends of the 95 % interval of the mean difference (bootstrap over queries).
    :param deviation: Standard deviation of the differences; 0 for a single query.
    :param p: p-value of a two-sided paired permutation test (random sign flips).
    :param p_corrected: p-value after Holm's correction for all pairs of systems on this measure.
    :param won: Queries on which ``after`` is better.
    :param dataset: The name of the dataset with these queries.
    """

    before: str
    after: str
    measure: str
    queries: int
    means: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    deviation: float
    p: float
    p_corrected: float
    won: int
    lost: int
    tied: int
    dataset: str = ""

    def reversed(self) -> PairedComparison:
        """The same comparison with the two systems exchanged."""
        low, high = self.interval
        return replace(
            self,
            before=self.after,
            after=self.before,
            means=self.means[::-1],
            difference=-self.difference,
            interval=(-high, -low),
            won=self.lost,
            lost=self.won,
        )

    @property
    def doubt(self) -> str:
        """Why the difference is not significant although its interval excludes 0, in a sentence; else empty."""
        if self.p_corrected < LEVEL or self.interval[0] <= 0 <= self.interval[1]:
            return ""
        differing = self.won + self.lost
        if (least := 2.0 ** (1 - differing)) >= LEVEL:
            queries = "query differs" if differing == 1 else "queries differ"
            return f"Only {differing} {queries}, so p can't be below {least:.3g}: there are too few queries."
        if self.p < LEVEL:
            return f"Before the correction for several comparisons p was {self.p:.3f}."
        return "The interval is approximate and too narrow with few queries; p decides."


@dataclass(frozen=True)
class DepthPoint:
    """The measure if only the first ``depth`` candidates are re-ranked and the others keep their order below them."""

    depth: int
    value: float
    milliseconds: float


@dataclass(frozen=True)
class DepthCurve:
    """One reranker at several depths, in rising order.

    :param best: The smallest depth that is not significantly worse than the best one.
    :param harmful_after: Depth after which more candidates make the ranking significantly worse, or ``None``.
    :param advice: The recommendation as a text.
    """

    system: str
    measure: str
    points: Sequence[DepthPoint]
    best: int
    harmful_after: int | None
    advice: str


@dataclass(frozen=True)
class Histogram:
    """Raw scores of relevant and irrelevant pairs. Unjudged pairs count as irrelevant, as in the measures.

    :param edges: ``[bins + 1]``; the counts ``relevant`` and ``irrelevant`` are ``[bins]``.
    :param reliability: If scores are probabilities, for each tenth of the range: mean score, share of relevant pairs,
        and count.
    """

    system: str
    edges: Floats
    relevant: NDArray[np.int64]
    irrelevant: NDArray[np.int64]
    reliability: Sequence[ReliabilityPoint] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it for :mod:`json`."""
        arrays = {name: getattr(self, name).tolist() for name in ("edges", "relevant", "irrelevant")}
        return {"system": self.system, **arrays, "reliability": [list(row) for row in self.reliability]}


@dataclass(frozen=True)
class KnownProblem:
    """A known problem of rerankers that the figures show; the command line and the report call it a warning.

    :param code: A short, stable code for scripts: ``"no-gain"``, ``"scores-pile-up"``, ``"many-cut"``, ...
    """

    code: str
    system: str
    text: str


@dataclass(frozen=True)
class Evaluation:
    """The results of one dataset.

    :param dataset: Its name.
    :param queries: Identifiers of the queries that count. All per-query arrays have this order.
    :param query_texts: Query -> text; ``document_texts`` has at least the texts of documents in any ``top``.
    :param measures: Their names in ir-measures, the main one first.
    :param systems: The first stage first, then the bi-encoder, then the rerankers.
    :param left_out: The reason why something was left out -> how many times.
    :param settings: Depth, seed, test, versions, ...
    """

    dataset: str
    queries: Sequence[str]
    query_texts: Mapping[str, str]
    document_texts: Mapping[str, str]
    measures: Sequence[str]
    systems: Sequence[System]
    comparisons: Sequence[PairedComparison]
    curves: Sequence[DepthCurve]
    histograms: Sequence[Histogram]
    findings: Sequence[KnownProblem]
    left_out: Mapping[str, int]
    settings: Mapping[str, object]

    def to_dict(self) -> dict[str, Any]:
        """All of it for :mod:`json`, except the texts. Values of queries are in the order of ``queries``."""
        return {
            "dataset": self.dataset,
            "queries": list(self.queries),
            "measures": list(self.measures),
            "systems": [one.to_dict() for one in self.systems],
            "comparisons": [asdict(one) for one in self.comparisons],
            "curves": [asdict(one) for one in self.curves],
            "histograms": [one.to_dict() for one in self.histograms],
            "findings": [asdict(one) for one in self.findings],
            "left_out": dict(self.left_out),
            "settings": dict(self.settings),
        }

    def per_query(self) -> list[dict[str, Any]]:
        """Give a row for each query and system: dataset, query, system, the measures, milliseconds."""
        return [
            {
                "dataset": self.dataset,
                "query": query,
                "system": system.name,
                **{measure: float(system.values[measure][i]) for measure in self.measures},
                "milliseconds": None if system.milliseconds is None else float(system.milliseconds[i]),
            }
            for i, query in enumerate(self.queries)
            for system in self.systems
        ]
