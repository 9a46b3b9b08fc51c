"""What every SQLite file of ours needs, whoever opens it first."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

__all__ = ["use_wal"]

BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def use_wal(connection: sqlite3.Connection, *, wait_s: float = 30.0) -> None:
    """Write ahead, so that readers and one writer go on together.

    A new file is switched under an exclusive lock, for which SQLite does not wait whatever its
    timeout says: two processes that open it first would meet "database is locked". Raises
    sqlite3.OperationalError after `wait_s`.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
