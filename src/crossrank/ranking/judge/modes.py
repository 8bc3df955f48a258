"""The two ways to ask a judge: for a grade of each document, and for the order of windows of documents."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.ranking.judge.parsing import Grade, Order
from crossrank.ranking.network.retry import Failure, gather, summary
from crossrank.ranking.stage import Context


@dataclass(frozen=True)
class Judged:
    """A judge's scores of all documents.

    :param scores: ``[documents]``; NaN if not judged.
    :param kind: ``"grade"`` or ``"rank"``.
    :param details: ``[documents]``, more facts about each.
    :param requested: Grades or windows that were requested.
    :param failures: Those of them that failed.
    :param degraded: What is missing, in a sentence; ``None`` if nothing is.
    :param notes: Other notes for the caller.
    """

    scores: NDArray[np.float64]
    kind: str
    details: tuple[Mapping[str, Any], ...]
    requested: int
    failures: tuple[Failure, ...]
    degraded: str | None
    notes: tuple[str, ...] = ()


async def grade_each(
    count: int, ask: Callable[[int], Awaitable[Grade]], limit: asyncio.Semaphore, context: Context
) -> Judged:
    """Ask for each document's grade, several at once.

    :param ask: Returns the grade of one document, by its index.
    """
    outcomes = await gather([partial(ask, row) for row in range(count)], limit, context)
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failure))
    scores = [math.nan if isinstance(outcome, Failure) else float(outcome.grade) for outcome in outcomes]
    details = tuple(
        {"failure": outcome.reason} if isinstance(outcome, Failure) else dict(vars(outcome)) for outcome in outcomes
    )
    degraded = f"{len(failures)} of {count} documents could not be judged: {summary(failures)}"
    return Judged(np.array(scores), "grade", details, count, failures, degraded if failures else None)


def sliding_windows(count: int, window: int, step: int) -> list[tuple[int, int]]:
    """Start and end of each window, from the last to the first, which always starts at 0."""
    windows = []
    end = count
    while end > 0:
        start = max(0, end - window)
        windows.append((start, end))
        if start == 0:
            break
        end -= step
    return windows


async def rank_windows(
    count: int,
    window: int,
    step: int,
    ask: Callable[[list[int]], Awaitable[Order]],
    limit: asyncio.Semaphore,
    context: Context,
) -> Judged:
    """Rank one window after the other, so that the best documents move from the last window to the first.

    A window that can't be judged keeps its order, and all documents get a rank. If time gets short, windows in between
    are skipped, but not the first one, which matters most.

    :param ask: Returns the order of some documents, by their indices.
    """
    windows = sliding_windows(count, window, step)
    order = list(range(count))
    named: dict[int, bool] = {}
    failures: list[Failure] = []
    notes: dict[str, int] = {}
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
        for what, much in _remarks(outcome, len(rows)):
            notes[what] = notes.get(what, 0) + much
    ranks = np.empty(count)
    ranks[order] = np.arange(1, count + 1)
    details = tuple({"rank": int(ranks[row]), "named": named.get(row)} for row in range(count))
    degraded = f"{len(failures)} of {len(windows)} windows could not be judged and keep their order: "
    return Judged(
        1 / ranks,
        "rank",
        details,
        len(windows),
        tuple(failures),
        degraded + summary(failures) if failures else None,
        tuple(f"{much} {what}." for what, much in notes.items()),
    )


def _remarks(order: Order, size: int) -> list[tuple[str, int]]:
    if order.named == 0:
        return [("windows in which the judge found nothing relevant keep their order", 1)]
    found = [
        ("documents that the judge left out of a window come after those it ranked", size - order.named),
        ("repeated ids were ignored", order.repeated),
        ("invented ids were ignored", order.invented),
    ]
    return [(what, much) for what, much in found if much]
