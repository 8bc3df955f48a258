"""A file lock between processes. The operating system releases it when the holder ends, even if it is killed."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

from crossrank.errors import CrossRankError


class FileLock:
    """A lock that is held inside a ``with`` block. A file next to it says who holds it.

    :param path: The lock's file. Its folder must exist.
    :param what: What the holder does, for the error message of others.
    :param wait: Seconds to wait for the lock.
    """

    def __init__(self, path: Path, what: str, *, wait: float = 0.0) -> None:
        import filelock

        self.path = path
        self.what = what
        self.wait = wait
        #: Description of a process that ended without releasing the lock; ``None`` if there was none.
        self.left_by: str | None = None
        self._lock = filelock.FileLock(path, timeout=wait)
        # Windows does not let others read a file that is locked.
        self._holder = path.with_name(f"{path.name}.holder")

    def __enter__(self) -> FileLock:
        """Take the lock.

        :raises CrossRankError: If another process or thread has it.
        """
        import filelock

        try:
            self._lock.acquire()
        except filelock.Timeout:
            waited = f" (waited {self.wait:g} s)" if self.wait else ""
            raise CrossRankError(
                f"{str(self.path.parent)!r} is in use by {self._read_holder() or 'another process'}{waited}. Let it "
                f"finish and try again. If that process hangs, end it: this releases {self.path.name!r}, which you "
                "need not delete."
            ) from None
        try:
            self.left_by = self._read_holder()
            self._write_holder()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _write_holder(self) -> None:
        import socket

        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        facts = {"what": self.what, "process": os.getpid(), "host": socket.gethostname(), "since": now}
        self._holder.write_text(json.dumps(facts), encoding="utf-8")

    def _read_holder(self) -> str | None:
        try:
            said = json.loads(self._holder.read_text(encoding="utf-8"))
            return f"{said['what']!r} (process {said['process']} on {said['host']}, since {said['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return None
