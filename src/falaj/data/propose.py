"""A first contract for a dataset, from its rows: careful promises, each to be read by a person.

It keeps what it promises on the data that it was made from, and writes no value of a protected column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from math import ceil, floor, isfinite, log10, prod
from typing import Any, Final

import polars as pl

from falaj.base.errors import FalajError
from falaj.data.datasets import DatasetHandle
from falaj.data.profile import profile
from falaj.facts.data import Classification
from falaj.facts.profiles import ColumnProfile

__all__ = ["propose"]

MOST_ALLOWED: Final = 20
ROWS_A_VALUE: Final = 20  # a set of values is only believed when each was seen that often
FEWEST_ROWS: Final = 100  # below, a key or a pattern is chance
MOST_KEY: Final = 3
KEY_COLUMNS: Final = 10
SAMPLE: Final = 50_000
MOST_LOOKS: Final = 20
PERSONAL_NAMES: Final = re.compile(
    r"(^|_)(e?mail|phone|mobile|name|surname|address|birth|dob|passport|iban|ssn|"
    r"emirates_?id|national_?id|gender|nationality|salary|ip)(_|$)",
    re.IGNORECASE,
)
LOGICAL: Final = (
    (pl.Boolean, "boolean"),
    (pl.Date, "date"),
    (pl.Datetime, "timestamp"),
    (pl.Time, "time"),
    (pl.String, "string"),
    (pl.Categorical, "string"),
    (pl.Enum, "string"),
    (pl.List, "array"),
    (pl.Array, "array"),
    (pl.Struct, "object"),
)


def propose(dataset: DatasetHandle) -> str:
    """The contract as YAML, version 3.1.0 of the standard, with `# check:` where a person decides."""
    version = dataset.version
    found = profile(dataset, at=version.at)
    frame = dataset.scan()
    schema = dict(frame.collect_schema())
    columns = [one for one in found.columns if one.name]
    try:
        key = _key(frame, schema, columns, found.rows)
        patterns = _patterns(frame, schema, columns, found.rows)
    except pl.exceptions.PolarsError as error:
        raise FalajError(
            "data.no-profile",
            f"dataset {dataset.name} cannot be looked at ({type(error).__name__})",
            fix="write the contract by hand",
        ) from None
    lines = [
        "# Proposed from the data; `# check:` marks what a person has to decide.",
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {_text(dataset.name)}",
        f"name: {_text(dataset.name)}",
        "version: 0.1.0",
        "status: draft",
        "schema:",
        f"  - name: {_text(dataset.name)}",
        "    physicalType: table",
    ]
    if dataset.null_values:
        listed = ", ".join(_text(word) for word in dataset.null_values)
        lines.append("    customProperties:")
        lines.append(f"      - {{property: nullValues, value: [{listed}]}}")
    if columns:
        lines.append("    properties:")
    for column in columns:
        lines += _property(column, schema[column.name], found.rows, key, patterns)
    lines += [
        "    quality:",
        "      - id: rows",
        "        type: library",
        "        metric: rowCount",
        (
            f"        mustBeGreaterThan: {0 if found.rows else -1}"
            f"  # check: {found.rows} rows were there; how few would be too few?"
        ),
    ]
    if len(columns) < len(found.columns):
        lines.append("# check: a column without a name cannot be promised")
    return "\n".join(lines) + "\n"


def _property(
    column: ColumnProfile,
    dtype: pl.DataType,
    rows: int,
    key: tuple[str, ...],
    patterns: Mapping[str, str],
) -> Iterator[str]:
    yield f"      - name: {_text(column.name)}"
    kind = _logical(dtype)
    if kind:
        yield f"        logicalType: {kind}"
    if column.classification not in {Classification.INTERNAL, Classification.PUBLIC}:
        yield f"        classification: {column.classification}"
    elif PERSONAL_NAMES.search(column.name):
        yield "        classification: personal  # check: the name sounds personal"
    if rows and column.nulls == 0:
        yield "        required: true"
    if column.name in key:
        yield "        primaryKey: true  # check: is it the key, or unique by chance?"
        yield f"        primaryKeyPosition: {key.index(column.name) + 1}"
    options = list(_options(column, dtype, rows, patterns))
    if options:
        yield "        logicalTypeOptions:"
        yield from (f"          {line}" for line in options)
    allowed = _allowed(column, dtype, rows)
    if allowed:
        yield "        quality:"
        yield f"          - id: {_text(column.name + '.allowed')}"
        yield "            type: library"
        yield "            metric: invalidValues"
        listed = ", ".join(_text(value) for value in allowed)
        yield f"            arguments: {{validValues: [{listed}]}}  # check: may others come?"
        yield "            mustBe: 0"


def _is_telling(column: ColumnProfile) -> bool:
    """Whether its values may stand in a file that is kept in git."""
    return column.is_open and not PERSONAL_NAMES.search(column.name)


def _options(
    column: ColumnProfile, dtype: pl.DataType, rows: int, patterns: Mapping[str, str]
) -> Iterator[str]:
    if dtype == pl.Datetime:
        yield f"timezone: {'true' if getattr(dtype, 'time_zone', None) else 'false'}"
    low, high = column.minimum, column.maximum
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high))
    if numbers and dtype.is_numeric() and _is_telling(column) and not column.nans:
        assert isinstance(low, int | float)  # noqa: S101 just looked
        assert isinstance(high, int | float)  # noqa: S101 just looked
        below, above = _round_outwards(low, high)
        if dtype.is_integer():
            below, above = int(below), int(above)
        yield f"minimum: {_number(below)}  # check: {_number(low)} was the least"
        yield f"maximum: {_number(above)}  # check: {_number(high)} was the largest"
    if column.name in patterns and not _allowed(column, dtype, rows):
        yield f"pattern: {_text(patterns[column.name])}  # check: all {rows} rows look like this"


def _round_outwards(low: float, high: float) -> tuple[float, float]:
    """Bounds a little wider than what was seen, in round numbers; nothing below a zero."""
    span = high - low or abs(high)
    if not isfinite(span) or not span:
        return low, high
    step = 10.0 ** (floor(log10(span)) - 1)
    if step < 1e-300 or max(abs(low), abs(high)) > 2**53:
        return low, high  # too fine or too large for exact steps
    below, above = floor(low / step) * step, ceil(high / step) * step
    # Steps of a tenth are not exact: what was seen has to be inside.
    return min(round(below, 12), low), max(round(above, 12), high)


def _allowed(column: ColumnProfile, dtype: pl.DataType, rows: int) -> tuple[str, ...]:
    """All values of a column of few words, when each was seen often enough."""
    if not _is_telling(column) or _logical(dtype) != "string" or not column.top:
        return ()
    words = [one.value for one in column.top]
    few = column.distinct == len(words) <= MOST_ALLOWED
    if not few or rows < ROWS_A_VALUE * len(words) or not all(isinstance(w, str) for w in words):
        return ()
    if column.top[-1].count < ROWS_A_VALUE or any(str(w).endswith("...") for w in words):
        return ()
    return tuple(sorted(str(word) for word in words))


def _key(
    frame: pl.LazyFrame,
    schema: Mapping[str, pl.DataType],
    columns: list[ColumnProfile],
    rows: int,
) -> tuple[str, ...]:
    """The fewest columns that tell all rows apart; none when rows are few."""
    able = [
        one
        for one in columns
        if one.nulls == 0
        and one.distinct
        and not schema[one.name].is_float()
        and not schema[one.name].is_nested()
        and schema[one.name] != pl.Boolean
    ]
    if rows < FEWEST_ROWS:
        return ()
    for one in able:
        if one.distinct == rows:
            return (one.name,)
    best = sorted(able, key=lambda one: -(one.distinct or 0))[:KEY_COLUMNS]
    order = [one.name for one in columns]
    # What is not a key of the first rows is none of all rows; few are worth the whole look.
    some = frame.select(one.name for one in best).head(SAMPLE).collect(engine="streaming")
    looks = MOST_LOOKS
    for size in range(2, MOST_KEY + 1):
        for group in combinations(best, size):
            names = sorted((one.name for one in group), key=order.index)
            may_be = prod(one.distinct or 1 for one in group) >= rows
            if not may_be or some.select(pl.struct(names).n_unique()).item() < some.height:
                continue
            apart = frame.select(pl.struct(names).n_unique()).collect(engine="streaming").item()
            if apart == rows:
                return tuple(names)
            looks -= 1
            if not looks:
                return ()
    return ()


def _patterns(
    frame: pl.LazyFrame,
    schema: Mapping[str, pl.DataType],
    columns: list[ColumnProfile],
    rows: int,
) -> dict[str, str]:
    """Columns of texts that all have one shape, such as three capital letters."""
    if rows < FEWEST_ROWS:
        return {}
    found = {}
    for one in columns:
        if schema[one.name] != pl.String or not _is_telling(one) or not one.distinct:
            continue
        text = pl.col(one.name).drop_nulls()
        runs = (
            text.str.replace_all(r"[A-Z]+", "A")
            .str.replace_all(r"[a-z]+", "a")
            .str.replace_all(r"[0-9]+", "9")
        )
        shapes = frame.select(runs.unique().head(2)).collect(engine="streaming").to_series()
        if len(shapes) != 1 or not re.fullmatch(r"[Aa9 _./:-]{1,12}", shapes[0]):
            continue
        pattern = "^" + "".join(_sizes(frame, one.name, shapes[0])) + "$"
        bad = frame.select((~text.str.contains(pattern)).sum()).collect(engine="streaming").item()
        if not bad:
            found[one.name] = pattern
    return found


CLASSES: Final = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}


def _sizes(frame: pl.LazyFrame, name: str, shape: str) -> Iterator[str]:
    """Each run with the lengths that were seen."""
    whole = "^" + "".join(
        f"({CLASSES[c]}+)" if c in CLASSES else f"({re.escape(c)})" for c in shape
    )
    size = len(shape)
    lengths = frame.select(
        part
        for at in range(size)
        for run in (pl.col(name).str.extract(whole + "$", at + 1).str.len_chars(),)
        for part in (run.min().alias(f"{at}.low"), run.max().alias(f"{at}.high"))
    ).collect(engine="streaming")
    row = lengths.row(0, named=True)
    for at, sign in enumerate(shape):
        if sign not in CLASSES:
            yield "[.]" if sign == "." else f"[{sign}]" if sign == " " else sign
            continue
        low, high = row[f"{at}.low"], row[f"{at}.high"]
        yield CLASSES[sign] + (f"{{{low}}}" if low == high else f"{{{low},{high}}}")


def _logical(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    return next((word for kind, word in LOGICAL if dtype == kind), "")


def _number(value: float) -> str:
    """As YAML reads a number: an exponent wants a point before it and a sign behind it."""
    if isinstance(value, int):
        return str(value)
    text = repr(float(value))
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        point = mantissa if "." in mantissa else f"{mantissa}.0"
        return f"{point}e{exponent if exponent[0] in '+-' else '+' + exponent}"
    return text


def _text(text: Any) -> str:
    """A quoted scalar: JSON, with everything that YAML does not print written as its number."""
    quoted = json.dumps(str(text), ensure_ascii=False)
    return re.sub(
        r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029]",
        lambda found: f"\\U{ord(found[0]):08X}",
        quoted,
    )
