"""Engines: SQLite in WAL mode today; the same tables on PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from falaj.base.errors import Exit, FalajError
from falaj.base.sqlite import use_wal

__all__ = ["HEAD", "StoreUnavailable", "connect", "migrate"]

HEAD: Final = "0008"  # newest revision under migrations/versions; a test compares

BUSY: Final = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
DISK: Final = (8, 10, 13, 14)  # SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN


class StoreUnavailable(FalajError):
    """The store cannot be used now; nothing was written."""

    exit = Exit.CONFLICT
    status = 503


def connect(path: Path, *, wait_s: float = 30.0) -> Engine:
    """Open (or make) the embedded store and bring its tables up to date.

    wait_s: how long a writer waits for another one. Whatever is done with the engine may raise
    StoreUnavailable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": wait_s})
    event.listen(engine, "connect", lambda made, _record: _prepare(made, wait_s))
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _say)
    migrate(engine)
    return engine


def _prepare(connection: Any, wait_s: float) -> None:
    # The driver must not open transactions by itself: BEGIN IMMEDIATE is ours to say.
    connection.isolation_level = None
    use_wal(connection, wait_s=wait_s)
    # FULL: a committed fact survives a loss of power.
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    # IMMEDIATE: a reader that turns writer would fail at once instead of waiting its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _say(context: ExceptionContext) -> None:
    """A process that was stopped inside a transaction, or a full disk, is no crash of ours."""
    error = context.original_exception
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in BUSY:
        raise StoreUnavailable(
            "store.busy",
            "another process is writing to the store and does not come to an end",
            why="writers wait for each other; one that was stopped in the middle holds all up",
            fix="let that process go on, or end it (what it has not committed is undone); try again",
        ) from error
    if code in DISK:
        raise StoreUnavailable(
            "store.disk",
            f"the store cannot be read or written: {error}",
            why="the disk is full or broken, or the workspace may not be written to",
            fix="mend that, then repeat the command: nothing was half-written",
        ) from error


def migrate(engine: Engine) -> None:
    """Run what is missing of the one numbered chain. Alembic is imported only when needed."""
    if _version(engine) == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(engine: Engine) -> str:
    try:
        with engine.connect() as connection:
            return str(connection.scalar(text("SELECT version_num FROM alembic_version")) or "")
    except DBAPIError:
        return ""  # a new store has no such table
