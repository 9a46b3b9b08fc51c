"""A model's schema as a reader of requests: names, types, shapes, ranges -> arrays, or words."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Column, Datatype, Schema, Tensor

__all__ = ["DTYPES", "MAX_FINDINGS", "Finding", "Reader", "Refusal", "Rows", "concatenate"]

MAX_FINDINGS: Final = 20
FLOAT32_LARGEST: Final = 3.4028235677973366e38  # from here on float32 rounds to infinity

DTYPES: Final[dict[Datatype, Any]] = {
    Datatype.BOOL: np.bool_,
    Datatype.UINT8: np.uint8,
    Datatype.INT8: np.int8,
    Datatype.INT16: np.int16,
    Datatype.INT32: np.int32,
    Datatype.INT64: np.int64,
    Datatype.FP32: np.float32,
    Datatype.FP64: np.float64,
    Datatype.BYTES: np.object_,
}
FLOATS: Final = frozenset({Datatype.FP32, Datatype.FP64})
FLAT_FLOATS: Final = msgspec.json.Decoder(list[float])
ANYTHING: Final = msgspec.json.Decoder(list[Any])


class Finding(NamedTuple):
    """One thing that is wrong with a request: where (input or column, row) and why."""

    code: str
    message: str
    field: str = ""
    row: int = -1


class Refusal(Exception):
    """The request cannot be answered as it is; at most twenty findings, the first leads."""

    def __init__(self, *findings: Finding, status: int = 400) -> None:
        self.findings = findings[:MAX_FINDINGS]
        self.status = status
        super().__init__(findings[0].message)


class Rows:
    """Checked inputs of one request.

    packed: the one FP32 matrix of the model as little-endian bytes, else None.
    arrays: inputs by name when `packed` is None. values: per row what was asked, for the log.
    """

    __slots__ = ("arrays", "n", "packed", "values", "width")

    def __init__(
        self,
        n: int,
        width: int,
        values: Sequence[Any],
        packed: bytes | None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.n = n
        self.width = width
        self.values = values
        self.packed = packed
        self.arrays = arrays

    def row(self, index: int) -> list[Any]:
        """Return inputs of one row in schema order; None where null was sent."""
        return list(self.values[index * self.width : (index + 1) * self.width])


class Reader:
    """Turns the values of a request into `Rows` for one schema. Holds no state of requests."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.inputs = {tensor.name: tensor for tensor in schema.inputs}
        self.matrix: Tensor | None = None
        self.width = sum(_width(tensor) for tensor in schema.inputs)
        self.bounds: list[tuple[int, Column]] = []
        self.packers: dict[int, Callable[..., bytes]] = {}
        one = schema.inputs[0] if len(schema.inputs) == 1 else None
        if one and one.datatype is Datatype.FP32 and len(one.shape) == 2 and one.shape[1] > 0:
            self.matrix = one
            self.bounds = [
                (at, column)
                for at, column in enumerate(one.columns)
                if column.minimum is not None or column.maximum is not None
            ]

    def tensors(self, given: Sequence[tuple[str, str, Sequence[int], bytes]]) -> Rows:
        """Read tensors as the Open Inference Protocol sends them: name, type, shape, JSON data.

        Raises Refusal with all findings (at most twenty).
        """
        if self.matrix is not None and len(given) == 1:
            name, datatype, shape, data = given[0]
            tensor = self.matrix
            if name == tensor.name and datatype == "FP32" and len(shape) == 2:
                n, width = shape
                if width == tensor.shape[1] and n > 0:
                    try:
                        values = FLAT_FLOATS.decode(data)
                    except (msgspec.MsgspecError, RecursionError):
                        pass  # null, nested or wrong: the careful way finds out and says it
                    else:
                        if len(values) == n * width:
                            return self._matrix(values, n, careful=False)
        return self._careful(given)

    def rows(self, given: Sequence[Mapping[str, Any]]) -> Rows:
        """Read rows by column name. A column that may be null may be left out."""
        if not given:
            raise Refusal(Finding("serving.shape", "rows: got none, expected at least one", "rows"))
        names: dict[str, tuple[Tensor, Column | None]] = {}
        for tensor in self.schema.inputs:
            if tensor.columns:
                names.update((column.name, (tensor, column)) for column in tensor.columns)
            else:
                names[tensor.name] = (tensor, None)
        findings = [
            Finding("serving.name", _unknown(name, names), str(name), at)
            for at, row in enumerate(given)
            for name in row
            if name not in names
        ][:MAX_FINDINGS]
        cells: dict[str, list[Any]] = {tensor.name: [] for tensor in self.schema.inputs}
        for at, row in enumerate(given):
            for name, (tensor, column) in names.items():
                value = row.get(name)
                if name not in row and not (column and column.nullable):
                    findings.append(
                        Finding("serving.missing", f"{name}: missing in row {at}", name, at)
                    )
                cells[tensor.name].append(value)
            if len(findings) >= MAX_FINDINGS:
                break
        if findings:
            raise Refusal(*findings)
        return self._typed(
            [(tensor, cells[tensor.name], len(given)) for tensor in self.schema.inputs], len(given)
        )

    def _careful(self, given: Sequence[tuple[str, str, Sequence[int], bytes]]) -> Rows:
        findings: list[Finding] = []
        seen: dict[str, tuple[Tensor, list[Any], int]] = {}
        for name, datatype, shape, data in given:
            tensor = self.inputs.get(name)
            if tensor is None:
                findings.append(Finding("serving.name", _unknown(name, self.inputs), name))
            elif name in seen:
                findings.append(Finding("serving.name", f"{name}: given twice", name))
            elif datatype != tensor.datatype:
                words = f"{name}: datatype: got {datatype}, expected {tensor.datatype}"
                findings.append(Finding("serving.type", words, name))
            elif not _fits(shape, tensor.shape):
                words = f"{name}: shape: got {list(shape)}, expected {list(tensor.shape)}"
                findings.append(Finding("serving.shape", words, name))
            else:
                try:
                    flat = _flat(name, shape, data)
                except Refusal as refusal:
                    findings.extend(refusal.findings)
                    flat = []
                seen[name] = (tensor, flat, shape[0])
        findings.extend(
            Finding("serving.missing", f"input {name} is missing", name)
            for name in self.inputs
            if name not in {entry[0] for entry in given}
        )
        counts = {n for _, _, n in seen.values()}
        if not findings and len(counts) > 1:
            words = f"inputs disagree about the number of rows: {sorted(counts)}"
            findings.append(Finding("serving.shape", words))
        if findings:
            raise Refusal(*findings)
        return self._typed([seen[name] for name in self.inputs], counts.pop())

    def _typed(self, given: Sequence[tuple[Tensor, list[Any], int]], n: int) -> Rows:
        if self.matrix is not None:
            return self._matrix(given[0][1], n, careful=True)
        findings: list[Finding] = []
        arrays: dict[str, NDArray[Any]] = {}
        for tensor, flat, _ in given:
            findings.extend(_wrong(tensor, flat, n))
            if not findings:
                arrays[tensor.name] = _array(tensor, flat, n)
        if findings:
            raise Refusal(*findings)
        if len(given) == 1:
            values: list[Any] = given[0][1]
        else:
            widths = [len(flat) // n for _, flat, _ in given]
            values = [
                cell
                for row in range(n)
                for (_, flat, _), width in zip(given, widths, strict=True)
                for cell in flat[row * width : (row + 1) * width]
            ]
        return Rows(n, len(values) // n, values, None, arrays)

    def _matrix(self, values: list[Any], n: int, *, careful: bool) -> Rows:
        tensor = self.matrix
        assert tensor is not None  # noqa: S101 -- asked by the callers; keeps mypy and readers sure
        if careful:
            findings = _wrong(tensor, values, n)
            if findings:
                raise Refusal(*findings)
            holes = [math.nan if value is None else value for value in values]
        else:
            holes = values
            if self.bounds:
                findings = _beyond(self.bounds, values, tensor.shape[1])
                if findings:
                    raise Refusal(*findings)
        width = tensor.shape[1]
        try:
            if n <= 64:
                # "<": the native form would turn 1e39 into infinity without a word.
                pack = self.packers.get(n)
                if pack is None:
                    pack = self.packers[n] = struct.Struct(f"<{n * width}f").pack
                packed = pack(*holes)
            else:
                wide = np.array(holes, np.float64)
                if (np.abs(wide[np.isfinite(wide)]) >= FLOAT32_LARGEST).any():
                    raise OverflowError
                packed = wide.astype("<f4").tobytes()
        except OverflowError:
            raise Refusal(*_too_large(tensor, holes, width)) from None
        return Rows(n, width, values, packed)


def concatenate(reader: Reader, parts: Sequence[Rows]) -> dict[str, NDArray[Any]]:
    """Join the inputs of several requests along the row axis."""
    matrix = reader.matrix
    if matrix is not None:
        packed = [part.packed or b"" for part in parts]
        block = packed[0] if len(packed) == 1 else b"".join(packed)
        return {matrix.name: np.frombuffer(block, "<f4").reshape(-1, matrix.shape[1])}
    if len(parts) == 1:
        return dict(parts[0].arrays or {})
    return {
        name: np.concatenate([(part.arrays or {})[name] for part in parts])
        for name in reader.inputs
    }


def _width(tensor: Tensor) -> int:
    return math.prod(max(size, 1) for size in tensor.shape[1:])


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return (
        len(shape) == len(expected)
        and all(size > 0 for size in shape)
        and all(e in (-1, s) for s, e in zip(shape, expected, strict=True))
    )


def _flat(name: str, shape: Sequence[int], data: bytes) -> list[Any]:
    """Flat values in row-major order, from flat or nested data that matches the shape."""
    try:
        values: list[Any] = ANYTHING.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refusal(Finding("serving.data", f"{name}: data: {error}", name)) from None
    total = math.prod(shape)
    if values and isinstance(values[0], list):
        # Ragged data must not slide from one row into the next: each level is checked.
        for axis, size in enumerate(shape[:-1]):
            if axis == 0 and len(values) != size:
                words = f"{name}: data: got {len(values)} rows, expected {size}"
                raise Refusal(Finding("serving.shape", words, name))
            inner = shape[axis + 1]
            below = math.prod(shape[1 : axis + 1])
            for at, part in enumerate(values):
                if not isinstance(part, list) or len(part) != inner:
                    row = at // max(below, 1)
                    got = len(part) if isinstance(part, list) else "no list"
                    words = f"{name}: row {row}: got {got} values, expected {inner}"
                    raise Refusal(Finding("serving.shape", words, name, row))
            values = [cell for part in values for cell in part]
        return values
    if len(values) != total:
        words = f"{name}: data: got {len(values)} values, expected {total} for {list(shape)}"
        raise Refusal(Finding("serving.shape", words, name))
    return values


def _wrong(tensor: Tensor, flat: list[Any], n: int) -> list[Finding]:
    """All findings about the values of one input, at most twenty."""
    findings: list[Finding] = []
    width = len(flat) // n
    for at, value in enumerate(flat):
        row, place = divmod(at, width)
        column = tensor.columns[place] if place < len(tensor.columns) else None
        name = column.name if column else tensor.name
        words = ""
        code = "serving.type"
        if value is None:
            if not (column and column.nullable and tensor.datatype in FLOATS):
                code, words = "serving.null", "got null, expected a value"
        elif not _is_a(tensor.datatype, value):
            words = f"got {_shown(value)}, expected {tensor.datatype}"
        elif column and column.minimum is not None and value < column.minimum:
            code, words = "serving.range", f"got {value!r}, expected at least {column.minimum!r}"
        elif column and column.maximum is not None and value > column.maximum:
            code, words = "serving.range", f"got {value!r}, expected at most {column.maximum!r}"
        if words:
            findings.append(Finding(code, f"{name}: row {row}: {words}", name, row))
            if len(findings) >= MAX_FINDINGS:
                break
    return findings


def _beyond(
    bounds: Sequence[tuple[int, Column]], values: Sequence[float], width: int
) -> list[Finding]:
    findings: list[Finding] = []
    for start in range(0, len(values), width):
        for at, column in bounds:
            value = values[start + at]
            row = start // width
            words = ""
            if column.minimum is not None and value < column.minimum:
                words = f"got {value!r}, expected at least {column.minimum!r}"
            elif column.maximum is not None and value > column.maximum:
                words = f"got {value!r}, expected at most {column.maximum!r}"
            if words:
                text = f"{column.name}: row {row}: {words}"
                findings.append(Finding("serving.range", text, column.name, row))
                if len(findings) >= MAX_FINDINGS:
                    return findings
    return findings


def _is_a(datatype: Datatype, value: Any) -> bool:
    if datatype in FLOATS:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if datatype is Datatype.BOOL:
        return isinstance(value, bool)
    if datatype is Datatype.BYTES:
        return isinstance(value, str)
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    info = np.iinfo(DTYPES[datatype])
    return info.min <= value <= info.max


def _array(tensor: Tensor, flat: list[Any], n: int) -> NDArray[Any]:
    holes = [math.nan if value is None else value for value in flat]
    shape = (n, *(size if size > 0 else -1 for size in tensor.shape[1:]))
    if tensor.datatype is Datatype.FP32:
        wide = np.array(holes, np.float64)
        if (np.abs(wide[np.isfinite(wide)]) >= FLOAT32_LARGEST).any():
            raise Refusal(*_too_large(tensor, holes, len(holes) // n))
        return wide.astype(np.float32).reshape(shape)
    return np.array(holes, DTYPES[tensor.datatype]).reshape(shape)


def _too_large(tensor: Tensor, values: Sequence[float], width: int) -> list[Finding]:
    findings = []
    for at, value in enumerate(values):
        if abs(value) >= FLOAT32_LARGEST:
            row, place = divmod(at, width)
            name = tensor.columns[place].name if place < len(tensor.columns) else tensor.name
            words = f"{name}: row {row}: {value!r} does not fit into FP32"
            findings.append(Finding("serving.range", words, name, row))
    return findings[:MAX_FINDINGS] or [Finding("serving.range", "a value does not fit", "")]


def _unknown(name: Any, known: Mapping[str, Any]) -> str:
    near = get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; this model takes {', '.join(known)}"
    return f"unknown input {_shown(name)}{hint}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
