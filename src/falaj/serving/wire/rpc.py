"""Open Inference Protocol v2 over gRPC: ModelInfer's request and answer, raw or typed."""

from __future__ import annotations

from typing import Any, Final

from falaj.facts.models import Datatype
from falaj.serving.loading import Loaded, Outputs
from falaj.serving.raw import to_raw
from falaj.serving.refusals import Finding, Refusal
from falaj.serving.schema import Given, Reader
from falaj.serving.wire.messages import protos
from falaj.serving.wire.v2 import Call, event_time

__all__ = ["CONTENTS", "decode", "encode", "metadata"]

MAX_AXES: Final = 32
# Datatype -> field of InferTensorContents. FP16 and BF16 have none: they are raw.
CONTENTS: Final[dict[str, str]] = {
    Datatype.BOOL.value: "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    Datatype.INT64.value: "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    Datatype.UINT64.value: "uint64_contents",
    Datatype.FP32.value: "fp32_contents",
    Datatype.FP64.value: "fp64_contents",
    Datatype.BYTES.value: "bytes_contents",
}


def decode(reader: Reader, message: Any, json_size: int = -1) -> Call:
    """Read a ModelInferRequest. Raises Refusal. `call.binary`: the answer's data is raw, too."""
    del json_size
    raw = message.raw_input_contents
    inputs = message.inputs
    if not inputs:
        raise Refusal(Finding("serving.missing", "inputs: got none", "inputs"))
    if raw and len(raw) != len(inputs):
        words = f"raw_input_contents: got {len(raw)} for {len(inputs)} inputs"
        raise Refusal(Finding("serving.binary", words))
    given: list[Given] = []
    for at, one in enumerate(inputs):
        shape = list(one.shape)
        if len(shape) > MAX_AXES:
            words = f"{one.name[:60]}: shape: more than {MAX_AXES} axes"
            raise Refusal(Finding("serving.shape", words, one.name[:60]))
        if one.parameters:
            _no_others(one.name, one.parameters)
        if not raw:
            given.append((one.name, one.datatype, shape, _typed(one)))
        elif one.HasField("contents") and one.contents.ListFields():
            # Empty contents beside raw data are what MLServer's client sends.
            words = f"{one.name[:60]}: got raw and typed contents, expected one of them"
            raise Refusal(Finding("serving.binary", words, one.name[:60]))
        else:
            given.append((one.name, one.datatype, shape, memoryview(raw[at])))
    shown: tuple[str, ...] = ()
    if message.outputs:
        known = [tensor.name for tensor in reader.schema.outputs]
        for output in message.outputs:
            if output.name not in known:
                words = f"unknown output {output.name[:60]!r}; this model gives {', '.join(known)}"
                raise Refusal(Finding("serving.name", words, output.name[:60]))
            if output.parameters:
                _no_others(output.name, output.parameters)
        shown = tuple(output.name for output in message.outputs)
    when = ""
    if message.parameters and "event_time" in message.parameters:
        when = event_time({"event_time": message.parameters["event_time"].string_param})
    id_ = message.id
    if len(id_) > 256:
        raise Refusal(Finding("serving.id", "id: longer than 256 characters", "id"))
    # Half-precision outputs have no typed form, so that such an answer is raw as a whole.
    binary = ("*",) if raw or any(not shown or name in shown for name in reader.halves) else ()
    return Call(
        rows=reader.tensors(given), id=id_ or None, outputs=shown, event_time=when, binary=binary
    )


def encode(engine: Loaded, call: Call, outputs: Outputs, request: str) -> bytes:
    """Write a ModelInferResponse."""
    del request
    manifest = engine.manifest
    answer = protos().message("inference.ModelInferResponse")(
        model_name=manifest.model, model_version=manifest.version, id=call.id or ""
    )
    raw = []
    for at, tensor in enumerate(engine.outputs):
        if call.outputs and tensor.name not in call.outputs:
            continue
        array = outputs.array(at)
        kind = tensor.datatype.value
        told = answer.outputs.add(name=tensor.name, datatype=kind, shape=array.shape)
        if call.binary:
            raw.append(to_raw(tensor.datatype, array))
        else:
            values = array.ravel().tolist()
            if tensor.datatype is Datatype.BYTES:
                values = [v if isinstance(v, bytes) else str(v).encode() for v in values]
            getattr(told.contents, CONTENTS[kind]).extend(values)
    if raw:
        answer.raw_output_contents.extend(raw)
    data: bytes = answer.SerializeToString()
    return data


def metadata(name: str, versions: list[str], engine: Loaded, platform: str) -> Any:
    """ModelMetadataResponse of a model."""
    told = protos().message("inference.ModelMetadataResponse")(
        name=name, versions=versions, platform=platform
    )
    for tensors, field in (
        (engine.manifest.schema.inputs, told.inputs),
        (engine.manifest.schema.outputs, told.outputs),
    ):
        for tensor in tensors:
            field.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
    return told


def _typed(one: Any) -> list[Any]:
    """Values of the field that belongs to the type of the input; no other may be filled."""
    name = one.name[:60]
    wanted = CONTENTS.get(one.datatype)
    if wanted is None:
        words = f"{name}: {one.datatype[:20]} travels as raw contents only"
        raise Refusal(Finding("serving.binary", words, name))
    filled = [field.name for field, _ in one.contents.ListFields()]
    if filled and filled != [wanted]:
        words = f"{name}: contents: got {', '.join(filled)}, expected {wanted} for {one.datatype}"
        raise Refusal(Finding("serving.type", words, name))
    values = list(getattr(one.contents, wanted))
    if one.datatype != "BYTES":
        return values
    try:
        return [str(value, "utf-8") for value in values]
    except UnicodeDecodeError:
        words = f"{name}: got bytes that are not UTF-8"
        raise Refusal(Finding("serving.type", words, name)) from None


def _no_others(name: str, parameters: Any) -> None:
    for key in ("classification", "shared_memory_region"):
        if key in parameters:
            words = f"{name[:60]}: {key} is not offered by this server"
            raise Refusal(Finding("serving.extension", words, name[:60]))
