"""evaluate(): measure how much models improve the ranking of a dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.data.candidates import Candidates
from crossrank.data.dataset import Dataset
from crossrank.data.open_dataset import open_dataset
from crossrank.data.trec import write_run
from crossrank.errors import InputError
from crossrank.evaluation.calibration.curves import reliability
from crossrank.evaluation.depth import depth_curve, depths_up_to
from crossrank.evaluation.findings import findings
from crossrank.evaluation.measures import DEFAULT, parse, per_query
from crossrank.evaluation.result import (
    CorpusTexts,
    DepthCurve,
    Evaluation,
    Histogram,
    KnownProblem,
    PairedComparison,
    System,
)
from crossrank.evaluation.score_store import slug
from crossrank.evaluation.significance import compare_all, tests_with
from crossrank.evaluation.systems import (
    Embedder,
    Scored,
    Scorer,
    score_bi_encoder,
    score_cross_encoder,
    unique_name,
)
from crossrank.validation import check_positive_integer

BINS = 40  # of a histogram of scores


def evaluate(
    dataset: Any,
    models: Scorer | Sequence[Scorer],
    *,
    bi_encoder: Embedder | None = None,
    measures: Sequence[str] = DEFAULT,
    depth: int = 100,
    seed: int = 0,
    work: str | Path | None = None,
    resume: bool = False,
    runs: str | Path | None = None,
    show_progress: bool | None = None,
) -> Evaluation:
    """Measure how much models improve the ranking of a dataset.

    All systems are measured on the same candidates and against all judgements. Candidates below the depth keep the
    order of the first stage.

    :param dataset: A :class:`~crossrank.data.Dataset`, or anything that :func:`~crossrank.data.open_dataset` reads: a
        path, a name on the hub, a data frame, a list of dictionaries. BM25 finds candidates if there are none.
    :param models: One reranker or several; objects such as :class:`~crossrank.scoring.cross_encoder.CrossEncoder`.
    :param bi_encoder: Ranks the same candidates by cosine.
    :param measures: Names of ir-measures. The first is the main measure, used for the depth curve and the findings.
    :param depth: How many candidates of each query are re-ranked.
    :param seed: Seed of the permutation test and the bootstrap.
    :param work: Folder for the scores; by default a temporary folder.
    :param resume: Continue with the scores in ``work``.
    :param runs: Folder for the complete ranking of every system, as TREC runs.
    :param show_progress: By default, progress is shown on a terminal.
    :raises InputError: If something can't be used.
    :raises MissingExtraError: If a package of the extra ``evaluation`` is not installed.
    """
    check_positive_integer("depth", depth, "It is the number of candidates to re-rank.")
    if resume and work is None:
        raise InputError("resume=True needs work=, the folder with the scores of the interrupted evaluation.")
    parsed = parse(measures)
    rerankers: Sequence[Scorer] = models if isinstance(models, Sequence) else [models]
    dataset = open_dataset(dataset)
    if dataset.candidates is None:
        dataset = dataset.with_bm25(depth, show_progress=show_progress)
    assert dataset.candidates is not None  # for the type checker; with_bm25 has made them
    candidates = dataset.candidates
    with tempfile.TemporaryDirectory(prefix="crossrank-") if work is None else nullcontext(work) as folder:
        scored = [Scored(dataset.first_stage, "first stage", candidates.scores)]
        common: dict[str, Any] = {"depth": depth, "work": Path(folder), "show_progress": show_progress}
        if bi_encoder is not None:
            name = _name(bi_encoder, [one.name for one in scored])
            scored.append(score_bi_encoder(dataset, candidates, bi_encoder, name, **common))
        for model in rerankers:
            name = _name(model, [one.name for one in scored])
            scored.append(score_cross_encoder(dataset, candidates, model, name, resume=resume, **common))
    results = _Results(dataset, candidates, scored, parsed, seed)
    if runs is not None:
        for one in scored:
            write_run(Path(runs) / f"{slug(one.name)}.run", slug(one.name), results.rankings(one))
    settings = {
        "depth": depth,
        **tests_with(seed),
        "first_stage": dataset.first_stage,
        "documents": len(dataset.corpus.ids),
        "candidates": len(candidates.documents),
        "left_out_first": dict(dataset.first_places),
        "versions": _versions(),
    }
    return results.evaluation(settings)


class _Results:
    """Turns scores into measures, tests, curves and findings."""

    def __init__(
        self, dataset: Dataset, candidates: Candidates, scored: Sequence[Scored], measures: Sequence[Any], seed: int
    ) -> None:
        self._dataset, self._candidates, self._scored = dataset, candidates, scored
        self._measures = measures
        self._main = str(measures[0])
        self._seed = seed
        self._queries = {query: number for number, query in enumerate(dataset.queries)}
        self._relevant = self._judged_relevant()

    def evaluation(self, settings: Mapping[str, object]) -> Evaluation:
        """Put everything together."""
        dataset = self._dataset
        systems = [
            one.system(self._candidates, dataset.corpus.ids, dataset.qrels, self._measures, self._seed)
            for one in self._scored
        ]
        names = list(map(str, self._measures))
        comparisons = compare_all(
            [(one.name, one.values) for one in systems], names, dataset=dataset.name, seed=self._seed
        )
        rerankers = [
            (one, system)
            for one, system in zip(self._scored, systems, strict=True)
            if one.kind == "cross-encoder" and one.pairs
        ]
        return Evaluation(
            dataset=dataset.name,
            queries=list(dataset.queries),
            query_texts=dataset.queries,
            document_texts=CorpusTexts(dataset.corpus),
            measures=names,
            systems=systems,
            comparisons=comparisons,
            curves=[self._curve(one, systems[0]) for one, _ in rerankers],
            histograms=[self._histogram(one) for one, _ in rerankers],
            findings=[
                finding for one, system in rerankers for finding in self._findings(one, system, systems[0], comparisons)
            ],
            left_out=dataset.left_out,
            settings=settings,
        )

    def rankings(self, one: Scored) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """Give the complete ranking of each query with scores. Documents below the depth get lower scores."""
        ids = self._dataset.corpus.ids
        for query, number in self._queries.items():
            order = one.order(self._candidates, number)
            scores = one.relevance[order]
            if one.depth and len(order):
                known = scores[~np.isnan(scores)]
                behind = np.cumsum(np.isnan(scores))
                scores = np.where(np.isnan(scores), known.min(initial=np.inf) - behind, scores)
            documents = self._candidates.documents[order].tolist()
            yield query, [(ids[d], float(score)) for d, score in zip(documents, scores, strict=True)]

    def _curve(self, one: Scored, first: System) -> DepthCurve:
        counts = self._candidates.counts
        depths = depths_up_to(min(one.depth, int(counts.max())))
        main, ids = [self._measures[0]], self._dataset.corpus.ids
        values = [
            per_query(main, self._dataset.qrels, partial(one.ranking, self._candidates, ids, depth=depth))[self._main]
            for depth in depths
        ]
        milliseconds = one.milliseconds if one.milliseconds is not None else np.zeros(len(counts))
        scored = np.maximum(np.minimum(counts, one.depth), 1)
        # All depths come from one pass, so the time of a query is divided among its pairs.
        costs = [float((milliseconds * np.minimum(scored, depth) / scored).mean()) for depth in depths]
        return depth_curve(
            one.name, self._main, depths, np.stack(values), first.values[self._main], costs, seed=self._seed
        )

    def _histogram(self, one: Scored) -> Histogram:
        done = ~np.isnan(one.relevance)
        probabilities = None if one.probabilities is None else one.probabilities[done].astype(np.float64)
        raw, relevant = one.relevance[done], self._relevant[done]
        edges = np.histogram_bin_edges(raw, BINS) if len(raw) else np.linspace(0, 1, BINS + 1)
        return Histogram(
            one.name,
            edges,
            np.histogram(raw[relevant], edges)[0].astype(np.int64),
            np.histogram(raw[~relevant], edges)[0].astype(np.int64),
            () if probabilities is None else reliability(probabilities, relevant),
        )

    def _findings(
        self, one: Scored, system: System, first: System, comparisons: Sequence[PairedComparison]
    ) -> list[KnownProblem]:
        [comparison] = [c for c in comparisons if (c.before, c.after, c.measure) == (first.name, one.name, self._main)]
        done = ~np.isnan(one.relevance)
        scores = one.relevance if one.probabilities is None else one.probabilities.astype(np.float64)
        return findings(
            system, first, comparison, scores[done], self._relevant[done], probabilities=one.probabilities is not None
        )

    def _judged_relevant(self) -> NDArray[np.bool_]:
        index = self._dataset.corpus.index
        relevant = np.zeros(len(self._candidates.documents), bool)
        for query, number in self._queries.items():
            here = self._candidates.of(number)
            good = [index[d] for d, grade in self._dataset.qrels[query].items() if grade > 0 and d in index]
            relevant[here] = np.isin(self._candidates.documents[here], good)
        return relevant


def _name(model: Any, taken: Sequence[str]) -> str:
    """Give the name of a model in tables: the end of its name, with a number if it is taken."""
    full = str(getattr(model, "name", type(model).__name__))
    parts = [part for part in full.replace("\\", "/").split("/") if part]
    # Many folders are called "model": then the name of the parent folder helps.
    name = "bundled model" if full == "bundled" else "/".join(parts[-2:] if parts[-1:] == ["model"] else parts[-1:])
    return unique_name(name or full, taken)


def _versions() -> dict[str, str]:
    from importlib.metadata import distributions

    wanted = ("crossrank", "ir-measures", "bm25s", "openvino", "numpy")
    return {name: one.version for one in distributions() if (name := (one.metadata["Name"] or "").lower()) in wanted}
