"""content1: one table, one digest, whatever file or chunks; one changed cell names its column."""

# ruff: noqa: DTZ001 times without a zone are what is tested
from __future__ import annotations

import io
import json
import struct
from datetime import date, datetime, time, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.base import content, frames

HERE = Path(__file__).parent

CELLS = {
    pl.Int64: st.none() | st.integers(-(2**62), 2**62),
    pl.Int16: st.none() | st.integers(-(2**15), 2**15 - 1),
    pl.UInt64: st.none() | st.integers(0, 2**64 - 1),
    pl.Float64: st.none() | st.floats(),
    pl.Boolean: st.none() | st.booleans(),
    pl.String: st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    pl.Binary: st.none() | st.binary(max_size=4),
    pl.Date: st.none() | st.dates(date(1600, 1, 1), date(2400, 1, 1)),
    pl.Time: st.none() | st.times(),
    pl.Datetime("us"): st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    pl.Duration("us"): st.none() | st.timedeltas(timedelta(-1000), timedelta(1000)),
    pl.List(pl.Int64): st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
}


@st.composite
def tables(draw, min_rows=0):
    rows = draw(st.integers(min_rows, 12))
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=4))
    columns = []
    for number, kind in enumerate(kinds):
        cells = draw(st.lists(CELLS[kind], min_size=rows, max_size=rows))
        columns.append(pl.Series(f"c{number}", cells, dtype=kind))
    return pl.DataFrame(columns)


@given(tables(), st.integers(0, 12), st.sampled_from(["zstd", "snappy", "uncompressed"]))
@settings(max_examples=80, deadline=None)
def test_chunks_codec_and_row_groups_do_not_count(frame, cut, codec):
    told = frames.content_of(frame)
    chunked = pl.concat([frame[:cut], frame[cut:]], rechunk=False)
    assert frames.content_of(chunked) == told
    assert frames.content_of(frame.lazy()) == told
    target = io.BytesIO()
    chunked.write_parquet(target, compression=codec, row_group_size=3)
    target.seek(0)
    assert frames.content_of(pl.read_parquet(target)) == told
    assert frames.schema_of(chunked) == frames.schema_of(frame)


@given(tables(min_rows=1), st.data())
@settings(max_examples=80, deadline=None)
def test_any_changed_cell_names_its_column(frame, data):
    name = data.draw(st.sampled_from(frame.columns))
    row = data.draw(st.integers(0, frame.height - 1))
    old = frame[name].to_list()
    new = data.draw(CELLS[frame.schema[name]])
    both_nan = str(new) == str(old[row]) == "nan" and isinstance(new, float)
    same = both_nan or (new == old[row] and str(new) == str(old[row]))
    cells = [*old[:row], new, *old[row + 1 :]]
    after = frame.with_columns(pl.Series(name, cells, dtype=frame.schema[name]))
    before, told = frames.content_of(frame), frames.content_of(after)
    assert content.changed(before.columns, told.columns) == (() if same else (name,))
    assert (told.content == before.content) == same


WIDTHS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]


def test_integer_width_and_category_do_not_count_but_the_schema_says_so():
    whole = [pl.DataFrame({"a": pl.Series([0, None, 100], dtype=kind)}) for kind in WIDTHS]
    assert len({frames.content_of(frame).content for frame in whole}) == 1
    assert len({frames.schema_of(frame) for frame in whole}) == len(WIDTHS)
    kinds = [pl.String, pl.Categorical, pl.Enum(["x", "y"])]
    texts = [pl.DataFrame({"a": pl.Series(["x", None, "y"]).cast(kind)}) for kind in kinds]
    assert len({frames.content_of(frame).content for frame in texts}) == 1
    assert len({frames.schema_of(frame) for frame in texts}) == 3


def test_time_units_do_not_count_when_nothing_is_lost():
    at = pl.Series([datetime(2020, 1, 1, 1, 2, 3), None])
    units = [pl.DataFrame({"t": at.dt.cast_time_unit(unit)}) for unit in ("ms", "us", "ns")]
    assert len({frames.content_of(frame).content for frame in units}) == 1
    assert len({frames.schema_of(frame) for frame in units}) == 3


