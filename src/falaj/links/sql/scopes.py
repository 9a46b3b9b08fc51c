"""ports/kms.py, ScopeStore, on SQLAlchemy Core. Erasing overwrites; the log of the database is emptied too."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from falaj.base import time
from falaj.links.sql.tables import scope_key
from falaj.ports.kms import ScopeKey, Wrapped

__all__ = ["SqlScopes"]


class SqlScopes:
    """The table of scope keys of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)

    def all(self) -> list[ScopeKey]:
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(scope_key).order_by(scope_key.c.scope, scope_key.c.version)
            )
            return [read(row) for row in rows]

    def of(self, scope: str) -> list[ScopeKey]:
        query = select(scope_key).where(scope_key.c.scope == scope).order_by(scope_key.c.version)
        with self._engine.connect() as connection:
            return [read(row) for row in connection.execute(query)]

    def add(self, key: ScopeKey) -> bool:
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(scope_key).values(
                        scope=key.scope,
                        version=key.version,
                        residency=key.residency,
                        kek=key.wrapped.kek,
                        wrapped=key.wrapped.text,
                        binding=key.binding,
                        created=time.text(key.created),
                        erased="",
                    )
                )
        except IntegrityError:
            return False
        return True

    def rewrap(self, key: ScopeKey, wrapped: Wrapped, binding: str) -> None:
        with self._writer.begin() as connection:
            connection.execute(
                update(scope_key)
                .where(
                    scope_key.c.scope == key.scope,
                    scope_key.c.version == key.version,
                    scope_key.c.wrapped == key.wrapped.text,
                    scope_key.c.erased == "",
                )
                .values(kek=wrapped.kek, wrapped=wrapped.text, binding=binding)
            )

    def erase(self, scope: str, at: datetime) -> list[ScopeKey]:
        gone = [one for one in self.of(scope) if one.erased is None]
        with self._writer.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            connection.execute(
                update(scope_key)
                .where(scope_key.c.scope == scope, scope_key.c.erased == "")
                .values(wrapped="", binding="", kek="", erased=time.text(at))
            )
        if self._engine.dialect.name == "sqlite":
            # Older pages with the key may stand in the write-ahead log.
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                raw.close()
        return gone


def read(row: Any) -> ScopeKey:
    return ScopeKey(
        scope=row.scope,
        version=row.version,
        residency=row.residency,
        wrapped=Wrapped(row.kek, row.wrapped),
        binding=row.binding,
        created=time.parse_instant(row.created),
        erased=time.parse_instant(row.erased) if row.erased else None,
    )
