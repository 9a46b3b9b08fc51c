"""Checks over a dataset in two streamed passes: counts of all checks, then samples of the broken."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec
import polars as pl

from falaj.base.errors import FalajError
from falaj.data.checks import Check, decided, holds, is_strict
from falaj.data.masking import masked
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.data import Classification
from falaj.ports.queries import SqlEngine

__all__ = ["BROKEN", "ROW", "SAMPLE", "Draw", "Masks", "broken_rows", "scan"]

SAMPLE: Final = 20
ROW: Final = "falaj_row"
BROKEN: Final = "falaj_broken"
TAIL: Final = 0.05
FORMATS: Final = {
    "uuid": r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
    "email": r"^[^@\s]+@[^@\s.]+(?:\.[^@\s.]+)+$",
    "ipv4": r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}$",
    "ipv6": r"^[0-9a-fA-F:]*:[0-9a-fA-F:]*(?:(?:\d{1,3}\.){3}\d{1,3})?$",
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$",
    "hostname": r"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$",
}
WIDTHS: Final = {
    **{f"i{bits}": f"Int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"UInt{bits}" for bits in (8, 16, 32, 64)},
    **{f"f{bits}": f"Float{bits}" for bits in (32, 64)},
}
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # of checks that ask for no time
ROW_KINDS: Final = frozenset(
    (
        *("required", "null limit", "missing", "range", "multiple", "length", "pattern"),
        *("format", "allowed", "cross-column", "items"),
    )
)
NOT_COUNTED: Final = frozenset(("row count", "freshness", "distribution", "sql"))
GROUP_KINDS: Final = frozenset(("unique", "key", "duplicates"))
# What a part of the rows says nothing about.
WHOLE_KINDS: Final = GROUP_KINDS | {"reference", "distribution"}


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How sample values are shown. default: class of columns without one."""

    classes: Mapping[str, Classification]
    default: Classification = Classification.INTERNAL
    key: bytes = b""

    def show(self, value: Any, column: str) -> Any:
        return masked(value, column, self.classes.get(column, self.default), self.key)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Look at a part of the rows: each with the same probability, the same ones every time.

    pct: that probability. seed: 64 bits, of the data. tolerance_pct: the share of rows that may
    break a promise which allows none, as one cannot prove of a part that there are none.
    """

    pct: float
    seed: int
    tolerance_pct: float = 0.0

    def chosen(self) -> pl.Expr:
        """Of the row's number; the finalizer of SplitMix64 (Steele, Lea, Flood 2014), mod 2**64."""

        def word(value: int) -> pl.Expr:
            return pl.lit(value % 2**64, dtype=pl.UInt64)

        mixed = pl.col(ROW).cast(pl.UInt64) * word(0x9E3779B97F4A7C15) + word(self.seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed // word(2**shift))) * word(factor)
        mixed = mixed ^ (mixed // word(2**31))
        return mixed // word(2**11) < word(round(self.pct / 100 * 2**53))


class _Bad(Exception):
    """The check cannot be made on this column; the message says why."""


def scan(
    checks: Sequence[Check],
    frame: pl.LazyFrame,
    *,
    references: Mapping[str, pl.LazyFrame],
    unreadable: Mapping[str, pl.Series],
    masks: Masks,
    key: Sequence[str],
    now: datetime,
    name: str = "",
    sql: SqlEngine | None = None,
    draw: Draw | None = None,
) -> tuple[CheckResult, ...]:
    """Make all checks on all rows, or on those that are drawn.

    Args:
        checks: of the contract.
        frame: the data, with the types of the contract.
        references: other datasets by name, for foreign keys.
        unreadable: column -> texts of its cells that are not of the contract's type (null: fine).
        masks: how values of samples are shown.
        key: columns of the primary key, shown beside each sample.
        now: for freshness.
        name: of the dataset, as SQL rules call it.
        sql: answers SQL rules; without it they are skipped.
        draw: which rows checks about single rows look at; others look at all rows or are skipped.
    """
    return _Scan(checks, frame, references, unreadable, masks, key, now, name, sql, draw).results()


def broken_rows(
    checks: Sequence[Check],
    frame: pl.LazyFrame,
    *,
    references: Mapping[str, pl.LazyFrame],
    unreadable: Mapping[str, pl.Series],
) -> tuple[pl.DataFrame, tuple[CheckResult, ...]]:
    """Rows that break a promise which allows none, and what no loss of rows would mend.

    The first: numbers from 0 (column `falaj_row`, rising) and ids of the checks (`falaj_broken`).
    Of equal values the first row is kept. The second: absent columns, other types.
    """
    strict = [check for check in checks if is_strict(check)]
    found = _Scan(strict, frame, references, unreadable, Masks(classes={}), (), NEVER, "", None)
    return found.broken()


@dataclass
class _Scan:
    checks: Sequence[Check]
    frame: pl.LazyFrame
    references: Mapping[str, pl.LazyFrame]
    unreadable: Mapping[str, pl.Series]
    masks: Masks
    key: Sequence[str]
    now: datetime
    name: str
    sql: SqlEngine | None
    draw: Draw | None = None

    def _begin(self) -> None:
        self.schema = dict(self.frame.collect_schema())
        self.settled: dict[str, CheckResult] = {}
        self.bad: dict[str, pl.Expr] = {}
        self.queries: dict[str, pl.LazyFrame] = {}
        self.holes: dict[str, pl.Expr] = {}
        self.shapes = {check.id for check in self.checks if check.kind == "distribution"}
        self.rows = self.total = 0
        self.looked = self.frame.with_row_index(ROW)
        if self.draw is not None:
            self.looked = self.looked.filter(self.draw.chosen())
        for check in self.checks:
            self._plan(check)

    def broken(self) -> tuple[pl.DataFrame, tuple[CheckResult, ...]]:
        self._begin()
        by_row = [pl.col(ROW), *(bad.alias(check) for check, bad in self.bad.items())]
        queries: list[pl.LazyFrame] = []
        if self.bad:
            queries.append(self.looked.select(by_row).filter(pl.any_horizontal(*self.bad)))
        counted = [check for check in self.checks if check.id in self.queries]
        counted = [check for check in counted if check.kind in GROUP_KINDS | {"reference"}]
        queries += [self._rows_of(check).select(ROW) for check in counted]
        found = [
            pl.DataFrame({ROW: texts.is_not_null().arg_true()}).with_columns(
                pl.lit(f"{name}.type").alias(BROKEN)
            )
            for name, texts in self.unreadable.items()
            if f"{name}.type" in self.settled
        ]
        answers = pl.collect_all(queries, engine="streaming")
        if self.bad:
            for name in self.bad:
                rows = answers[0].filter(pl.col(name)).select(ROW, pl.lit(name).alias(BROKEN))
                found.append(rows)
            answers = answers[1:]
        for check, rows in zip(counted, answers, strict=True):
            found.append(rows.select(ROW, pl.lit(check.id).alias(BROKEN)))
        kinds = {ROW: pl.UInt32(), BROKEN: pl.String()}
        empty = pl.DataFrame(schema=kinds)
        every = pl.concat([empty, *(one.cast(empty.schema) for one in found)])
        mended = {f"{name}.type" for name in self.unreadable}
        lost = tuple(
            result
            for name, result in self.settled.items()
            if result.verdict in (Verdict.FAIL, Verdict.ERROR) and name not in mended
        )
        return every.group_by(ROW, maintain_order=True).agg(BROKEN).sort(ROW), lost

    def results(self) -> tuple[CheckResult, ...]:
        self._begin()
        self._sql()
        counts = self._count()
        for check in self.checks:
            if check.id in counts:
                self.settled[check.id] = self._judge(check, counts[check.id])
        self._sample()
        return tuple(self.settled[check.id] for check in self.checks)

    # -- pass A ----------------------------------------------------------------------------------

    def _plan(self, check: Check) -> None:
        """Settle what the schema alone decides; else say what to count."""
        try:
            columns = self._columns(check)
            missing = [name for name in columns if name not in self.schema]
            if check.kind == "present":
                self._present(check, missing)
            elif missing:
                why = f"column {missing[0]!r} is absent, so this was not checked"
                self._settle(check, Verdict.SKIPPED, why)
            elif check.kind == "type":
                self._type(check)
            elif self._wrong_type(check, columns):
                return
            elif self.draw is not None and check.kind in WHOLE_KINDS:
                why = "nothing is claimed about this on a sample: it takes all rows"
                self._settle(check, Verdict.SKIPPED, why)
            elif check.kind in ROW_KINDS:
                self.bad[check.id] = self._violated(check)
            elif check.kind in GROUP_KINDS:
                self.queries[check.id] = self._grouped(check)
            else:
                self._plan_other(check)
        except _Bad as error:
            self._settle(check, Verdict.ERROR, str(error))

    def _plan_other(self, check: Check) -> None:
        match check.kind:
            case "reference":
                self._reference(check)
            case "row count":
                self.queries[check.id] = self.frame.select(pl.len())
            case "freshness":
                self.queries[check.id] = self.frame.select(pl.col(check.columns[0]).max())
            case "text":
                self._settle(check, Verdict.SKIPPED, "a rule in words; a person judges it")
            case "distribution":
                if not self.schema[check.columns[0]].is_numeric():
                    raise _Bad(f"needs numbers, but column {check.columns[0]!r} has none")
                self.queries[check.id] = self.frame.select(pl.col(check.columns[0]))
            case "sql":
                return  # with all others of its kind
            case _:
                self._settle(check, Verdict.SKIPPED, f"not a rule of falaj: {check.requirement}")

    def _sql(self) -> None:
        """All rules at once: the engine is started for a dataset, not for a rule."""
        rules = [check for check in self.checks if check.kind == "sql"]
        if not rules:
            return
        if self.sql is None:
            for check in rules:
                self._settle(check, Verdict.SKIPPED, "SQL rules need the extra falaj[duckdb]")
            return
        tables = {**self.references, self.name: self.frame}
        answers = self.sql.numbers([check.requirement for check in rules], tables)
        for check, value in zip(rules, answers, strict=True):
            if isinstance(value, FalajError):
                told = {"code": value.code, "fix": value.problems[0].fix}
                self._settle(check, Verdict.ERROR, str(value), more=told)
                continue
            good = holds(check.operator, value, check.limit)
            need = f"{check.operator} {' and '.join(f'{x:g}' for x in check.limit)}"
            why = f"the query gave {value:g}, expected {need}"
            verdict = Verdict.PASS if good else Verdict.FAIL
            self._settle(check, verdict, why, value=value, unit="")

    def _columns(self, check: Check) -> tuple[str, ...]:
        if check.kind == "cross-column":
            roots = pl.sql_expr(check.said["expression"]).meta.root_names()
            return tuple(dict.fromkeys(roots))
        return check.columns

    def _present(self, check: Check, missing: list[str]) -> None:
        if not missing:
            self._settle(check, Verdict.PASS, "the column exists")
            return
        name = missing[0]
        why = (
            f"{check.place.file}:{check.place.line}: column {name!r} is promised, but the data has "
            "no such column; checks on it are skipped"
        )
        self._settle(check, Verdict.FAIL, why)

    def _type(self, check: Check) -> None:
        name = check.columns[0]
        dtype = self.schema[name]
        if not _is_of(dtype, check.said):
            why = f"column {name!r}: got {dtype}, expected {check.requirement}"
            self._settle(check, Verdict.FAIL, why)
            return
        texts = self.unreadable.get(name)
        count = 0 if texts is None else len(texts) - texts.null_count()
        if texts is None or not count:
            self._settle(check, Verdict.PASS, f"is {dtype}")
            return
        rows = texts.is_not_null().arg_true().head(SAMPLE).to_list()
        sample = [{"row": row + 1, "value": self.masks.show(texts[row], name)} for row in rows]
        why = f"{count} of {len(texts)} cells of {name!r} are not {check.requirement}"
        self._settle(check, Verdict.FAIL, why, value=count, n=len(texts), sample=sample)

    def _wrong_type(self, check: Check, columns: Sequence[str]) -> bool:
        """Skip a check whose column failed its type check: its numbers would mean nothing."""
        for name in columns:
            typed = self.settled.get(f"{name}.type")
            if typed is not None and typed.verdict is Verdict.FAIL and name not in self.unreadable:
                why = f"column {name!r} has another type, so this was not checked"
                self._settle(check, Verdict.SKIPPED, why)
                return True
        return False

    def _violated(self, check: Check) -> pl.Expr:
        """True for rows that break the check; null counts as kept unless the kind is about null."""
        name = check.columns[0] if check.columns else ""
        dtype = self.schema.get(name, pl.Null())
        column, said = pl.col(name), check.said
        match check.kind:
            case "required" | "null limit":
                return column.is_null()
            case "missing":
                values = [v for v in said["values"] if v is not None]
                bad = self._among(column, dtype, values)
                return bad.fill_null(value=False) | (column.is_null() & (None in said["values"]))
            case "range":
                bad = _outside(column, dtype, said["options"], name)
            case "multiple":
                bad = _not_multiple(column, dtype, said["of"], name)
            case "length":
                bad = _wrong_length(_text(column, dtype, name), said["options"])
            case "pattern":
                bad = ~_text(column, dtype, name).str.contains(said["pattern"])
            case "format":
                bad = ~_text(column, dtype, name).str.contains(FORMATS[said["format"]])
            case "allowed":
                bad = ~self._among(column, dtype, list(said["values"]))
                if said.get("pattern"):
                    bad = bad | ~_text(column, dtype, name).str.contains(said["pattern"])
            case "items":
                bad = _wrong_items(column, dtype, said["options"], name)
            case _:
                # Null is neither true nor false: only rows where the condition is false count.
                bad = ~pl.sql_expr(said["expression"]).cast(pl.Boolean)
        return bad.fill_null(value=False)

    def _among(self, column: pl.Expr, dtype: pl.DataType, values: list[Any]) -> pl.Expr:
        if _is_text(dtype):
            return column.cast(pl.String).is_in([str(value) for value in values])
        if dtype.is_numeric():
            # As one type: Polars refuses to look for whole numbers among others.
            kind = pl.Int64 if dtype.is_integer() else pl.Float64
            numbers = [v for v in values if isinstance(v, int | float)]
            if kind == pl.Int64:
                numbers = [int(v) for v in numbers if float(v).is_integer() and abs(v) < 2**63]
            return column.cast(kind, strict=False).is_in(pl.Series(numbers, dtype=kind).implode())
        if dtype == pl.Boolean:
            return column.is_in([value for value in values if isinstance(value, bool)])
        if dtype in (pl.Date, pl.Datetime):
            times = [
                bound for value in values if (bound := _time_or_none(value, dtype)) is not None
            ]
            same = [column == bound for bound in times]
            return pl.any_horizontal(same) if same else column.is_null() & column.is_not_null()
        raise _Bad(f"values of {dtype} cannot be looked up in a list")

    def _grouped(self, check: Check) -> pl.LazyFrame:
        """Rows beyond the first of each value; for a key also rows with a null in it."""
        names = list(check.columns) or list(self.schema)
        full = self.frame.select(names).drop_nulls() if check.columns else self.frame
        twice = (
            full.group_by(names)
            .agg(pl.len().alias(ROW))
            .select((pl.col(ROW) - 1).sum().cast(pl.Int64))
        )
        if check.kind == "key":
            # Counted with the rows, which are read anyway.
            self.holes[check.id] = pl.any_horizontal(pl.col(n).is_null() for n in names)
        return twice

    def _reference(self, check: Check) -> None:
        dataset, to = check.said["dataset"], list(check.said["to"])
        other = self.references.get(dataset)
        if other is None:
            self._settle(check, Verdict.SKIPPED, f"dataset {dataset!r} is not declared")
            return
        lacking = [name for name in to if name not in other.collect_schema()]
        if lacking:
            self._settle(check, Verdict.ERROR, f"{dataset} has no column {lacking[0]!r}")
            return
        self.queries[check.id] = self._orphans(check).select(pl.len())

    def _orphans(self, check: Check) -> pl.LazyFrame:
        names, to = list(check.columns), list(check.said["to"])
        there = self.references[check.said["dataset"]].select(to).unique()
        there = there.rename(dict(zip(to, names, strict=True)))
        mine, theirs = self.frame.collect_schema(), there.collect_schema()
        casts = [pl.col(n).cast(mine[n]) for n in names if mine[n] != theirs[n]]
        full = self.frame.with_row_index(ROW).drop_nulls(names)
        return full.join(there.with_columns(casts), on=names, how="anti")

    def _count(self) -> dict[str, Any]:
        rows = self.bad | {f"{check} holes": bad for check, bad in self.holes.items()}
        sums = [bad.sum().cast(pl.Int64).alias(f"c{i}") for i, bad in enumerate(rows.values())]
        whole = self.frame.select(pl.len().alias(ROW), *([] if self.draw else sums))
        queries = [whole, *self.queries.values()]
        if self.draw:
            queries.append(self.looked.select(pl.len().alias(ROW), *sums))
        try:
            first, *others = pl.collect_all(queries, engine="streaming")
        except pl.exceptions.PolarsError as error:
            return self._count_apart(error)
        self.total = first[ROW].item()
        if self.draw:
            first = others.pop()
        self.rows = first[ROW].item()
        counts: dict[str, Any] = {check: first[f"c{i}"].item() for i, check in enumerate(rows)}
        counts |= {
            check: _answer(frame, check in self.shapes)
            for check, frame in zip(self.queries, others, strict=True)
        }
        return self._with_holes(counts)

    def _with_holes(self, counts: dict[str, Any]) -> dict[str, Any]:
        for check in self.holes:
            holes = counts.pop(f"{check} holes", None)
            if check in counts and holes is not None:
                counts[check] += holes
        return counts

    def _count_apart(self, error: pl.exceptions.PolarsError) -> dict[str, Any]:
        """One impossible check must not take the others with it: count each by itself."""
        del error
        self.total = self.frame.select(pl.len()).collect().item()
        self.rows = self.looked.select(pl.len()).collect().item() if self.draw else self.total
        counts: dict[str, Any] = {}
        queries = {check: self.looked.select(bad.sum()) for check, bad in self.bad.items()}
        for check, bad in self.holes.items():
            holes = self.frame.select(bad.sum().cast(pl.Int64).alias(ROW))
            self.queries[check] = pl.concat([self.queries[check], holes]).sum()
        by_id = {check.id: check for check in self.checks}
        for check, query in (queries | self.queries).items():
            try:
                found = query.collect(engine="streaming")
                counts[check] = _answer(found, check in self.shapes)
            except pl.exceptions.PolarsError as failed:
                self._settle(by_id[check], Verdict.ERROR, self._told(by_id[check], failed))
        return counts

    def _told(self, check: Check, error: pl.exceptions.PolarsError) -> str:
        """Polars quotes values in its messages: they are shown for open columns only."""
        open_classes = {Classification.PUBLIC, Classification.INTERNAL}
        kinds = {self.masks.classes.get(n, self.masks.default) for n in self._columns(check)}
        if not kinds <= open_classes:
            return f"cannot be computed ({type(error).__name__})"
        return f"cannot be computed: {str(error).strip().splitlines()[0]}"

    # -- verdicts --------------------------------------------------------------------------------

    def _judge(self, check: Check, count: Any) -> CheckResult:
        if check.kind == "freshness":
            return self._fresh(check, count)
        if check.kind == "row count":
            good = holds(check.operator, count, check.limit)
            need = f"{check.operator} {' and '.join(f'{x:g}' for x in check.limit)}"
            why = f"{count} rows, expected {need}"
            return self._made(check, good, why, value=count)
        if not self.rows:
            what = "sample" if self.draw and self.total else "dataset"
            why = f"the {what} has no rows: nothing was measured"
            return self._result(check, Verdict.INCONCLUSIVE, why)
        if check.kind == "distribution":
            return self._shaped(check, count)
        if self.draw is not None:
            return self._estimated(check, count, self.draw)
        share = 100.0 * count / self.rows
        good = holds(check.operator, share if check.unit == "percent" else count, check.limit)
        told = f"{count} of {self.rows} rows ({share:.3g} %)"
        why = f"{told} break it" if count else f"all {self.rows} rows keep it"
        default = check.operator == "=" and check.limit == (0.0,)
        if not default:
            unit = "%" if check.unit == "percent" else "rows"
            why += f"; asked {check.operator} {' and '.join(f'{x:g}' for x in check.limit)} {unit}"
        return self._made(check, good, why, value=count)

    def _estimated(self, check: Check, count: int, draw: Draw) -> CheckResult:
        """Exact bounds of the rate (Clopper, Pearson 1934), one-sided 95 % each.

        What was seen is there whatever the bounds say: so many rows break it, so many keep it.
        """
        from falaj.stats.intervals import clopper_pearson  # numpy: only when it is asked for

        n, total = self.rows, self.total
        bounds = clopper_pearson(count, n, tail=TAIL)
        share = [count / n, max(bounds.low, count / total)]
        share.append(min(bounds.high, 1 - (n - count) / total))
        rate, low, high = (100 * one for one in share)
        operator, limit, needed = check.operator, check.limit, None
        if operator == "=" and limit == (0.0,):
            operator, limit = "<=", (draw.tolerance_pct,)
        elif check.unit == "rows":
            limit = tuple(100 * one / total for one in limit)
        verdict = decided(operator, low, high, limit)
        if verdict is Verdict.INCONCLUSIVE and not count and 0 < limit[0] < 100:
            needed = math.ceil(math.log(TAIL) / math.log1p(-limit[0] / 100))
        why = (
            f"{count} of {n:,} sampled rows break it: {rate:.3g} % [{low:.3g}, {high:.3g}] of "
            f"{total:,} rows; asked {operator} {' and '.join(f'{one:.3g}' for one in limit)} %"
        )
        made = self._result(check, verdict, why, value=rate, unit="%", n=n)
        return msgspec.structs.replace(
            made,
            metric="violation rate",
            low=low,
            high=high,
            limit=limit[0] if len(limit) == 1 else None,
            n_needed=needed,
            details={**made.details, "sampled": {"rows": n, "of": total, "pct": draw.pct}},
        )

    def _fresh(self, check: Check, newest: Any) -> CheckResult:
        if newest is None:
            return self._result(check, Verdict.INCONCLUSIVE, "no value: age unknown")
        at = newest
        if isinstance(at, date) and not isinstance(at, datetime):
            at = datetime(at.year, at.month, at.day, tzinfo=UTC)
        if not isinstance(at, datetime):
            return self._result(check, Verdict.ERROR, f"{check.columns[0]} holds no times")
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        age = (self.now - at).total_seconds()
        good = age <= check.said["seconds"]
        return self._made(check, good, f"newest value is {age:.0f} s old", value=age, unit="s")

    def _shaped(self, check: Check, values: pl.Series) -> CheckResult:
        """Quantiles inside their bounds, and the distance from the reference below its limit."""
        from falaj.stats.drift import merged_cells, psi  # numpy: only when it is asked for

        said = check.said["distribution"]
        known = values.drop_nulls().drop_nans() if values.dtype.is_float() else values.drop_nulls()
        if known.is_empty():
            return self._result(check, Verdict.INCONCLUSIVE, "no value: nothing was measured")
        # Quantiles are values of the data; of personal columns no value is shown.
        kind = self.masks.classes.get(check.columns[0], self.masks.default)
        is_open = kind in {Classification.PUBLIC, Classification.INTERNAL}
        broken, moved = [], None
        for share, low, high in said.quantiles:
            at = known.quantile(share, "lower")
            assert at is not None  # noqa: S101 there are values
            if (low is not None and at < low) or (high is not None and at > high):
                broken.append(
                    f"quantile {share:g} is {f'{at:g}' if is_open else 'outside its bounds'}"
                )
        if said.edges is not None:
            count = said.edges.count(values.cast(pl.Float64).to_numpy(), null=values.null_count())
            cells = merged_cells(said.edges.reference)
            moved = psi(
                *(
                    [*(sum(row[a:b]) for a, b in cells), nothing]
                    for row, nothing in (
                        (said.edges.reference, said.edges.nan + said.edges.null),
                        (count.counts, count.nan),
                    )
                )
            )
            if moved > said.psi:
                broken.append(f"PSI {moved:.3f} from the reference, at most {said.psi:g}")
        why = "; ".join(broken) or (
            "the distribution is as promised" + ("" if moved is None else f" (PSI {moved:.3f})")
        )
        verdict = Verdict.FAIL if broken else Verdict.PASS
        return self._result(check, verdict, why, value=moved, unit="", n=len(known))

    def _made(
        self, check: Check, good: bool, why: str, *, value: float, unit: str = "rows"
    ) -> CheckResult:
        verdict = Verdict.PASS if good else Verdict.FAIL
        return self._result(check, verdict, why, value=value, unit=unit, n=self.rows)

    def _settle(self, check: Check, verdict: Verdict, why: str, **more: Any) -> None:
        self.settled[check.id] = self._result(check, verdict, why, **more)

    def _result(
        self,
        check: Check,
        verdict: Verdict,
        reason: str,
        *,
        value: float | None = None,
        n: int = 0,
        unit: str = "rows",
        sample: list[dict[str, Any]] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        # What a contract only tells (a warning, a rule in words) is shown, never counted.
        counted = check.severity == "error" and check.kind not in {"text", "foreign"}
        details: dict[str, Any] = {
            "column": ", ".join(check.columns),
            "kind": check.kind,
            "place": {
                "file": check.place.file,
                "line": check.place.line,
                "column": check.place.column,
            },
            "severity": check.severity,
        }
        if sample:
            details["sample"] = sample
        details |= more or {}
        return CheckResult(
            check=f"data.{check.id}",
            gate="data" if counted else "data-shown",
            verdict=verdict,
            reason=reason,
            metric="violations" if check.kind not in NOT_COUNTED else check.kind,
            value=None if value is None else float(value),
            limit=check.limit[0] if len(check.limit) == 1 else None,
            requirement=check.requirement,
            unit=unit,
            n=n,
            details=details,
        )

    # -- pass B ----------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Up to 20 rows of each broken check: number, value and key, masked."""
        broken = [
            check
            for check in self.checks
            if self.settled[check.id].verdict is Verdict.FAIL
            and check.kind in ROW_KINDS | GROUP_KINDS | {"reference"}
        ]
        if not broken:
            return
        queries = [self._sampled(check) for check in broken]
        for check, frame in zip(broken, pl.collect_all(queries, engine="streaming"), strict=True):
            rows = frame.sort(ROW).rows(named=True)[:SAMPLE]
            sample = [self._shown(check, row) for row in rows]
            old = self.settled[check.id]
            self.settled[check.id] = msgspec.structs.replace(
                old, details={**old.details, "sample": sample}
            )

    def _sampled(self, check: Check) -> pl.LazyFrame:
        names = list(dict.fromkeys([*self._columns(check), *self._keys()]))
        found = self._rows_of(check).select(ROW, *names)
        # A join keeps no order. Everything else does, and can end after the first rows.
        return found.bottom_k(SAMPLE, by=ROW) if check.kind == "reference" else found.head(SAMPLE)

    def _rows_of(self, check: Check) -> pl.LazyFrame:
        """The rows that break the check, with their numbers."""
        if check.kind == "reference":
            return self._orphans(check)
        if check.kind in ROW_KINDS:
            return self.looked.filter(self.bad[check.id])
        own = list(check.columns) or list(self.schema)
        again = ~pl.struct(own).is_first_distinct()
        hole = pl.any_horizontal(pl.col(n).is_null() for n in own)
        bad = (again | hole) if check.kind == "key" else (again & ~hole if check.columns else again)
        return self.looked.filter(bad)

    def _keys(self) -> list[str]:
        return [name for name in self.key if name in self.schema]

    def _shown(self, check: Check, row: dict[str, Any]) -> dict[str, Any]:
        own = self._columns(check)
        values = {name: self.masks.show(row[name], name) for name in own}
        shown: dict[str, Any] = {"row": row[ROW] + 1}
        shown["value"] = next(iter(values.values())) if len(own) == 1 else values
        keys = [name for name in self._keys() if name not in own]
        if keys:
            shown["key"] = {name: self.masks.show(row[name], name) for name in keys}
        return shown


def _answer(frame: pl.DataFrame, whole: bool) -> Any:
    """The one cell of a count, or the whole column of a distribution."""
    return frame.to_series() if whole else frame.item()


# -- expressions -----------------------------------------------------------------------------------


def _is_text(dtype: pl.DataType) -> bool:
    return any(dtype == kind for kind in (pl.String, pl.Categorical, pl.Enum))


def _is_list(dtype: pl.DataType) -> bool:
    return any(dtype == kind for kind in (pl.List, pl.Array))


def _text(column: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    if not _is_text(dtype):
        raise _Bad(f"needs text, but column {name!r} is {dtype}")
    return column.cast(pl.String)


def _outside(column: pl.Expr, dtype: pl.DataType, options: Any, name: str) -> pl.Expr:
    if not (dtype.is_numeric() or dtype.is_temporal()):
        raise _Bad(f"needs numbers or times, but column {name!r} is {dtype}")
    low, high = (_bound(b, dtype, name) for b in (options.minimum, options.maximum))
    bad = pl.lit(value=False)
    if low is not None:
        bad = bad | ((column <= low) if options.exclusive_minimum else (column < low))
    if high is not None:
        bad = bad | ((column >= high) if options.exclusive_maximum else (column > high))
    # Polars orders NaN above all numbers; it must not pass a range without a maximum.
    return bad | column.is_nan() if dtype.is_float() else bad


def _bound(value: Any, dtype: pl.DataType, name: str) -> Any:
    """The bound as a literal of the column's family."""
    if value is None:
        return None
    if dtype.is_numeric():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Bad(f"bound {value!r} of column {name!r} is no number")
        return pl.lit(value)
    try:
        at = value if isinstance(value, date) else datetime.fromisoformat(str(value))
    except ValueError:
        raise _Bad(f"bound {value!r} of column {name!r} is no time") from None
    if dtype == pl.Date:
        return pl.lit(at.date() if isinstance(at, datetime) else at)
    if not isinstance(at, datetime):
        at = datetime(at.year, at.month, at.day)  # noqa: DTZ001 the zone follows
    zone = getattr(dtype, "time_zone", None)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    at = at.astimezone(UTC)
    literal = pl.lit(at.replace(tzinfo=None))
    return literal.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else literal


def _time_or_none(value: Any, dtype: pl.DataType) -> Any:
    """A text that is no time is equal to none."""
    try:
        return _bound(value, dtype, "")
    except _Bad:
        return None


def _not_multiple(column: pl.Expr, dtype: pl.DataType, of: float, name: str) -> pl.Expr:
    if not dtype.is_numeric():
        raise _Bad(f"needs numbers, but column {name!r} is {dtype}")
    if dtype.is_integer() and float(of).is_integer():
        return (column % int(of)) != 0
    # 0.3 / 0.1 is 2.9999999999999996: compare with the nearest whole multiple.
    ratio = column.cast(pl.Float64) / of
    return ((ratio - ratio.round()).abs() > 1e-9 * (1 + ratio.abs())) | ratio.is_nan()


def _wrong_length(text: pl.Expr, options: Any) -> pl.Expr:
    size = text.str.len_chars()
    bad = pl.lit(value=False)
    if options.min_length is not None:
        bad = bad | (size < options.min_length)
    if options.max_length is not None:
        bad = bad | (size > options.max_length)
    return bad


def _wrong_items(column: pl.Expr, dtype: pl.DataType, options: Any, name: str) -> pl.Expr:
    if not (_is_list(dtype)):
        raise _Bad(f"needs lists, but column {name!r} is {dtype}")
    lists = column.arr.to_list() if dtype == pl.Array else column
    size, bad = lists.list.len(), pl.lit(value=False)
    if options.min_items is not None:
        bad = bad | (size < options.min_items)
    if options.max_items is not None:
        bad = bad | (size > options.max_items)
    if options.unique_items:
        bad = bad | (lists.list.n_unique() < size)
    return bad


def _is_of(dtype: pl.DataType, said: Mapping[str, Any]) -> bool:
    """Whether a column's type keeps the promise. No format means any width."""
    width = WIDTHS.get(said["format"])
    if width and not re.fullmatch(width, str(dtype.base_type())):
        return False
    match said["logical_type"]:
        case "integer":
            return dtype.is_integer()
        case "number":
            return dtype.is_numeric()
        case "string":
            return _is_text(dtype)
        case "boolean":
            return dtype == pl.Boolean
        case "date":
            return dtype == pl.Date
        case "timestamp":
            zone = getattr(dtype, "time_zone", None)
            zoned = said["timezone"] is None or bool(zone) == said["timezone"]
            return dtype == pl.Datetime and zoned
        case "time":
            return dtype == pl.Time
        case "object":
            return dtype == pl.Struct
        case "array":
            return _is_list(dtype)
        case _:
            return True
