"""compare(): finished rankings from anywhere -> the same comparison as of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossrank.data.candidates import CandidateRows, Candidates
from crossrank.data.dataset import NO_RELEVANT
from crossrank.data.text_lines import Notes
from crossrank.data.trec import Qrels, RunRow, diagnose, read_qrels, read_run
from crossrank.errors import InputError
from crossrank.evaluation import significance
from crossrank.evaluation.comparing import compare_all, mean_intervals
from crossrank.evaluation.lazily import Tops
from crossrank.evaluation.measures import DEFAULT, parse, per_query
from crossrank.evaluation.result import Evaluation, System

UNJUDGED = "lines of queries that count for nothing: not judged, or without a relevant document"
MISSING = "queries that are not in it (kept: they count 0)"

_TOP = 10
_LOOKED_AT = 1000


def compare(
    runs: Sequence[str | Path], qrels: str | Path, *, measures: Sequence[str] = DEFAULT, seed: int = 0
) -> Evaluation:
    """Compare finished rankings by their judgements.

    :param runs: TREC runs, two or more; a line's score gives the order, its rank decides between equal scores.
    :param qrels: Judgements, TREC's or BEIR's. All queries with a relevant document count, in a run or not.
    :param measures: As in :func:`~crossrank.evaluation.evaluate.evaluate`.
    :param seed: Of the permutation test and the bootstrap.
    :raises InputError: If a line can't be used, or a run and the judgements have nothing in common.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run is not enough to compare. Name two or more.")
    parsed = parse(measures)
    notes = Notes()
    path = Path(qrels)
    judged, places = read_qrels(path, notes)
    counting = {query: grades for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    for query in judged:
        if query not in counting:
            notes.add(NO_RELEVANT, f"{places[query]}: {query!r}")
    if not counting:
        raise InputError(f"{path}: no query has a relevant document, a grade of 1 or more, so nothing can be measured.")
    ids: dict[str, int] = {}
    systems: list[System] = []
    for run in map(Path, runs):
        name = _free(run.stem, [one.name for one in systems])
        systems.append(_system(run, name, counting, ids, parsed, notes, seed))
    names = list(map(str, parsed))
    return Evaluation(
        dataset=path.stem,
        queries=list(counting),
        query_texts={},
        document_texts={},
        measures=names,
        systems=systems,
        comparisons=compare_all([(one.name, one.values) for one in systems], names, seed=seed),
        curves=[],
        histograms=[],
        findings=[],
        left_out=notes.counts,
        settings={
            "seed": seed,
            "test": significance.TEST,
            "draws": significance.DRAWS,
            "interval": f"95 %, percentile bootstrap over queries, {significance.RESAMPLES} resamples",
            "left_out_first": notes.first,
        },
    )


def _system(
    path: Path, name: str, qrels: Qrels, ids: dict[str, int], measures: Sequence[object], notes: Notes, seed: int
) -> System:
    own = Notes()
    candidates = _read(path, qrels, ids, own)
    own.add(MISSING, count=int((candidates.counts == 0).sum()))
    for what, count in own.counts.items():
        notes.add(f"{name}: {what}", own.first.get(what), count)
    documents = list(ids)

    def ranking(query: int) -> list[str]:
        return [documents[i] for i in candidates.documents[candidates.of(query)].tolist()]

    values = per_query(measures, qrels, ranking)
    top = np.full((len(qrels), _TOP), -1, np.int32)
    scores = np.full((len(qrels), _TOP), np.nan)
    ties = 0
    for query in range(len(qrels)):
        here = candidates.of(query)
        first = slice(here.start, min(here.stop, here.start + _TOP))
        top[query, : first.stop - first.start] = candidates.documents[first]
        scores[query, : first.stop - first.start] = candidates.scores[first]
        _, counts = np.unique(candidates.scores[here], return_counts=True)
        ties += int(counts[counts > 1].sum())
    numbers = {query: number for number, query in enumerate(qrels)}
    return System(
        name=name,
        kind="run",
        values=values,
        intervals=mean_intervals(values, seed=seed),
        top=Tops(numbers, documents, qrels, top, scores),
        ties=ties,
        facts={"file": path.name, "lines": len(candidates.documents)},
    )


def _read(path: Path, qrels: Qrels, ids: dict[str, int], notes: Notes) -> Candidates:
    numbers = {query: number for number, query in enumerate(qrels)}
    rows = CandidateRows()
    looked_at: list[RunRow] = []
    for row in read_run(path):
        if row.query in numbers:
            rows.add(numbers[row.query], ids.setdefault(row.document, len(ids)), row.score, row.rank, row.place)
        else:
            notes.add(UNJUDGED, f"{row.place}: {row.query!r}")
            if len(looked_at) < _LOOKED_AT:
                looked_at.append(row)
    if not len(rows):
        columns = {"queries": [row.query for row in looked_at], "documents": [row.document for row in looked_at]}
        raise diagnose(path, columns, qrels, {document for judged in qrels.values() for document in judged})
    return rows.build(len(qrels), notes)


def _free(name: str, taken: Sequence[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
