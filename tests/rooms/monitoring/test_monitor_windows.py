from __future__ import annotations

import math
import time as clock
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.base.errors import FalajError
from falaj.facts.monitoring import Window
from falaj.facts.wire import decode, encode
from falaj.monitoring import windows
from falaj.monitoring.reference import freeze, open_reference
from falaj.stats.summaries import Unmergeable

laws = settings(derandomize=True, deadline=None, max_examples=60)
LENGTH = timedelta(hours=1)
cell = st.one_of(
    st.none(),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, 0.1]),
    st.floats(allow_nan=False),
    st.integers(-5, 5),
    st.booleans(),
)


def close(bench, state, reference, until=None, **limits):
    names = iter(f"w{i}" for i in range(1000))
    return windows.close(
        state,
        until or bench.start + timedelta(days=400),
        reference,
        length=LENGTH,
        at=bench.now,
        name=lambda: next(names),
        **limits,
    )


@pytest.fixture(scope="module")
def reference(frozen):
    return open_reference(frozen)


def small_reference():
    values = np.array([0.0, 1.0, 1.0, 2.5, np.nan, np.inf] * 20)
    return open_reference(freeze({"a": values, "b": np.ones(120)}, np.zeros(120, int)))


SMALL = small_reference()
batches = st.lists(
    st.lists(st.tuples(st.lists(cell, min_size=2, max_size=2), st.integers(0, 200)), max_size=12),
    max_size=6,
)


@laws
@given(batches, st.randoms(use_true_random=False))
def test_any_split_and_any_order_of_rows_gives_the_same_windows(bench, parts, dice):
    split = bench.state()
    for part in parts:
        rows = [bench.row(x, minutes) for x, minutes in part]
        # between two batches the state lies in the store
        split = decode(
            type(split), encode(windows.add(split, rows, SMALL, length=LENGTH, names=("a", "b")))
        )
    together = [bench.row(x, minutes) for part in parts for x, minutes in part]
    dice.shuffle(together)
    at_once = windows.add(bench.state(), together, SMALL, length=LENGTH, names=("a", "b"))
    assert split == at_once
    assert sum(one["rows"] for one in at_once.open.values()) == len(together)
    for one in at_once.open.values():
        for hist in one["hists"].values():
            assert sum(hist["counts"]) + hist["nan"] + hist["null"] == one["rows"]
    assert close(bench, split, SMALL) == close(bench, at_once, SMALL)


@laws
@given(batches)
def test_windows_survive_the_store(bench, parts):
    """JSON knows no NaN: every number of a window is one that can be read back."""
    rows = [bench.row(x, minutes) for part in parts for x, minutes in part]
    state = windows.add(bench.state(), rows, SMALL, length=LENGTH, names=("a", "b"))
    for window in close(bench, state, SMALL, min_rows=1)[1]:
        assert decode(Window, encode(window)) == window


ON_EDGES = {  # the reference holds 0, 1, 2.5 and infinity, each of them in a bin of its own
    "below all": (-1e300, 0),
    "minus infinity": (-math.inf, 0),
    "on the first atom": (0.0, 1),
    "between": (0.5, 2),
    "on the second atom": (1.0, 3),
    "true is one": (True, 3),
    "a double that is 1 as float32": (math.nextafter(1.0, 2), 3),
    "above it": (1.001, 4),
    "on the third atom": (2.5, 5),
    "a large number": (3e38, 6),
    "infinity": (math.inf, 7),
    "a double that is infinite as float32": (1e300, 7),
}


@pytest.mark.parametrize(("value", "cell"), ON_EDGES.values(), ids=ON_EDGES)
def test_values_on_edges_fall_where_the_reference_counted_them(bench, value, cell):
    state = windows.add(
        bench.state(), [bench.row([value, 1.0])], SMALL, length=LENGTH, names=("a", "b")
    )
    counts = next(iter(state.open.values()))["hists"]["a"]["counts"]
    assert [i for i, count in enumerate(counts) if count] == [cell]


def test_null_and_nan_are_missing_and_told_apart(bench):
    rows = [bench.row([None, 1.0]), bench.row([math.nan, 1.0]), bench.row([2.5, 1.0])]
    state = windows.add(bench.state(), rows, SMALL, length=LENGTH, names=("a", "b"))
    hist = next(iter(state.open.values()))["hists"]["a"]
    assert (hist["null"], hist["nan"], sum(hist["counts"])) == (1, 1, 1)


NOT_OURS = {
    "another release": {"release": "sha256:other"},
    "the canary": {"assigned": "canary", "arm": "canary"},
    "rescued by stable": {"assigned": "canary", "arm": "stable", "outcome": "rescued"},
}


@pytest.mark.parametrize("more", NOT_OURS.values(), ids=NOT_OURS)
def test_rows_of_others_change_nothing(bench, reference, more):
    rows = [bench.row([1.0, 2.0, 3.0], **more)]
    assert windows.add(bench.state(), rows, reference, length=LENGTH) == bench.state()


