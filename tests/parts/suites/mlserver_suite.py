"""MLServer's types, messages and batch command, unchanged. Run inside the environment of the part clients.

Apart from Triton's client: both register the same messages under other file names, so that one
process cannot have the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import mlserver.grpc.dataplane_pb2 as mlserver_messages
import numpy as np
import pytest
from mlserver.codecs import NumpyCodec
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput
from servers import House, expected

ROWS = [(30.0, 733.0, 14.0), (1.0, 5.0, 6.0)]
X = np.array(ROWS, np.float32)
WANTED = [expected(row) for row in ROWS]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("mlserver"))
    made.apply(made.release("1"))
    client = made.start("--grpc-port", "0")
    client.grpc = made.started["grpc"]
    yield client
    made.close()


def mlserver_request(**more):
    given = NumpyCodec.encode_input("x", X)
    return InferenceRequest(inputs=[given], outputs=[RequestOutput(name="probabilities")], **more)


def test_mlserver_types_over_rest(served):
    body = mlserver_request(id="m-1").model_dump_json(exclude_none=True).encode()
    status, _, told = served.ask("POST", "/v2/models/delay/infer", body)
    assert status == 200
    answer = InferenceResponse.model_validate(told)
    assert answer.id == "m-1"
    found = NumpyCodec.decode_output(answer.outputs[0])
    assert found[:, 1] == pytest.approx(WANTED, abs=1e-6)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_mlserver_messages_over_grpc(served, raw):
    request = ModelInferRequestConverter.from_types(
        mlserver_request(id="m-2"), model_name="delay", model_version=None, use_raw=raw
    )
    with grpc.insecure_channel(served.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(mlserver_messages.ServerReadyRequest()).ready
        answer = ModelInferResponseConverter.to_types(stub.ModelInfer(request))
    assert (answer.id, answer.model_name) == ("m-2", "delay")
    found = NumpyCodec.decode_output(answer.outputs[0])
    assert found[:, 1] == pytest.approx(WANTED, abs=1e-6)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_the_batch_command_of_mlserver(served, tmp_path, binary):
    """`mlserver infer`: one request a line, in; one answer a line, out."""
    lines = [mlserver_request(id=str(at)).model_dump_json(exclude_none=True) for at in range(20)]
    (tmp_path / "in").write_text("\n".join(lines) + "\n")
    command = [
        *(
            Path(sys.executable).with_name("mlserver"),
            "infer",
            "-u",
            f"{served.host}:{served.port}",
        ),
        *("-m", "delay", "-i", tmp_path / "in", "-o", tmp_path / "out"),
        *(("-b",) if binary else ()),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert sorted(int(one["id"]) for one in told) == list(range(20))
    for one in told:
        assert one["outputs"][0]["data"][1::2] == pytest.approx(WANTED, abs=1e-6)
