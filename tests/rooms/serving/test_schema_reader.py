from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.serving.schema import MAX_FINDINGS, Reader, Refusal, concatenate
from falaj.serving.wire.v2 import decode, decode_rows

OUT = (Tensor(name="p", datatype=Datatype.FP32, shape=(-1, 1)),)
MATRIX = Reader(
    Schema(
        inputs=(
            Tensor(
                name="x",
                datatype=Datatype.FP32,
                shape=(-1, 3),
                columns=(
                    Column(name="delay", nullable=True),
                    Column(name="distance", minimum=0.0, maximum=100.0),
                    Column(name="hour"),
                ),
            ),
        ),
        outputs=OUT,
    )
)
MIXED = Reader(
    Schema(
        inputs=(
            Tensor(name="carrier", datatype=Datatype.BYTES, shape=(-1, 1)),
            Tensor(name="count", datatype=Datatype.INT8, shape=(-1, 1)),
            Tensor(name="late", datatype=Datatype.BOOL, shape=(-1, 1)),
            Tensor(name="grid", datatype=Datatype.FP64, shape=(-1, 2, 2)),
        ),
        outputs=OUT,
    )
)


def body(data, shape=None, datatype="FP32", name="x", **more):
    one = {"name": name, "datatype": datatype, "shape": shape or [1, 3], "data": data}
    return json.dumps({"inputs": [one], **more}).encode()


def matrix(call):
    return concatenate(MATRIX, [call.rows])["x"]


@pytest.mark.parametrize(
    ("data", "shape"),
    [([1, 2, 3, 4, 5, 6], [2, 3]), ([[1, 2, 3], [4, 5, 6]], [2, 3])],
    ids=["flat", "nested"],
)
def test_flat_and_nested_data_are_the_same(data, shape):
    assert matrix(decode(MATRIX, body(data, shape))).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_null_is_nan_where_the_schema_says_so():
    call = decode(MATRIX, body([None, 2, 3]))
    assert np.isnan(matrix(call)[0, 0])
    assert call.rows.row(0) == [None, 2, 3]


REFUSED = {  # data, shape, datatype, name -> code, field, row
    "null in a column that must be there": ([1, None, 3], [1, 3], "FP32", "x", "serving.null", "distance", 0),
    "a text": ([1, "2", 3], [1, 3], "FP32", "x", "serving.type", "distance", 0),
    "a boolean is no number": ([1, True, 3], [1, 3], "FP32", "x", "serving.type", "distance", 0),
    "below the minimum": ([1, 2, 3, 1, -1, 3], [2, 3], "FP32", "x", "serving.range", "distance", 1),
    "above the maximum": ([1, 200, 3], [1, 3], "FP32", "x", "serving.range", "distance", 0),
    "beyond float32": ([1e39, 2, 3], [1, 3], "FP32", "x", "serving.range", "delay", 0),
    "an integer beyond float32": ([10**300, 2, 3], [1, 3], "FP32", "x", "serving.range", "delay", 0),
    "too few values": ([1, 2], [1, 3], "FP32", "x", "serving.shape", "x", None),
    "too many values": ([1, 2, 3, 4], [1, 3], "FP32", "x", "serving.shape", "x", None),
    "another width": ([1, 2], [1, 2], "FP32", "x", "serving.shape", "x", None),
    "no rows": ([], [0, 3], "FP32", "x", "serving.shape", "x", None),
    "negative shape": ([1, 2, 3], [-1, 3], "FP32", "x", "serving.shape", "x", None),
    "ragged rows do not slide": ([[1, 2], [3, 4, 5, 6]], [2, 3], "FP32", "x", "serving.shape", "x", 0),
    "one row short": ([[1, 2, 3]], [2, 3], "FP32", "x", "serving.shape", "x", None),
    "another type": ([1, 2, 3], [1, 3], "FP64", "x", "serving.type", "x", None),
    "another name": ([1, 2, 3], [1, 3], "FP32", "y", "serving.name", "y", None),
    "data is no list": (7, [1, 3], "FP32", "x", "serving.data", "x", None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "name", "code", "field", "row"), REFUSED.values(), ids=REFUSED
)
def test_what_does_not_fit_is_refused_by_place(data, shape, datatype, name, code, field, row):
    with pytest.raises(Refusal) as caught:
        decode(MATRIX, body(data, shape, datatype, name))
    first = caught.value.findings[0]
    assert (first.code, first.field) == (code, field)
    assert row is None or first.row == row


BROKEN = {
    "no JSON": b"{",
    "not UTF-8": b'{"inputs":"\xff"}',
    "a list": b"[]",
    "no inputs": b'{"inputs":[]}',
    "inputs missing": b"{}",
    "NaN is no JSON": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[NaN,1,2]}]}',
    "overflowing number": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1e999,1,2]}]}',
    "a nesting bomb": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":'
    + b"[" * 50_000
    + b"]" * 50_000
    + b"}]}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_body_is_refused_not_a_crash(text):
    with pytest.raises(Refusal):
        decode(MATRIX, text)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(data):
    for read in (decode, decode_rows):
        try:
            read(MATRIX, data)
        except Refusal as refusal:
            assert 1 <= len(refusal.findings) <= MAX_FINDINGS


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(JSON, st.lists(st.integers(-2, 4), max_size=3), st.sampled_from(["FP32", "INT8", "X"]))
def test_any_json_as_data_is_answered_or_refused(data, shape, datatype):
    for reader in (MATRIX, MIXED):
        try:
            call = decode(reader, body(data, shape or [1], datatype))
        except Refusal:
            continue
        assert call.rows.n == shape[0]