SKIPPED = {
    "too few inputs": {"x": [1.0]},
    "words": {"x": ["a", 1.0, 2.0]},
    "a list inside": {"x": [[1.0], [2.0], [3.0]]},
    "a number beyond all floats": {"x": [10**400, 1.0, 2.0]},
    "a time that is none": {"event_time": "yesterday"},
    "a time far ahead": {"event_time": "2099-01-01T00:00:00Z"},
}


@pytest.mark.parametrize("more", SKIPPED.values(), ids=SKIPPED)
def test_rows_that_cannot_be_counted_are_told_and_harm_no_other(bench, reference, more):
    good = bench.row([1.0, 2.0, 4.0])
    rows = [good, bench.row([1.0, 2.0, 3.0]) | more, good]
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    assert state.skipped == 1
    assert state.latest == bench.start
    assert [one["rows"] for one in state.open.values()] == [2]


def test_a_row_counts_where_its_own_time_lies_else_when_it_was_answered(bench, reference):
    text = bench.row([1.0, 2.0, 4.0], event_time="2013-04-01T04:30:00+04:00")
    bare = bench.row([1.0, 2.0, 4.0], event_time=None)
    state = windows.add(bench.state(), [text, bare], reference, length=LENGTH)
    assert sorted(state.open) == ["2013-04-01T00:00:00.000000Z", "2026-03-01T00:00:00.000000Z"]


@laws
@given(
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001
    st.integers(60_000_000, 10**13),
)
def test_windows_tile_the_time(at, microseconds):
    at, length = at.replace(tzinfo=UTC), timedelta(microseconds=microseconds)
    start = windows.start_of(at, length)
    assert start <= at < start + length
    assert windows.start_of(start, length) == start
    assert windows.start_of(start + length, length) == start + length


def test_only_what_the_watermark_has_passed_is_closed_and_late_rows_are_told(bench, reference):
    rows = bench.rows(300, minutes=180)
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    until = windows.watermark(state, timedelta(minutes=30))
    state, closed = close(bench, state, reference, until)
    assert [(one.opens, one.rows) for one in closed] == [
        (bench.start, 100),
        (bench.start + LENGTH, 100),
    ]
    assert state.closed_until == bench.start + 2 * LENGTH
    late = [bench.row([1.0, 2.0, 4.0], 119.9), bench.row([1.0, 2.0, 4.0], 120)]
    state = windows.add(state, late, reference, length=LENGTH)
    assert state.late == 1
    assert [one["rows"] for one in state.open.values()] == [101]
    assert close(bench, state, reference, until)[1] == ()
    assert windows.watermark(bench.state(), LENGTH) is None


@pytest.mark.parametrize("n", [500, 20_000])
def test_no_drift_is_no_violation(bench, reference, n):
    for seed in range(12 if n == 500 else 4):
        state = windows.add(bench.state(), bench.rows(n, seed), reference, length=LENGTH)
        (window,) = close(bench, state, reference)[1]
        assert window.rows == n
        assert {one.feature for one in window.features} == {*bench.names, "score"}
        assert not any(one.violated or one.inconclusive for one in window.features)


@pytest.mark.parametrize("n", [500, 5000])
def test_a_shifted_column_is_found_and_no_other(bench, reference, n):
    for seed in range(5):
        rows = bench.rows(n, seed, shift=0.8)
        state = windows.add(bench.state(), rows, reference, length=LENGTH)
        (window,) = close(bench, state, reference)[1]
        assert [one.feature for one in window.features if one.violated] == ["wind"]
        wind = next(one for one in window.features if one.feature == "wind")
        assert wind.psi > wind.psi_limit >= 0.10
        assert wind.psi > wind.psi_null
        assert wind.p < 1e-6
        assert 0.2 < wind.ks < 0.5


def test_a_constant_column_that_moves_is_found(bench, reference):
    rows = [row | {"x": [*row["x"][:2], 5.0]} for row in bench.rows(800)]
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    (window,) = close(bench, state, reference)[1]
    assert [one.feature for one in window.features if one.violated] == ["month"]
    assert next(one.ks for one in window.features if one.feature == "month") == 1.0


def test_values_that_the_reference_never_had_are_a_cell_of_their_own(bench):
    """Joined with a neighbour they would be hidden: here 3 is as frequent as 1 and 2 were."""
    seen = np.tile([1.0, 2.0], 5000)
    reference = open_reference(freeze({"class": seen}, np.zeros(10_000, int)))
    rows = [bench.row([1.0 if i % 2 else 3.0]) for i in range(600)]
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    (window,) = close(bench, state, reference)[1]
    (found,) = window.features
    assert found.violated
    few = [bench.row([3.0 if i == 0 else 1.0 + i % 2]) for i in range(600)]
    state = windows.add(bench.state(), few, reference, length=LENGTH)
    (found,) = close(bench, state, reference)[1][0].features
    assert not found.violated


