"""The description of this server for machines: OpenAPI 3.1, from the schemas of what is live."""

from __future__ import annotations

import math
from typing import Any, Final

from falaj.doors.predict.staging import Live
from falaj.facts.models import Column, Datatype, Tensor
from falaj.serving.raw import WIRE
from falaj.serving.values import FLOATS, LARGEST

__all__ = ["describe"]

BOUNDS: Final = {
    Datatype.UINT8: (0, 2**8 - 1),
    Datatype.UINT16: (0, 2**16 - 1),
    Datatype.UINT32: (0, 2**32 - 1),
    Datatype.UINT64: (0, 2**64 - 1),
    Datatype.INT8: (-(2**7), 2**7 - 1),
    Datatype.INT16: (-(2**15), 2**15 - 1),
    Datatype.INT32: (-(2**31), 2**31 - 1),
    Datatype.INT64: (-(2**63), 2**63 - 1),
}
JSON: Final = "application/json"
ERROR: Final = {"$ref": "#/components/schemas/Error"}
HEADERS: Final = {
    "falaj-release": {
        "description": "Id of the release that answered.",
        "schema": {"type": "string"},
    },
    "falaj-request": {
        "description": "Name of this answer; ground truth refers to it.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
}
REFUSALS: Final = {
    "400": "The request does not fit: all findings, at most twenty.",
    "404": "No such model or version.",
    "413": "The body is too large.",
    "415": "The body is in a coding that is not read here.",
    "431": "The head is too large.",
    "500": "The model failed on this request.",
    "503": "Overload, draining or isolated; `retry-after` says when.",
    "504": "No answer in time.",
}


def describe(models: dict[str, Live], version: str) -> dict[str, Any]:
    """Build the document. Addresses of models are spelled out, so that each has its own schema."""
    paths: dict[str, Any] = {
        "/v2": {"get": _get("server", "Name, version and extensions", _object(
            name={"type": "string"},
            version={"type": "string"},
            extensions={"type": "array", "items": {"type": "string"}},
        ))},
        "/v2/health/live": {
            "get": _get("live", "Is the process alive?", _object(live={"type": "boolean"}))
        },
        "/v2/health/ready": {"get": _ready()},
        "/v1/models": {"get": _get("models", "Names of the models", _object(
            models={"type": "array", "items": {"type": "string"}}
        ))},
        "/openapi.json": {"get": _get("openapi", "This document", {"type": "object"})},
        "/metrics": {"get": _text("metrics", "Prometheus text", "application/openmetrics-text")},
        "/": {"get": _text("page", "A page for people", "text/html")},
    }  # fmt: skip
    for name, live in models.items():
        paths |= _paths(name, live, only=len(models) == 1)
    if len(models) > 1:
        paths |= _shared(models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Falaj data plane",
            "version": version,
            "description": "Answers of verified releases. Errors have the form of the Open "
            "Inference Protocol v2: `error`, with `code`, `field`, `row` and `findings`.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": _error()}},
    }


def _paths(name: str, live: Live, *, only: bool) -> dict[str, Any]:
    schema = live.stable.manifest.schema
    row = _row(schema.inputs)
    rows = _object(rows={"type": "array", "items": row, "minItems": 1})
    tag = {"tags": [name]}
    found: dict[str, Any] = {
        f"/v2/models/{name}": {"get": _get(f"{name}-metadata", "Inputs and outputs", _metadata())},
        f"/v2/models/{name}/ready": {"get": _ready_model(name)},
        f"/v1/models/{name}": {"get": _ready_model(f"{name}-v1")},
        f"/v2/models/{name}/infer": {"post": tag | _post(
            f"{name}-infer", "Open Inference Protocol v2", _infer(schema.inputs), _answer()
        )},
        f"/v1/models/{name}:predict": {"post": tag | _post(
            f"{name}-instances",
            "KServe V1",
            _object(instances={"type": "array", "items": row, "minItems": 1}),
            _object(predictions={"type": "array"}),
        )},
        f"/ground-truth/{name}": {"post": tag | _truth(name)},
    }  # fmt: skip
    predict = _post(f"{name}-predict", "Named rows", rows, _predictions())
    invoke = _post(
        f"{name}-invocations",
        "MLflow",
        _object(dataframe_records={"type": "array", "items": row, "minItems": 1}),
        _object(predictions={"type": "array"}),
    )
    if only:
        found["/predict"] = {"post": tag | predict}
        found["/invocations"] = {"post": tag | invoke}
    return found


def _shared(models: dict[str, Live]) -> dict[str, Any]:
    """Describe the addresses where a query names one of several models."""
    names = {"name": "model", "in": "query", "required": True, "schema": {"enum": list(models)}}
    rows = [_row(live.stable.manifest.schema.inputs) for live in models.values()]
    many = {"type": "array", "items": {"anyOf": rows}, "minItems": 1}
    told = {
        "/predict": _post("predict", "Named rows", _object(rows=many), _predictions()),
        "/invocations": _post(
            "invocations",
            "MLflow",
            _object(dataframe_records=many),
            _object(predictions={"type": "array"}),
        ),
    }
    return {path: {"post": one | {"parameters": [names]}} for path, one in told.items()}


