"""Open Inference Protocol v2, JSON: requests and metadata.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
One parser for every size: of a doubled key the last one counts, always.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from falaj.base.time import parse_instant
from falaj.base.time import text as time_text
from falaj.facts.models import Schema, Tensor
from falaj.serving.schema import Finding, Reader, Refusal, Rows

__all__ = ["Call", "decode", "decode_rows", "event_time", "metadata", "parse"]


class Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw
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
    """One decoded request: what to compute, which outputs to show, when it is about."""

    rows: Rows
    id: str | None = None
    outputs: tuple[str, ...] = ()
    event_time: str = ""


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


def decode(reader: Reader, body: bytes) -> Call:
    """Read an inference request. Raises Refusal."""
    asked: Body = parse(BODY, body)
    if not asked.inputs:
        raise Refusal(Finding("serving.missing", "inputs: got none", "inputs"))
    shown: tuple[str, ...] = ()
    if asked.outputs:
        shown = tuple(output.name for output in asked.outputs)
        known = [tensor.name for tensor in reader.schema.outputs]
        for name in shown:
            if name not in known:
                words = f"unknown output {name[:60]!r}; this model gives {', '.join(known)}"
                raise Refusal(Finding("serving.name", words, name[:60]))
        for output in asked.outputs:
            _json_only(output.name, output.parameters)
    if asked.id is not None and len(asked.id) > 256:
        raise Refusal(Finding("serving.id", "id: longer than 256 characters", "id"))
    given = []
    for one in asked.inputs:
        if one.parameters:
            _json_only(one.name, one.parameters)
        given.append((one.name, one.datatype, one.shape, bytes(one.data)))
    when = event_time(asked.parameters) if asked.parameters else ""
    return Call(rows=reader.tensors(given), id=asked.id, outputs=shown, event_time=when)


def decode_rows(reader: Reader, body: bytes) -> Call:
    """Read `{"rows": [{column: value}]}`. Raises Refusal."""
    asked: NamedRows = parse(NAMED_ROWS, body)
    when = event_time(asked.parameters) if asked.parameters else ""
    return Call(rows=reader.rows(asked.rows), event_time=when)


def event_time(parameters: dict[str, Any]) -> str:
    """Time the prediction is about, in UTC, from request parameter `event_time`; or nothing."""
    if parameters.get("binary_data_output"):
        raise Refusal(Finding("serving.binary", "binary tensors are not offered by this server"))
    words = parameters.get("event_time")
    if words is None:
        return ""
    try:
        return time_text(parse_instant(words))
    except (TypeError, ValueError, OverflowError):
        text = "parameters.event_time: expected a time such as 2026-11-23T10:00:00Z"
        raise Refusal(Finding("serving.event-time", text, "event_time")) from None


def metadata(name: str, versions: list[str], schema: Schema) -> dict[str, Any]:
    """Model metadata. Columns of an input, which the protocol has no word for, are parameters."""
    return {
        "name": name,
        "versions": versions,
        "platform": "onnx_onnxv1",
        "inputs": [_tensor(tensor) for tensor in schema.inputs],
        "outputs": [_tensor(tensor) for tensor in schema.outputs],
    }


def _json_only(name: str, parameters: dict[str, Any] | None) -> None:
    if parameters and ("binary_data_size" in parameters or parameters.get("binary_data")):
        words = f"{name[:60]}: binary tensors are not offered by this server"
        raise Refusal(Finding("serving.binary", words, name[:60]))


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
