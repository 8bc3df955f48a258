"""One scheduler between requests and models: which batch runs next, so that small requests don't wait for large ones.

A thread tokenizes the next pairs while another runs the current batch. Both use the steps of
:meth:`~crossrank.scoring.cross_encoder.CrossEncoder.score`, so a request's scores are the library's.

Fair queueing: each job counts the tokens it has been given, a new job starts at the least count of those that wait, and
the job with the least count goes next, the smaller one first among equals. A batch has pairs of one job, or of several
small ones that it finishes: a small job never waits for a batch that a large one fills up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CrossRankError
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.tokenization.batching import TOKEN_BUDGET, Batch
from crossrank.tokenization.pair_encoder import EncodedPairs, concatenate

# Pairs and characters that are tokenized at a time: a window within which pairs are sorted by length. The first
# window of a request is small, so that its first batch comes soon and a deadline finds its first documents scored.
FIRST_WINDOW, WINDOW_PAIRS = 32, 256
WINDOW_CHARACTERS = 400_000
# Share of the model's token budget that a batch gets where requests share the server: a new one waits for the batch
# that is running. It costs some throughput, so a request that is alone gets the full budget.
SHARED = 3 / 8
# Seconds for which a request counts as sharing the server after it ended.
_SHARED_FOR = 2.0
# Full batches of tokenized pairs that may wait before tokenizing pauses.
_BATCHES_AHEAD = 16
_CHARACTERS_PER_TOKEN = 4


class QueueFullError(CrossRankError):
    """Too much work is waiting.

    :param retry_after: Seconds after which a request may find room, at least 1.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


Pair = tuple[str, str]