def _row(inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    needed: list[str] = []
    for tensor in inputs:
        for column in tensor.columns:
            cells[column.name] = _cell(tensor.datatype, column)
            if not column.nullable:
                needed.append(column.name)
        if not tensor.columns:
            told: dict[str, Any] = _cell(tensor.datatype, None)
            sizes = tensor.shape[1:]
            if any(size != 1 for size in sizes):
                for size in reversed(sizes):
                    bound = {"minItems": 1} if size < 0 else {"minItems": size, "maxItems": size}
                    told = {"type": "array", "items": told, **bound}
            cells[tensor.name] = told
            needed.append(tensor.name)
    return {
        "type": "object",
        "properties": cells,
        "required": needed,
        "additionalProperties": False,
    }


def _cell(datatype: Datatype, column: Column | None) -> dict[str, Any]:
    if datatype is Datatype.BOOL:
        told: dict[str, Any] = {"type": "boolean"}
    elif datatype is Datatype.BYTES:
        told = {"type": "string"}
    else:
        told = {"type": "number" if datatype in FLOATS else "integer"}
        low: float | None
        high: float | None
        low, high = BOUNDS.get(datatype, (None, None))
        if column is not None:
            low = column.minimum if column.minimum is not None else low
            high = column.maximum if column.maximum is not None else high
        told |= {k: v for k, v in (("minimum", low), ("maximum", high)) if v is not None}
        largest = LARGEST.get(datatype, math.inf)
        if math.isfinite(largest):  # from here on a value rounds to infinity
            told |= {"exclusiveMinimum": -largest} if low is None else {}
            told |= {"exclusiveMaximum": largest} if high is None else {}
    if column is not None and column.nullable and datatype in FLOATS:
        told["type"] = [told["type"], "null"]
    if column is not None and column.unit:
        told["description"] = column.unit
    return told


def _infer(inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    given = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tensor.name},
                "datatype": {"const": tensor.datatype.value},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "data": {"type": "array"},
                "parameters": {"type": "object"},
            },
            "required": ["name", "datatype", "shape"],
        }
        for tensor in inputs
    ]
    output = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
        "required": ["name"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": {"oneOf": given}, "minItems": len(inputs)},
            "outputs": {"type": "array", "items": output},
        },
        "required": ["inputs"],
    }


def _answer() -> dict[str, Any]:
    output = _object(
        name={"type": "string"},
        datatype={"enum": [kind.value for kind in (*WIRE, Datatype.BYTES)]},
        shape={"type": "array", "items": {"type": "integer"}},
    )
    output["properties"]["data"] = {"type": "array"}
    output["properties"]["parameters"] = {"type": "object"}
    told = _object(
        model_name={"type": "string"},
        model_version={"type": "string"},
        outputs={"type": "array", "items": output},
    )
    told["properties"]["id"] = {"type": "string"}
    return told


def _predictions() -> dict[str, Any]:
    return _object(
        predictions={"type": "array", "items": {"type": "object"}},
        model={"type": "string"},
        version={"type": "string"},
        release={"type": "string"},
        request={"type": "string"},
    )


def _metadata() -> dict[str, Any]:
    tensor = _object(
        name={"type": "string"},
        datatype={"type": "string"},
        shape={"type": "array", "items": {"type": "integer"}},
    )
    tensors = {"type": "array", "items": tensor}
    return _object(
        name={"type": "string"},
        versions={"type": "array", "items": {"type": "string"}},
        platform={"type": "string"},
        inputs=tensors,
        outputs=tensors,
    )


def _truth(name: str) -> dict[str, Any]:
    row = {
        "type": "object",
        "description": "`request` and `row` name an answer, `value` is what happened, `at` when. A row "
        "that does not fit is rejected by itself, with the reason; the others are stored.",
    }
    body = _object(rows={"type": "array", "items": row, "maxItems": 10_000})
    told = _post(f"{name}-truth", "What really happened", body, {})
    del told["responses"]["200"]
    accepted = _object(accepted={"type": "integer"}, rejected={"type": "array"})
    told["responses"]["202"] = _content("Stored; rejected rows with their reasons.", accepted)
    return told


def _error() -> dict[str, Any]:
    finding = _object(
        code={"type": "string"},
        message={"type": "string"},
        field={"type": "string"},
        row={"type": "integer"},
    )
    told = _object(error={"type": "string"}, code={"type": "string"})
    told["properties"] |= {
        "field": {"type": "string"},
        "row": {"type": "integer"},
        "findings": {"type": "array", "items": finding, "maxItems": 20},
        "request": {"type": "string"},
        "release": {"type": "string"},
    }
    return told


def _ready() -> dict[str, Any]:
    told = _get(
        "ready",
        "Does it take requests?",
        _object(live={"type": "boolean"}, ready={"type": "boolean"}, problem={"type": "string"}),
    )
    told["responses"]["503"] = told["responses"]["200"] | {"description": "It does not."}
    return told


def _ready_model(name: str) -> dict[str, Any]:
    told = _get(
        f"{name}-ready",
        "Is this model live?",
        _object(name={"type": "string"}, ready={"type": "boolean"}),
    )
    told["responses"]["503"] = told["responses"]["200"] | {"description": "It is not."}
    return told


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _content(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {JSON: {"schema": schema}}}


def _get(operation: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": words,
        "responses": {"200": _content(words, schema)},
    }


def _text(operation: str, words: str, kind: str) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string"}}}
    responses = {"200": {"description": words, "content": content}}
    return {"operationId": operation, "summary": words, "responses": responses}


def _post(
    operation: str, words: str, body: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    good = _content("The answer.", answer) | {"headers": HEADERS}
    return {
        "operationId": operation,
        "summary": words,
        "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
        "responses": {
            "200": good,
            **{status: _content(told, ERROR) for status, told in REFUSALS.items()},
        },
    }
