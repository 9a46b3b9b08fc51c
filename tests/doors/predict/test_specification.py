"""Open Inference Protocol v2 by its text: what an answer must have, of which type, and nothing missing.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md. `?` marks
what the text calls optional. Sizes of types are those of its table.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from servers import House
from tensors import mirror

from falaj.facts.models import Datatype
from falaj.serving.raw import SIZES

TENSOR = {"name": str, "datatype": str, "shape": [int]}
TEXT = {  # path -> the JSON object that the text names
    "/v2/health/live": {"live": bool},
    "/v2/health/ready": {"live": bool},
    "/v2": {"name": str, "version": str, "extensions": [str]},
    "/v2/models/m": {"name": str, "versions?": [str], "platform": str, "inputs": [TENSOR], "outputs": [TENSOR]},
    "/v2/models/m/versions/1": {"name": str, "versions?": [str], "platform": str, "inputs": [TENSOR], "outputs": [TENSOR]},
    "/v2/models/m/ready": {"name": str, "ready": bool},
    "/v2/models/m/versions/1/ready": {"name": str, "ready": bool},
}  # fmt: skip
RESPONSE = {
    "model_name": str,
    "model_version?": str,
    "id?": str,
    "parameters?": dict,
    "outputs": [{**TENSOR, "parameters?": dict, "data": list}],
}
TABLE = {  # "Tensor Data Types": type -> size in bytes
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2,
    "INT32": 4, "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip


def holds(value, form, at="answer"):
    """Assert that a JSON value has the form of the text."""
    if isinstance(form, list):
        assert isinstance(value, list), at
        for index, one in enumerate(value):
            holds(one, form[0], f"{at}[{index}]")
    elif isinstance(form, dict):
        assert isinstance(value, dict), at
        for told, inner in form.items():
            name = told.removesuffix("?")
            if name in value or name == told:
                holds(value[name], inner, f"{at}.{name}")
    else:
        assert type(value) is form, f"{at}: {value!r}"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("specification"))
    schema, data = mirror(Datatype.UINT32, Datatype.BOOL)
    made.apply(
        made.release("1", onnx_bytes=data, schema=schema, model="m", task="other"), model="m"
    )
    yield made.start()
    made.close()


def request(**more):
    return {
        "inputs": [
            {"name": "x_uint32", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
            {"name": "x_bool", "shape": [2, 2], "datatype": "BOOL", "data": [True, False] * 2},
        ],
        **more,
    }


@pytest.mark.parametrize(("path", "form"), TEXT.items(), ids=TEXT)
def test_every_get_has_the_object_of_the_text(served, path, form):
    status, headers, told = served.get(path)
    assert (status, headers["content-type"]) == (200, "application/json")
    holds(told, form)


def test_variable_sizes_are_minus_one(served):
    told = served.get("/v2/models/m")[2]
    assert {tuple(one["shape"]) for one in told["inputs"] + told["outputs"]} == {(-1, 2)}


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer"])
def test_the_answer_has_the_object_of_the_text(served, path):
    status, headers, told = served.post(path, request(id="42"))
    assert (status, headers["content-type"]) == (200, "application/json")
    holds(told, RESPONSE)
    assert (told["id"], told["model_name"]) == ("42", "m")
    for one, sent in zip(told["outputs"], request()["inputs"], strict=True):
        assert (one["datatype"], one["shape"], one["data"]) == (sent["datatype"], sent["shape"], sent["data"])  # fmt: skip


def test_without_outputs_all_are_returned_and_with_them_those(served):
    assert [one["name"] for one in served.post("/v2/models/m/infer", request())[2]["outputs"]] == ["y_uint32", "y_bool"]  # fmt: skip
    told = served.post("/v2/models/m/infer", request(outputs=[{"name": "y_bool"}]))[2]
    assert [one["name"] for one in told["outputs"]] == ["y_bool"]


def test_parameters_that_the_text_does_not_know_are_let_through(served):
    body = request(parameters={"anything": 1, "priority": 7})
    body["inputs"][0]["parameters"] = {"mine": "x"}
    body["outputs"] = [{"name": "y_bool", "parameters": {"mine": True}}]
    assert served.post("/v2/models/m/infer", body)[0] == 200


def test_tensor_data_may_be_flat_or_nested(served):
    body = request()
    body["inputs"][0]["data"] = [[1, 2], [3, 4]]
    told = served.post("/v2/models/m/infer", body)[2]
    assert np.array(told["outputs"][0]["data"]).ravel().tolist() == [1, 2, 3, 4]


BAD = {
    "no such model": ("/v2/models/n/infer", request()),
    "no such model to tell of": ("/v2/models/n", None),
    "no JSON": ("/v2/models/m/infer", b"{"),
    "no inputs": ("/v2/models/m/infer", {}),
    "a type that is none": ("/v2/models/m/infer", {"inputs": [{**request()["inputs"][0], "datatype": "FLOAT"}]}),
    "data that is too short": ("/v2/models/m/infer", {"inputs": [{**request()["inputs"][0], "data": [1]}]}),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body"), BAD.values(), ids=BAD)
def test_a_failure_is_an_error_status_with_the_error_object(served, path, body):
    status, headers, told = served.ask("GET" if body is None else "POST", path, body)
    assert 400 <= status < 500
    assert headers["content-type"] == "application/json"
    holds(told, {"error": str})


def test_the_table_of_types_is_ours():
    assert {kind: SIZES[Datatype(kind)] for kind in TABLE} == TABLE
    assert {kind.value for kind in Datatype} == {*TABLE, "BYTES", "BF16"}


def test_binary_data_by_the_text_of_the_extension(served):
    """The example of the extension: two inputs as data, one output asked for as data."""
    body = request(outputs=[{"name": "y_uint32", "parameters": {"binary_data": True}}])
    for one, size in zip(body["inputs"], (16, 4), strict=True):
        del one["data"]
        one["parameters"] = {"binary_data_size": size}
    text = json.dumps(body).encode()
    data = np.array([1, 2, 3, 4], "<u4").tobytes() + b"\1\0\1\0"
    head = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }
    status, headers, told = served.ask("POST", "/v2/models/m/infer", text + data, head)
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    size = int(headers["inference-header-content-length"])
    (one,) = json.loads(told[:size])["outputs"]
    holds(one, {**TENSOR, "parameters": {"binary_data_size": int}})
    assert "data" not in one
    assert told[size:] == data[:16]
