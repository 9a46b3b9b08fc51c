"""KServe's inference clients, unchanged. Run inside the environment of the part kserve."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import pytest
from grpc import aio
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferOutput,
    InferRequest,
)
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from servers import House, expected

ROWS = [(30.0, 733.0, 14.0), (1.0, 5.0, 6.0)]
X = np.array(ROWS, np.float32)
WANTED = [expected(row) for row in ROWS]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("kserve"))
    release = made.release("1")
    made.apply(release)
    client = made.start("--grpc-port", "0")
    client.release, client.grpc = release, made.started["grpc"]
    yield client
    made.close()


def request(*, binary, answer=None, **more):
    given = InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X, binary_data=binary)
    outputs = None
    if answer is not None:
        outputs = [RequestedOutput("probabilities", {"binary_data": answer})]
    return InferRequest("delay", [given], "k-1", request_outputs=outputs, **more)


def probabilities(answer):
    found = {one.name: one for one in answer.outputs}["probabilities"]
    assert isinstance(found, InferOutput)
    return found.as_numpy()[:, 1]


def rest(protocol="v2"):
    return InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))


def test_rest_health(served):
    async def main():
        async with rest() as client:
            return [
                await client.is_server_live(served.url),
                await client.is_server_ready(served.url),
                await client.is_model_ready(served.url, "delay"),
            ]

    assert asyncio.run(main()) == [True, True, True]


@pytest.mark.parametrize("binary", [True, False], ids=["sent binary", "sent as JSON"])
@pytest.mark.parametrize("answer", [True, False, None], ids=["asked binary", "as JSON", "unsaid"])
def test_rest_v2(served, binary, answer):
    headers = {}

    async def main():
        async with rest() as client:
            asked = request(binary=binary, answer=answer)
            return await client.infer(
                served.url, asked, model_name="delay", response_headers=headers
            )

    found = asyncio.run(main())
    assert (found.id, found.model_name) == ("k-1", "delay")
    assert probabilities(found) == pytest.approx(WANTED, abs=1e-6)
    assert headers["falaj-release"] == served.release.id


def test_rest_v1(served):
    async def main():
        async with rest("v1") as client:
            body = {"instances": X.tolist()}
            assert await client.is_model_ready(served.url, "delay")
            return await client.infer(served.url, body, model_name="delay")

    found = [one["probabilities"][1] for one in asyncio.run(main())["predictions"]]
    assert found == pytest.approx(WANTED, abs=1e-6)


def test_rest_says_what_does_not_fit(served):
    async def main():
        async with rest() as client:
            body = {
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, -1, 3]}]
            }
            await client.infer(served.url, body, model_name="delay")

    with pytest.raises(httpx.HTTPStatusError, match="distance"):
        asyncio.run(main())


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "typed"])
def test_grpc(served, binary):
    async def main():
        async with InferenceGRPCClient(served.grpc) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("delay")
            return await client.infer(request(binary=binary))

    found = asyncio.run(main())
    assert (found.id, found.model_name) == ("k-1", "delay")
    assert probabilities(found) == pytest.approx(WANTED, abs=1e-6)


def test_grpc_says_what_does_not_fit(served):
    async def main():
        async with InferenceGRPCClient(served.grpc, retries=0) as client:
            given = InferInput("x", [1, 3], "FP32", data=[1.0, -1.0, 3.0])
            await client.infer(InferRequest("delay", [given]))

    with pytest.raises(aio.AioRpcError, match="distance"):
        asyncio.run(main())
