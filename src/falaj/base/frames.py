"""content1 and the schema of Polars frames, read once in batches. Polars is imported on use.

It lies this low because datasets (a room) and artifacts (a link) must give one frame one identity.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from falaj.base import canonical, content, digests

if TYPE_CHECKING:
    import polars as pl

__all__ = ["LossyTime", "Unhashable", "content_of", "dtype_of", "schema_of", "type_name"]

ROWS: Final = 65_536
TO_US: Final = {"ms": 1000, "us": 1}
LARGEST_I64: Final = 2**63 - 1


class LossyTime(ValueError):
    """A time is finer than a microsecond; content1 would not see the rest."""


class Unhashable(TypeError):
    """The column holds Python objects; they have no bytes."""


def content_of(frame: pl.DataFrame | pl.LazyFrame) -> content.Content:
    """Identity of the values. A LazyFrame is streamed: memory does not grow with its rows.

    Raises LossyTime, Unhashable, naming the column.
    """
    schema = dict(frame.collect_schema())
    columns = {name: _Column(name, dtype) for name, dtype in schema.items()}
    rows = 0
    for batch in _batches(frame):
        rows += batch.height
        for name, column in columns.items():
            column.feed(batch[name])
    closed = ((name, column.hexdigest()) for name, column in columns.items())
    return content.table(closed, rows)


def _batches(frame: Any) -> Iterator[pl.DataFrame]:
    if hasattr(frame, "iter_slices"):
        yield from frame.iter_slices(ROWS)
    else:
        batches: Iterable[pl.DataFrame] = frame.collect_batches(
            chunk_size=ROWS, maintain_order=True
        )
        yield from batches


class _Column:
    """Turns the batches of one column into buffers of its class."""

    def __init__(self, name: str, dtype: pl.DataType) -> None:
        self.name = name
        self.kind = _class(name, dtype)
        self.digest = content.ColumnDigest(name)

    def feed(self, series: pl.Series) -> None:
        rows = len(series)
        if not rows:
            return
        valid = _bytes(series.is_not_null().to_physical().cast(_pl().UInt8))
        match self.kind:
            case "null":
                self.digest.feed(rows, valid, b"")
            case "str":
                self._feed_text(rows, valid, series.cast(_pl().String))
            case "bin" | "json":
                self._feed_cells(rows, valid, series)
            case _:
                self.digest.feed(rows, valid, self._fixed(series))

    def _feed_text(self, rows: int, valid: memoryview, text: pl.Series) -> None:
        sizes = text.str.len_bytes().fill_null(0)
        blob = text.str.join("", ignore_nulls=True).item() or ""
        self.digest.feed(rows, valid, _bytes(sizes.cast(_pl().UInt32)), blob.encode())

    def _feed_cells(self, rows: int, valid: memoryview, series: pl.Series) -> None:
        cells = [_cell(value) for value in series.to_list()]
        sizes = _pl().Series([len(cell) for cell in cells], dtype=_pl().UInt32)
        self.digest.feed(rows, valid, _bytes(sizes), b"".join(cells))

    def _fixed(self, series: pl.Series) -> memoryview:
        pl = _pl()
        match self.kind:
            case "bool":
                return _bytes(series.fill_null(value=False).cast(pl.UInt8))
            case "float":
                wide = series.cast(pl.Float64).fill_null(0.0)
                # Every NaN has one spelling: the sign and payload are accidents of the producer.
                return _bytes(wide.fill_nan(float("nan")))
            case "int" | "uint":
                if series.dtype == pl.UInt64:
                    largest = series.max()
                    if isinstance(largest, int) and largest > LARGEST_I64:
                        self.kind = "uint"
                    return _bytes(series.fill_null(0))
                return _bytes(series.cast(pl.Int64).fill_null(0))
            case "ts" | "tsz" | "duration":
                return _bytes(self._microseconds(series).fill_null(0))
            case _:  # date in days, time in nanoseconds
                return _bytes(series.to_physical().cast(pl.Int64).fill_null(0))

    def _microseconds(self, series: pl.Series) -> pl.Series:
        unit: str = series.dtype.time_unit  # type: ignore[attr-defined]
        ticks = series.to_physical()
        if unit == "ns":
            if (ticks % 1000 != 0).any():
                raise LossyTime(f"column {self.name!r} has times finer than a microsecond")
            return ticks // 1000
        return ticks * TO_US[unit]

    def hexdigest(self) -> str:
        return self.digest.hexdigest(self.kind)


def _pl() -> Any:
    import polars as pl

    return pl


def _bytes(series: pl.Series) -> memoryview:
    import numpy as np

    array: Any = np.ascontiguousarray(series.to_numpy())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return memoryview(array).cast("B")


def _cell(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": repr(value)}
        case bytes():
            return {"bytes": value.hex()}
        case dict():
            return [[str(key), _plain(inner)] for key, inner in value.items()]
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _ if hasattr(value, "to_list"):
            return _plain(value.to_list())
        case _:
            return {type(value).__name__: str(value)}


def _class(name: str, dtype: pl.DataType) -> str:
    pl = _pl()
    if dtype == pl.Object:
        raise Unhashable(f"column {name!r} holds Python objects")
    if dtype == pl.Datetime:
        return "tsz" if dtype.time_zone else "ts"  # type: ignore[attr-defined]
    simple = {
        pl.Boolean: "bool",
        pl.Date: "date",
        pl.Time: "time",
        pl.Duration: "duration",
        pl.String: "str",
        pl.Categorical: "str",
        pl.Enum: "str",
        pl.Binary: "bin",
        pl.Null: "null",
    }
    for kind, word in simple.items():
        if dtype == kind:
            return word
    if dtype.is_float():
        return "float"
    return "int" if dtype.is_integer() and "128" not in str(dtype) else "json"


def schema_of(frame: pl.DataFrame | pl.LazyFrame) -> str:
    """Digest of exact names, types, units and zones, in order."""
    pairs = [[name, type_name(dtype)] for name, dtype in frame.collect_schema().items()]
    return digests.of_bytes(canonical.dumps(pairs))


def type_name(dtype: Any) -> Any:
    """Our own spelling of a type, so that a new Polars may print its types as it likes."""
    pl = _pl()
    if dtype == pl.Datetime:
        return f"ts[{dtype.time_unit},{dtype.time_zone or ''}]"
    if dtype == pl.Duration:
        return f"duration[{dtype.time_unit}]"
    if dtype == pl.Enum:
        return ["enum", *dtype.categories.to_list()]
    if dtype == pl.Decimal:
        return f"decimal[{dtype.precision},{dtype.scale}]"
    if dtype == pl.List:
        return ["list", type_name(dtype.inner)]
    if dtype == pl.Array:
        return ["array", list(dtype.shape), type_name(dtype.inner)]
    if dtype == pl.Struct:
        return ["struct", *([field.name, type_name(field.dtype)] for field in dtype.fields)]
    return str(dtype.base_type()).lower()


def dtype_of(name: str) -> Any:
    """The Polars type of a plain name: `Int64`, `String`, `Datetime` (UTC), `List(Float32)`.

    Raises AttributeError for a name that Polars does not have.
    """
    pl = _pl()
    if name == "Datetime":
        return pl.Datetime("us", "UTC")
    if name.startswith("List("):
        return pl.List(dtype_of(name.removeprefix("List(").removesuffix(")")))
    return getattr(pl, name)
