"""The point-in-time join against brute force and DuckDB; nothing from after the label."""

# ruff: noqa: DTZ001 times without a zone are data too
from __future__ import annotations

import warnings
from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import falaj
from falaj.base.errors import FalajError
from falaj.data.features import as_of

START = datetime(2020, 1, 1)
HOW = {"entity": "id", "at": "at", "available_at": "known"}


def labels_of(pairs):
    rows = [(e, None if t is None else START + timedelta(hours=t)) for e, t in pairs]
    return pl.DataFrame(rows, schema={"id": pl.Int64, "at": pl.Datetime("us")}, orient="row")


def view_of(pairs):
    rows = [
        (e, None if t is None else START + timedelta(hours=t), i) for i, (e, t) in enumerate(pairs)
    ]
    schema = {"id": pl.Int64, "known": pl.Datetime("us"), "value": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def brute(labels, view, tolerance=None):
    found = []
    for entity, at in labels.rows():
        best = None
        for other, known, value in view.rows():
            if None in (entity, at, known) or other != entity or known > at:
                continue
            if tolerance is not None and at - known > tolerance:
                continue
            if best is None or known >= best[0]:
                best = (known, value)
        found.append(best or (None, None))
    return found


rows = st.lists(
    st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 12)), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(rows, rows, st.none() | st.integers(0, 5))
def test_it_is_what_a_person_would_look_up(asked, known, hours):
    labels, view = labels_of(asked), view_of(known)
    tolerance = None if hours is None else timedelta(hours=hours)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = as_of(labels, view, **HOW, tolerance=tolerance)
    assert found.select("id", "at").equals(labels), "the labels stay as they are, in their order"
    assert found.select("known", "value").rows() == brute(labels, view, tolerance)


@settings(max_examples=80, deadline=None)
@given(rows, rows)
def test_nothing_comes_from_after_the_label(asked, known):
    found = as_of(labels_of(asked), view_of(known), **HOW)
    assert found.filter(pl.col("known") > pl.col("at")).is_empty()
    # what becomes known later changes nothing
    later = view_of([*known, *((entity, 99) for entity in (0, 1, 2))])
    assert as_of(labels_of(asked), later, **HOW).equals(found)


def test_duckdb_finds_the_same():
    draw = np.random.default_rng(2)
    labels = labels_of(
        (int(e), int(t))
        for e, t in zip(draw.integers(0, 50, 500), draw.integers(0, 2000, 500), strict=True)
    )
    pairs = {
        (int(e), int(t))
        for e, t in zip(draw.integers(0, 50, 3000), draw.integers(0, 2000, 3000), strict=True)
    }
    view = view_of(sorted(pairs, key=str))
    with duckdb.connect() as database:
        for name, frame in (("labels", labels.with_row_index("i")), ("known", view)):
            columns = ", ".join(f"unnest(?) as {column}" for column in frame.columns)
            database.execute(
                f"create table {name} as select {columns}",
                [frame[c].to_list() for c in frame.columns],
            )
        theirs = database.execute(
            "select v.value from labels l asof left join known v on l.id = v.id and l.at >= v.known "
            "order by l.i"
        ).fetchall()
    ours = as_of(labels, view, **HOW)["value"].to_list()
    assert ours == [value for (value,) in theirs]
    assert 0 < sum(value is None for value in ours) < 100


def test_several_columns_make_an_entity():
    labels = pl.DataFrame({"a": [1, 1], "b": ["x", "y"], "at": [date(2020, 1, 2)] * 2})
    view = pl.DataFrame({"a": [1], "b": ["y"], "known": [date(2020, 1, 1)], "f": [7]})
    found = as_of(labels, view.lazy(), entity=["a", "b"], at="at", available_at="known")
    assert found["f"].to_list() == [None, 7]


def test_units_and_widths_may_differ():
    labels = labels_of([(1, 5)]).cast({"id": pl.Int32, "at": pl.Datetime("ms")})
    view = view_of([(1, 4), (1, 6)])
    assert as_of(labels, view, **HOW)["value"].to_list() == [0]


def test_the_front_door_offers_it():
    assert falaj.features.as_of is as_of


ZONED = labels_of([(1, 1)]).with_columns(pl.col("at").dt.replace_time_zone("UTC"))
REFUSED = {
    "no entity": (labels_of([]).drop("id"), view_of([]), "data.no-column"),
    "no time": (labels_of([]), view_of([]).drop("known"), "data.no-column"),
    "a label as a feature": (labels_of([]).with_columns(value=1), view_of([]), "data.column-twice"),
    "zones differ": (ZONED, view_of([]), "data.times-differ"),
    "no times": (labels_of([]).cast({"at": pl.Int64}), view_of([]), "data.times-differ"),
}


@pytest.mark.parametrize(("labels", "view", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_put_in_order_is_refused(labels, view, code):
    with pytest.raises(FalajError) as caught:
        as_of(labels, view, **HOW)
    assert caught.value.code == code and caught.value.problems[0].fix
