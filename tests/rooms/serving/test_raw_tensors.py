"""Tensors as raw bytes, and the binary extension of REST: sizes, both directions, refusals."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensors import NUMPY, mirror, sample

from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.serving.raw import from_raw, to_raw
from falaj.serving.schema import Reader, Refusal, concatenate
from falaj.serving.wire.v2 import decode

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
        outputs=(*OUT, Tensor(name="q", datatype=Datatype.INT64, shape=(-1,))),
    )
)
TYPES = list(Datatype)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(st.sampled_from(TYPES), SHAPES, st.integers(0, 1000))
def test_every_type_and_shape_comes_back_from_raw_bytes(kind, shape, seed):
    array = sample(kind, shape, seed)
    back = from_raw("x", kind, shape, memoryview(to_raw(kind, array)))
    assert back.shape == tuple(shape)
    assert back.dtype == NUMPY[kind]
    assert (back == array).all()


@given(st.sampled_from(TYPES), SHAPES, st.integers(0, 9))
def test_strides_do_not_show(kind, shape, seed):
    array = sample(kind, shape, seed).T
    back = from_raw("x", kind, array.shape, memoryview(to_raw(kind, array)))
    assert (back == array).all()


def test_bf16_is_rounded_to_the_nearest_and_holes_stay_holes():
    wide = np.array([1.0, 1.00390625, 1.01171875, 3.4e38, np.inf, -np.inf, np.nan], np.float32)
    back = from_raw("x", Datatype.BF16, [7], memoryview(to_raw(Datatype.BF16, wide)))
    assert back[:3].tolist() == [1.0, 1.0, 1.015625]  # ties to even
    assert back[4:6].tolist() == [np.inf, -np.inf]
    assert np.isnan(back[6])


@given(st.sampled_from(TYPES), SHAPES, st.binary(max_size=80))
def test_any_bytes_are_an_array_or_a_refusal(kind, shape, data):
    try:
        back = from_raw("x", kind, shape, memoryview(data))
    except Refusal:
        return
    assert back.shape == tuple(shape)


BAD_RAW = {  # type, shape, data -> code, row
    "too short": (Datatype.FP32, [2], b"\0" * 7, "serving.shape", -1),
    "too long": (Datatype.FP32, [2], b"\0" * 9, "serving.shape", -1),
    "a boolean of 2": (Datatype.BOOL, [3, 1], b"\0\1\2", "serving.type", 2),
    "text ends early": (Datatype.BYTES, [1], b"\5\0\0\0ab", "serving.data", 0),
    "half a length": (Datatype.BYTES, [1], b"\5\0", "serving.data", 0),
    "a length beyond everything": (Datatype.BYTES, [1], b"\xff\xff\xff\xffab", "serving.data", 0),
    "one text too few": (Datatype.BYTES, [2], b"\1\0\0\0a", "serving.shape", -1),
    "one text too many": (Datatype.BYTES, [1], b"\1\0\0\0a" * 2, "serving.shape", -1),
    "no UTF-8": (Datatype.BYTES, [2, 1], b"\1\0\0\0a\1\0\0\0\xff", "serving.type", 1),
}


@pytest.mark.parametrize(("kind", "shape", "data", "code", "row"), BAD_RAW.values(), ids=BAD_RAW)
def test_raw_data_that_disagrees_is_refused(kind, shape, data, code, row):
    with pytest.raises(Refusal) as caught:
        from_raw("x", kind, shape, memoryview(data))
    assert (caught.value.findings[0].code, caught.value.findings[0].row) == (code, row)


def mixed(*rows, head=None, tail=b"", **more):
    data = struct.pack(f"<{3 * len(rows)}f", *(v for row in rows for v in row))
    one = {"name": "x", "datatype": "FP32", "shape": [len(rows), 3]}
    one["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps({"inputs": [{**one, **(head or {})}], **more}).encode()
    return text + data + tail, len(text)


def test_binary_and_json_read_the_same():
    rows = [(1.5, 2.0, 3.0), (4.0, 5.0, 6.0)]
    binary = decode(MATRIX, *mixed(*rows))
    one = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": rows}
    plain = decode(MATRIX, json.dumps({"inputs": [one]}).encode())
    assert binary.rows.packed == plain.rows.packed
    assert binary.rows.row(1) == plain.rows.row(1)


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
def test_nan_is_what_null_is_and_every_finding_has_its_place(n):
    rows = [(float("nan"), 2.0, 3.0)] * n
    assert decode(MATRIX, *mixed(*rows)).rows.n == n
    rows[n // 2] = (1.0, 200.0, float("nan"))
    with pytest.raises(Refusal) as caught:
        decode(MATRIX, *mixed(*rows))
    found = [(f.code, f.field, f.row) for f in caught.value.findings]
    assert found == [
        ("serving.range", "distance", n // 2),
        ("serving.null", "hour", n // 2),
    ]


ROW = (1.0, 2.0, 3.0)
BAD_BODIES = {  # body, size of JSON -> words
    "more JSON than there is": ((b"{}", 3), "inference-header"),
    "a size beyond the data": (mixed(ROW, head={"parameters": {"binary_data_size": 13}}), "there are 12"),
    "a negative size": (mixed(ROW, head={"parameters": {"binary_data_size": -1}}), "binary_data_size"),
    "a size that is text": (mixed(ROW, head={"parameters": {"binary_data_size": "12"}}), "binary_data_size"),
    "a size that is true": (mixed(ROW, head={"parameters": {"binary_data_size": True}}), "binary_data_size"),
    "bytes that belong to nobody": (mixed(ROW, tail=b"\0"), "expected 12"),
    "data twice": (mixed(ROW, head={"data": [1, 2, 3]}), "expected one of them"),
    "no data at all": (mixed(ROW, head={"parameters": {}}), "data: missing"),
    "the shape disagrees": (mixed(ROW, head={"shape": [2, 3]}), "got 12 bytes, expected 24"),
    "binary data without the header": ((mixed(ROW)[0][: mixed(ROW)[1]], -1), "without header"),
    "asked for by a word": (mixed(ROW, parameters={"binary_data_output": "yes"}), "true or false"),
    "shared memory": (mixed(ROW, outputs=[{"name": "p", "parameters": {"shared_memory_region": "a"}}]), "not offered"),
    "classification": (mixed(ROW, outputs=[{"name": "p", "parameters": {"classification": 3}}]), "not offered"),
}  # fmt: skip


@pytest.mark.parametrize(("given_", "words"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_binary_bodies_that_do_not_add_up_are_refused(given_, words):
    with pytest.raises(Refusal, match=words):
        decode(MATRIX, *given_)


ASKED = {  # parameters, outputs -> shown, binary, plain
    "nothing": ({}, None, (), (), ()),
    "all": ({"binary_data_output": True}, None, (), ("*",), ()),
    "one": ({}, [{"name": "p", "parameters": {"binary_data": True}}, {"name": "q"}], ("p", "q"), ("p",), ()),
    "all but one": ({"binary_data_output": True}, [{"name": "p", "parameters": {"binary_data": False}}, {"name": "q"}], ("p", "q"), ("*",), ("p",)),
}  # fmt: skip


@pytest.mark.parametrize(("parameters", "outputs", "shown", "binary", "plain"), ASKED.values(), ids=ASKED)  # fmt: skip
def test_the_answer_is_binary_where_it_was_asked_for(parameters, outputs, shown, binary, plain):
    for call in (
        decode(MATRIX, *mixed(ROW, parameters=parameters, outputs=outputs)),
        decode(MATRIX, json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": ROW}], "parameters": parameters, "outputs": outputs}).encode()),
    ):  # fmt: skip
        assert (call.outputs, call.binary, call.json) == (shown, binary, plain)


def test_a_header_of_zero_means_raw_data_of_the_only_input():
    call = decode(MATRIX, struct.pack("<6f", *ROW, *ROW), 0)
    assert (call.rows.n, call.binary) == (2, ("*",))
    schema, _ = mirror(Datatype.INT16, Datatype.INT8)
    for reader, body in ((MATRIX, b"\0" * 13), (MATRIX, b""), (Reader(schema), b"\0" * 4)):
        with pytest.raises(Refusal):
            decode(reader, body, 0)


def test_half_precision_travels_as_binary_data_only():
    reader = Reader(mirror(Datatype.FP16)[0])
    one = {"name": "x_fp16", "datatype": "FP16", "shape": [1, 2]}
    with pytest.raises(Refusal, match="binary data only"):
        decode(reader, json.dumps({"inputs": [{**one, "data": [1, 2]}], "parameters": {"binary_data_output": True}}).encode())  # fmt: skip
    text = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": 4}}]}).encode()
    with pytest.raises(Refusal, match="ask with binary_data"):
        decode(reader, text + b"\0\x3c\0\x40", len(text))
    asked = {"inputs": [{**one, "parameters": {"binary_data_size": 4}}], "parameters": {"binary_data_output": True}}  # fmt: skip
    text = json.dumps(asked).encode()
    call = decode(reader, text + b"\0\x3c\0\x40", len(text))
    assert concatenate(reader, [call.rows])["x_fp16"].tolist() == [[1, 2]]


@given(st.binary(max_size=200), st.integers(-1, 210))
def test_any_bytes_with_any_header_are_answered_or_refused(data, size):
    for reader in (MATRIX, Reader(mirror(*TYPES)[0])):
        try:
            decode(reader, data, size)
        except Refusal as refusal:
            assert refusal.findings


def test_inner_axes_that_vary_do_not_share_a_call():
    from falaj.serving.batching import parts

    class Job:
        def __init__(self, rows):
            self.rows = rows

    reader = Reader(mirror(Datatype.INT32, shape=(-1, -1))[0])

    def job(width):
        one = {"name": "x_int32", "datatype": "INT32", "shape": [1, width], "data": [1] * width}
        return Job(decode(reader, json.dumps({"inputs": [one]}).encode()).rows)

    jobs = [job(2), job(2), job(3), job(2)]
    assert [len(part) for part in parts(jobs)] == [2, 1, 1]
    assert concatenate(reader, [one.rows for one in jobs[:2]])["x_int32"].shape == (2, 2)


def test_named_rows_bring_lists_for_inputs_without_columns():
    reader = Reader(mirror(Datatype.FP64, Datatype.BYTES, shape=(-1, 2))[0])
    rows = [{"x_fp64": [1, 2], "x_bytes": ["a", "b"]}, {"x_fp64": [3, 4], "x_bytes": ["c", "d"]}]
    found = concatenate(reader, [reader.rows(rows)])
    assert found["x_fp64"].tolist() == [[1, 2], [3, 4]]
    assert found["x_bytes"].tolist() == [["a", "b"], ["c", "d"]]
    for bad in ([1], [1, 2, 3], 7, [[1], [2]], [1, [2]]):
        with pytest.raises(Refusal):
            reader.rows([{"x_fp64": bad, "x_bytes": ["a", "b"]}])


def test_an_integer_beyond_fp64_is_refused():
    reader = Reader(mirror(Datatype.FP64)[0])
    with pytest.raises(Refusal, match="does not fit"):
        reader.rows([{"x_fp64": [10**400, 1]}])
