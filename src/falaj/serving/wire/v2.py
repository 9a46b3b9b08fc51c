"""Open Inference Protocol v2 over REST: requests as JSON, with binary tensors behind it; metadata.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and the
extension `binary_tensor_data` of Triton. Header `Inference-Header-Content-Length` decides whether
there is binary data, never the content type. One parser for every size: of a doubled key the last
one counts, always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from falaj.base.time import parse_instant
from falaj.base.time import text as time_text
from falaj.facts.models import Datatype, Schema, Tensor
from falaj.serving.raw import SIZES
from falaj.serving.schema import Finding, Given, Reader, Refusal, Rows

__all__ = ["Call", "decode", "decode_rows", "event_time", "metadata", "parse", "platform", "wanted"]

ALL: Final = "*"  # in Call.binary: every output that is not named otherwise
MAX_AXES: Final = 32
# What would change the meaning of an answer is refused, not ignored.
OTHERS: Final = frozenset({"classification", "shared_memory_region"})


class Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class Output(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class Body(msgspec.Struct, gc=False):
    inputs: list[Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Output] | None = None


class NamedRows(msgspec.Struct, gc=False):
    rows: list[dict[str, Any]]
    parameters: dict[str, Any] | None = None


class Call(msgspec.Struct, gc=False):
    """One decoded request: what to compute, which outputs to show and how, when it is about.

    binary: names of outputs to send as binary data, `*` for all that are not in `json`.
    json_size: bytes of JSON in the answer, set where binary data follows it; else -1. head: lines of
    the answer's head in place of JSON's content type.
    """

    rows: Rows
    id: str | None = None
    outputs: tuple[str, ...] = ()
    event_time: str = ""
    binary: tuple[str, ...] = ()
    json: tuple[str, ...] = ()
    json_size: int = -1
    head: bytes = b""


Fill = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]  # looks up what rows do not bring
BODY: Final = msgspec.json.Decoder(Body)
NAMED_ROWS: Final = msgspec.json.Decoder(NamedRows)


def parse(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Read JSON of a known form. Raises Refusal in words that name the place."""
    try:
        return decoder.decode(body)
    except RecursionError:
        raise Refusal(Finding("serving.body", "body: nested too deeply")) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(Finding("serving.body", f"body: {error}")) from None


def decode(reader: Reader, body: bytes, json_size: int = -1) -> Call:
    """Read an inference request. Raises Refusal.

    json_size: what header `Inference-Header-Content-Length` says, -1 without one. 0 stands for the
    raw data of the only input.
    """
    rest = None
    if json_size >= 0:
        if json_size == 0:
            return _raw_only(reader, body)
        if json_size > len(body):
            words = f"inference-header-content-length: got {json_size} of {len(body)} bytes"
            raise Refusal(Finding("serving.binary", words))
        rest = memoryview(body)[json_size:]
        body = body[:json_size]
    asked: Body = parse(BODY, body)
    if not asked.inputs:
        raise Refusal(Finding("serving.missing", "inputs: got none", "inputs"))
    if asked.id is not None and len(asked.id) > 256:
        raise Refusal(Finding("serving.id", "id: longer than 256 characters", "id"))
    # Most requests ask for everything, as JSON: they do not pay for what others may ask.
    usual = not (asked.outputs or asked.parameters or reader.halves)
    if not usual:
        shown, binary, plain = wanted(reader, asked.outputs, asked.parameters)
    given: list[Given] = []
    at = 0
    for one in asked.inputs:
        parameters = one.parameters
        if len(one.shape) > MAX_AXES:
            words = f"{one.name[:60]}: shape: more than {MAX_AXES} axes"
            raise Refusal(Finding("serving.shape", words, one.name[:60]))
        if parameters and "binary_data_size" in parameters:
            data: bytes | memoryview = _slice(one, parameters["binary_data_size"], rest, at)
            at += len(data)
        else:
            data = bytes(one.data)
            if not data:
                words = f"{one.name[:60]}: data: missing"
                raise Refusal(Finding("serving.missing", words, one.name[:60]))
            if parameters:
                _no_others(one.name, parameters)
        given.append((one.name, one.datatype, one.shape, data))
    if rest is not None and at != len(rest):
        words = (
            f"binary data: got {len(rest)} bytes, expected {at} by binary_data_size of the inputs"
        )
        raise Refusal(Finding("serving.binary", words))
    if usual:
        return Call(reader.tensors(given), asked.id)
    when = event_time(asked.parameters) if asked.parameters else ""
    return Call(
        rows=reader.tensors(given),
        id=asked.id,
        outputs=shown,
        event_time=when,
        binary=binary,
        json=plain,
    )


