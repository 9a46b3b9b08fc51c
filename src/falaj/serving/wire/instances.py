"""Bodies of other protocols that carry rows: V1 of KServe (TensorFlow Serving) and MLflow.

V1: `{"instances": [row, ...]}`, a row is an object by name, a list in the order of the columns, or
one value. MLflow adds `dataframe_split`, `dataframe_records`, `inputs` by name, and CSV with a line
of names. All of them become named rows, and are checked as these.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from falaj.facts.models import Datatype, Schema
from falaj.serving.schema import Finding, Reader, Refusal
from falaj.serving.wire.v2 import Call, event_time, no_binary, parse

__all__ = ["cell_of", "decode_instances", "decode_invocation", "names_of"]

OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def decode_instances(reader: Reader, body: bytes, json_size: int = -1) -> Call:
    """Read a V1 body. Raises Refusal."""
    no_binary(json_size)
    asked = parse(OBJECT, body)
    if "instances" not in asked:
        raise Refusal(Finding("serving.missing", "instances: missing", "instances"))
    return _call(reader, _listed(reader.schema, asked["instances"], "instances"), asked)


def decode_invocation(reader: Reader, body: bytes, json_size: int = -1) -> Call:
    """Read a body of MLflow's `/invocations`. Raises Refusal."""
    no_binary(json_size)
    if not body.lstrip()[:1].startswith(b"{"):
        return Call(rows=reader.rows(_csv(reader.schema, body)))
    asked = parse(OBJECT, body)
    given = [form for form in FORMS if form in asked]
    if len(given) != 1:
        words = f"body: got {given or 'none'} of {', '.join(FORMS)}; expected exactly one"
        raise Refusal(Finding("serving.body", words))
    form = given[0]
    data = asked[form]
    if form == "dataframe_split":
        return _call(reader, _split(data), asked)
    if isinstance(data, dict):
        return _call(reader, _by_name(data, form), asked)
    return _call(reader, _listed(reader.schema, data, form), asked)


def names_of(schema: Schema) -> list[str]:
    """Names of the cells of a row: columns where an input has them, else inputs."""
    return [
        name
        for tensor in schema.inputs
        for name in ([column.name for column in tensor.columns] or [tensor.name])
    ]


def _call(reader: Reader, rows: list[Mapping[str, Any]], asked: dict[str, Any]) -> Call:
    params = asked.get("params", asked.get("parameters"))
    when = event_time(params) if isinstance(params, dict) else ""
    return Call(rows=reader.rows(rows), event_time=when)


def _listed(schema: Schema, data: Any, form: str) -> list[Mapping[str, Any]]:
    """Rows of a list whose members are objects, lists, or single values."""
    if not isinstance(data, list):
        raise Refusal(Finding("serving.body", f"{form}: expected a list of rows", form))
    names = names_of(schema)
    whole = len(schema.inputs) == 1 and not schema.inputs[0].columns
    rows: list[Mapping[str, Any]] = []
    for at, row in enumerate(data):
        if isinstance(row, dict):
            rows.append(row)
        elif whole:
            rows.append({names[0]: row})
        else:
            cells = row if isinstance(row, list) else [row]
            if len(cells) != len(names):
                words = (
                    f"row {at}: got {len(cells)} values, expected {len(names)}: {', '.join(names)}"
                )
                raise Refusal(Finding("serving.shape", words[:400], form, at))
            rows.append(dict(zip(names, cells, strict=True)))
    return rows


def _split(data: Any) -> list[Mapping[str, Any]]:
    """Rows of pandas' orientation `split`."""
    columns = data.get("columns") if isinstance(data, dict) else None
    values = data.get("data") if isinstance(data, dict) else None
    if not isinstance(columns, list) or not isinstance(values, list):
        words = "dataframe_split: expected {columns: [...], data: [[...]]}"
        raise Refusal(Finding("serving.body", words, "dataframe_split"))
    names = [str(name) for name in columns]
    if len(set(names)) != len(names):
        words = "dataframe_split: columns: a name is given twice"
        raise Refusal(Finding("serving.name", words, "columns"))
    for at, row in enumerate(values):
        if not isinstance(row, list) or len(row) != len(names):
            got = len(row) if isinstance(row, list) else "no list"
            words = f"dataframe_split: row {at}: got {got} values, expected {len(names)}"
            raise Refusal(Finding("serving.shape", words, "data", at))
    return [dict(zip(names, row, strict=True)) for row in values]


def _by_name(data: dict[str, Any], form: str) -> list[Mapping[str, Any]]:
    """Rows of one list a name."""
    sizes = {len(cells) if isinstance(cells, list) else -1 for cells in data.values()}
    if len(sizes) != 1 or -1 in sizes:
        words = f"{form}: expected a list of the same length for each name"
        raise Refusal(Finding("serving.shape", words, form))
    return [dict(zip(data, cells, strict=True)) for cells in zip(*data.values(), strict=True)]


def _csv(schema: Schema, body: bytes) -> list[Mapping[str, Any]]:
    """Rows of CSV with a line of names; an empty cell is null."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        words = f"body: neither a JSON object nor CSV with a line of names: {error}"
        raise Refusal(Finding("serving.body", words[:300])) from None
    lines = [line for line in lines if line]
    if len(lines) < 2:
        words = "body: expected a JSON object, or CSV with a line of names and one of values"
        raise Refusal(Finding("serving.body", words))
    kinds = {
        name: tensor.datatype
        for tensor in schema.inputs
        for name in ([column.name for column in tensor.columns] or [tensor.name])
    }
    names = lines[0]
    rows: list[Mapping[str, Any]] = []
    for at, line in enumerate(lines[1:]):
        if len(line) != len(names):
            words = f"body: row {at}: got {len(line)} values, expected {len(names)}"
            raise Refusal(Finding("serving.shape", words, "body", at))
        rows.append(
            {name: cell_of(kinds.get(name), cell) for name, cell in zip(names, line, strict=True)}
        )
    return rows


def cell_of(kind: Datatype | None, cell: str) -> Any:
    """One cell of text as JSON would have brought it; what cannot be read is left for the check."""
    if kind is None or kind is Datatype.BYTES:
        return cell
    if cell == "":
        return None
    if kind is Datatype.BOOL:
        return {"true": True, "false": False, "1": True, "0": False}.get(cell.lower(), cell)
    try:
        number = float(cell) if kind.value.startswith(("FP", "BF")) else int(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell
