"""Values of one input, checked against its schema: lists as JSON brings them, and arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Column, Datatype, Tensor
from falaj.serving.refusals import MAX_FINDINGS, Finding, Refusal

__all__ = [
    "DTYPES",
    "FLOATS",
    "LARGEST",
    "array_of",
    "beyond",
    "flat_of",
    "shown",
    "too_large",
    "wrong",
    "wrong_in",
]

LARGEST: Final = {  # from here on a value rounds to infinity
    Datatype.FP32: 3.4028235677973366e38,
    Datatype.BF16: 3.3961775292304957e38,
    Datatype.FP16: 65520.0,
    Datatype.FP64: math.inf,
}
# How a tensor lies in memory. BF16 has no type in NumPy; FP32 holds each of its values.
DTYPES: Final[dict[Datatype, Any]] = {
    Datatype.BOOL: np.bool_,
    Datatype.UINT8: np.uint8,
    Datatype.UINT16: np.uint16,
    Datatype.UINT32: np.uint32,
    Datatype.UINT64: np.uint64,
    Datatype.INT8: np.int8,
    Datatype.INT16: np.int16,
    Datatype.INT32: np.int32,
    Datatype.INT64: np.int64,
    Datatype.FP16: np.float16,
    Datatype.BF16: np.float32,
    Datatype.FP32: np.float32,
    Datatype.FP64: np.float64,
    Datatype.BYTES: np.object_,
}
FLOATS: Final = frozenset({Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64})
ANYTHING: Final = msgspec.json.Decoder(list[Any])


def flat_of(name: str, shape: Sequence[int], data: bytes) -> list[Any]:
    """Flat values in row-major order, from flat or nested data that matches the shape."""
    try:
        values: list[Any] = ANYTHING.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
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


def wrong(tensor: Tensor, flat: list[Any], n: int) -> list[Finding]:
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
            words = f"got {shown(value)}, expected {tensor.datatype}"
        elif column and column.minimum is not None and value < column.minimum:
            code, words = "serving.range", f"got {value!r}, expected at least {column.minimum!r}"
        elif column and column.maximum is not None and value > column.maximum:
            code, words = "serving.range", f"got {value!r}, expected at most {column.maximum!r}"
        if words:
            findings.append(Finding(code, f"{name}: row {row}: {words}", name, row))
            if len(findings) >= MAX_FINDINGS:
                break
    return findings


def wrong_in(tensor: Tensor, array: NDArray[Any]) -> list[Finding]:
    """The same for an array whose type and shape are right: holes and ranges are left to check."""
    cells = array.reshape(len(array), -1)
    found: list[tuple[int, int, str, str]] = []
    columns = tensor.columns
    if tensor.datatype in FLOATS:
        holes = np.isnan(cells)
        if holes.any():
            allowed = np.zeros(cells.shape[1], np.bool_)
            allowed[: len(columns)] = [column.nullable for column in columns]
            for row, place in np.argwhere(holes & ~allowed)[:MAX_FINDINGS].tolist():
                found.append((row, place, "serving.null", "got NaN, expected a value"))
    for place, column in enumerate(columns):
        for limit, words, over in (
            (column.minimum, "at least", np.less),
            (column.maximum, "at most", np.greater),
        ):
            if limit is not None and place < cells.shape[1]:
                for row in np.flatnonzero(over(cells[:, place], limit))[:MAX_FINDINGS].tolist():
                    text = f"got {cells[row, place].item()!r}, expected {words} {limit!r}"
                    found.append((row, place, "serving.range", text))
    named = [
        (row, columns[place].name if place < len(columns) else tensor.name, code, words)
        for row, place, code, words in sorted(found)[:MAX_FINDINGS]
    ]
    return [
        Finding(code, f"{name}: row {row}: {told}", name, row) for row, name, code, told in named
    ]


def beyond(
    bounds: Sequence[tuple[int, Column]], values: Sequence[float], width: int
) -> list[Finding]:
    """Findings about ranges alone, of flat numbers; only the columns that have a range are looked at."""
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


def array_of(tensor: Tensor, flat: list[Any], n: int, shape: Sequence[int]) -> NDArray[Any]:
    """Array of checked values, shape `shape`. Raises Refusal: a value that would become infinite."""
    holes = [math.nan if value is None else value for value in flat]
    largest = LARGEST.get(tensor.datatype, math.inf)
    if math.isinf(largest):
        try:
            array: NDArray[Any] = np.array(holes, DTYPES[tensor.datatype])
        except OverflowError:
            raise Refusal(*too_large(tensor, holes, len(holes) // n)) from None
    else:
        try:
            wide = np.array(holes, np.float64)
        except OverflowError:
            raise Refusal(*too_large(tensor, holes, len(holes) // n)) from None
        if (np.abs(wide[np.isfinite(wide)]) >= largest).any():
            raise Refusal(*too_large(tensor, holes, len(holes) // n))
        array = wide.astype(DTYPES[tensor.datatype])
    return array.reshape(tuple(shape))


def too_large(tensor: Tensor, values: Sequence[float], width: int) -> list[Finding]:
    """Findings about numbers that do not fit into the type of the tensor."""
    # An integer may be beyond FP64, too; a float that is infinite was sent so.
    largest = min(LARGEST[tensor.datatype], 2**1024 - 2**970)
    findings = []
    for at, value in enumerate(values):
        if largest <= abs(value) and value not in (math.inf, -math.inf):
            row, place = divmod(at, width)
            name = tensor.columns[place].name if place < len(tensor.columns) else tensor.name
            words = f"{name}: row {row}: {value!r} does not fit into {tensor.datatype}"
            findings.append(Finding("serving.range", words, name, row))
    return findings[:MAX_FINDINGS] or [Finding("serving.range", "a value does not fit", "")]


def shown(value: Any) -> str:
    """A value of the caller, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
