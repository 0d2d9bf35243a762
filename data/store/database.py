"""Connections to the feedback store's database.

Commits are durable, SQLite has one writer at a time, and error messages say what to do.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock, local
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from data.errors import PictuneError
from data.store.tables import metadata

BUSY_TIMEOUT_MS = 30_000
"""Milliseconds that a connection waits for another process to finish writing."""

OWNERS_ALONE = 0o600
"""Mode of the database's files, since they hold names, comments and password hashes."""

READ_ONLY_OPTION = "reading"
"""Execution option of connections that never write."""

_ALONE = 7_428_863
"""Arbitrary number of the PostgreSQL advisory lock of `Database.write_alone`."""


class StoreConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the database of labels."""

    url: str | None = None
    """SQLAlchemy URL of a PostgreSQL database, as `postgresql+psycopg://USER@HOST/NAME`; by default
    labels are stored in `labels/feedback.db` of the run. The URL is recorded with the run: put the
    password into `~/.pgpass` or `PGPASSWORD`, not into the URL."""


class Database:
    """An engine whose transactions are either read-only snapshots or serialized writes."""

    def __init__(self, url: str) -> None:
        try:
            address = sa.make_url(url)
            self.url = address.render_as_string(hide_password=True)
            if address.get_backend_name() == "sqlite":
                _prepare_file(address)
            self.engine = sa.create_engine(address, pool_timeout=BUSY_TIMEOUT_MS / 1000)
        except (ArgumentError, NoSuchModuleError) as error:
            raise PictuneError(
                f"{url}: not a database URL; "
                "use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
            ) from error
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _set_up_connection)
            sa.event.listen(self.engine, "begin", _begin)
        # Threads wait here rather than in SQLite: it polls, and some threads would wait very long.
        self._writing = Lock() if self.is_sqlite else nullcontext()
        self._of_thread = local()

    @property
    def folder(self) -> Path | None:
        """The folder of the database's file; None when a server keeps the database."""
        return Path(self.engine.url.database or "").parent if self.is_sqlite else None

    def migrate(self) -> None:
        """Create the tables, or bring the tables of an earlier version up to date.

        Raises:
            PictuneError: the database cannot be opened, or was written by a newer version.
        """
        from alembic import command  # noqa: PLC0415 - takes half a second
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util.exc import CommandError  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.write_alone() as connection:
            config.attributes["connection"] = connection
            try:
                if sa.inspect(connection).has_table("alembic_version"):
                    command.upgrade(config, "head")
                else:
                    metadata.create_all(connection, checkfirst=False)
                    command.stamp(config, "head")
            except CommandError as error:
                raise PictuneError(
                    f"{self.url}: written by a newer version ({error}); update Pictune to open it"
                ) from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that may write; after the block it is on disk.

        Nested writes and reads of the same thread join the transaction. An error in the block takes
        everything back.
        """
        outer: sa.Connection | None = getattr(self._of_thread, "writing", None)
        if outer is not None:
            yield outer
            return
        with self._writing, self._explained(), self.engine.begin() as connection:
            self._of_thread.writing = connection
            try:
                yield connection
            finally:
                self._of_thread.writing = None

    @contextmanager
    def write_alone(self) -> Iterator[sa.Connection]:
        """Open a transaction as `write` does, at most one at a time over all processes.

        Replicas use it at their start: the first one inserts missing rows, the others find them.
        """
        with self.write() as connection:
            if not self.is_sqlite:  # SQLite has one write transaction at a time anyway
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ALONE})")
            yield connection

    @contextmanager
    def read(self, *, settled: sa.Table | None = None) -> Iterator[sa.Connection]:
        """Open a read-only transaction on one snapshot of the database.

        With `settled`, the snapshot is taken after all writes to this table that had begun, so that
        no earlier sequence number is missing. SQLite has one writer and need not wait.
        """
        outer: sa.Connection | None = getattr(self._of_thread, "writing", None)
        if outer is not None and settled is None:
            yield outer
            return
        level: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        options = {READ_ONLY_OPTION: True, **level}
        with (
            self._explained(),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            if settled is not None and not self.is_sqlite:
                connection.exec_driver_sql(f"LOCK TABLE {settled.name} IN SHARE MODE")
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise PictuneError(
                f"{self.url}: {reason}; nothing was saved, "
                "check that the disk has room and that no other program holds the file"
            ) from error


@dataclass(eq=False)
class StorePart:
    """Base of the parts of the feedback store; each method is one transaction."""

    database: Database
    clock: Callable[[], datetime]

    @contextmanager
    def write(self) -> Iterator[tuple[sa.Connection, datetime]]:
        """Open a transaction that may write, see `Database.write`; yield it with its time."""
        with self.database.write() as connection:
            yield connection, self.clock()


def _prepare_file(address: sa.URL) -> None:
    """Create the file for its owner alone; SQLite then creates `-wal` and `-shm` likewise.

    Existing files lose the permissions of other users.
    """
    if not address.database or address.database == ":memory:":
        raise PictuneError(
            f"{address}: labels in memory would be lost; "
            "name a file, as in sqlite:///labels/feedback.db"
        )
    file = Path(address.database)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Opening and closing an existing file would release SQLite's locks.
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNERS_ALONE))
    except OSError as error:
        raise PictuneError(
            f"{file}: {error.strerror}; choose a folder that you may write to"
        ) from error
    for path in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):  # missing, owned by another user, or on a read-only disk
            mode = path.stat().st_mode & 0o777
            if mode & ~OWNERS_ALONE:
                path.chmod(mode & OWNERS_ALONE)


def _set_up_connection(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes too late for a claim's first read; `_begin` sends it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    read_only = connection.get_execution_options().get(READ_ONLY_OPTION, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
