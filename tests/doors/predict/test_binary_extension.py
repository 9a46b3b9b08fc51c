"""The binary extension, all types, other protocols' bodies: asked of a real server."""

from __future__ import annotations

import json

import numpy as np
import pytest
from servers import House, expected
from tensors import mirror, sample

from falaj.facts.models import Datatype
from falaj.serving.raw import from_raw, to_raw

ROW = (30.0, 733.0, 14.0)
# ONNX Runtime takes text and BF16 from Python, but not both in one call.
TYPES = [kind for kind in Datatype if kind is not Datatype.BF16]
PLAIN = [kind for kind in TYPES if kind is not Datatype.FP16]


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("mirrors"))
    schema, data = mirror(*TYPES)
    first = made.release("1", onnx_bytes=data, schema=schema, model="all", task="other")
    schema, data = mirror(Datatype.INT32, Datatype.BYTES, shape=(-1, -1, 2))
    second = made.release("1", onnx_bytes=data, schema=schema, model="free", task="other")
    schema, data = mirror(Datatype.BF16, Datatype.INT64)
    third = made.release("1", onnx_bytes=data, schema=schema, model="half", task="other")
    for one in (first, second, third):
        made.place(one)
    more = made.plan(second, model="free").models | made.plan(third, model="half").models
    made.write(made.plan(first, model="all", more=more.items()))
    client = made.start()
    yield client
    client.close()
    made.close()


def ask_binary(client, model, arrays, *, as_json=(), **more):
    """Send arrays as binary data (some as JSON); returns status, headers, outputs by name."""
    inputs, data = [], []
    for name, (kind, array) in arrays.items():
        one = {"name": name, "datatype": kind.value, "shape": list(array.shape)}
        if name in as_json:
            one["data"] = array.ravel().tolist()
        else:
            data.append(to_raw(kind, array))
            one["parameters"] = {"binary_data_size": len(data[-1])}
        inputs.append(one)
    text = json.dumps({"inputs": inputs, **more}).encode()
    head = {"inference-header-content-length": str(len(text))}
    body = b"".join((text, *data))
    status, headers, told = client.ask("POST", f"/v2/models/{model}/infer", body, head)
    return status, headers, outputs_of(headers, told) if status == 200 else told


def outputs_of(headers, told):
    if "inference-header-content-length" not in headers:
        return {one["name"]: one["data"] for one in told["outputs"]}
    assert headers["content-type"] == "application/octet-stream"
    size = int(headers["inference-header-content-length"])
    rest = memoryview(told)[size:]
    found = {}
    for one in json.loads(told[:size])["outputs"]:
        if "data" in one:
            found[one["name"]] = one["data"]
            continue
        part, rest = (
            rest[: one["parameters"]["binary_data_size"]],
            rest[one["parameters"]["binary_data_size"] :],
        )
        found[one["name"]] = from_raw("y", Datatype(one["datatype"]), one["shape"], part)
    assert not rest
    return found


@pytest.mark.parametrize("n", [1, 3, 200])
def test_every_type_goes_there_and_back_as_binary_data(mirrors, n):
    arrays = {f"x_{k.lower()}": (k, sample(k, (n, 2), n)) for k in TYPES}
    status, _, found = ask_binary(mirrors, "all", arrays, parameters={"binary_data_output": True})
    assert status == 200, found
    for kind in TYPES:
        sent = arrays[f"x_{kind.lower()}"][1]
        assert np.array_equal(found[f"y_{kind.lower()}"], sent), kind


def test_bf16_goes_there_and_back(mirrors):
    kinds = (Datatype.BF16, Datatype.INT64)
    arrays = {f"x_{k.lower()}": (k, sample(k, (5, 2))) for k in kinds}
    status, _, found = ask_binary(mirrors, "half", arrays, parameters={"binary_data_output": True})
    assert status == 200, found
    for kind in kinds:
        assert np.array_equal(found[f"y_{kind.lower()}"], arrays[f"x_{kind.lower()}"][1])


