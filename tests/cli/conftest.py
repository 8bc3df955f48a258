"""The real command in a process of its own: in pipes, and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "crossrank")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    hidden = ("NO_COLOR", "COLUMNS", "PYTHONIOENCODING")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", **(extra or {})}


@pytest.fixture
def crossrank(tmp_path: Path) -> Callable[..., Ran]:
    """Run the command with pipes, in ``tmp_path``."""

    def run(*args: object, stdin: bytes | str = b"", env: Mapping[str, str] | None = None) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*COMMAND, *map(str, args)],
            input=given,
            capture_output=True,
            cwd=tmp_path,
            env=environment(env),
            timeout=120,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    return run


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., Ran]:
    """Run the command with standard error on a terminal, and standard output there or in a pipe."""

    def run(*args: object, columns: int = 80, piped: bool = False, env: Mapping[str, str] | None = None) -> Ran:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # Without this the terminal writes \r\n for \n.
        settings = termios.tcgetattr(theirs)
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(theirs, termios.TCSANOW, settings)
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else theirs,
            stderr=theirs,
            cwd=tmp_path,
            env=environment(env),
        )
        os.close(theirs)
        shown, out = _drain(ours, process)
        os.close(ours)
        return Ran(process.returncode, out if piped else shown, shown)

    return run


def _drain(terminal: int, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Read all that comes on the terminal and in the pipe, so that neither fills up."""
    pipe = process.stdout.fileno() if process.stdout else None
    got: dict[int, bytes] = {terminal: b"", **({pipe: b""} if pipe is not None else {})}
    open_ends, deadline = set(got), time.monotonic() + 120
    while open_ends and time.monotonic() < deadline:
        for end in select.select(sorted(open_ends), [], [], 1)[0]:
            try:
                data = os.read(end, 1 << 16)
            except OSError:  # how Linux says that nobody holds the other end of a terminal
                data = b""
            got[end] += data
            if not data:
                open_ends.discard(end)
    process.wait(timeout=10)
    if process.stdout:
        process.stdout.close()
    return got[terminal].decode("utf-8"), got[pipe].decode("utf-8") if pipe is not None else ""