def wanted(
    reader: Reader, outputs: list[Output] | None, parameters: dict[str, Any] | None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Outputs to show, of these as binary data, and as JSON though all others are binary."""
    all_binary = False
    if parameters:
        all_binary = _flag("parameters", parameters.get("binary_data_output", False))
    shown: tuple[str, ...] = ()
    binary: tuple[str, ...] = (ALL,) if all_binary else ()
    plain: list[str] = []
    if outputs:
        shown = tuple(output.name for output in outputs)
        known = [tensor.name for tensor in reader.schema.outputs]
        for output in outputs:
            if output.name not in known:
                words = f"unknown output {output.name[:60]!r}; this model gives {', '.join(known)}"
                raise Refusal(Finding("serving.name", words, output.name[:60]))
            if output.parameters:
                _no_others(output.name, output.parameters)
                asked = output.parameters.get("binary_data")
                if asked is not None and _flag(output.name, asked):
                    binary = (*binary, output.name)
                elif asked is not None:
                    plain.append(output.name)
    for name in reader.halves:
        if (not shown or name in shown) and (
            name in plain or not (ALL in binary or name in binary)
        ):
            words = f"{name}: its type travels as binary data only: ask with binary_data"
            raise Refusal(Finding("serving.binary", words, name))
    return shown, binary, tuple(plain)


def decode_rows(
    reader: Reader, body: bytes, json_size: int = -1, *, fill: Fill | None = None
) -> Call:
    """Read `{"rows": [{column: value}]}`. Raises Refusal."""
    no_binary(json_size)
    asked: NamedRows = parse(NAMED_ROWS, body)
    when = event_time(asked.parameters) if asked.parameters else ""
    rows = fill(asked.rows) if fill is not None else asked.rows
    return Call(rows=reader.rows(rows), event_time=when)


def event_time(parameters: dict[str, Any]) -> str:
    """Time the prediction is about, in UTC, from request parameter `event_time`; or nothing."""
    words = parameters.get("event_time")
    if words is None:
        return ""
    try:
        return time_text(parse_instant(words))
    except (TypeError, ValueError, OverflowError):
        text = "parameters.event_time: expected a time such as 2026-11-23T10:00:00Z"
        raise Refusal(Finding("serving.event-time", text, "event_time")) from None


def no_binary(json_size: int) -> None:
    """Bodies other than V2's have no binary data. Raises Refusal."""
    if json_size >= 0:
        words = "inference-header-content-length: only /v2 takes binary tensors"
        raise Refusal(Finding("serving.binary", words))


def platform(runtime: str) -> str:
    """What the protocol calls `<project>_<format>`."""
    return "onnx_onnxv1" if runtime == "onnx" else f"falaj_{runtime}"


def metadata(
    name: str, versions: list[str], schema: Schema, platform: str = "onnx_onnxv1"
) -> dict[str, Any]:
    """Model metadata. Columns of an input, which the protocol has no word for, are parameters."""
    return {
        "name": name,
        "versions": versions,
        "platform": platform,
        "inputs": [_tensor(tensor) for tensor in schema.inputs],
        "outputs": [_tensor(tensor) for tensor in schema.outputs],
    }


def _slice(one: Input, size: Any, rest: memoryview | None, at: int) -> memoryview:
    """Binary data of one input. Sizes must add up to the body; this one lies at `at`."""
    name = one.name[:60]
    if rest is None:
        words = f"{name}: binary_data_size without header Inference-Header-Content-Length"
        raise Refusal(Finding("serving.binary", words, name))
    if bytes(one.data):
        words = f"{name}: got data and binary_data_size, expected one of them"
        raise Refusal(Finding("serving.binary", words, name))
    if type(size) is not int or not 0 <= size <= len(rest) - at:
        words = f"{name}: binary_data_size: got {str(size)[:40]}, there are {len(rest) - at} bytes"
        raise Refusal(Finding("serving.binary", words, name))
    return rest[at : at + size]


def _raw_only(reader: Reader, body: bytes) -> Call:
    """Read a body that is the data of the only input; its one free axis follows from the size.

    The answer is binary, too: there is no JSON that could ask for anything else.
    """
    inputs = reader.schema.inputs
    if len(inputs) != 1 or inputs[0].datatype is Datatype.BYTES:
        words = "raw data stands for the only input of a model, and not for text"
        raise Refusal(Finding("serving.binary", words))
    tensor = inputs[0]
    each = SIZES[tensor.datatype]
    for size in tensor.shape:
        each *= abs(size)
    rows, left = divmod(len(body), each)
    if tensor.shape.count(-1) > 1 or left or rows == 0 or (rows != 1 and -1 not in tensor.shape):
        words = f"{tensor.name}: got {len(body)} bytes for {list(tensor.shape)}, {each} a row"
        raise Refusal(Finding("serving.shape", words, tensor.name))
    shape = [rows if size == -1 else size for size in tensor.shape]
    read = reader.tensors([(tensor.name, tensor.datatype.value, shape, memoryview(body))])
    return Call(rows=read, binary=(ALL,))


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        words = f"{name[:60]}: binary data is asked for by true or false, got {str(value)[:40]!r}"
        raise Refusal(Finding("serving.binary", words, name[:60]))
    return value


def _no_others(name: str, parameters: dict[str, Any]) -> None:
    found = OTHERS & parameters.keys()
    if found:
        words = f"{name[:60]}: {min(found)} is not offered by this server"
        raise Refusal(Finding("serving.extension", words, name[:60]))


def _tensor(tensor: Tensor) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
    }
    if tensor.columns:
        told["parameters"] = {
            "columns": [
                {
                    key: value
                    for key, value in msgspec.to_builtins(column).items()
                    if value not in (None, "")
                }
                for column in tensor.columns
            ]
        }
    return told
