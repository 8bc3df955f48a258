"""Scores of one question, by the scheduler or a pipeline, until the deadline."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from crossrank.ranking.reranker import Reranker
from crossrank.scoring.activation import sigmoid
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.server.dialects.body import Question
from crossrank.server.models import Loaded

if TYPE_CHECKING:
    from crossrank.server.app import State


@dataclass
class Outcome:
    """Scores of one request, and how they were made.

    :param order: Documents to return, best first; those without a score follow in their input order.
    :param cut: Document -> number of tokens cut.
    :param known: Documents that were ``"cached"`` or ``"prepared"``.
    :param skipped: Documents without a score.
    """

    order: list[int]
    scores: list[float]
    tokens: int = 0
    cut: dict[int, int] = field(default_factory=dict)
    query_cut: int = 0
    skipped: list[int] = field(default_factory=list)
    known: Mapping[str | None, int] = field(default_factory=Counter)
    degraded: str | None = None
    timings: dict[str, float] = field(default_factory=dict)


async def rank(loaded: Loaded, question: Question, state: State, deadline: float | None) -> Outcome:
    """Score and order the documents until the deadline.

    :param deadline: On the clock of ``time.perf_counter``.
    """
    if isinstance(loaded.runs, CrossEncoder):
        return await _rank_with_model(loaded.runs, loaded.activation, question, state, deadline)
    async with state.pipelines:
        return await _rank_with_pipeline(loaded.runs, question, deadline)


async def _rank_with_model(
    model: CrossEncoder, activation: str | None, question: Question, state: State, deadline: float | None
) -> Outcome:
    most = state.settings.max_document_characters
    pairs = [(query, document[:most]) for query, document in question.pairs]
    entered = time.perf_counter()
    job = state.scheduler.submit(model, pairs)
    try:
        await asyncio.wait((job.done,), timeout=None if deadline is None else max(0.0, deadline - entered))
        if job.done.done():
            job.done.result()
    finally:
        state.scheduler.end(job)
    finished = time.perf_counter()
    scores, relevance = np.zeros(len(pairs)), np.full(len(pairs), -np.inf)
    if job.logits is not None:
        logits = job.logits[job.scored]
        made, ranked_by = model.activate(logits, activation)
        assert ranked_by is not None  # the golden pairs have one score each
        scores[job.scored], relevance[job.scored] = (ranked_by if question.raw else made), ranked_by
    cut = {int(i): int(job.document_cut[i]) for i in np.flatnonzero(job.document_cut)}
    for index, (_, document) in enumerate(question.pairs):
        if len(document) > most:  # the rest has no tokens: one for four characters
            cut[index] = cut.get(index, 0) + (len(document) - most) // 4
    skipped, scored = np.flatnonzero(~job.scored).tolist(), int(job.scored.sum())
    return Outcome(
        order=np.argsort(-relevance, kind="stable").tolist(),
        scores=scores.tolist(),
        tokens=job.tokens,
        cut=dict(sorted(cut.items())),
        query_cut=int(job.query_cut.max(initial=0)),
        known=job.known,
        skipped=skipped,
        degraded=f"the time was up when {scored} of {len(pairs)} documents were scored" if skipped else None,
        timings={
            "waiting": (job.started or finished) - entered,
            "scoring": finished - (job.started or finished),
        },
    )


async def _rank_with_pipeline(reranker: Reranker, question: Question, deadline: float | None) -> Outcome:
    """Documents that a pipeline leaves out follow those it returns, with a score of 0."""
    scores = [0.0] * len(question.pairs)
    order: list[int] = []
    tokens = 0
    reasons: list[str] = []
    skipped: list[int] = []
    started = time.perf_counter()
    for query in dict.fromkeys(query for query, _ in question.pairs):
        indices = [i for i, (own, _) in enumerate(question.pairs) if own == query]
        left = None if deadline is None else max(0.001, deadline - time.perf_counter())
        ranking = await reranker.arank(query, [question.pairs[i][1] for i in indices], deadline=left)
        ceiling = 1.0
        for ranked in ranking:
            index = indices[ranked.first_stage_position]
            # Scores must not rise along the order, even if they are from different stages.
            ceiling = scores[index] = min(ceiling, _within_one(ranked.score, ranked.kind))
            order.append(index)
            if not ranked.scores:
                skipped.append(index)
        tokens += ranking.tokens
        reasons += ranking.reasons
    rest = set(range(len(scores))) - set(order)
    return Outcome(
        order=order + sorted(rest),
        scores=scores,
        tokens=tokens,
        skipped=sorted(skipped),
        degraded="; ".join(reasons) or None,
        timings={"scoring": time.perf_counter() - started},
    )


def _within_one(score: float | None, kind: str) -> float:
    if score is None or kind in ("unscored", "first_stage"):
        return 0.0
    return float(sigmoid(np.float64(score))) if kind == "logit" else min(1.0, max(0.0, score))
