"""compare(): compare finished rankings from any system, as evaluate() compares models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrank.data.candidates import CandidateRows, Candidates
from crossrank.data.dataset import NO_RELEVANT
from crossrank.data.text_lines import Notes
from crossrank.data.trec import Qrels, diagnose, grades_of, read_qrels, read_run, run_rows
from crossrank.errors import InputError
from crossrank.evaluation.measures import DEFAULT, parse
from crossrank.evaluation.result import Evaluation, System
from crossrank.evaluation.significance import compare_all, tests_with
from crossrank.evaluation.systems import Scored, unique_name

UNJUDGED = "lines of queries that don't count: not judged, or without a relevant document"
MISSING = "queries that are not in it (kept: they count 0)"

_LOOKED_AT = 1000


def compare(
    runs: Mapping[str, Any] | Sequence[str | Path], qrels: Any, *, measures: Sequence[str] = DEFAULT, seed: int = 0
) -> Evaluation:
    """Compare finished rankings by their judgements.

    :param runs: Two or more: a list of paths of TREC runs, or name -> run. A run is a path, a dictionary query ->
        document -> score, a dictionary query -> documents, best first, or a data frame or rows with ``query_id``,
        ``doc_id`` and ``score``. Documents are sorted by score, and by rank if scores are equal.
    :param qrels: Judgements: the path of a TREC or BEIR file, a dictionary query -> document -> grade, or rows with
        ``query_id``, ``doc_id`` and ``relevance``. All queries with a relevant document count, in a run or not.
    :param measures: As in :func:`~crossrank.evaluation.evaluate_models.evaluate`.
    :param seed: Seed of the permutation test and the bootstrap.
    :raises InputError: If a line can't be used, or a run and the judgements have nothing in common.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run is not enough to compare. Give two or more.")
    parsed = parse(measures)
    notes = Notes()
    path = Path(qrels) if isinstance(qrels, (str, Path)) else Path("judgements")
    judged, places = read_qrels([path], notes) if isinstance(qrels, (str, Path)) else (grades_of(qrels, notes), {})
    counting = {query: grades for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    for query in judged:
        if query not in counting:
            notes.add(NO_RELEVANT, f"{places.get(query, path)}: {query!r}")
    if not counting:
        raise InputError(f"{path}: no query has a relevant document, a grade of 1 or more, so nothing can be measured.")
    ids: dict[str, int] = {}
    systems: list[System] = []
    named = runs.items() if isinstance(runs, Mapping) else [(Path(run).stem, run) for run in runs]
    for given, run in named:
        name = unique_name(given, [one.name for one in systems])
        systems.append(_system(run, name, counting, ids, parsed, notes, seed))
    names = list(map(str, parsed))
    return Evaluation(
        dataset=path.stem,
        queries=list(counting),
        query_texts={},
        document_texts={},
        measures=names,
        systems=systems,
        comparisons=compare_all([(one.name, one.values) for one in systems], names, dataset=path.stem, seed=seed),
        curves=[],
        histograms=[],
        findings=[],
        left_out=notes.counts,
        settings={**tests_with(seed), "left_out_first": notes.first},
    )


def _system(
    run: Any, name: str, qrels: Qrels, ids: dict[str, int], measures: Sequence[object], notes: Notes, seed: int
) -> System:
    own = Notes()
    candidates = _read(run, name, qrels, ids, own)
    own.add(MISSING, count=int((candidates.counts == 0).sum()))
    for what, count in own.counts.items():
        notes.add(f"{name}: {what}", own.first.get(what), count)
    facts = {"file": Path(run).name if isinstance(run, (str, Path)) else None, "lines": len(candidates.documents)}
    scored = Scored(name, "run", candidates.scores, facts=facts)
    return scored.system(candidates, list(ids), qrels, measures, seed)


def _read(run: Any, name: str, qrels: Qrels, ids: dict[str, int], notes: Notes) -> Candidates:
    numbers = {query: number for number, query in enumerate(qrels)}
    rows = CandidateRows()
    looked_at: list[tuple[str, str]] = []
    path = Path(run) if isinstance(run, (str, Path)) else Path(name)
    for row in read_run(path) if isinstance(run, (str, Path)) else run_rows(run, name):
        if row.query in numbers:
            rows.add(numbers[row.query], ids.setdefault(row.document, len(ids)), row.score, row.rank, row.place)
        else:
            notes.add(UNJUDGED, f"{row.place}: {row.query!r}")
            if len(looked_at) < _LOOKED_AT:
                looked_at.append((row.query, row.document))
    if not len(rows):
        raise diagnose(path, looked_at, qrels, {document for judged in qrels.values() for document in judged})
    return rows.build(len(qrels), notes)
