"""A profile of a dataset: its shape and no more of its rows than each column's class allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl

from falaj.base.errors import FalajError
from falaj.data.datasets import OPEN, DatasetHandle
from falaj.facts.data import Classification
from falaj.facts.profiles import ColumnProfile, Correlation, Histogram, Profile, Rate, Top
from falaj.stats.drift import fit_edges
from falaj.stats.intervals import clopper_pearson
from falaj.stats.summaries import to_plain

__all__ = ["profile"]

FEWEST: Final = 10  # a smaller count of a protected column is not shown
TOP: Final = 10
BINS: Final = 40
SAMPLE: Final = 50_000
MOST_CORRELATED: Final = 30  # columns; their pairs grow with the square
MOST_GROUPS: Final = 200
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def profile(dataset: DatasetHandle, *, at: datetime, by: str = "") -> Profile:
    """Measure a dataset: one streamed query for all columns, one more column for its histogram.

    by: groups for the rates of all columns of ones and zeros. Raises FalajError when there is no
    such column, or it is protected.
    """
    version = dataset.version
    frame = dataset.scan()
    schema = dict(frame.collect_schema())
    default = dataset.label.classification
    classes = {name: dataset.classes.get(name, default) for name in schema}
    try:
        return _Profiler(frame, schema, classes).made(
            dataset=dataset.name, version=version.content, rows=version.rows, by=by, at=at
        )
    except pl.exceptions.PolarsError as error:
        # Polars quotes values in its messages.
        raise FalajError(
            "data.no-profile",
            f"dataset {dataset.name} cannot be profiled ({type(error).__name__})",
            fix="hold it against its contract first: falaj data check",
        ) from None


@dataclass
class _Profiler:
    frame: pl.LazyFrame
    schema: Mapping[str, pl.DataType]
    classes: Mapping[str, Classification]

    def made(self, *, dataset: str, version: str, rows: int, by: str, at: datetime) -> Profile:
        self.rows = rows
        if by:
            self._may_group(by)
        counts = self._counts()
        columns = tuple(self._column(name, counts) for name in self.schema)
        correlations, sampled = self._correlations()
        return Profile(
            dataset=dataset,
            version=version,
            rows=rows,
            columns=columns,
            correlations=correlations,
            sampled=sampled,
            by=by,
            rates=self._rates(by) if by else (),
            at=at,
        )

    def _is_open(self, name: str) -> bool:
        return self.classes[name] in OPEN

    # -- one streamed query ----------------------------------------------------------------------

    def _counts(self) -> dict[str, Any]:
        asked: list[pl.Expr] = [pl.len().alias("rows")]
        for at, (name, dtype) in enumerate(self.schema.items()):
            asked += [part.alias(f"{at}.{word}") for word, part in _asked(name, dtype).items()]
        found = self.frame.select(asked).collect(engine="streaming")
        counts: dict[str, Any] = found.row(0, named=True)
        return counts

    def _column(self, name: str, counts: Mapping[str, Any]) -> ColumnProfile:
        at, dtype = list(self.schema).index(name), self.schema[name]
        said = {
            key.partition(".")[2]: value
            for key, value in counts.items()
            if key.startswith(f"{at}.")
        }
        base: dict[str, Any] = {
            "name": name,
            "type": str(dtype.base_type()),
            "classification": self.classes[name],
            "is_open": self._is_open(name),
        }
        if not base["is_open"]:
            # Rare is personal: a count that could point at one row is left out.
            some: dict[str, Any] = {
                key: _large(said.get(key)) for key in ("nulls", "nans", "distinct")
            }
            if some["distinct"] is not None and self.rows - some["distinct"] < FEWEST:
                some["distinct"] = self.rows if some["distinct"] == self.rows else None
            return ColumnProfile(**base, **some)
        lengths = tuple(said.get(f"length {word}") for word in ("min", "mean", "max"))
        more: dict[str, Any] = {}
        if dtype.is_numeric():
            more = self._shape(name, said)
        return ColumnProfile(
            **base,
            nulls=said["nulls"],
            nans=said.get("nans"),
            distinct=said.get("distinct"),
            minimum=_plain(said.get("min")),
            maximum=_plain(said.get("max")),
            mean=_finite(said.get("mean")),
            deviation=_finite(said.get("deviation")),
            quantiles={
                word.removeprefix("q"): value
                for word in said
                if word.startswith("q") and (value := _finite(said[word])) is not None
            },
            lengths=None if None in lengths else lengths,  # type: ignore[arg-type]
            top=self._top(name, dtype),
            **more,
        )

    def _shape(self, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
        column = self.frame.select(pl.col(name).cast(pl.Float64)).collect(engine="streaming")
        values = column.to_series().drop_nulls().to_numpy()
        edges = fit_edges(values, name, null=said["nulls"])
        known = values[np.isfinite(values)]
        found: dict[str, Any] = {"edges": to_plain(edges)}
        if len(known):
            low, high = float(known.min()), float(known.max())
            bins = BINS if low + (high - low) / BINS > low else 1  # no number lies between them
            if math.isfinite(high - low):
                places = np.minimum((known - low) / ((high - low) or 1) * bins, bins - 1)
                counts = np.bincount(places.astype(np.int64), minlength=bins)
                found["histogram"] = Histogram(low=low, high=high, counts=tuple(counts.tolist()))
        return found

    def _top(self, name: str, dtype: pl.DataType) -> tuple[Top, ...]:
        if dtype.is_nested() or dtype == pl.Binary or dtype.is_float() or dtype == pl.Object:
            return ()
        counted = (
            self.frame.select(pl.col(name))
            .drop_nulls()
            .group_by(name)
            .agg(pl.len().alias("__n"))
            .sort(["__n", name], descending=[True, False])
            .head(TOP)
            .collect(engine="streaming")
        )
        return tuple(Top(value=_plain(value), count=count) for value, count in counted.rows())

    # -- together --------------------------------------------------------------------------------

    def _correlations(self) -> tuple[tuple[Correlation, ...], int]:
        names = [
            name
            for name, dtype in self.schema.items()
            if dtype.is_numeric() and self._is_open(name)
        ][:MOST_CORRELATED]
        if len(names) < 2 or not self.rows:
            return (), 0
        every = max(-(-self.rows // SAMPLE), 1)
        picked = self.frame.select(pl.col(name).cast(pl.Float64) for name in names)
        sample = picked.gather_every(every).collect(engine="streaming")
        values = [sample[name].to_numpy() for name in names]
        found = []
        for i, first in enumerate(names):
            for j in range(i + 1, len(names)):
                both = np.isfinite(values[i]) & np.isfinite(values[j])
                x, y = values[i][both], values[j][both]
                pearson, spearman = _pearson(x, y), _pearson(_ranks(x), _ranks(y))
                if pearson is not None and spearman is not None:
                    found.append(
                        Correlation(
                            first=first,
                            second=names[j],
                            pearson=pearson,
                            spearman=spearman,
                            n=len(x),
                        )
                    )
        return tuple(sorted(found, key=lambda one: -abs(one.spearman))), sample.height

    def _may_group(self, by: str) -> None:
        if by not in self.schema:
            raise FalajError(
                "data.no-column",
                f"there is no column {by!r}",
                why=f"there are: {', '.join(self.schema)}",
                fix="name one of them",
            )
        if not self._is_open(by):
            raise FalajError(
                "data.protected-column",
                f"column {by!r} is {self.classes[by]}: its values are not shown, as groups neither",
                fix="group by a column of class public or internal",
            )

    def _rates(self, by: str) -> tuple[Rate, ...]:
        """Of all columns that hold nothing but ones and zeros."""
        ones = [name for name, dtype in self.schema.items() if name != by and _may_be_flag(dtype)]
        if not ones:
            return ()
        flags = self.frame.select(
            pl.col(name).drop_nulls().cast(pl.Int64).is_in([0, 1]).all().alias(name)
            for name in ones
        ).collect(engine="streaming")
        ones = [name for name in ones if flags[name].item()]
        if not ones:
            return ()
        grouped = (
            self.frame.group_by(pl.col(by).cast(pl.String).alias("__group"))
            .agg(
                part
                for at, name in enumerate(ones)
                for part in (
                    pl.col(name).count().alias(f"n{at}"),
                    pl.col(name).cast(pl.Int64).sum().alias(f"x{at}"),
                )
            )
            .sort("__group", nulls_last=True)
            .head(MOST_GROUPS)
            .collect(engine="streaming")
        )
        return tuple(
            self._rate(name, row["__group"], row[f"n{at}"], row[f"x{at}"] or 0)
            for at, name in enumerate(ones)
            for row in grouped.rows(named=True)
        )

    def _rate(self, column: str, group: str | None, n: int, x: int) -> Rate:
        word = "(null)" if group is None else group
        small = not self._is_open(column) and (x < FEWEST or n - x < FEWEST)
        if small or not n:
            return Rate(column=column, group=word, n=None if small and n < FEWEST else n)
        found = clopper_pearson(x, n)
        return Rate(column=column, group=word, n=n, rate=x / n, low=found.low, high=found.high)


def _asked(name: str, dtype: pl.DataType) -> dict[str, pl.Expr]:
    column = pl.col(name)
    asked: dict[str, pl.Expr] = {"nulls": column.null_count()}
    if dtype.is_nested() or dtype in (pl.Object, pl.Binary, pl.Null):
        return asked
    asked["distinct"] = column.drop_nulls().n_unique()
    if dtype.is_float():
        asked["nans"] = column.is_nan().sum()
        column = column.fill_nan(None)
    if dtype == pl.String or dtype.is_numeric() or dtype.is_temporal() or dtype == pl.Boolean:
        asked |= {"min": column.min(), "max": column.max()}
    if dtype.is_numeric():
        wide = column.cast(pl.Float64)
        asked |= {"mean": wide.mean(), "deviation": wide.std()}
        asked |= {f"q{q:g}": wide.quantile(q, "lower") for q in QUANTILES}
    if dtype == pl.String:
        size = column.str.len_chars()
        asked |= {"length min": size.min(), "length mean": size.mean(), "length max": size.max()}
    return asked


def _may_be_flag(dtype: pl.DataType) -> bool:
    return dtype == pl.Boolean or dtype.is_integer()


def _large(count: int | None) -> int | None:
    """A count of a protected column: nothing, or enough to point at nobody."""
    return count if count is None or count == 0 or count >= FEWEST else None


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return value if len(value) <= 100 else value[:97] + "..."
        case _:
            return str(value)


def _pearson(x: Any, y: Any) -> float | None:
    if len(x) < 3:
        return None
    a, b = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return None if not scale or not math.isfinite(scale) else float(np.clip(a @ b / scale, -1, 1))


def _ranks(values: Any) -> Any:
    return pl.Series(values).rank("average").to_numpy()
