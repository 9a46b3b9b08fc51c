"""A model's schema as a reader of requests: names, types, shapes, ranges -> arrays, or words."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.serving.raw import from_raw
from falaj.serving.refusals import MAX_FINDINGS, Finding, Refusal
from falaj.serving.values import (
    DTYPES,
    FLOATS,
    array_of,
    beyond,
    flat_of,
    shown,
    too_large,
    wrong,
    wrong_in,
)

__all__ = [
    "DTYPES",
    "MAX_FINDINGS",
    "Finding",
    "Given",
    "Reader",
    "Refusal",
    "Rows",
    "concatenate",
]

FLOAT32_LARGEST: Final = 3.4028235677973366e38  # from here on float32 rounds to infinity
HALVES: Final = frozenset({Datatype.FP16, Datatype.BF16})  # no words for them in JSON
FLAT_FLOATS: Final = msgspec.json.Decoder(list[float])
SMALL: Final = 64  # rows up to which a matrix is a list of numbers on its way

# Name, type, shape and contents of one input: JSON text (bytes), raw data (memoryview), or values
# of the right kind of Python (list) as typed contents of gRPC bring them.
Given = tuple[str, str, Sequence[int], "bytes | memoryview | list[Any]"]


class Rows:
    """Checked inputs of one request.

    packed: the one FP32 matrix of the model as little-endian bytes, else None.
    arrays: inputs by name when `packed` is None. values: flat, as they were asked, for the log; None
    where the arrays are all there is. inner: sizes of the axes that may vary, None where none may.
    """

    __slots__ = ("arrays", "inner", "n", "packed", "values", "width")

    def __init__(
        self,
        n: int,
        width: int,
        values: Sequence[Any] | None,
        packed: bytes | None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
        inner: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        self.n = n
        self.width = width
        self.values = values
        self.packed = packed
        self.arrays = arrays
        self.inner = inner

    def row(self, index: int) -> list[Any]:
        """Return inputs of one row in schema order; None (or NaN) where there was none."""
        if self.values is not None:
            return list(self.values[index * self.width : (index + 1) * self.width])
        if self.packed is not None:
            return list(struct.unpack_from(f"<{self.width}f", self.packed, index * 4 * self.width))
        return [
            cell for array in (self.arrays or {}).values() for cell in array[index].ravel().tolist()
        ]


class Reader:
    """Turns the values of a request into `Rows` for one schema. Holds no state of requests."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.inputs = {tensor.name: tensor for tensor in schema.inputs}
        self.matrix: Tensor | None = None
        self.width = sum(_width(tensor) for tensor in schema.inputs)
        self.bounds: list[tuple[int, Column]] = []
        self.solid: list[int] = []  # columns of the matrix that must hold a number
        self.packers: dict[int, Callable[..., bytes]] = {}
        self.varies = any(-1 in tensor.shape[1:] for tensor in schema.inputs)
        self.halves = [t.name for t in schema.outputs if t.datatype in HALVES]
        one = schema.inputs[0] if len(schema.inputs) == 1 else None
        if one and one.datatype is Datatype.FP32 and len(one.shape) == 2 and one.shape[1] > 0:
            self.matrix = one
            self.bounds = [
                (at, column)
                for at, column in enumerate(one.columns)
                if column.minimum is not None or column.maximum is not None
            ]
            nullable = {at for at, column in enumerate(one.columns) if column.nullable}
            self.solid = [at for at in range(one.shape[1]) if at not in nullable]

    def tensors(self, given: Sequence[Given]) -> Rows:
        """Read tensors as the Open Inference Protocol sends them.

        Raises Refusal with all findings (at most twenty).
        """
        if self.matrix is not None and len(given) == 1:
            name, datatype, shape, data = given[0]
            tensor = self.matrix
            if name == tensor.name and datatype == "FP32" and len(shape) == 2:
                n, width = shape
                if width == tensor.shape[1] and n > 0:
                    if type(data) is memoryview:
                        if len(data) == n * width * 4:
                            return self._packed(bytes(data), n)
                        return self._careful(given)
                    if type(data) is list:
                        if len(data) == n * width:
                            return self._packed(np.array(data, "<f4").tobytes(), n)
                        return self._careful(given)
                    try:
                        values = FLAT_FLOATS.decode(data)  # type: ignore[arg-type]
                    except (msgspec.MsgspecError, RecursionError, TypeError):
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
        shapes: dict[str, tuple[int, ...]] = {}
        for at, row in enumerate(given):
            for name, (tensor, column) in names.items():
                value = row.get(name)
                if name not in row and not (column and column.nullable):
                    findings.append(
                        Finding("serving.missing", f"{name}: missing in row {at}", name, at)
                    )
                elif column is None and len(tensor.shape) > 1:
                    shape, flat = _nested(value, tensor.shape[1:])
                    if shape is None or shapes.setdefault(name, shape) != shape:
                        wanted = list(shapes.get(name, tensor.shape[1:]))
                        words = f"{name}: row {at}: got {shown(value)}, expected shape {wanted}"
                        findings.append(Finding("serving.shape", words, name, at))
                    cells[name].extend(flat)
                    continue
                cells[tensor.name].append(value)
            if len(findings) >= MAX_FINDINGS:
                break
        if findings:
            raise Refusal(*findings)
        n = len(given)
        typed = [
            (tensor, cells[tensor.name], (n, *shapes.get(tensor.name, tensor.shape[1:])))
            for tensor in self.schema.inputs
        ]
        return self._typed(typed, n)

    def _packed(self, packed: bytes, n: int) -> Rows:
        """Read the one matrix, sent as raw data. NaN is what null is in JSON."""
        tensor = self.matrix
        assert tensor is not None  # noqa: S101 -- asked by the caller
        width = tensor.shape[1]
        if n <= SMALL:
            values = struct.unpack(f"<{n * width}f", packed)
            total = sum(values)  # NaN when one of them is
            if (total == total or not self.solid) and not (  # noqa: PLR0124 -- asks for NaN
                self.bounds and beyond(self.bounds, values, width)
            ):
                return Rows(n, width, values, packed)
        array = np.frombuffer(packed, "<f4").reshape(n, width)
        if findings := wrong_in(tensor, array):
            raise Refusal(*findings)
        return Rows(n, width, None, packed)

    def _careful(self, given: Sequence[Given]) -> Rows:
        findings: list[Finding] = []
        seen: dict[str, tuple[Tensor, Any, Sequence[int]]] = {}
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
                read: Any = ()
                try:
                    read = _contents(tensor, shape, data)
                except Refusal as refusal:
                    findings.extend(refusal.findings)
                seen[name] = (tensor, read, shape)
        findings.extend(
            Finding("serving.missing", f"input {name} is missing", name)
            for name in self.inputs
            if name not in {entry[0] for entry in given}
        )
        counts = {shape[0] for _, _, shape in seen.values()}
        if not findings and len(counts) > 1:
            words = f"inputs disagree about the number of rows: {sorted(counts)}"
            findings.append(Finding("serving.shape", words))
        if findings:
            raise Refusal(*findings)
        return self._typed([seen[name] for name in self.inputs], counts.pop())

    def _typed(self, given: Sequence[tuple[Tensor, Any, Sequence[int]]], n: int) -> Rows:
        """Check values, each input's a flat list or an array of its shape."""
        findings: list[Finding] = []
        if self.matrix is not None and isinstance(given[0][1], list):
            return self._matrix(given[0][1], n, careful=True)
        arrays: dict[str, NDArray[Any]] = {}
        for tensor, read, shape in given:
            if isinstance(read, list):
                found = wrong(tensor, read, n)
                if not found and not findings:
                    arrays[tensor.name] = array_of(tensor, read, n, shape)
            else:
                found = wrong_in(tensor, read)
                arrays[tensor.name] = read
            findings.extend(found)
        if findings:
            raise Refusal(*findings)
        if self.matrix is not None:
            packed = np.asarray(arrays[self.matrix.name], "<f4").tobytes()
            return Rows(n, self.width, None, packed)
        width = sum(array.size for array in arrays.values()) // n
        inner = tuple(array.shape[1:] for array in arrays.values()) if self.varies else None
        return Rows(n, width, None, None, arrays, inner)

    def _matrix(self, values: list[Any], n: int, *, careful: bool) -> Rows:
        tensor = self.matrix
        assert tensor is not None  # noqa: S101 -- asked by the callers; keeps mypy and readers sure
        if careful:
            findings = wrong(tensor, values, n)
            if findings:
                raise Refusal(*findings)
            holes = [math.nan if value is None else value for value in values]
        else:
            holes = values
            if self.bounds:
                findings = beyond(self.bounds, values, tensor.shape[1])
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
        except (OverflowError, struct.error):  # the latter: a whole number beyond float64
            raise Refusal(*too_large(tensor, holes, width)) from None
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