def test_all_findings_are_told_at_most_twenty():
    with pytest.raises(Refusal) as caught:
        decode(MATRIX, body([1, -5, 3] * 50, [50, 3]))
    assert len(caught.value.findings) == MAX_FINDINGS
    assert {f.row for f in caught.value.findings} == set(range(20))


def test_of_a_doubled_key_the_last_counts_at_every_size():
    for n in (1, 500):
        data = json.dumps([1, 2, 3] * n)
        text = '{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,3],"data":[9],"data":%s}]}'
        assert matrix(decode(MATRIX, (text % (n, data)).encode()))[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
def test_every_size_reads_the_same_values(n):
    values = np.random.default_rng(n).uniform(0, 100, (n, 3))
    got = matrix(decode(MATRIX, body(values.ravel().tolist(), [n, 3])))
    assert (got == values.astype(np.float32)).all()


def test_many_inputs_of_other_types():
    given_ = {
        "inputs": [
            {"name": "grid", "datatype": "FP64", "shape": [2, 2, 2], "data": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]},
            {"name": "carrier", "datatype": "BYTES", "shape": [2, 1], "data": ["AA", "UA"]},
            {"name": "late", "datatype": "BOOL", "shape": [2, 1], "data": [True, False]},
            {"name": "count", "datatype": "INT8", "shape": [2, 1], "data": [1, -128]},
        ]
    }  # fmt: skip
    rows = decode(MIXED, json.dumps(given_).encode()).rows
    found = concatenate(MIXED, [rows, rows])
    assert found["carrier"].ravel().tolist() == ["AA", "UA"] * 2
    assert found["count"].dtype == np.int8
    assert found["grid"].shape == (4, 2, 2)
    assert rows.row(1) == ["UA", -128, False, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("data", "code"),
    [([1.5], "serving.type"), ([128], "serving.type"), ([True], "serving.type"), ([None], "serving.null")],
    ids=["a fraction", "beyond 8 bits", "a boolean", "null"],
)  # fmt: skip
def test_integers_take_integers_only(data, code):
    reader = Reader(Schema(inputs=(MIXED.inputs["count"],), outputs=OUT))
    with pytest.raises(Refusal) as caught:
        decode(reader, body(data, [1, 1], "INT8", "count"))
    assert caught.value.findings[0].code == code


def test_inputs_that_disagree_about_rows_are_refused():
    inputs = [
        {"name": "carrier", "datatype": "BYTES", "shape": [1, 1], "data": ["AA"]},
        {"name": "count", "datatype": "INT8", "shape": [2, 1], "data": [1, 2]},
        {"name": "late", "datatype": "BOOL", "shape": [1, 1], "data": [True]},
        {"name": "grid", "datatype": "FP64", "shape": [1, 2, 2], "data": [1, 2, 3, 4]},
    ]
    with pytest.raises(Refusal, match="disagree"):
        decode(MIXED, json.dumps({"inputs": inputs}).encode())


def test_named_rows_in_any_order():
    text = b'{"rows":[{"hour":3,"distance":2,"delay":1},{"hour":6,"distance":5}]}'
    call = decode_rows(MATRIX, text)
    assert call.rows.row(0) == [1, 2, 3]
    assert call.rows.row(1) == [None, 5, 6]


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        ([{"hours": 3, "distance": 2}], "serving.name", "did you mean 'hour'"),
        ([{"distance": 2}], "serving.missing", "hour"),
        ([], "serving.shape", "at least one"),
    ],
    ids=["unknown name", "missing", "no rows"],
)
def test_named_rows_that_do_not_fit(rows, code, words):
    with pytest.raises(Refusal, match=words) as caught:
        decode_rows(MATRIX, json.dumps({"rows": rows}).encode())
    assert code in {finding.code for finding in caught.value.findings}


def test_event_time_is_kept_in_utc():
    call = decode(MATRIX, body([1, 2, 3], parameters={"event_time": "2026-01-01T04:00:00+04:00"}))
    assert call.event_time == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("when", ["yesterday", 7, [], "0001-01-01T00:00:00+14:00"])
def test_a_bad_event_time_is_refused(when):
    with pytest.raises(Refusal, match="event_time"):
        decode(MATRIX, body([1, 2, 3], parameters={"event_time": when}))


def test_outputs_must_exist():
    assert decode(MATRIX, body([1, 2, 3], outputs=[{"name": "p"}])).outputs == ("p",)
    with pytest.raises(Refusal, match="unknown output"):
        decode(MATRIX, body([1, 2, 3], outputs=[{"name": "q"}]))
