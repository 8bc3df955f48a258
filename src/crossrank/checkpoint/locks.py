"""A lock on a file between processes. The system releases it when its holder ends, even if it is killed."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO

from crossrank.errors import CrossRankError

# Windows locks bytes, which nobody else can then read, so we lock one far beyond what is written.
_BYTE = 1 << 30
_PAUSE = 0.05


class FileLock:
    """Held inside a ``with`` block. The file says who holds it, and is empty afterwards.

    The file may lie on a local disk, or on a network one that passes locks on (NFS since version 3 with lockd, SMB).

    :param path: The lock's file, created if needed. Its folder must exist.
    :param what: What the holder does, for the error message of others.
    :param wait: Seconds to wait for it.
    """

    def __init__(self, path: Path, what: str, *, wait: float = 0.0) -> None:
        self.path = path
        self.what = what
        self.wait = wait
        #: Description of a process that ended without releasing the lock; ``None`` if there was none.
        self.left_by: str | None = None
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> FileLock:
        """Take the lock.

        :raises CrossRankError: If another process or thread has it.
        """
        self.path.touch()
        stream = self.path.open("r+b")
        end = time.monotonic() + self.wait
        while not _take(stream):
            if time.monotonic() >= end:
                holder = _holder(stream) or "another process"
                stream.close()
                waited = f" (waited {self.wait:g} s)" if self.wait else ""
                raise CrossRankError(
                    f"{str(self.path.parent)!r} is in use by {holder}{waited}. Let it finish and try again; if that "
                    f"process hangs, end it: the lock {self.path.name!r} goes with it and need not be deleted."
                )
            time.sleep(_PAUSE)
        import socket

        self.left_by = _holder(stream)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        facts = {"what": self.what, "process": os.getpid(), "host": socket.gethostname(), "since": now}
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(facts).encode())
        stream.flush()
        self._stream = stream
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stream is not None  # for the type checker; __enter__ has set it
        self._stream.seek(0)
        self._stream.truncate()
        self._stream.close()
        self._stream = None


def _holder(stream: IO[bytes]) -> str | None:
    stream.seek(0)
    try:
        said = json.loads(stream.read())
        return f"{said['what']!r} (process {said['process']} on {said['host']}, since {said['since']})"
    except (ValueError, KeyError, TypeError):
        return None


if sys.platform == "win32":
    import msvcrt

    def _take(stream: IO[bytes]) -> bool:
        stream.seek(_BYTE)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(stream: IO[bytes]) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
