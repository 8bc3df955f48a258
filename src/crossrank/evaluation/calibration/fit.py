"""Calibrate a model on a dataset: judged pairs, their scores, the curve and the thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from crossrank.data.dataset import Dataset
from crossrank.errors import InputError
from crossrank.evaluation.calibration.curves import Fitted, fit
from crossrank.evaluation.calibration.threshold import threshold_for
from crossrank.progress import progress_of
from crossrank.scoring.calibration import Calibration, Threshold
from crossrank.scoring.cross_encoder import CrossEncoder

_CHUNK = 8192  # pairs whose texts are in memory at a time


@dataclass(frozen=True)
class JudgedPairs:
    """The candidates that a calibration is fitted on.

    :param queries: ``[pairs]``, numbers of queries, rising.
    :param documents: ``[pairs]``, numbers of documents in the corpus.
    :param labels: ``[pairs]``, whether each is relevant: grade 1 and more.
    :param unjudged: Candidates without a judgement.
    """

    queries: NDArray[np.int64]
    documents: NDArray[np.int64]
    labels: NDArray[np.bool_]
    unjudged: int


def judged_pairs(dataset: Dataset, *, depth: int = 100, assume_irrelevant: bool = False) -> JudgedPairs:
    """Find the judged candidates of a dataset.

    :param depth: The most candidates per query.
    :param assume_irrelevant: Count candidates without a judgement as irrelevant, instead of leaving them out.
    """
    candidates, ids = dataset.candidates, dataset.corpus.ids
    if candidates is None:
        raise InputError(f"{dataset.name} has no candidates. Find some with dataset.with_bm25(100).")
    rows: list[tuple[int, int, bool]] = []
    unjudged = 0
    for number, query in enumerate(dataset.queries):
        grades = dataset.qrels[query]
        for document in candidates.documents[candidates.of(number)][:depth]:
            grade = grades.get(ids[int(document)])
            unjudged += grade is None
            if grade is not None or assume_irrelevant:
                rows.append((number, int(document), grade is not None and grade > 0))
    table = np.array(rows, np.int64).reshape(-1, 3)
    return JudgedPairs(table[:, 0], table[:, 1], table[:, 2].astype(bool), unjudged)


def calibrate(
    model: CrossEncoder,
    dataset: Dataset,
    *,
    depth: int = 100,
    assume_irrelevant: bool = False,
    target_precision: float | None = None,
    target_recall: float | None = None,
    confidence: float = 0.95,
    method: str | None = None,
    batch_size: int | None = None,
    show_progress_bar: bool | None = None,
) -> tuple[Calibration, Fitted, str | None]:
    """Fit a calibration of a model on the judged candidates of a dataset.

    :param model: A model with a single score and without a calibration.
    :param dataset: A dataset with candidates.
    :param target_precision: Also find a threshold with this precision.
    :param target_recall: Also find one with this recall, among the candidates.
    :returns: The calibration to save, the fit with its reliability points, and the reason why the calibration has no
        threshold (``None`` if it has one or no target was given).
    :raises InputError: If there are too few judged pairs. The message says how many more are needed.
    """
    if model.calibration is not None:
        raise InputError("The model already has a calibration. Fit a new one on a CrossEncoder without it.")
    pairs = judged_pairs(dataset, depth=depth, assume_irrelevant=assume_irrelevant)
    relevant = int(pairs.labels.sum())
    if pairs.unjudged and relevant == len(pairs.labels) and not assume_irrelevant:
        raise InputError(
            f"{dataset.name} has no judged candidate that is irrelevant: {relevant} are judged, all relevant, and "
            f"{pairs.unjudged} are not judged. If unjudged means irrelevant, use --assume-irrelevant."
        )
    logits = np.concatenate([np.empty(0), *_logits(model, dataset, pairs, batch_size, show_progress_bar)])
    fitted = fit(logits, pairs.labels, pairs.queries, method=method)
    probabilities = fitted.curve.apply(logits)
    thresholds: list[Threshold] = []
    unmet = None
    for name, target in (("target_precision", target_precision), ("target_recall", target_recall)):
        if target is not None:
            find = partial(threshold_for, probabilities, pairs.labels, confidence=confidence, queries=pairs.queries)
            try:
                thresholds.append(find(**{name: target}))
            except InputError as error:
                unmet = str(error)
    return (
        Calibration(
            curve=fitted.curve,
            binding=model.binding(),
            dataset=dataset.name,
            pairs=len(logits),
            relevant=relevant,
            queries=len(np.unique(pairs.queries)),
            unjudged=pairs.unjudged,
            unjudged_as="irrelevant" if assume_irrelevant else "left out",
            before=fitted.before,
            after=fitted.after,
            log_losses=fitted.log_losses,
            thresholds=tuple(thresholds),
        ),
        fitted,
        unmet,
    )


def _logits(
    model: CrossEncoder, dataset: Dataset, pairs: JudgedPairs, batch_size: int | None, show: bool | None
) -> Iterator[NDArray[np.float64]]:
    texts = list(dataset.queries.values())
    with progress_of(len(pairs.labels), show) as progress:
        for start in range(0, len(pairs.labels), _CHUNK):
            here = slice(start, start + _CHUNK)
            chunk = [
                (texts[query], dataset.corpus.text(int(document)))
                for query, document in zip(pairs.queries[here], pairs.documents[here], strict=True)
            ]
            result = model.score(
                chunk, batch_size=batch_size, show_progress_bar=progress, activation_fn="identity"
            ).relevance
            if result is None:
                raise InputError(f"{model.name} has several labels. Name the one that means relevant: --label.")
            yield result
