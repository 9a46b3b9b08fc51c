"""Features looked up at request time from a local table: key -> row, with the time it is from. Pure.

The file is JSON: `{"as_of": TIME, "rows": {KEY: {COLUMN: VALUE, ...}, ...}}`; a row may have its own
`as_of`. What a request sends itself is never replaced; what was looked up is logged as it was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from falaj.base.time import Instant
from falaj.facts.serving import FeaturePlan
from falaj.serving.refusals import Finding, Refusal

__all__ = ["MAX_TABLE", "BadTable", "Lookup", "Table", "read_table"]

MAX_TABLE: Final = 512 << 20
AS_OF: Final = "as_of"


class BadTable(ValueError):
    """The file is no table of features; the text says why."""


class Given(msgspec.Struct):
    as_of: Instant
    rows: dict[str, dict[str, Any]]


GIVEN: Final = msgspec.json.Decoder(Given)
TIME: Final = msgspec.json.Decoder(Instant)


class Table:
    """rows: key -> values by column. at: key -> seconds since 1970 that its row is from."""

    __slots__ = ("at", "rows")

    def __init__(self, rows: dict[str, dict[str, Any]], at: dict[str, float]) -> None:
        self.rows = rows
        self.at = at


def read_table(data: bytes) -> Table:
    """Read a whole table. Raises BadTable."""
    if len(data) > MAX_TABLE:
        raise BadTable("larger than 512 MiB")
    try:
        given = GIVEN.decode(data)
        at: dict[str, float] = {}
        whole = given.as_of.timestamp()
        for key, row in given.rows.items():
            own = row.pop(AS_OF, None)
            at[key] = whole if own is None else msgspec.convert(own, Instant).timestamp()
            if not all(_is_cell(value) for value in row.values()):
                raise BadTable(f"row {key[:60]!r}: expected numbers, texts, true, false or null")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTable(str(error)) from None
    return Table(given.rows, at)


def _is_cell(value: object) -> bool:
    return (
        value is None
        or isinstance(value, str | int)
        or (isinstance(value, float) and math.isfinite(value))
    )


class Lookup:
    """Fills the rows of one model. results: counts by result, for metrics. now: seconds since 1970."""

    def __init__(
        self,
        plan: FeaturePlan,
        table: Callable[[], Table | None],
        results: dict[str, int],
        now: Callable[[], float],
    ) -> None:
        self.plan = plan
        self.table = table
        self.results = results
        self.now = now
        self.defaults = {name: msgspec.json.decode(text) for name, text in plan.defaults.items()}

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Replace the key of each row by the columns behind it. Raises Refusal: 503 when required."""
        plan, table = self.plan, self.table()
        oldest = self.now() - plan.max_age_s if plan.max_age_s else -math.inf
        return [self._filled(row, table, oldest, at) for at, row in enumerate(rows)]

    def _filled(
        self, row: dict[str, Any], table: Table | None, oldest: float, at: int
    ) -> dict[str, Any]:
        plan = self.plan
        if plan.key not in row:
            return row  # it brings everything itself, or is refused like any other
        key = row[plan.key]
        asked = {name: value for name, value in row.items() if name != plan.key}
        known: Mapping[str, Any] | None = None
        if table is not None and isinstance(key, str | int):
            known = table.rows.get(str(key))
        if known is None or table is None:
            self._count("unavailable" if table is None else "missing")
            if plan.required:
                words = f"row {at}: features of {plan.key} are not known now"
                finding = Finding("serving.features", words, plan.key, at)
                raise Refusal(finding, status=503)
            found = self.defaults
        else:
            stale = table.at[str(key)] < oldest
            self._count("stale" if stale else "found")
            found = {name: known.get(name, self.defaults.get(name)) for name in plan.columns}
        return {**{name: found[name] for name in plan.columns if name in found}, **asked}

    def _count(self, result: str) -> None:
        self.results[result] = self.results.get(result, 0) + 1
