"""Clients of others, unchanged: Triton's over HTTP and gRPC, grpcio's own health and reflection.

Run inside the environment of the part clients.
"""

from __future__ import annotations

import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.http.aio
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from servers import House, expected
from tensors import mirror, sample

from falaj.facts.models import Datatype

ROWS = [(30.0, 733.0, 14.0), (1.0, 5.0, 6.0)]
X = np.array(ROWS, np.float32)
WANTED = [expected(row) for row in ROWS]
# Types that Triton's client takes from NumPy.
TYPES = [kind for kind in Datatype if kind is not Datatype.BF16]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("clients"))
    one = made.release("1")
    schema, data = mirror(*TYPES)
    two = made.release("1", onnx_bytes=data, schema=schema, model="all", task="other")
    for release in (one, two):
        made.place(release)
    made.write(made.plan(one, more=made.plan(two, model="all").models.items()))
    client = made.start("--grpc-port", "0", "--grpc-reflection")
    client.release, client.grpc = one, made.started["grpc"]
    yield client
    made.close()


@pytest.fixture(params=["http", "grpc"])
def triton(request, served):
    module = getattr(tritonclient, request.param)
    address = f"{served.host}:{served.port}" if request.param == "http" else served.grpc
    return module, module.InferenceServerClient(address)


def test_triton_asks_for_health_and_metadata(triton):
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("delay")
    assert client.is_model_ready("delay", "1")
    told = client.get_server_metadata()
    told = told if isinstance(told, dict) else {"name": told.name, "extensions": told.extensions}
    assert told["name"] == "falaj"
    assert list(told["extensions"]) == ["binary_tensor_data"]
    told = client.get_model_metadata("delay")
    inputs = told["inputs"] if isinstance(told, dict) else told.inputs
    shape = inputs[0]["shape"] if isinstance(told, dict) else inputs[0].shape
    assert list(shape) == [-1, 3]
    with pytest.raises(module.InferenceServerException, match="no model"):
        client.get_model_metadata("nobody")


@pytest.mark.parametrize("version", ["", "1"])
def test_triton_infers(triton, version):
    module, client = triton
    given = module.InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X)
    asked = [module.InferRequestedOutput("probabilities")]
    answer = client.infer("delay", [given], version, outputs=asked, request_id="t-1")
    assert answer.as_numpy("probabilities")[:, 1] == pytest.approx(WANTED, abs=1e-6)
    assert answer.as_numpy("label") is None
    response = answer.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "t-1"
    every = client.infer("delay", [given])
    assert every.as_numpy("label").tolist() == [int(p > 0.5) for p in WANTED]


@pytest.mark.parametrize("ask", [True, False], ids=["sent binary", "sent as JSON"])
@pytest.mark.parametrize("answer", [True, False], ids=["asked binary", "asked as JSON"])
def test_triton_over_http_in_every_form(served, ask, answer):
    module = tritonclient.http
    client = module.InferenceServerClient(f"{served.host}:{served.port}")
    given = module.InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X, binary_data=ask)
    asked = [module.InferRequestedOutput("probabilities", binary_data=answer)]
    found = client.infer("delay", [given], outputs=asked).as_numpy("probabilities")
    assert found[:, 1] == pytest.approx(WANTED, abs=1e-6)


def test_triton_sends_every_type(triton):
    module, client = triton
    arrays, inputs = {}, []
    for kind in TYPES:
        array = sample(kind, (3, 2))
        if kind is Datatype.BYTES:
            # Triton's client cuts text at its zeros.
            array = np.array([["a", "دبي"], ["", "x" * 300], ["b", "c"]], np.object_)
        arrays[kind] = array
        one = module.InferInput(f"x_{kind.lower()}", [3, 2], kind.value)
        one.set_data_from_numpy(array)
        inputs.append(one)
    answer = client.infer("all", inputs)
    for kind, array in arrays.items():
        found = answer.as_numpy(f"y_{kind.lower()}")
        if kind is Datatype.BYTES:
            found = np.array([cell.decode() for cell in found.ravel()], np.object_).reshape(3, 2)
        assert np.array_equal(found, array), kind


def test_triton_hears_what_does_not_fit(triton):
    module, client = triton
    given = module.InferInput("x", [1, 3], "FP32")
    given.set_data_from_numpy(np.array([[1, -1, 3]], np.float32))
    with pytest.raises(module.InferenceServerException, match=r"distance: row 0: got -1\.0"):
        client.infer("delay", [given])
    # What is live comes from the plan only.
    with pytest.raises(module.InferenceServerException):
        client.load_model("delay")


def test_triton_asks_many_at_once(served):
    async def main():
        module = tritonclient.http.aio
        async with module.InferenceServerClient(f"{served.host}:{served.port}") as client:
            given = module.InferInput("x", list(X.shape), "FP32")
            given.set_data_from_numpy(X)
            found = await asyncio.gather(*(client.infer("delay", [given]) for _ in range(50)))
        return [answer.as_numpy("probabilities")[:, 1] for answer in found]

    for found in asyncio.run(main()):
        assert found == pytest.approx(WANTED, abs=1e-6)


def test_triton_asks_over_grpc_without_waiting(served):
    client = tritonclient.grpc.InferenceServerClient(served.grpc)
    given = tritonclient.grpc.InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X)
    heard = queue.Queue()
    for _ in range(50):
        client.async_infer("delay", [given], lambda result, error: heard.put((result, error)))
    for _ in range(50):
        result, error = heard.get(timeout=20)
        assert error is None
        assert result.as_numpy("probabilities")[:, 1] == pytest.approx(WANTED, abs=1e-6)
    client.close()


def test_health_by_grpcios_own_messages(served):
    with grpc.insecure_channel(served.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == 1
        first = next(iter(stub.Watch(health_pb2.HealthCheckRequest(service="delay"))))
    assert first.status == health_pb2.HealthCheckResponse.SERVING


def test_a_tool_that_knows_no_messages(served):
    """What grpcurl does: services and messages by reflection alone, then a call."""
    with grpc.insecure_channel(served.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        pool = descriptor_pool.DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.methods_by_name["ModelInfer"]
        request = message_factory.GetMessageClass(method.input_type)(model_name="delay")
        one = request.inputs.add(name="x", datatype="FP32", shape=X.shape)
        one.contents.fp32_contents.extend(X.ravel().tolist())
        answer = channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )(request)
    found = list(answer.outputs[1].contents.fp32_contents)[1::2]
    assert found == pytest.approx(WANTED, abs=1e-6)