def test_json_and_binary_data_go_together_both_ways(mirrors):
    arrays = {f"x_{k.lower()}": (k, sample(k, (2, 2), 7)) for k in TYPES}
    names = {f"x_{k.lower()}" for k in PLAIN}
    outputs = [
        {"name": f"y_{k.lower()}", "parameters": {"binary_data": k not in PLAIN}} for k in TYPES
    ]
    status, _, found = ask_binary(mirrors, "all", arrays, as_json=names, outputs=outputs)
    assert status == 200, found
    for kind in TYPES:
        sent = arrays[f"x_{kind.lower()}"][1]
        got = found[f"y_{kind.lower()}"]
        assert (sent.ravel().tolist() if kind in PLAIN else sent.tolist()) == (
            got if kind in PLAIN else got.tolist()
        ), kind


@pytest.mark.parametrize("width", [1, 5, 300])
def test_axes_that_vary_come_back_in_their_size(mirrors, width):
    arrays = {
        "x_int32": (Datatype.INT32, sample(Datatype.INT32, (3, width, 2))),
        "x_bytes": (Datatype.BYTES, sample(Datatype.BYTES, (3, width, 2))),
    }
    for parameters in ({}, {"binary_data_output": True}):
        status, _, found = ask_binary(mirrors, "free", arrays, parameters=parameters)
        assert status == 200, found
        for name, (_, sent) in arrays.items():
            got = np.asarray(found[name.replace("x_", "y_")]).reshape(sent.shape)
            assert np.array_equal(got, sent)


def test_metadata_tells_all_types_and_free_axes(mirrors):
    told = mirrors.get("/v2/models/free")[2]
    assert [one["shape"] for one in told["inputs"]] == [[-1, -1, 2]] * 2
    told = mirrors.get("/v2/models/all")[2]
    assert [one["datatype"] for one in told["outputs"]] == [kind.value for kind in TYPES]


def test_the_answer_is_json_unless_binary_was_asked_for(running):
    x = np.array([ROW], np.float32)
    _, headers, found = ask_binary(running, "delay", {"x": (Datatype.FP32, x)})
    assert headers["content-type"] == "application/json"
    assert found["probabilities"][1] == pytest.approx(expected(ROW), abs=1e-6)
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    asked = {"x": (Datatype.FP32, x)}
    _, headers, found = ask_binary(running, "delay", asked, outputs=outputs, id="b-1")
    assert list(found) == ["probabilities"]
    assert found["probabilities"][0, 1] == pytest.approx(expected(ROW), abs=1e-6)
    assert headers["falaj-release"] == running.release.id
    assert len(headers["falaj-request"]) == 32


def test_raw_data_alone(running):
    body = np.array([ROW, ROW], "<f4").tobytes()
    head = {"inference-header-content-length": "0"}
    status, headers, told = running.ask("POST", "/v2/models/delay/infer", body, head)
    assert status == 200
    found = outputs_of(headers, told)["probabilities"]
    assert found[:, 1] == pytest.approx([expected(ROW)] * 2, abs=1e-6)


@pytest.mark.parametrize("told", ["-1", "1, 1", "x", "", "9" * 13, "99"])
def test_a_header_that_is_no_size_is_refused(running, told):
    head = {"inference-header-content-length": told}
    status, _, answer = running.ask("POST", "/v2/models/delay/infer", b"{}", head)
    assert (status, answer["code"]) == (400, "serving.binary")
    status, _, answer = running.ask("POST", "/predict", b"{}", {**head})
    assert (status, answer["code"]) == (400, "serving.binary")


