"""The database below a feedback store: SQLite or PostgreSQL, opened by URL, with its tables up to date.

SQLite runs in WAL mode with full synchronisation: what was committed survives a kill and a power cut, and readers never
wait for the writer. Deleted texts are overwritten in the file (``secure_delete``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossrank.errors import CrossRankError, InputError
from crossrank.optional import require

require("sqlalchemy", extra="feedback", purpose="Feedback")

import sqlalchemy as sa  # noqa: E402
from sqlalchemy import event  # noqa: E402
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError, StatementError  # noqa: E402

_BUSY_SECONDS, _CONNECT_SECONDS = 30, 3
# An arbitrary number, the same in all processes. A process that migrates holds this lock.
_MIGRATION_LOCK = 727_001
_EXAMPLES = "Use sqlite:///feedback.db or postgresql://HOST/NAME."


class StoreError(CrossRankError):
    """The database can't be reached or written."""


class Database:
    """Transactions on a database, from any thread.

    :param url: ``sqlite:///feedback.db`` (a path from here; four slashes for an absolute one) or ``postgresql://...``.
    :param make: Create SQLite's file if it doesn't exist.
    :param read_only: Never write, not even to bring the tables up to date; the file must exist. It may be in a folder
        that can't be written.
    :raises InputError: If the URL can't be used, or the file doesn't exist.
    :raises StoreError: If the database can't be reached, or a newer version of crossrank has changed it; read-only,
        also if an older version has made it.
    """

    def __init__(self, url: str, *, make: bool = True, read_only: bool = False) -> None:
        self.engine, self.file = _engine(url, read_only)
        self.name = self.engine.url.render_as_string(hide_password=True)
        self._read_only = read_only
        if (read_only or not make) and self.file is not None and not self.file.is_file():
            raise InputError(
                f"There is no database {str(self.file)!r} (seen from {str(Path.cwd())!r}). Check the path."
            )
        with self.errors():
            self._migrate()
        if self.file is not None:
            event.listen(self.engine, "do_connect", self._must_be_there)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write. SQLite has one at a time; others wait for it."""
        with self.engine.connect().execution_options(crossrank_writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def errors(self, *let_through: type[Exception]) -> Iterator[None]:
        """Turn errors of the database into :class:`StoreError`. A value that it can't store raises another error."""
        try:
            yield
        except let_through:
            raise
        except SQLAlchemyError as error:
            if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
                raise
            why = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            needed = "runs and is readable" if self._read_only else "runs, is writable, and has room on its disk"
            raise StoreError(f"{self.name} can't be used: {why}. Check that the database {needed}.") from error

    def empty_log(self) -> None:
        """Empty SQLite's log, which still has deleted texts; the log stays while another connection is reading."""
        if self.file is not None:
            with self.errors(), self.engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.exec_driver_sql("BEGIN")

    def _must_be_there(self, *_: object) -> None:
        """If the file was deleted, don't create a new one without tables."""
        if self.file is not None and not self.file.is_file():
            raise StoreError(f"The database {str(self.file)!r} was deleted or moved. Put it back, or start again.")

    def _migrate(self) -> None:
        """Bring the tables up to date, or check that they are; several processes may do so at once."""
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        known = ScriptDirectory.from_config(config)
        with self.engine.connect() if self._read_only else self.writing() as connection:
            if self.file is None and not self._read_only:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            there = MigrationContext.configure(connection).get_current_revision()
            if there is not None and there not in {one.revision for one in known.walk_revisions()}:
                raise StoreError(
                    f"{self.name} is at migration {there!r}, which this version of crossrank does not know. A newer "
                    "version made it: upgrade crossrank, or name another store."
                )
            if there == known.get_current_head():
                return
            if self._read_only:
                is_at = "has no tables of crossrank" if there is None else f"is at migration {there!r}"
                raise StoreError(
                    f"{self.name} {is_at}; this version of crossrank reads migration {known.get_current_head()!r}. "
                    "Start 'crossrank serve --feedback' with this store once: it makes the tables and upgrades them."
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _engine(url: str, read_only: bool) -> tuple[sa.Engine, Path | None]:
    """An engine, and the file of SQLite."""
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise InputError(f"{url!r} is not a database URL. {_EXAMPLES}") from None
    backend = parsed.drivername.partition("+")[0]
    if backend == "sqlite":
        return _sqlite(parsed, url, read_only)
    if backend not in ("postgresql", "postgres"):
        raise InputError(f"{url!r} is neither SQLite nor PostgreSQL. {_EXAMPLES}")
    require("psycopg", extra="feedback", purpose="Feedback in PostgreSQL")
    engine = sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"connect_timeout": _CONNECT_SECONDS},
        execution_options={"postgresql_readonly": True} if read_only else {},
    )
    return engine, None


def _sqlite(parsed: sa.URL, url: str, read_only: bool) -> tuple[sa.Engine, Path]:
    if parsed.database in (None, "", ":memory:"):
        raise InputError(f"{url!r} names no file. Use sqlite:///feedback.db.")
    file = Path(parsed.database or "").absolute()
    if not file.parent.is_dir():
        raise InputError(f"There is no folder {str(file.parent)!r} for {url!r} (seen from {str(Path.cwd())!r}).")
    engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS})

    def open_to_read(dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        arguments[0], options["uri"] = _uri_to_read(file), True

    def identity() -> tuple[int, int] | None:
        try:
            found = file.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def connect(connection: Any, record: Any) -> None:
        # The driver would begin transactions at the first change only, too late for a lock.
        connection.isolation_level = None
        writing = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
        for pragma in ("query_only=ON",) if read_only else writing:
            connection.execute(f"PRAGMA {pragma}")
        record.info["file"] = identity()

    def checkout(connection: Any, record: Any, proxy: Any) -> None:
        # An open connection would keep writing to a deleted file, and all of that would be lost.
        if record.info["file"] != identity():
            raise DisconnectionError

    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("crossrank_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    for name, listener in (("connect", connect), ("checkout", checkout), ("begin", begin)):
        event.listen(engine, name, listener)
    if read_only:
        event.listen(engine, "do_connect", open_to_read)
    return engine, file


def _uri_to_read(file: Path) -> str:
    """The URI that SQLite opens a file with, which may be in a folder that can't be written.

    Even to read, SQLite needs its log beside the file, and makes one. In a folder where it can't, and where no writer
    left one, the file alone is complete, and SQLite can be told so. With ``mode=ro``, SQLite would leave an empty log
    behind in other folders; ``mode=rw`` means only that the file is not made.
    """
    log, index = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))
    if index.exists() or os.access(file.parent, os.W_OK):
        return f"{file.as_uri()}?mode=rw"
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{str(log)!r} has changes that are not in {file.name!r} yet, and can't be read in a folder that can't be "
            "written. Copy both files to a folder of your own and name that one."
        )
    return f"{file.as_uri()}?immutable=1"
