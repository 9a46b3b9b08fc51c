"""ports/log.py on SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    bindparam,
    func,
    insert,
    select,
    update,
)

from falaj.base import canonical, merkle, time
from falaj.base.errors import Conflict
from falaj.base.fenc import KeyErased
from falaj.base.merkle import Edge
from falaj.facts.events import Event
from falaj.links.sql import tables
from falaj.links.sql.remarks import BadRemark, Remarks, bound
from falaj.ports.log import Asked, Leaf, LogUnavailable, Receipt, Signed

__all__ = ["SqlLog", "edge_of", "size_of"]

PAGE = 5_000
COLUMNS = ("at", "project", "type", "actor", "subject")
NODE = select(tables.log_node.c.hash).where(
    tables.log_node.c.level == bindparam("level"), tables.log_node.c.idx == bindparam("idx")
)


def size_of(connection: Connection) -> int:
    last = connection.scalar(select(func.max(tables.log_leaf.c.idx)))
    return 0 if last is None else int(last) + 1


def edge_of(connection: Connection) -> Edge:
    """The right edge of the tree, in as many reads as its size has set bits. Raises LogUnavailable."""
    size = size_of(connection)
    found = []
    for level, idx in merkle.subtrees(0, size):
        hash_ = connection.scalar(NODE, {"level": level, "idx": idx})
        if hash_ is None:
            raise LogUnavailable(
                "audit.log-damaged",
                f"the log has lost node {idx} of level {level}",
                why="without it no event can be given its place",
                fix="`falaj audit verify` names what differs; put the store back from a copy",
            )
        found.append(octets(hash_))
    return Edge(size, tuple(found))


class SqlLog:
    """The tree, the checkpoints and the witnesses, in the database of the events."""

    def __init__(self, engine: Engine, remarks: Remarks | None = None) -> None:
        self._engine = engine
        self._sealing = remarks or Remarks(None)
        self._writer = engine.execution_options(writes=True)

    def size(self) -> int:
        with self._engine.connect() as connection:
            return size_of(connection)

    def nodes(self, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        found: dict[tuple[int, int], bytes] = {}
        with self._engine.connect() as connection:
            for level, idx in dict.fromkeys(wanted):
                hash_ = connection.scalar(NODE, {"level": level, "idx": idx})
                if hash_ is not None:
                    found[level, idx] = octets(hash_)
        return found

    def level(self, level: int) -> Iterator[tuple[int, bytes]]:
        table = tables.log_node
        query = select(table.c.idx, table.c.hash).where(table.c.level == level)
        for idx, hash_ in self._pages(query, table.c.idx):
            yield idx, octets(hash_)

    def levels(self) -> int:
        with self._engine.connect() as connection:
            highest = connection.scalar(select(func.max(tables.log_node.c.level)))
            return 0 if highest is None else int(highest) + 1

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Leaf]:
        leaf, event = tables.log_leaf, tables.event
        columns = [event.c[name] for name in COLUMNS]
        query = (
            select(leaf.c.idx, leaf.c.event_id, event.c.body, event.c.leaf, *columns)
            .join_from(leaf, event, leaf.c.event_id == event.c.id)
            .where(leaf.c.idx >= start)
        )
        if end is not None:
            query = query.where(leaf.c.idx < end)
        for idx, id_, body, hash_, *rest in self._pages(query, leaf.c.idx):
            said = dict(zip(COLUMNS, rest, strict=True))
            yield Leaf(idx, id_, octets(body), octets(hash_), said)

    def place(self, event: str) -> int | None:
        table = tables.log_leaf
        with self._engine.connect() as connection:
            return connection.scalar(select(table.c.idx).where(table.c.event_id == event))

    def search(
        self, asked: Asked, *, before: int | None = None, limit: int = 100
    ) -> list[tuple[int, Event]]:
        leaf, event = tables.log_leaf, tables.event
        query = (
            select(leaf.c.idx, event.c.body)
            .join_from(leaf, event, leaf.c.event_id == event.c.id)
            .order_by(leaf.c.idx.desc())
            .limit(limit)
        )
        if asked.actor:
            query = query.where(event.c.actor == asked.actor)
        if asked.subject:
            query = query.where(event.c.subject == asked.subject)
        if asked.type.endswith("."):
            query = query.where(event.c.type.startswith(asked.type, autoescape=True))
        elif asked.type:
            query = query.where(event.c.type == asked.type)
        if asked.since is not None:
            query = query.where(event.c.at >= time.text(asked.since))
        if asked.until is not None:
            query = query.where(event.c.at < time.text(asked.until))
        if before is not None:
            query = query.where(leaf.c.idx < before)
        with self._engine.connect() as connection:
            return [
                (idx, Event.from_cloud(octets(body))) for idx, body in connection.execute(query)
            ]

    def last(self) -> Signed | None:
        table = tables.checkpoint
        with self._engine.connect() as connection:
            return _signed(connection.execute(_newest(table).limit(1)).one_or_none())

    def signed(self, at_least: int) -> Signed | None:
        table = tables.checkpoint
        query = select(table.c.size, table.c.root, table.c.note).where(table.c.size >= at_least)
        with self._engine.connect() as connection:
            return _signed(connection.execute(query.order_by(table.c.size).limit(1)).one_or_none())

    def checkpoints(self) -> Iterator[Signed]:
        table = tables.checkpoint
        query = select(table.c.size, table.c.root, table.c.note)
        for row in self._pages(query, table.c.size):
            yield Signed(row.size, octets(row.root), octets(row.note))

    def _pages(self, query: Select[Any], place: ColumnElement[int]) -> Iterator[Any]:
        """All rows in the order of `place`, which is the first column. No connection is held on to."""
        last = -1
        while True:
            with self._engine.connect() as connection:
                page = query.where(place > last).order_by(place).limit(PAGE)
                rows = connection.execute(page).all()
            yield from rows
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def keep(self, signed: Signed) -> None:
        table = tables.checkpoint
        with self._writer.begin() as connection:
            known = connection.scalar(select(table.c.root).where(table.c.size == signed.size))
            if known is None:
                connection.execute(insert(table).values(signed._asdict()))
            elif octets(known) == signed.root:
                connection.execute(
                    update(table).where(table.c.size == signed.size).values(note=signed.note)
                )
            else:
                raise Conflict(
                    "audit.log-forked",
                    f"another checkpoint of size {signed.size} was signed before",
                    why="one log has one root at each size",
                    fix="compare both with what a witness holds: `falaj audit witness list`",
                )

    def receive(self, receipt: Receipt) -> None:
        table = tables.cosignature
        with self._writer.begin() as connection:
            known = select(table.c.size).where(
                table.c.size == receipt.size, table.c.witness == receipt.witness
            )
            if connection.scalar(known) is None:
                connection.execute(insert(table).values(receipt._asdict()))

    def receipts(self, size: int) -> list[Receipt]:
        table = tables.cosignature
        query = select(table).where(table.c.size == size).order_by(table.c.witness)
        with self._engine.connect() as connection:
            return [_receipt(row) for row in connection.execute(query)]

    def newest(self, witness: str) -> Receipt | None:
        table = tables.cosignature
        query = select(table).where(table.c.witness == witness).order_by(table.c.size.desc())
        with self._engine.connect() as connection:
            row = connection.execute(query.limit(1)).one_or_none()
            return None if row is None else _receipt(row)

    def seen(self, origin: str) -> Signed | None:
        table = tables.witnessed
        query = select(table.c.size, table.c.root, table.c.note).where(table.c.origin == origin)
        with self._engine.connect() as connection:
            return _signed(connection.execute(query).one_or_none())

    def see(self, origin: str, was: int, now: Signed) -> bool:
        table = tables.witnessed
        with self._writer.begin() as connection:
            query = select(table.c.size).where(table.c.origin == origin)
            known = connection.scalar(query)
            if (known or 0) != was:
                return False
            if known is None:
                connection.execute(insert(table).values(origin=origin, **now._asdict()))
            else:
                connection.execute(
                    update(table)
                    .where(table.c.origin == origin, table.c.size == was)
                    .values(**now._asdict())
                )
            return True

    def remark(self, event: str) -> str | None:
        table = tables.remark
        with self._engine.connect() as connection:
            row = connection.execute(select(table).where(table.c.event_id == event)).one_or_none()
        if row is None:
            return None
        try:
            return self._sealing.open(event, octets(row.sealed), octets(row.salt)).words
        except KeyErased:
            return None

    def remarks_that_differ(self) -> Iterator[str]:
        table, event = tables.remark, tables.event
        query = select(table.c.event_id, table.c.salt, table.c.sealed, event.c.body).join_from(
            table, event, table.c.event_id == event.c.id, isouter=True
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(table.c.event_id)).all()
        for row in rows:
            try:
                found = self._sealing.open(row.event_id, octets(row.sealed), octets(row.salt))
                told = Event.from_cloud(octets(row.body)).data["remark"]
            except KeyErased:
                continue  # as if it were removed, which anybody may ask for
            except (BadRemark, canonical.NotCanonical, KeyError, TypeError, UnicodeDecodeError):
                yield row.event_id
                continue
            if told != bound(*found):
                yield row.event_id

    def waiting(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.count()).select_from(tables.log_waiting)) or 0)

    def witnesses(self) -> list[str]:
        with self._engine.connect() as connection:
            column = tables.cosignature.c.witness
            return list(connection.scalars(select(column).distinct().order_by(column)))


def octets(value: Any) -> bytes:
    """What somebody wrote into the database as text is read as its bytes, and then differs."""
    return value.encode() if isinstance(value, str) else bytes(value)


def _newest(table: Any) -> Any:
    return select(table.c.size, table.c.root, table.c.note).order_by(table.c.size.desc())


def _signed(row: Any) -> Signed | None:
    return None if row is None else Signed(row.size, octets(row.root), octets(row.note))


def _receipt(row: Any) -> Receipt:
    return Receipt(row.size, row.witness, row.line, row.at)