def _contents(tensor: Tensor, shape: Sequence[int], data: Any) -> Any:
    """Read one input: a flat list to be checked value by value, or an array. Raises Refusal."""
    if isinstance(data, bytes):
        if tensor.datatype in HALVES:
            words = f"{tensor.name}: {tensor.datatype} travels as binary data only, not as JSON"
            raise Refusal(Finding("serving.binary", words, tensor.name))
        return flat_of(tensor.name, shape, data)
    if isinstance(data, memoryview):
        return from_raw(tensor.name, tensor.datatype, shape, data)
    total = math.prod(shape)
    if len(data) != total:
        words = f"{tensor.name}: got {len(data)} values, expected {total} for {list(shape)}"
        raise Refusal(Finding("serving.shape", words, tensor.name))
    if tensor.datatype in FLOATS:
        return np.array(data, DTYPES[tensor.datatype]).reshape(tuple(shape))
    return data


def _nested(value: Any, wanted: Sequence[int]) -> tuple[tuple[int, ...] | None, list[Any]]:
    """Shape and flat cells of the lists that stand for one row; no shape where it does not fit."""
    if math.prod(wanted) == 1 and not isinstance(value, list):
        return tuple(wanted), [value]
    level, shape = [value], []
    for size in wanted:
        sizes = {len(part) if isinstance(part, list) else -1 for part in level}
        if len(sizes) != 1 or (found := sizes.pop()) < 1 or size not in (-1, found):
            return None, []
        shape.append(found)
        level = [cell for part in level for cell in part]
    return tuple(shape), level


def _unknown(name: Any, known: Mapping[str, Any]) -> str:
    near = get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; this model takes {', '.join(known)}"
    return f"unknown input {shown(name)}{hint}"
