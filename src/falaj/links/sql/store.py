"""ports/store.py on SQLAlchemy Core."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from falaj.base import merkle, time
from falaj.base.errors import Conflict, NotFound
from falaj.facts.access import Principal
from falaj.facts.events import Event
from falaj.facts.wire import Fact, canonical_bytes, decode, encode
from falaj.links.sql import tables
from falaj.links.sql.connect import connect
from falaj.links.sql.log import SqlLog, edge_of, size_of
from falaj.links.sql.remarks import Remarks, bound, kept, secret_beside
from falaj.links.sql.runs import SqlRuns
from falaj.links.sql.scopes import SqlScopes
from falaj.links.sql.tables import FAMILIES, Family
from falaj.ports.sealing import Cells
from falaj.ports.store import Kept, Lease

__all__ = ["SqlStore"]

F = TypeVar("F", bound=Fact)


def noun(kind: type[Fact]) -> str:
    return FAMILIES[kind].table.name.replace("_", " ")


def columns(entry: Family, fact: Fact) -> dict[str, Any]:
    return {name: str(getattr(fact, name)) for name in entry.searched}


def read(connection: Connection, kind: type[F], id: str) -> Kept[F]:
    table = FAMILIES[kind].table
    row = connection.execute(
        select(table.c.body, table.c.revision).where(table.c.id == id)
    ).one_or_none()
    if row is None:
        raise NotFound(
            f"store.no-{noun(kind).replace(' ', '-')}",
            f"there is no {noun(kind)} {id!r}",
            fix="look at `falaj status` for what there is",
        )
    return Kept(decode(kind, row.body), row.revision)


def search(
    connection: Connection, kind: type[F], limit: int, after: str, where: dict[str, str]
) -> list[F]:
    table = FAMILIES[kind].table
    query = select(table.c.body).order_by(table.c.position.desc()).limit(limit)
    for name, value in where.items():
        query = query.where(table.c[name] == value)
    if after:
        last = select(table.c.position).where(table.c.id == after).scalar_subquery()
        query = query.where(table.c.position < last)
    return [decode(kind, body) for body in connection.scalars(query)]


class SqlUnit:
    """One open transaction."""

    def __init__(self, connection: Connection, remarks: Remarks) -> None:
        self._connection = connection
        self._sealing = remarks
        self._facts = 0
        self._events: list[dict[str, Any]] = []
        self._remarks: list[dict[str, Any]] = []

    def get(self, kind: type[F], id: str) -> Kept[F]:
        return read(self._connection, kind, id)

    def find(self, kind: type[F], *, limit: int = 1000, **where: str) -> list[F]:
        return search(self._connection, kind, limit, "", where)

    def add(self, fact: Fact) -> None:
        entry = FAMILIES[type(fact)]
        key = getattr(fact, entry.key)
        try:
            self._connection.execute(
                insert(entry.table).values(
                    id=key, revision=1, body=encode(fact), **columns(entry, fact)
                )
            )
        except IntegrityError:
            raise Conflict("store.exists", f"{noun(type(fact))} {key!r} exists already") from None
        self._facts += 1

    def replace(self, was: Kept[F], fact: F) -> None:
        entry = FAMILIES[type(fact)]
        key = getattr(fact, entry.key)
        done = self._connection.execute(
            update(entry.table)
            .where(entry.table.c.id == key, entry.table.c.revision == was.revision)
            .values(revision=was.revision + 1, body=encode(fact), **columns(entry, fact))
        )
        if done.rowcount != 1:
            raise Conflict(
                "store.moved-on",
                f"{noun(type(fact))} {key!r} was changed by someone else meanwhile",
                fix="look at it again, then repeat the command",
            )
        self._facts += 1

    def append(self, event: Event) -> None:
        told = event.cloud()
        if event.remark:
            made = self._sealing.seal(event.id, event.remark)
            told["data"] = {**event.data, "remark": bound(made.salt, event.remark)}
            self._remarks.append({"event_id": event.id, **kept(made)._asdict()})
        body = canonical_bytes(told)
        self._events.append(
            {
                "id": event.id,
                "at": time.text(event.at),
                "project": event.project,
                "type": event.type,
                "actor": event.actor,
                "subject": event.subject,
                "body": body,
                "leaf": merkle.leaf(body),
            }
        )

    def forget(self, person: str) -> tuple[tuple[str, ...], int]:
        known = FAMILIES[Principal].table
        names = tuple(self._connection.scalars(select(known.c.id).where(known.c.person == person)))
        self._connection.execute(delete(known).where(known.c.person == person))
        theirs = select(tables.event.c.id).where(tables.event.c.actor == person)
        gone = self._connection.execute(
            delete(tables.remark).where(tables.remark.c.event_id.in_(theirs))
        )
        self._facts += 1
        return names, gone.rowcount

    def number(self, sequence: str) -> int:
        table = tables.sequence
        last = self._connection.scalar(select(table.c.last).where(table.c.name == sequence))
        if last is None:
            self._connection.execute(insert(table).values(name=sequence, last=1))
            return 1
        self._connection.execute(
            update(table).where(table.c.name == sequence).values(last=last + 1)
        )
        return int(last) + 1

    def hold(self, lease: Lease) -> None:
        table = tables.lease
        row = self._connection.execute(
            select(table).where(table.c.name == lease.name)
        ).one_or_none()
        if row is None or row.owner != lease.owner or row.fence != lease.fence:
            raise Conflict("store.lease-lost", f"the lease {lease.name!r} was taken over")

    def close(self) -> None:
        """Write the events, all at once: nobody reads them inside the transaction."""
        if self._facts and not self._events:
            raise AssertionError("facts were written without an event")
        if self._events:
            self._connection.execute(insert(tables.event), self._events)
            self._connection.execute(
                insert(tables.log_waiting), [{"event_id": row["id"]} for row in self._events]
            )
        if self._remarks:
            self._connection.execute(insert(tables.remark), self._remarks)


class SqlStore:
    """Facts, events and leases in one database."""

    def __init__(self, engine: Engine, remark_key: Callable[[], bytes] | None = None) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._remarks = Remarks(remark_key)

    @classmethod
    def open(cls, path: Path) -> SqlStore:
        """Words beside events are sealed with a key that lies beside the database (0600)."""
        return cls(connect(path), lambda: secret_beside(path))

    def close(self) -> None:
        self._engine.dispose()

    def runs(self) -> SqlRuns:
        """Points and search tables of the same database."""
        return SqlRuns(self._engine)

    def scopes(self) -> SqlScopes:
        """Wrapped keys of what is sealed at rest, in the same database."""
        return SqlScopes(self._engine)

    def seal_remarks(self, cells: Cells) -> None:
        """Words beside events are sealed under a scope key from now on."""
        self._remarks.under(cells)

    def log(self) -> SqlLog:
        """The tree over the events of the same database."""
        return SqlLog(self._engine, self._remarks)

    @contextmanager
    def begin(self) -> Iterator[SqlUnit]:
        self._remarks.ready()
        with self._writer.begin() as connection:
            unit = SqlUnit(connection, self._remarks)
            yield unit
            unit.close()

    def get(self, kind: type[F], id: str) -> Kept[F]:
        with self._engine.connect() as connection:
            return read(connection, kind, id)

    def find(self, kind: type[F], *, limit: int = 1000, after: str = "", **where: str) -> list[F]:
        with self._engine.connect() as connection:
            return search(connection, kind, limit, after, where)

    def bodies(self) -> Iterator[tuple[str, str, bytes]]:
        with self._engine.connect() as connection:
            for entry in FAMILIES.values():
                table = entry.table
                for row in connection.execute(select(table.c.id, table.c.body)):
                    yield table.name, row.id, bytes(row.body)

    def events(self, *, after: int = -1, limit: int = 1000) -> Sequence[tuple[int, Event]]:
        query = (
            select(tables.log_leaf.c.idx, tables.event.c.body)
            .join_from(
                tables.log_leaf, tables.event, tables.log_leaf.c.event_id == tables.event.c.id
            )
            .where(tables.log_leaf.c.idx > after)
            .order_by(tables.log_leaf.c.idx)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [(row.idx, Event.from_cloud(row.body)) for row in connection.execute(query)]

    def leaves(self) -> Sequence[tuple[int, bytes]]:
        query = (
            select(tables.log_leaf.c.idx, tables.event.c.body)
            .join_from(
                tables.log_leaf, tables.event, tables.log_leaf.c.event_id == tables.event.c.id
            )
            .order_by(tables.log_leaf.c.idx)
        )
        with self._engine.connect() as connection:
            return [(row.idx, bytes(row.body)) for row in connection.execute(query)]

    def integrate(self, *, limit: int = 1000) -> int:
        # Events that wait, never "id greater than the last": commit order is not id order.
        waiting = (
            select(tables.event.c.id, tables.event.c.leaf)
            .join_from(
                tables.log_waiting, tables.event, tables.log_waiting.c.event_id == tables.event.c.id
            )
            .order_by(tables.log_waiting.c.event_id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            if connection.execute(select(tables.log_waiting).limit(1)).first() is None:
                return size_of(connection)
        with self._writer.begin() as connection:
            edge = edge_of(connection)
            rows = connection.execute(waiting).all()
            if not rows:
                return edge.size
            grown, nodes = merkle.grow(edge, (bytes(row.leaf) for row in rows))
            connection.execute(
                insert(tables.log_leaf),
                [{"idx": edge.size + n, "event_id": row.id} for n, row in enumerate(rows)],
            )
            connection.execute(insert(tables.log_node), [node._asdict() for node in nodes])
            connection.execute(
                delete(tables.log_waiting).where(tables.log_waiting.c.event_id == bindparam("id")),
                [{"id": row.id} for row in rows],
            )
            return grown.size

    def root(self) -> tuple[int, bytes]:
        with self._engine.connect() as connection:
            edge = edge_of(connection)
            return edge.size, merkle.root_of(edge)

    def take(self, name: str, owner: str, seconds: float) -> Lease | None:
        now_ms = clock.time_ns() // 1_000_000
        until = now_ms + int(seconds * 1000)
        table = tables.lease
        with self._writer.begin() as connection:
            row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
            if row is None:
                connection.execute(
                    insert(table).values(name=name, owner=owner, fence=1, until_ms=until)
                )
                return Lease(name, owner, 1, until)
            if row.owner != owner and row.until_ms > now_ms:
                return None
            fence = row.fence if row.owner == owner else row.fence + 1
            connection.execute(
                update(table)
                .where(table.c.name == name)
                .values(owner=owner, fence=fence, until_ms=until)
            )
            return Lease(name, owner, fence, until)

    def release(self, lease: Lease) -> None:
        table = tables.lease
        with self._writer.begin() as connection:
            connection.execute(
                update(table)
                .where(table.c.name == lease.name, table.c.owner == lease.owner)
                .values(until_ms=0)
            )