def test_large_binary_requests_answer_as_small_ones(running):
    x = np.tile(np.array(ROW, np.float32), (20_000, 1))
    x[:, 0] = np.arange(20_000) % 50
    asked = {"x": (Datatype.FP32, x)}
    status, _, found = ask_binary(running, "delay", asked, parameters={"binary_data_output": True})
    assert status == 200
    want = [expected((float(i % 50), *ROW[1:])) for i in range(50)]
    assert found["probabilities"][:50, 1] == pytest.approx(want, abs=1e-5)
    x[19_999, 2] = 99
    status, _, told = ask_binary(running, "delay", asked)
    assert (status, told["code"], told["field"], told["row"]) == (400, "serving.range", "hour", 19_999)  # fmt: skip


BODIES = {
    "V1, lists": ("/v1/models/delay:predict", {"instances": [list(ROW), [None, 5, 6]]}),
    "V1, objects": ("/v1/models/delay:predict", {"instances": [dict(zip(("dep_delay", "distance", "hour"), row, strict=True)) for row in (ROW, (None, 5, 6))]}),
    "split": ("/invocations", {"dataframe_split": {"columns": ["hour", "dep_delay", "distance"], "data": [[14, 30, 733], [6, None, 5]]}}),
    "records": ("/invocations", {"dataframe_records": [{"hour": 14, "dep_delay": 30, "distance": 733}, {"hour": 6, "distance": 5}]}),
    "inputs by name": ("/invocations", {"inputs": {"hour": [14, 6], "dep_delay": [30, None], "distance": [733, 5]}}),
    "inputs": ("/invocations?model=delay", {"inputs": [list(ROW), [None, 5, 6]]}),
    "CSV": ("/invocations", b"hour,dep_delay,distance\r\n14,30,733\r\n6,,5\r\n"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
def test_bodies_of_other_protocols_get_the_same_answer(running, path, body):
    status, headers, told = running.ask("POST", path, body)
    assert status == 200, told
    assert headers["falaj-release"] == running.release.id
    first, second = told["predictions"]
    assert first["probabilities"][1] == pytest.approx(expected(ROW), abs=1e-6)
    assert second["probabilities"][1] == pytest.approx(expected((None, 5, 6)), abs=1e-6)
    assert first["label"] == int(first["probabilities"][1] > 0.5)


REFUSED = {
    "V1 without instances": ("/v1/models/delay:predict", {}, "serving.missing"),
    "V1, too few values": ("/v1/models/delay:predict", {"instances": [[1, 2]]}, "serving.shape"),
    "V1, no list": ("/v1/models/delay:predict", {"instances": 7}, "serving.body"),
    "no form": ("/invocations", {}, "serving.body"),
    "two forms": ("/invocations", {"inputs": [], "instances": []}, "serving.body"),
    "split, ragged": ("/invocations", {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "serving.shape"),
    "split, a name twice": ("/invocations", {"dataframe_split": {"columns": ["a", "a"], "data": []}}, "serving.name"),
    "inputs of other lengths": ("/invocations", {"inputs": {"hour": [1], "distance": [1, 2]}}, "serving.shape"),
    "CSV, names alone": ("/invocations", b"hour,distance\n", "serving.body"),
    "CSV, ragged": ("/invocations", b"hour,distance\n1,2,3\n", "serving.shape"),
    "CSV, a word for a number": ("/invocations", b"hour,distance\nx,2\n", "serving.type"),
    "neither": ("/invocations", b"\xff\xfe", "serving.body"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "code"), REFUSED.values(), ids=REFUSED)
def test_bodies_of_other_protocols_that_are_refused(running, path, body, code):
    status, _, told = running.ask("POST", path, body)
    assert (status, told["code"]) == (400, code), told


def test_models_of_v1(running):
    assert running.get("/v1/models")[2] == {"models": ["delay"]}
    assert running.get("/v1/models/delay")[2] == {"name": "delay", "ready": True}
    assert running.get("/v1/models/x")[0] == 404
    assert running.post("/v1/models/x:predict", {"instances": [[1]]})[0] == 404
