"""``crossrank rerank --pipeline FILE``: the stages that a file names, instead of one model."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from crossrank.cli.output import Report, Row, write_table, write_tabs
from crossrank.cli.terminal import complain, remark, to_json
from crossrank.data.streams import Document
from crossrank.errors import InputError
from crossrank.ranking.ranked_documents import RankedDocument, Ranking
from crossrank.ranking.reranker import Reranker
from crossrank.validation import check_threshold

# Options that say which model to take and how: with a pipeline its file says so. -> their defaults.
_OF_ONE_MODEL = {
    "model": None,
    "activation": None,
    "revision": None,
    "max_length": None,
    "precision": "auto",
    "num_threads": None,
    "device": None,
    "label": None,
    "batch_size": None,
    "long_documents": "truncate",
    "max_windows": None,
}


def open_pipeline(args: argparse.Namespace) -> Reranker:
    """Make the pipeline; nothing is loaded yet.

    :raises InputError: If an option is for one model alone, or the file can't be used.
    """
    for name, default in _OF_ONE_MODEL.items():
        if getattr(args, name) != default:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is for one model, but --pipeline names stages. Set it in {args.pipeline!r}.")
    reranker = Reranker.from_file(args.pipeline)
    if args.threshold is not None:
        check_threshold(args.threshold)
        reranker.threshold = args.threshold
    return reranker


def rank(reranker: Reranker, args: argparse.Namespace, documents: Sequence[Document], report: Report) -> int:
    """Rank what was read, and write it.

    :raises CrossRankError: If a stage fails and the pipeline says that this is an error.
    """
    given = [json.loads(document.line.text) if document.is_record else document.text for document in documents]
    if args.field:
        # What --field names goes before what the stages would find for themselves; a template of the file's own stays.
        pairs = zip(given, documents, strict=True)
        given = [{**one, "text": document.text} if isinstance(one, dict) else one for one, document in pairs]
    with reranker:
        ranking = reranker.rank(args.query, given, top_k=args.top_k)
    rows = [
        Row(
            ranked.rank,
            math.nan if ranked.score is None else ranked.score,
            ranked.first_stage_position,
            documents[ranked.first_stage_position],
        )
        for ranked in ranking
    ]
    if args.json:
        for row, ranked in zip(rows, ranking, strict=True):
            print(to_json(_as_json(row, ranked, ranking)))
    elif sys.stdout.isatty():
        write_table(rows, name_files=len(args.files) > 1)
    else:
        write_tabs(rows)
    sys.stdout.flush()
    _tell(ranking)
    report.tell_skipped()
    return 0


def _as_json(row: Row, ranked: RankedDocument, ranking: Ranking) -> dict[str, Any]:
    line = row.document.line
    facts = ranked.to_dict()
    return {
        "rank": row.rank,
        "score": facts["score"],
        "kind": None if ranked.score is None else ranked.kind,
        "corpus_id": row.index,
        "moved": row.moved,
        "file": line.file,
        "line": line.number,
        "stage_scores": facts["scores"],
        "stage_kinds": facts["kinds"],
        "passage": facts["passage"],
        "details": facts["details"],
        "degraded": ranking.degraded,
        "reason": ranking.reason,
        **({"document": json.loads(line.text)} if row.document.is_record else {"text": row.document.text}),
    }


def _tell(ranking: Ranking) -> None:
    if ranking.degraded:
        complain("warning", f"the ranking is degraded: {ranking.reason}.")
    for note in ranking.notes:
        complain("warning", f"{note}.")
    for stage in ranking.stages:
        if stage.pairs_cut:
            complain("warning", f"{stage.name}: {stage.pairs_cut} of {stage.documents} documents were cut.")
        told = f"{stage.name}: {stage.scored} of {stage.documents} documents scored ({stage.kind}), {stage.kept} kept"
        cost = "" if stage.cost is None else f", cost {stage.cost:g}"
        remark(f"{told}, {stage.tokens} tokens, {stage.seconds * 1000:.0f} ms{cost}")
        for note in stage.notes:
            remark(f"{stage.name}: {note}")
