"""A real PostgreSQL in a temporary folder, reached through a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

# Debian keeps the server's programs out of the path.
_FOUND = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1:], *filter(None, [shutil.which("initdb")])]
PROGRAMS = Path(_FOUND[0]).parent if _FOUND else None
# The server refuses to run as root, so it runs as the user that Debian's package makes.
_USER: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}


class Postgres:
    """A server, from the first ``start`` to ``stop``.

    :param options: More for ``initdb``.
    """

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="crossrank-pg-", dir="/tmp"))  # a socket's path must be short
        if _USER:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        usual = ("-U", "crossrank", "-A", "trust", "-E", "UTF8", "--locale=C")
        self._run("initdb", "-D", f"{self.folder}/data", *usual, *options)
        self._databases = 0

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self) -> None:
        """At once, as if it was killed."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "immediate", "stop")

    def limit_files(self, size: str) -> None:
        """Let no file of it grow beyond a size: a full disk, as the system shows it. ``unlimited`` ends that."""
        main = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        connected = subprocess.run(["pgrep", "-P", main], capture_output=True, text=True, check=True).stdout.split()
        for process in (main, *connected):
            subprocess.run(["prlimit", f"--pid={process}", f"--fsize={size}:"], check=True, **_USER)

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Make one; its URL."""
        self._databases += 1
        name = f"feedback{self._databases}"
        self.query("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://crossrank@/{name}?host={self.folder}"

    def query(self, database: str, sql: str) -> str:
        """Ask it with its own client."""
        return self._run("psql", "-h", str(self.folder), "-U", "crossrank", "-d", database, "-Atc", sql)

    def _run(self, program: str, *arguments: str) -> str:
        assert PROGRAMS is not None
        # Not through a pipe: a server that was started keeps it open.
        with tempfile.TemporaryFile("w+") as output:
            command = [str(PROGRAMS / program), *arguments]
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, **_USER)
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, f"{program}: {text}"
        return text.strip()