def test_a_column_that_was_always_missing_and_comes_back_is_found(bench):
    reference = open_reference(freeze({"a": np.full(1000, np.nan)}, np.zeros(1000, int)))
    for x, violated in ((None, False), (7.0, True)):
        rows = [bench.row([x]) for _ in range(600)]
        state = windows.add(bench.state(), rows, reference, length=LENGTH)
        (found,) = close(bench, state, reference)[1][0].features
        assert (found.violated, found.ks) == (violated, 0.0)


def test_a_column_that_is_lost_is_found(bench, reference):
    rows = [row | {"x": [row["x"][0], None, 4.0]} for row in bench.rows(800)]
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    (window,) = close(bench, state, reference)[1]
    assert [one.feature for one in window.features if one.violated] == ["wind"]


def test_a_score_that_moves_is_found_and_an_error_has_none(bench, reference):
    rows = [row | {"score": 0.9} for row in bench.rows(700)]
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    (window,) = close(bench, state, reference)[1]
    assert [one.feature for one in window.features if one.violated] == ["score"]
    failed = [bench.row([1.0, 2.0, 4.0], outcome="serving.engine", y=[], score=None)]
    state = windows.add(bench.state(), failed, reference, length=LENGTH)
    assert next(iter(state.open.values()))["hists"]["score"]["null"] == 1


def test_few_rows_are_inconclusive(bench, reference):
    state = windows.add(bench.state(), bench.rows(499, shift=3), reference, length=LENGTH)
    (window,) = close(bench, state, reference)[1]
    assert all(one.inconclusive and not one.violated for one in window.features)
    (window,) = close(bench, state, reference, min_rows=400)[1]
    assert [one.feature for one in window.features if one.violated] == ["wind"]


def test_the_practical_limit_is_the_larger_of_the_projects_and_the_references_own(bench):
    rng = np.random.default_rng(2)
    weeks = np.repeat(np.arange(12), 600)
    told = {"wind": rng.normal(size=7200) + weeks % 3, "delay": rng.normal(size=7200)}
    reference = open_reference(freeze(told, weeks))
    rows = [bench.row([a + 2, b + 1]) for a, b in zip(told["wind"], told["delay"], strict=True)]
    state = windows.add(bench.state(), rows, reference, length=LENGTH)
    (window,) = close(bench, state, reference)[1]
    limits = {one.feature: (one.violated, one.psi_limit > 0.3) for one in window.features}
    assert limits == {"wind": (False, True), "delay": (True, False)}
    (window,) = close(bench, state, reference, psi_limit=9.0)[1]
    assert not any(one.violated for one in window.features)


def test_only_chosen_columns_are_watched_and_one_that_is_not_there_is_refused(bench, reference):
    rows = bench.rows(10)
    state = windows.add(bench.state(), rows, reference, length=LENGTH, chosen=("wind",))
    assert list(next(iter(state.open.values()))["hists"]) == ["wind"]
    # a column that is watched only since now starts in mid-window
    state = windows.add(state, rows, reference, length=LENGTH, chosen=("wind", "delay"))
    (window,) = close(bench, state, reference, min_rows=15)[1]
    assert [(one.feature, one.inconclusive) for one in window.features] == [
        ("wind", False),
        ("delay", True),
    ]
    with pytest.raises(FalajError) as caught:
        windows.watched(reference, ("windy",))
    assert caught.value.code == "monitoring.no-feature"


def test_counts_on_other_edges_are_refused(bench, reference):
    other = open_reference(bench.frozen(seed=1))
    state = windows.add(bench.state(), bench.rows(5), reference, length=LENGTH)
    with pytest.raises(Unmergeable):
        windows.add(state, bench.rows(5), other, length=LENGTH)


def test_a_state_is_plain_json(bench, reference):
    state = windows.add(bench.state(), bench.rows(50), reference, length=LENGTH)
    assert msgspec.json.decode(msgspec.json.encode(state.open)) == state.open


def test_a_day_of_twenty_columns_is_counted_within_a_second_of_cpu(bench):
    n, rng = 28_000, np.random.default_rng(0)
    names = [f"f{i}" for i in range(20)]
    reference = open_reference(
        freeze({name: rng.normal(size=20_000) for name in names}, np.arange(20_000))
    )
    x = rng.normal(size=(n, 20))
    x[rng.random(x.shape) < 0.02] = np.nan
    rows = [
        bench.row([None if math.isnan(v) else v for v in one], i / n * 6000)
        for i, one in enumerate(x.tolist())
    ]
    began = clock.process_time()
    windows.add(bench.state(), rows, reference, length=timedelta(days=1))
    assert clock.process_time() - began < 1.0
