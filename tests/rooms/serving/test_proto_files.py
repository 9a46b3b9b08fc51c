"""The reader of .proto files: descriptors that protobuf takes, and refusals."""

from __future__ import annotations

import pytest

from falaj.serving.wire.messages import FILES, protos, read_proto


def test_numbers_and_types_are_those_of_the_specification():
    request = protos().message("inference.ModelInferRequest").DESCRIPTOR
    assert {field.name: field.number for field in request.fields} == {
        "model_name": 1,
        "model_version": 2,
        "id": 3,
        "parameters": 4,
        "inputs": 5,
        "outputs": 6,
        "raw_input_contents": 7,
    }
    contents = protos().message("inference.InferTensorContents").DESCRIPTOR
    assert [field.name for field in sorted(contents.fields, key=lambda f: f.number)] == [
        "bool_contents",
        "int_contents",
        "int64_contents",
        "uint_contents",
        "uint64_contents",
        "fp32_contents",
        "fp64_contents",
        "bytes_contents",
    ]
    parameter = protos().message("inference.InferParameter")
    assert parameter(bool_param=True).WhichOneof("parameter_choice") == "bool_param"


def test_maps_enums_streams_and_nested_messages():
    made = protos().message("inference.ModelInferRequest")(model_name="m")
    made.parameters["a"].int64_param = 7
    made.inputs.add(name="x", shape=[1, -1]).parameters["b"].string_param = "c"
    again = type(made).FromString(made.SerializeToString())
    assert again == made
    assert again.parameters["a"].int64_param == 7
    status = protos().message("grpc.health.v1.HealthCheckResponse")(status="SERVING")
    assert status.status == 1
    service = protos().pool.FindServiceByName("grpc.reflection.v1.ServerReflection")
    method = service.methods_by_name["ServerReflectionInfo"]
    assert (method.client_streaming, method.server_streaming) == (True, True)


def test_all_files_are_there():
    assert {f"{name}.proto" for name in FILES} <= protos().files.keys()


REFUSED = {
    "another syntax": 'syntax = "proto2";',
    "an import": 'syntax = "proto3"; import "x.proto";',
    "an unknown type": 'syntax = "proto3"; package a; message M { Nobody n = 1; }',
    "a sign that does not belong": 'syntax = "proto3"; package a; message M { int32 n = 1; } %',
    "the end in the middle": 'syntax = "proto3"; package a; message M { int32 n = ',
    "an option": 'syntax = "proto3"; package a; message M { int32 n = 1 [deprecated = true]; }',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_the_reader_does_not_know_is_refused(text):
    with pytest.raises(ValueError):
        read_proto("x.proto", text)
