"""Cells of weakly typed sources get the types of the contract; what cannot be read is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from falaj.data.odcs import Property

__all__ = ["typed", "typed_texts"]

INTEGERS: Final = {
    **{f"i{bits}": getattr(pl, f"Int{bits}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": getattr(pl, f"UInt{bits}") for bits in (8, 16, 32, 64)},
}
Typed = tuple[pl.DataFrame, dict[str, pl.Series]]


def typed_texts(texts: pl.DataFrame, promised: Mapping[str, Property]) -> Typed:
    """Rows of texts (CSV) with types, and column -> texts of cells that are not of the type.

    Columns that no contract names are guessed from all rows.
    """
    casts = {
        name: _cast(_blank(pl.col(name)), promised[name])
        if name in promised
        else _guessed(texts[name])
        for name in texts.columns
    }
    made = texts.select(cast.alias(name) for name, cast in casts.items())
    return made, _unreadable(texts, made, promised)


def typed(rows: pl.DataFrame, promised: Mapping[str, Property]) -> Typed:
    """Rows of an engine without types of its own (JSON, SQLite): texts and widths are mended.

    A number with a fraction is no integer, and a text is read as in CSV.
    """
    casts = {
        name: _recast(pl.col(name), dtype, promised[name]) if name in promised else pl.col(name)
        for name, dtype in rows.schema.items()
    }
    made = rows.select(cast.alias(name) for name, cast in casts.items())
    shown = rows.select(
        pl.col(name).cast(pl.String, strict=False)
        for name, dtype in rows.schema.items()
        if name in promised and not dtype.is_nested() and dtype != pl.Binary
    )
    return made, _unreadable(shown, made, promised)


def _recast(column: pl.Expr, dtype: pl.DataType, promised: Property) -> pl.Expr:
    if dtype == pl.String:
        return _cast(_blank(column), promised)
    kind = promised.logical_type
    if dtype == pl.Null:
        return _cast(column.cast(pl.String), promised)
    if not dtype.is_numeric() or kind not in {"integer", "number", "boolean"}:
        return column
    if kind == "boolean":
        return pl.when(column == 1).then(True).when(column == 0).then(False).otherwise(None)
    if kind == "integer" and dtype.is_float():
        column = pl.when(column == column.round()).then(column)
    return _cast(column, promised)


def _unreadable(
    texts: pl.DataFrame, made: pl.DataFrame, promised: Mapping[str, Property]
) -> dict[str, pl.Series]:
    """Texts of cells that the contract's type does not read; null elsewhere."""
    found = {}
    for name in texts.columns:
        if name in promised and made[name].dtype != pl.String:
            pair = pl.DataFrame([texts[name].alias("text"), made[name].alias("value")])
            lost = pl.when(pl.col("value").is_null()).then(_blank(pl.col("text")))
            cells = pair.select(lost.alias(name)).to_series()
            if cells.null_count() < len(cells):
                found[name] = cells
    return found


def _blank(text: pl.Expr) -> pl.Expr:
    """NA, as R writes a missing number, is null where no text can stand."""
    return pl.when(text != "NA").then(text)


def _guessed(texts: pl.Series) -> pl.Expr:
    """Type of a column that no contract names: integer, number, boolean, else text.

    All rows are looked at, so the guess depends on the data alone; a leading zero is no number.
    """
    name = texts.name
    known = texts.set(texts == "NA", None).drop_nulls()
    column = _blank(pl.col(name))
    if known.is_empty() or known.str.contains(r"^[+-]?0\d").any():
        return pl.col(name)
    for kind in (pl.Int64, pl.Float64):
        if not known.cast(kind, strict=False).null_count():
            return column.cast(kind, strict=False)
    if known.str.to_lowercase().is_in(["true", "false"]).all():
        return column.str.to_lowercase() == "true"
    return pl.col(name)


def _cast(column: pl.Expr, promised: Property) -> pl.Expr:
    options = promised.options
    match promised.logical_type:
        case "integer":
            return column.cast(INTEGERS.get(options.format, pl.Int64), strict=False)
        case "number":
            kind: Any = pl.Float32 if options.format == "f32" else pl.Float64
            return column.cast(kind, strict=False)
        case "boolean":
            word = column.str.to_lowercase()
            yes, no = word.is_in(["true", "1"]), word.is_in(["false", "0"])
            return pl.when(yes).then(True).when(no).then(False).otherwise(None)
        case "date":
            return column.str.to_date("%Y-%m-%d", strict=False)
        case "timestamp":
            # ISO 8601: with or without T, fraction and zone; all of it becomes UTC.
            text = column.str.replace(" ", "T", literal=True).str.replace(r"Z$", "+00:00")
            text = text.str.replace(r"([+-]\d\d)(\d\d)$", "${1}:${2}")
            bare = text.str.contains(r"T[\d:.]+$")
            zoned = pl.when(bare).then(text + "+00:00").otherwise(text)
            at = zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
            return at if options.timezone else at.dt.replace_time_zone(None)
        case "time":
            return column.str.to_time("%H:%M:%S%.f", strict=False)
        case _:
            return pl.col(promised.name)  # text: NA may be a name, so only declared nulls are null
