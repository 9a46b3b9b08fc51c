"""ports/runs.py on SQLAlchemy Core. Values are always bound, never part of a statement's text."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import ColumnElement, Engine, and_, delete, exists, func, insert, not_, or_, select
from sqlalchemy.exc import OperationalError

from falaj.base.filters import Both, Compare, Either, Filter, Not, Order
from falaj.base.points import Series, columns, little
from falaj.facts.runs import Run
from falaj.links.sql import tables
from falaj.links.sql.tables import FAMILIES

__all__ = ["SqlRuns"]

RUN: Final = FAMILIES[Run].table
SIGNS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class SqlRuns:
    """The search tables of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)

    def record(self, run: Run, series: Iterable[Series]) -> None:
        chunks = [row for one in series for row in chunk_rows(run.id, one)]
        last = [{"run": run.id, "name": n, "value": v} for n, v in run.metrics.items()]
        said = {n: text for step in run.steps for n, text in step.params.items()}
        given = [
            *(said_row(run.id, n, text) for n, text in said.items() if n not in run.parameters),
            *(param_row(run.id, name, value) for name, value in run.parameters.items()),
        ]
        with self._writer.begin() as connection:
            for table, rows in (
                (tables.run_last, last),
                (tables.run_param, given),
                (tables.point_chunk, chunks),
            ):
                connection.execute(delete(table).where(table.c.run == run.id))
                if rows:
                    connection.execute(insert(table), rows)

    def append(self, run: str, metrics: Mapping[str, float], series: Iterable[Series]) -> None:
        table, last = tables.point_chunk, tables.run_last
        with suppress(OperationalError), self._writer.begin() as connection:
            for one in series:
                here = (table.c.run == run) & (table.c.name == one.name)
                number = connection.scalar(select(func.max(table.c.seq)).where(here))
                rows = [*chunk_rows(run, one, 0 if number is None else number + 1)]
                if rows:
                    connection.execute(insert(table), rows)
            if metrics:
                connection.execute(
                    delete(last).where(last.c.run == run, last.c.name.in_(list(metrics)))
                )
                rows = [{"run": run, "name": n, "value": v} for n, v in metrics.items()]
                connection.execute(insert(last), rows)

    def last(self, run: str) -> dict[str, float]:
        table = tables.run_last
        query = select(table.c.name, table.c.value).where(table.c.run == run)
        with self._engine.connect() as connection:
            return {str(name): float(value) for name, value in connection.execute(query)}

    def search(self, where: Filter | None, order: Order | None, *, limit: int) -> Sequence[str]:
        query = select(RUN.c.id).limit(limit)
        if where is not None:
            query = query.where(condition(where))
        if order is None:
            query = query.order_by(RUN.c.position.desc())
        else:
            table = tables.run_last if order.kind == "metrics" else tables.run_param
            value = table.c.value if order.kind == "metrics" else table.c.number
            query = query.join(table, table.c.run == RUN.c.id).where(
                table.c.name == order.name, value.is_not(None)
            )
            query = query.order_by(value.desc() if order.falling else value, RUN.c.position.desc())
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def series(self, run: str, name: str) -> Series:
        table = tables.point_chunk
        query = select(table.c.steps, table.c.times, table.c["values"]).where(
            table.c.run == run, table.c.name == name
        )
        whole = Series(name)
        with self._engine.connect() as connection:
            for steps, times, values in connection.execute(query.order_by(table.c.seq)):
                part = columns(steps, times, values)
                whole.extend(part)
        return whole

    def names(self, run: str) -> Sequence[str]:
        table = tables.point_chunk
        query = select(table.c.name).where(table.c.run == run, table.c.seq == 0)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(table.c.name)))


def chunk_rows(run: str, series: Series, first: int = 0) -> Iterable[dict[str, Any]]:
    for number, part in enumerate(series.chunks(), first):
        yield {
            "run": run,
            "name": series.name,
            "seq": number,
            "n": len(part.steps),
            "first": part.steps[0],
            "last": part.steps[-1],
            "min": min(part.values),
            "max": max(part.values),
            "last_value": part.values[-1],
            "steps": little(part.steps),
            "times": little(part.times),
            "values": little(part.values),
        }


def param_row(run: str, name: str, value: Any) -> dict[str, Any]:
    """A number is searched as a number, all else by its text."""
    number = (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    )
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return {"run": run, "name": name, "number": number, "text": text[:200]}


def said_row(run: str, name: str, said: str) -> dict[str, Any]:
    """What a step said of itself is text: `6` and `0.1` are searched as numbers, too."""
    try:
        number = float(said) if len(said) < 40 else math.nan
    except ValueError:
        number = math.nan
    kept = number if math.isfinite(number) else None
    return {"run": run, "name": name, "number": kept, "text": said[:200]}


def condition(asked: Filter) -> ColumnElement[bool]:
    match asked:
        case Not(inner):
            return not_(condition(inner))
        case Both(left, right):
            return and_(condition(left), condition(right))
        case Either(left, right):
            return or_(condition(left), condition(right))
        case Compare(kind, name, sign, value):
            return compared(kind, name, SIGNS[sign], value)


def compared(
    kind: str, name: str, sign: Callable[[Any, Any], Any], value: float | str
) -> ColumnElement[bool]:
    if kind == "run":
        found: ColumnElement[bool] = sign(RUN.c[name], value)
        return found
    # A lookup for each run in question: with an order and a limit only the first ones are looked at.
    if kind == "metrics":
        table = tables.run_last.alias()
        column = table.c.value
    else:
        table = tables.run_param.alias()
        column = table.c.text if isinstance(value, str) else table.c.number
    meets = and_(table.c.run == RUN.c.id, table.c.name == name, sign(column, value))
    return exists().where(meets).correlate(RUN)
