"""Answers in the forms that are asked for: V2 with or without binary data, named rows, instances."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from falaj.serving.loading import Loaded, Outputs
from falaj.serving.raw import to_raw
from falaj.serving.wire.v2 import ALL, Call

__all__ = ["instances_body", "predict_body", "v2_body"]

BINARY: Final = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
encode: Final = msgspec.json.Encoder().encode


def v2_body(engine: Loaded, call: Call, outputs: Outputs, request: str) -> bytes:
    """Answer in the form of the Open Inference Protocol; sets `call.json_size` where data follows."""
    if call.binary:
        return _with_binary(engine, call, outputs)
    del request
    told = []
    for at, flat in enumerate(outputs.flats):
        if call.outputs and engine.outputs[at].name not in call.outputs:
            continue
        told.append(
            b'%b%d%b],"data":%b}' % (engine.heads[at], outputs.n, outputs.tails[at], encode(flat))
        )
    name = b"" if call.id is None else b'"id":%b,' % encode(call.id)
    return b'%b%b"outputs":[%b]}' % (engine.title, name, b",".join(told))


def _with_binary(engine: Loaded, call: Call, outputs: Outputs) -> bytes:
    told: list[bytes] = []
    data: list[bytes] = []
    for at, tensor in enumerate(engine.outputs):
        name = tensor.name
        if call.outputs and name not in call.outputs:
            continue
        shape = b"%d%b" % (outputs.n, outputs.tails[at])
        if name in call.binary or (ALL in call.binary and name not in call.json):
            raw = to_raw(tensor.datatype, outputs.array(at))
            data.append(raw)
            size = b'],"parameters":{"binary_data_size":%d}}' % len(raw)
            told.append(engine.heads[at] + shape + size)
        else:
            flat = encode(outputs.array(at).ravel().tolist())
            told.append(b'%b%b],"data":%b}' % (engine.heads[at], shape, flat))
    echo = b"" if call.id is None else b'"id":%b,' % encode(call.id)
    text = b'%b%b"outputs":[%b]}' % (engine.title, echo, b",".join(told))
    call.json_size = len(text)
    call.head = BINARY % len(text)
    return b"".join((text, *data))


def predict_body(engine: Loaded, call: Call, outputs: Outputs, request: str) -> bytes:
    """Answer to named rows: probability and label, or the value of a regression."""
    del call
    predictions: list[dict[str, Any]] = []
    classes = outputs.widths[engine.score_at] if engine.score_at >= 0 else 0
    binary = "classification" in engine.manifest.task and classes <= 2
    for row in range(outputs.n):
        score = engine.score(outputs, row)
        if binary and score is not None:
            predictions.append({"probability": score, "label": int(score > engine.threshold)})
        elif "classification" in engine.manifest.task and score is not None:
            flat = outputs.flats[engine.score_at][row * classes : (row + 1) * classes]
            best = max(range(classes), key=flat.__getitem__)
            predictions.append({"probability": flat[best], "label": best})
        elif score is not None:
            predictions.append({"value": score})
        else:
            predictions.append({"outputs": outputs.row(row)})
    return encode(
        {
            "predictions": predictions,
            "model": engine.manifest.model,
            "version": engine.manifest.version,
            "release": engine.release,
            "request": request,
        }
    )


def instances_body(engine: Loaded, call: Call, outputs: Outputs, request: str) -> bytes:
    """Answer to V1 and MLflow: one member a row; an object by name where there are many outputs."""
    del call, request
    names = [tensor.name for tensor in engine.outputs]
    columns = [outputs.array(at).tolist() for at in range(len(names))]
    if len(names) == 1:
        return encode({"predictions": columns[0]})
    return encode({"predictions": [dict(zip(names, row)) for row in zip(*columns)]})  # noqa: B905 -- all have n rows
