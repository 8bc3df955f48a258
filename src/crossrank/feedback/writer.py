"""One thread that writes a server's rankings and judgements, so that no response waits for the database."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from crossrank.feedback.database import StoreError
from crossrank.feedback.judgement import Judgement
from crossrank.feedback.store import Ranking, Store

_BATCH = 100
# Seconds to wait after a failure before the next job tries the database again.
_PAUSE_SECONDS = 1.0
_RETENTION_SECONDS = 600.0


class Writer:
    """Rankings wait in a bounded queue and are dropped when it is full; judgements are answered when they are written.

    Jobs run in order, so that a judgement finds the ranking that was returned just before. Rankings that
    can't be written stay in the queue until the database is back.

    :param texts: Write texts, or their digests.
    :param most: How many rankings and judgements may wait.
    :param characters: How long the texts of all waiting rankings may be.
    :param days: Delete rankings that are older.
    :param size: Delete the oldest rankings while texts take more bytes than this.
    :param tell: Called with a message when something went wrong.
    """

    def __init__(
        self,
        store: Store,
        *,
        texts: bool = True,
        most: int = 1000,
        characters: int = 100_000_000,
        days: float | None = None,
        size: int | None = None,
        tell: Callable[[str], object] = lambda message: None,
    ) -> None:
        self.store = store
        #: Rankings that were written, and rankings dropped because the queue was full or their request id was known.
        self.written = self.dropped = self.repeated = 0
        self._texts, self._most, self._days, self._size, self._tell = texts, most, days, size, tell
        self._room, self._room_lock = characters, threading.Lock()
        self._jobs: queue.Queue[Ranking | tuple[Judgement, str | None, Future[int]] | None] = queue.Queue()
        self._waiting: list[Ranking] = []
        self._resume = 0.0
        self._why = StoreError("")
        self._told_full = False
        self._thread = threading.Thread(target=self._run, name="crossrank-feedback", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """The number of waiting jobs."""
        return self._jobs.qsize() + len(self._waiting)

    def offer(self, ranking: Ranking) -> bool:
        """Queue a ranking to be written.

        :returns: Whether the queue had room for it.
        """
        if self.queued >= self._most or not self._take_room(ranking.characters):
            self.dropped += 1
            if not self._told_full:
                self._told_full = True
                self._tell(f"{self.queued} rankings wait to be stored; further ones are dropped until there is room")
            return False
        self._told_full = False
        self._jobs.put(ranking)
        return True

    def judge(self, judgement: Judgement, key: str | None = None) -> Future[int]:
        """Queue a judgement to be written. The future has its number once it is on disk, or the store's error."""
        done: Future[int] = Future()
        if self.queued >= self._most or not self._thread.is_alive():
            done.set_exception(StoreError(f"{self.queued} rankings and judgements wait to be written. Try again."))
        else:
            self._jobs.put((judgement, key, done))
        return done

    def close(self, seconds: float = 5.0) -> None:
        """Write what is waiting, for at most this long."""
        self._jobs.put(None)
        self._thread.join(seconds)

    def _take_room(self, characters: int) -> bool:
        with self._room_lock:
            if characters > self._room:
                return False
            self._room -= characters
            return True

    # ---- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_retention = 0.0
        while True:
            if time.monotonic() >= next_retention:
                self._retain()
                next_retention = time.monotonic() + _RETENTION_SECONDS
            try:
                job = self._jobs.get(timeout=_PAUSE_SECONDS)
            except queue.Empty:
                self._flush()
                continue
            if job is None:
                self._flush()
                return
            if isinstance(job, Ranking):
                self._waiting.append(job)
                if self._jobs.empty() or len(self._waiting) >= _BATCH:
                    self._flush()
            else:
                self._judge(*job)

    def _flush(self) -> bool:
        if time.monotonic() < self._resume:
            return False
        at_once = _BATCH
        while self._waiting:
            batch = self._waiting[:at_once]
            try:
                written = self.store.add_rankings(batch, texts=self._texts)
            except StoreError as error:
                self._failed(error)
                return False
            except Exception as error:  # one of them can't be written at all, and must not block the others
                if len(batch) > 1:
                    at_once = 1
                    continue
                self.dropped += 1
                self._tell(f"A ranking can't be stored ({type(error).__name__}); it is dropped")
            else:
                self.written += written
                if written < len(batch):
                    self.repeated += len(batch) - written
                    self._tell(f"{len(batch) - written} rankings were not stored: their request ids were used before")
            del self._waiting[: len(batch)]
            self._take_room(-sum(ranking.characters for ranking in batch))
        return True

    def _judge(self, judgement: Judgement, key: str | None, done: Future[int]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        if not self._flush():
            done.set_exception(self._why)
            return
        try:
            done.set_result(self.store.add_judgement(judgement, key=key))
        except StoreError as error:
            self._failed(error)
            done.set_exception(error)
        except Exception as error:  # the caller that waits for it decides
            done.set_exception(error)

    def _retain(self) -> None:
        if self._days is None and self._size is None:
            return
        try:
            gone = self.store.keep_within(days=self._days, size=self._size)
        except StoreError as error:
            self._failed(error)
        else:
            if gone:
                self._tell(f"{gone} rankings were deleted: too old, or more than the store may hold")

    def _failed(self, error: Exception) -> None:
        self._resume = time.monotonic() + _PAUSE_SECONDS
        why = error if isinstance(error, StoreError) else StoreError(str(error))
        if str(why) != str(self._why):
            self._tell(str(why))
        self._why = why
