"""The two ways to ask a judge: for a grade of each document, and for the order of windows of documents."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from crossrank.ranking.judge.parsing import Grade, Order
from crossrank.ranking.network.retry import Failure, gather, reasons_of
from crossrank.ranking.stage import Context, StageScores


class JudgedDocuments(NamedTuple):
    """A judge's scores of all documents.

    :param scores: The scores, NaN if not judged, with more facts about each document.
    :param requested: The number of grades or windows that were requested.
    :param failures: Why some of these requests failed.
    """

    scores: StageScores
    requested: int
    failures: Sequence[Failure]


async def grade_each(
    count: int, ask: Callable[[int], Awaitable[Grade]], limit: asyncio.Semaphore, context: Context
) -> JudgedDocuments:
    """Ask for each document's grade, several at once.

    :param ask: Returns the grade of one document, by its index.
    """
    outcomes = await gather([partial(ask, row) for row in range(count)], limit, context)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    scores = [math.nan if isinstance(outcome, Failure) else float(outcome.grade) for outcome in outcomes]
    details = [
        {"failure": outcome.reason} if isinstance(outcome, Failure) else outcome._asdict() for outcome in outcomes
    ]
    degraded = f"{len(failures)} of {count} documents could not be judged: {reasons_of(failures)}" if failures else None
    return JudgedDocuments(StageScores(np.array(scores), "grade", details=details, degraded=degraded), count, failures)


def sliding_windows(count: int, window: int, step: int) -> list[tuple[int, int]]:
    """Start and end of each window, from the last to the first, which always starts at 0."""
    ends = range(count, window, -step)
    last = max(0, count - step * len(ends))
    return [(end - window, end) for end in ends] + ([(0, last)] if last else [])


async def rank_windows(
    count: int,
    window: int,
    step: int,
    ask: Callable[[list[int]], Awaitable[Order]],
    limit: asyncio.Semaphore,
    context: Context,
) -> JudgedDocuments:
    """Rank one window after the other, so that the best documents move from the last window to the first.

    A window that can't be judged keeps its order, and all documents get a rank. If there is little time left, windows
    in the middle are skipped, but not the last one, at the top of the list, which matters most.

    :param ask: Returns the order of some documents, by their indices.
    """
    windows = sliding_windows(count, window, step)
    order = list(range(count))
    named: dict[int, bool] = {}
    failures: list[Failure] = []
    notes: Counter[str] = Counter()
    taken: list[float] = []
    for number, (start, end) in enumerate(windows):
        last = number == len(windows) - 1
        left = context.deadline.remaining()
        if not last and taken and max(taken) * (len(windows) - number) > left:
            failures.append(Failure("there was no time left", retryable=True))
            continue
        if failures and (failures[-1].fatal or (failures[-1].service and not taken)):
            failures.append(failures[-1])
            continue
        rows = order[start:end]
        started = context.deadline.elapsed()
        (outcome,) = await gather([partial(ask, rows)], limit, context)
        if isinstance(outcome, Failure):
            failures.append(outcome)
            continue
        taken.append(context.deadline.elapsed() - started)
        order[start:end] = [rows[place] for place in outcome.positions]
        named.update({row: place < outcome.named for place, row in enumerate(order[start:end])})
        notes.update(_remarks(outcome, len(rows)))
    ranks = np.empty(count)
    ranks[order] = np.arange(1, count + 1)
    details = [{"rank": int(ranks[row]), "named": named.get(row)} for row in range(count)]
    failed = f"{len(failures)} of {len(windows)} windows could not be judged"
    scores = StageScores(
        1 / ranks,
        "rank",
        details=details,
        degraded=f"{failed} and keep their order: {reasons_of(failures)}" if failures else None,
        notes=[f"{much} {what}." for what, much in notes.items()],
    )
    return JudgedDocuments(scores, len(windows), failures)


def _remarks(order: Order, size: int) -> dict[str, int]:
    if order.named == 0:
        return {"windows in which the judge found nothing relevant keep their order": 1}
    found = {
        "documents that the judge left out of a window come after those it ranked": size - order.named,
        "repeated ids were ignored": order.repeated,
        "invented ids were ignored": order.invented,
    }
    return {what: much for what, much in found.items() if much}
