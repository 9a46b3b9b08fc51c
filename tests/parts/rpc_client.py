"""A plain grpcio client of the Open Inference Protocol, with messages of our own making."""

from __future__ import annotations

import json

import grpc
import numpy as np

from falaj.facts.models import Datatype
from falaj.serving.raw import from_raw, to_raw
from falaj.serving.schema import DTYPES
from falaj.serving.wire.messages import protos
from falaj.serving.wire.rpc import CONTENTS

SERVICE = "inference.GRPCInferenceService"


class RpcClient:
    def __init__(self, address, credentials=None):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )

    def call(self, method, of=SERVICE, **fields):
        package = of.rpartition(".")[0]
        prefix = "HealthCheck" if of.endswith("Health") else method
        request = protos().message(f"{package}.{prefix}Request")(**fields)
        return self.send(method, request, of)

    def send(self, name, request, service=SERVICE, *, timeout=20, metadata=()):
        package = service.rpartition(".")[0]
        prefix = "HealthCheck" if service.endswith("Health") else name
        method = self.channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            response_deserializer=protos().message(f"{package}.{prefix}Response").FromString,
        )
        answer, call = method.with_call(request, timeout=timeout, metadata=metadata)
        self.trailing = dict(call.trailing_metadata())
        return answer

    def infer(self, model, arrays, *, raw=True, version="", outputs=(), **how):
        """arrays: name -> (datatype, array). Outputs by name; `self.answer` is the message."""
        request = infer_request(model, arrays, raw=raw, version=version, outputs=outputs)
        for key in ("id",):
            if key in how:
                setattr(request, key, how.pop(key))
        self.answer = self.send("ModelInfer", request, **how)
        return outputs_of(self.answer)

    def close(self):
        self.channel.close()


def infer_request(model, arrays, *, raw=True, version="", outputs=()):
    request = protos().message("inference.ModelInferRequest")(
        model_name=model, model_version=version
    )
    for name, (kind, array) in arrays.items():
        one = request.inputs.add(name=name, datatype=str(kind), shape=array.shape)
        if raw:
            request.raw_input_contents.append(to_raw(kind, array))
        else:
            values = array.ravel().tolist()
            if kind is Datatype.BYTES:
                values = [value.encode() for value in values]
            getattr(one.contents, CONTENTS[str(kind)]).extend(values)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def outputs_of(answer):
    found = {}
    for at, one in enumerate(answer.outputs):
        kind, shape = Datatype(one.datatype), list(one.shape)
        if answer.raw_output_contents:
            data = memoryview(answer.raw_output_contents[at])
            found[one.name] = from_raw(one.name, kind, shape, data)
        else:
            values = list(getattr(one.contents, CONTENTS[one.datatype]))
            if kind is Datatype.BYTES:
                values = [value.decode() for value in values]
            found[one.name] = np.array(values, DTYPES[kind]).reshape(shape)
    return found


def refused(act):
    """Code, words and trailing metadata of a call that has to fail."""
    try:
        act()
    except grpc.RpcError as error:
        told = dict(error.trailing_metadata() or ())
        if "falaj-findings-bin" in told:
            told["findings"] = json.loads(told["falaj-findings-bin"])
        return error.code().name, error.details(), told
    raise AssertionError("the call was answered")