def nan(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


EQUAL = {
    "NaN of either sign": ([nan(0x7FF8 << 48)], [nan(0xFFF8 << 48)]),
    "NaN with a payload": ([nan(0x7FF8 << 48)], [nan((0x7FF8 << 48) + 7)]),
}


@pytest.mark.parametrize(("left", "right"), EQUAL.values(), ids=EQUAL)
def test_equal(left, right):
    assert frames.content_of(pl.DataFrame({"a": left})) == frames.content_of(
        pl.DataFrame({"a": right})
    )


def one(cells, kind=None, name="a"):
    return pl.DataFrame({name: pl.Series(cells, dtype=kind, strict=False)})


DIFFERENT = {
    "null against 0": (one([None], pl.Int64), one([0])),
    "null against empty text": (one([None], pl.String), one([""])),
    "null against false": (one([None], pl.Boolean), one([False])),
    "where the text is cut": (one(["ab", "c"]), one(["a", "bc"])),
    "1 against 1.0": (one([1]), one([1.0])),
    "1 against true": (one([1]), one([True])),
    "1 against '1'": (one([1]), one(["1"])),
    "zero of either sign": (one([0.0]), one([-0.0])),
    "row order": (one([1, 2]), one([2, 1])),
    "one row more": (one([1]), one([1, 1])),
    "no rows": (one([], pl.Int64), one([None], pl.Int64)),
    "no rows of another kind": (one([], pl.Int64), one([], pl.String)),
    "name": (one([1]), one([1], name="b")),
    "column order": (pl.DataFrame({"a": [1], "b": [1]}), pl.DataFrame({"b": [1], "a": [1]})),
    "text against bytes": (one(["a"]), one([b"a"], pl.Binary)),
    "with a zone": (
        one([datetime(2020, 1, 1)]),
        one([datetime(2020, 1, 1)]).with_columns(pl.col("a").dt.replace_time_zone("UTC")),
    ),
    "beyond 63 bits against negative": (one([2**64 - 1], pl.UInt64), one([-1])),
    "date against its number": (one([date(1970, 1, 2)]), one([1])),
    "time against its number": (one([time(0, 0, 0, 1)]), one([1000])),
    "lists": (one([[1], [2]]), one([[1, 2], []])),
}


@pytest.mark.parametrize(("left", "right"), DIFFERENT.values(), ids=DIFFERENT)
def test_different(left, right):
    assert frames.content_of(left).content != frames.content_of(right).content


def test_times_finer_than_a_microsecond_are_refused():
    with pytest.raises(frames.LossyTime, match="'a'"):
        frames.content_of(one([1], pl.Datetime("ns")))


def test_python_objects_are_refused():
    with pytest.raises(frames.Unhashable, match="'a'"):
        frames.content_of(pl.DataFrame({"a": [object()]}))


def test_more_rows_than_one_batch():
    frame = pl.DataFrame({"a": range(200_000), "s": [str(n) for n in range(200_000)]})
    told = frames.content_of(frame)
    assert told.rows == 200_000
    assert frames.content_of(frame.lazy()) == told
    assert frames.content_of(pl.concat([frame[:70_001], frame[70_001:]], rechunk=False)) == told


KINDS = {
    "int": pl.Int64, "uint": pl.UInt64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String,
    "date": pl.Date, "time": pl.Time, "ts": pl.Datetime("us"), "tsz": pl.Datetime("us", "UTC"),
    "duration": pl.Duration("us"), "null": pl.Null,
}  # fmt: skip
VECTORS = json.loads((HERE / "content1.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vectors_that_another_language_can_be_held_against(vector):
    """Cells are physical numbers (days, nanoseconds, microseconds); floats may be "nan", "-0.0"."""
    columns = []
    for name, kind, cells in vector["columns"]:
        values = [float(c) if kind == "float" and c is not None else c for c in cells]
        physical = {"date": pl.Int32, "time": pl.Int64, "ts": pl.Int64, "tsz": pl.Int64,
                    "duration": pl.Int64}.get(kind, KINDS[kind])  # fmt: skip
        columns.append(pl.Series(name, values, dtype=physical).cast(KINDS[kind]))
    told = frames.content_of(pl.DataFrame(columns))
    assert told.content == vector["content"]
    assert told.columns == vector["digests"]


def test_the_arithmetic_by_hand():
    import hashlib

    def sha(data=b""):
        return hashlib.sha256(data).digest()

    head = struct.pack("<Q", 1) + b"a" + struct.pack("<Q", 3) + b"int" + struct.pack("<Q", 2)
    column = hashlib.sha256(
        head + sha(b"\x01\x00") + sha(struct.pack("<qq", 7, 0)) + sha()
    ).digest()
    told = frames.content_of(one([7, None]))
    assert told.content == "content1:" + hashlib.sha256(b"content1\n" + column).hexdigest()
    assert told.columns == {"a": "sha256:" + column.hex()}


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="class"):
        content.ColumnDigest("a").hexdigest("decimal")
