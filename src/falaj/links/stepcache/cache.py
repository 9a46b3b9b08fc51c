"""The step cache of a workspace: one SQLite file (WAL), shared by all processes of the machine."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from falaj.base import process
from falaj.base.sqlite import use_wal

__all__ = ["FileStepCache"]

TABLES: Final = """
create table if not exists entry(
    seq integer primary key autoincrement, key text unique not null, step text not null,
    body text not null
);
create index if not exists entry_step on entry(step, seq);
create table if not exists claim(
    key text primary key, owner text not null, until real not null, fence integer not null
) without rowid;
create table if not exists memo(
    kind text, key text, value text not null, primary key(kind, key)
) without rowid;
"""
CLAIM: Final = """
insert into claim(key, owner, until, fence) values(:key, :owner, :until, 1)
on conflict(key) do update set
    fence = fence + (owner <> excluded.owner), owner = excluded.owner, until = excluded.until
where owner = excluded.owner or until < :now or owner = :gone
returning fence
"""


class FileStepCache:
    """The port StepCache. Connections are one a thread; writes wait up to 30 s for each other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._local = threading.local()
        self._db().executescript(TABLES)

    def _db(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        # A connection must not cross a fork: SQLite's locks belong to the process that took them.
        if found is None or self._local.pid != os.getpid():
            found = sqlite3.connect(self.path, isolation_level=None, timeout=30)
            use_wal(found)
            found.execute("pragma synchronous=normal")
            self._local.db, self._local.pid = found, os.getpid()
        return found

    def close(self) -> None:
        """Close this thread's connection; the next call opens a new one."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is not None:
            found.close()
            self._local.db = None

    def get(self, key: str) -> dict[str, Any] | None:
        return _body(self._db().execute("select body from entry where key = ?", (key,)))

    def put(self, key: str, step: str, entry: dict[str, Any]) -> None:
        self._db().execute(
            "insert into entry(key, step, body) values(?, ?, ?) on conflict(key) do nothing",
            (key, step, json.dumps(entry, allow_nan=False)),
        )

    def forget(self, key: str) -> None:
        self._db().execute("delete from entry where key = ?", (key,))

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, body in self._db().execute("select key, body from entry order by seq").fetchall():
            yield key, json.loads(body)

    def newest(self, step: str) -> dict[str, Any] | None:
        asked = "select body from entry where step = ? order by seq desc limit 1"
        return _body(self._db().execute(asked, (step,)))

    def claim(self, key: str, owner: str, seconds: float) -> int | None:
        db = self._db()
        row = db.execute("select owner from claim where key = ?", (key,)).fetchone()
        other = row[0] if row and row[0] != owner else ""
        gone = other if other and process.is_gone(other) else ""
        now = time.time()
        given = {"key": key, "owner": owner, "until": now + seconds, "now": now, "gone": gone}
        taken = db.execute(CLAIM, given).fetchall()
        return int(taken[0][0]) if taken else None

    def free(self, key: str, owner: str) -> None:
        # The row stays, so that the fence goes on growing.
        self._db().execute(
            "update claim set until = 0, owner = '' where key = ? and owner = ?", (key, owner)
        )

    def memo(self, kind: str, key: str) -> str | None:
        asked = "select value from memo where kind = ? and key = ?"
        row = self._db().execute(asked, (kind, key)).fetchone()
        return None if row is None else str(row[0])

    def remember(self, kind: str, key: str, value: str) -> None:
        self._db().execute("insert or replace into memo values(?, ?, ?)", (kind, key, value))


def _body(rows: sqlite3.Cursor) -> dict[str, Any] | None:
    row = rows.fetchone()
    if row is None:
        return None
    body: dict[str, Any] = json.loads(row[0])
    return body
