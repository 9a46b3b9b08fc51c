from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from falaj.base.errors import FalajError
from falaj.monitoring.reference import as_served, freeze, open_reference
from falaj.stats.drift import PRACTICAL

laws = settings(derandomize=True, deadline=None, max_examples=60)
any_float = st.floats(allow_nan=True, allow_infinity=True)


def test_a_reference_tells_rows_columns_and_their_order(bench, frozen):
    told = open_reference(frozen)
    assert told.rows == 20_000
    assert tuple(told.columns) == (*bench.names, "score")
    assert told.features == bench.names
    assert all(one.hist.n == 20_000 for one in told.columns.values())
    assert len(told.columns["wind"].edges.edges) == 249


def test_the_same_data_gives_the_same_bytes(bench, frozen):
    assert bench.frozen() == frozen


def test_floats_are_c99_hex_and_never_json_numbers(frozen):
    def walk(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                walk(inner)
        assert not isinstance(value, float)

    walk(json.loads(frozen))
    assert json.loads(frozen)["columns"][1]["edges"]["edges"][0].startswith("-0x1.")


def test_blocks_that_wander_raise_the_limit_and_few_or_small_ones_do_not_count():
    rng = np.random.default_rng(5)
    weeks = np.repeat(np.arange(12), 600)
    wandering = rng.normal(size=len(weeks)) + weeks % 3
    told = open_reference(freeze({"a": wandering}, weeks)).columns["a"].own
    assert told.known
    assert told.blocks == 12
    assert told.psi > 3 * PRACTICAL

    few = open_reference(freeze({"a": wandering}, weeks // 3)).columns["a"].own
    assert (few.blocks, few.known) == (4, False)
    small = open_reference(freeze({"a": wandering}, np.arange(len(weeks)) // 499)).columns["a"].own
    assert (small.blocks, small.known) == (0, False)


def test_missing_values_are_counted_apart():
    told = open_reference(freeze({"a": np.array([1.0, np.nan, np.inf, -np.inf])}, np.zeros(4, int)))
    hist = told.columns["a"].hist
    assert (hist.nan, hist.n) == (1, 4)


def test_columns_of_float32_remember_it_so_that_a_sent_double_finds_its_bin():
    stored = np.array([0.1, 0.1, 0.7] * 300, np.float32).astype(np.float64)
    column = open_reference(freeze({"a": stored}, np.zeros(900, int))).columns["a"]
    assert column.edges.dtype == "float32"
    sent = as_served(column.edges, np.array([0.1, 0.1, 0.7] * 300))
    assert column.edges.count(sent) == column.hist
    exact = open_reference(freeze({"a": np.array([0.1])}, np.zeros(1, int))).columns["a"]
    assert exact.edges.dtype == "float64"


@laws
@given(hn.arrays(np.float64, st.integers(0, 40), elements=any_float), st.integers(1, 9))
def test_opening_gives_back_what_was_frozen(values, many):
    data = freeze({"a": values, "ب": values}, np.arange(len(values)) % many)
    told = open_reference(data)
    again = freeze({"a": values, "ب": values}, np.arange(len(values)) % many)
    assert again == data
    assert told.columns["a"].edges.count(as_served(told.columns["a"].edges, values)) == (
        told.columns["a"].hist
    )


def changed(frozen, change):
    plain = json.loads(frozen)
    change(plain)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


REFUSED = {
    "an unknown field": lambda plain: plain.update(note="x"),
    "another version": lambda plain: plain.update(v=2),
    "true as a version": lambda plain: plain.update(v=True),
    "another kind": lambda plain: plain.update(kind="edges"),
    "no columns": lambda plain: plain.update(columns=[]),
    "columns that are no list": lambda plain: plain.update(columns=7),
    "a column twice": lambda plain: plain["columns"].append(plain["columns"][0]),
    "counts that do not add up": lambda plain: plain.update(rows=1),
    "rows as text": lambda plain: plain.update(rows="20000"),
    "a column without its blocks": lambda plain: plain["columns"][0].pop("blocks"),
    "blocks below none": lambda plain: plain["columns"][0].update(blocks=-1),
    "a limit of too few blocks": lambda plain: plain["columns"][0].update(blocks=7),
    "a limit that is no number": lambda plain: plain["columns"][0].update(block_psi="nan"),
    "a limit beyond all floats": lambda plain: plain["columns"][0].update(block_psi="0x1p9999"),
    "a limit below nothing": lambda plain: plain["columns"][0].update(block_psi="-0x1p-3"),
    "a limit in another spelling": lambda plain: plain["columns"][0].update(block_psi="0.5"),
    "edges that fall": lambda plain: plain["columns"][1]["edges"]["edges"].reverse(),
    "words instead of edges": lambda plain: plain["columns"][0].update(
        edges={"v": 1, "kind": "hist", "edges": "sha256:" + "0" * 64, "counts": [1], "nan": 0, "null": 0}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_reference_is_read_strictly(frozen, change):
    with pytest.raises(FalajError) as caught:
        open_reference(changed(frozen, change))
    assert caught.value.code == "monitoring.reference"


@laws
@given(st.binary(max_size=200), st.integers(0, 2000))
def test_no_bytes_raise_anything_else(noise, at):
    frozen = freeze({"a": np.arange(40.0)}, np.zeros(40, int))
    for data in (noise, frozen[:at] + noise + frozen[at + len(noise) :], b" " + frozen):
        if data == frozen:
            continue
        try:
            open_reference(data)
        except FalajError as error:
            assert error.code == "monitoring.reference"


def test_columns_and_blocks_have_one_length():
    with pytest.raises(ValueError, match="a: got shape"):
        freeze({"a": np.zeros(3)}, np.zeros(4, int))
