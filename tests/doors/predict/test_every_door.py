"""Models of several runtimes give the same answers through every door, to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import runtime_models as models
from rpc_client import RpcClient
from servers import House

import parts
from falaj.base.sandbox import absent
from falaj.facts.models import Datatype
from falaj.ports.rows import Block
from falaj.serving.runtimes.choice import maker
from falaj.serving.score import Scorer

RUNTIMES = ("linear", "linear, three classes", "python")


def word(name):
    return name.replace(", ", "-").replace(" ", "-")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    if absent():
        parts.absent("bubblewrap", absent())
    house = House(tmp_path_factory.mktemp("doors"))
    made = {}
    for name in RUNTIMES:
        runtime, files, schema, _ = models.made(name)
        made[word(name)] = house.release(
            "1", model=word(name), schema=schema, runtime=runtime, files=files, task="other"
        )
    for one in made.values():
        house.place(one)
    (first, one), *rest = made.items()
    more = {}
    for name, other in rest:
        more |= house.plan(other, model=name).models
    house.write(house.plan(one, model=first, more=more.items()))
    client = house.start("--grpc-port", "0")
    client.rpc = RpcClient(house.started["grpc"])
    yield client
    client.rpc.close()
    client.close()
    house.close()


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("name", RUNTIMES)
def test_the_same_answer_through_every_door(served, tmp_path, name, rows):
    runtime, files, schema, expected = models.made(name)
    x = models.rows(rows)[0].astype(np.float32)
    model, width = word(name), schema.outputs[0].shape[1]
    data = [None if np.isnan(v) else float(v) for v in x.ravel()]
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": data}
    status, _, told = served.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert status == 200, told
    by_json = np.array(told["outputs"][0]["data"], np.float32).reshape(rows, width)
    answers = {
        "binary": in_binary(served, model, x).reshape(rows, width),
        "grpc": served.rpc.infer(model, {"x": (Datatype.FP32, x)})["p"].reshape(rows, width),
        "batch": batch(tmp_path, runtime, files, schema, x),
    }
    for door, found in answers.items():
        assert np.array_equal(found, by_json), door
    assert np.abs(models.one_column(by_json) - models.one_column(expected(x))).max() <= 1e-5


def in_binary(served, model, x):
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    tensor["parameters"] = {"binary_data_size": x.nbytes}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(asked).encode()
    head = {"inference-header-content-length": str(len(text))}
    body = text + x.tobytes()
    status, headers, told = served.ask("POST", f"/v2/models/{model}/infer", body, head)
    assert status == 200, told
    return np.frombuffer(told[int(headers["inference-header-content-length"]) :], "<f4")


def batch(tmp_path, runtime, files, schema, x):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    columns = {f"c{at}": x[:, at] for at in range(x.shape[1])}
    nulls = {name: np.isnan(column) for name, column in columns.items() if np.isnan(column).any()}
    found = Scorer(schema, maker(runtime)(tmp_path, schema)).score(
        Block(len(x), columns, nulls, {}, None)
    )
    assert found.reasons == {}
    return np.stack(list(found.outputs.values()), axis=1)