@dataclass(eq=False)
class Job:
    """The pairs of one request, and their results so far.

    :param model: The model that scores all of them.
    :param pairs: ``(query, document)``.
    :param estimate: Its number of tokens in the queue.
    :param done: Set when all pairs are scored, or to the error that stopped them.
    """

    model: CrossEncoder
    pairs: Sequence[Pair]
    estimate: int
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    logits: NDArray[np.float32] | None = None  # [pairs, labels] once there are some; NaN where not scored
    started: float | None = None  # when its first batch began, by perf_counter
    tokens: int = 0
    known: Counter[str | None] = field(default_factory=Counter)  # documents "cached", "prepared" or encoded now
    ended: bool = False
    scored: NDArray[np.bool_] = field(init=False)
    query_cut: NDArray[np.int64] = field(init=False)
    document_cut: NDArray[np.int64] = field(init=False)
    entries: list[_Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scored = np.zeros(len(self.pairs), bool)
        self.query_cut, self.document_cut = np.zeros((2, len(self.pairs)), np.int64)


@dataclass(eq=False)
class _Entry:
    """A distinct pair in flight, and the places in jobs that wait for it; none if all jobs have ended."""

    pair: Pair
    places: list[tuple[Job, int]]


Window = tuple[EncodedPairs, list[_Entry]]


@dataclass(eq=False)
class _Task:
    """The new pairs of a job, without those already in flight. The unit of fair queueing."""

    model: CrossEncoder
    untouched: deque[_Entry]  # not tokenized yet
    given: float  # tokens it has been given, on the common scale of fair queueing
    windows: deque[Window] = field(default_factory=deque)
    window: int = FIRST_WINDOW  # pairs of the next window
    running: tuple[Iterator[Batch], Window] | None = None  # the window whose batches are being run
    encoding: bool = False
    tokens_ahead: int = 0  # of the windows
    budget: int = TOKEN_BUDGET  # the model's, once it is loaded

    @property
    def left(self) -> int:
        return len(self.untouched) + sum(len(entries) for _, entries in self.windows)

    @property
    def is_small(self) -> bool:
        """Whether one batch could finish it."""
        whole = not self.untouched and not self.encoding and self.running is None
        return whole and 0 < self.tokens_ahead <= self.budget


class Scheduler:
    """Scores the pairs of many requests.

    :param max_queue_tokens: The maximum of waiting tokens, as estimated.
    :param observe: Called with what happens, for the metrics: ``("batch", share of the token budget it fills)`` and
        ``("shared", pairs that were in flight already)``.
    """

    def __init__(self, max_queue_tokens: int, observe: Callable[[str, float], None] = lambda *_: None) -> None:
        self.max_queue_tokens = max_queue_tokens
        self.queued_tokens = 0
        self._observe = observe
        self._tasks: list[_Task] = []
        self._in_flight: dict[tuple[int, Pair], _Entry] = {}
        self._change = threading.Condition()
        self._stopping = False
        self._shared_until = 0.0
        self._pace = 20_000.0  # tokens a second, measured continuously
        self._threads = [
            threading.Thread(target=self._repeat, args=(step,), name=f"crossrank{step.__name__}", daemon=True)
            for step in (self._tokenize, self._infer)
        ]
        for thread in self._threads:
            thread.start()

    # ---- for the event loop ------------------------------------------------------------------------------------

    def submit(self, model: CrossEncoder, pairs: Sequence[Pair]) -> Job:
        """Put pairs in the queue; ``job.done`` is set when all are scored. :meth:`end` must follow in any case.

        :param model: A loaded one.
        :raises QueueFullError: If too many tokens are waiting. An empty queue accepts any single request.
        """
        most = model.max_length
        estimate = sum(min(most, (len(q) + len(d)) // _CHARACTERS_PER_TOKEN + 3) for q, d in pairs)
        loop = asyncio.get_running_loop()
        job = Job(model, pairs, estimate, loop, loop.create_future())
        with self._change:
            if self.queued_tokens and self.queued_tokens + estimate > self.max_queue_tokens:
                wait = max(1, min(60, round(self.queued_tokens / self._pace)))
                raise QueueFullError(
                    f"The server is busy: about {self.queued_tokens} tokens are waiting, this request has {estimate}, "
                    f"and max_queue_tokens is {self.max_queue_tokens}. Try again in {wait} s, or send fewer documents.",
                    wait,
                )
            self.queued_tokens += estimate
            self._enter(job)
            self._change.notify_all()
        return job

    def end(self, job: Job) -> None:
        """Remove a job, finished or not: its client left, or its time is up. Its tokens are free at once."""
        with self._change:
            if job.ended:
                return
            job.ended = True
            self.queued_tokens -= job.estimate
            for entry in job.entries:
                entry.places = [place for place in entry.places if place[0] is not job]
                if not entry.places:
                    self._in_flight.pop((id(job.model), entry.pair), None)

    @property
    def alive(self) -> bool:
        """Whether both threads are running."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the threads; waiting pairs are not scored."""
        with self._change:
            self._stopping = True
            self._change.notify_all()

    # ---- the queue, with the lock held -------------------------------------------------------------------------

    def _enter(self, job: Job) -> None:
        fresh = []
        for index, pair in enumerate(job.pairs):
            entry = self._in_flight.get((id(job.model), pair))
            if entry is None:
                entry = self._in_flight[id(job.model), pair] = _Entry(pair, [])
                fresh.append(entry)
            entry.places.append((job, index))
            job.entries.append(entry)
        self._observe("shared", len(job.pairs) - len(fresh))
        if not job.pairs:
            _settle(job, None)
        if fresh:
            if self._tasks:
                self._shared_until = time.monotonic() + _SHARED_FOR
            least = min((task.given for task in self._tasks), default=0.0)
            self._tasks.append(_Task(job.model, deque(fresh), least))

    def _next(self, able: Callable[[_Task], bool]) -> _Task | None:
        return min(filter(able, self._tasks), key=lambda task: (task.given, task.left), default=None)

    def _window_of(self, task: _Task) -> Window:
        """Take the task's next window, and for a small task also windows of other small ones."""
        parts = [task.windows.popleft()]
        tokens = int(parts[0][0].lengths.sum())
        task.tokens_ahead -= tokens
        room = task.budget - tokens
        if not task.windows and not task.untouched and not task.encoding and room > 0:
            for other in sorted(self._tasks, key=lambda other: other.given):
                if other is not task and other.model is task.model and other.is_small and other.tokens_ahead <= room:
                    room -= other.tokens_ahead
                    parts += other.windows
                    other.windows.clear()
                    other.tokens_ahead = 0
        return concatenate([encoded for encoded, _ in parts]), [entry for _, entries in parts for entry in entries]

    def _hand_out(self, model: CrossEncoder, window: Window, batch: Batch, logits: NDArray[np.float32]) -> None:
        encoded, entries = window
        share = batch.tokens / len(batch.rows)
        for row, values in zip(batch.rows, logits, strict=True):
            entry = entries[row]
            for job, index in entry.places:
                if job.logits is None:
                    job.logits = np.full((len(job.pairs), logits.shape[1]), np.nan, np.float32)
                job.logits[index] = values
                job.scored[index] = True
                job.query_cut[index] = encoded.query_cut[row]
                job.document_cut[index] = encoded.document_cut[row]
                job.tokens += round(share)
                job.known[encoded.known(row)] += 1
            finished = {job for job, _ in entry.places if job.scored.all()}
            entry.places = []
            self._in_flight.pop((id(model), entry.pair), None)
            for job in finished:
                _settle(job, None)

    def _clear(self, model: CrossEncoder, entries: Sequence[_Entry], error: Exception | None = None) -> None:
        """Remove entries from those in flight; pass an error to the jobs that wait for them."""
        for entry in entries:
            for job, _ in entry.places if error else ():
                _settle(job, error)
            if self._in_flight.get((id(model), entry.pair)) is entry:
                del self._in_flight[id(model), entry.pair]

    def _remove_finished(self) -> None:
        self._tasks = [task for task in self._tasks if task.untouched or task.windows or task.running or task.encoding]

    # ---- the two threads ---------------------------------------------------------------------------------------

    def _repeat(self, step: Callable[[], None]) -> None:
        while not self._stopping:
            step()

    def _tokenize(self) -> None:
        """Tokenize one window, or wait for one."""
        with self._change:
            task = self._next(lambda task: bool(task.untouched) and task.tokens_ahead < _BATCHES_AHEAD * task.budget)
            if task is None:
                self._change.wait(1)
                return
            entries: list[_Entry] = []
            characters = 0
            while task.untouched and len(entries) < task.window and characters < WINDOW_CHARACTERS:
                entry = task.untouched.popleft()
                if entry.places:  # else no job waits for it any more
                    entries.append(entry)
                    characters += len(entry.pair[1])
            task.window = min(2 * task.window, WINDOW_PAIRS)
            task.encoding = True
        encoded, failed = None, None
        try:
            encoded = task.model.encode([entry.pair for entry in entries]) if entries else None
        except Exception as error:
            failed = error
        with self._change:
            task.encoding = False
            if failed is not None:
                self._clear(task.model, entries, failed)
            elif encoded is not None:
                task.budget = task.model.token_budget
                task.windows.append((encoded, entries))
                task.tokens_ahead += int(encoded.lengths.sum())
            self._remove_finished()
            self._change.notify_all()

    def _infer(self) -> None:
        """Run one batch, or wait for one."""
        with self._change:
            task = self._next(lambda task: bool(task.windows or task.running))
            if task is None:
                self._change.wait(1)
                return
            if task.running is None:
                window = self._window_of(task)
                shared = time.monotonic() < self._shared_until
                budget = int(task.budget * (SHARED if shared else 1))
                task.running = (task.model.batches(window[0], token_budget=budget), window)
            batches, window = task.running
            now = time.perf_counter()
        batch, logits, failed = None, None, None
        try:
            batch = next(batches, None)
            if batch is not None and any(window[1][row].places for row in batch.rows):
                for job in {job for row in batch.rows for job, _ in window[1][row].places if job.started is None}:
                    job.started = now
                logits = task.model.forward(batch)
        except Exception as error:
            failed = error
        with self._change:
            if batch is None or failed is not None:
                self._clear(task.model, window[1], failed)
                task.running = None
            elif logits is not None:
                task.given += batch.tokens
                self._pace += 0.1 * (batch.tokens / (time.perf_counter() - now) - self._pace)
                self._observe("batch", batch.tokens / task.budget)
                self._hand_out(task.model, window, batch, logits)
            self._remove_finished()
            self._change.notify_all()


def _settle(job: Job, error: Exception | None) -> None:
    def settle() -> None:
        if not job.done.done():
            job.done.set_result(None) if error is None else job.done.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the server has stopped in the meantime
        job.loop.call_soon_threadsafe(settle)
