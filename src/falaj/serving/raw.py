"""Tensors as raw bytes: little-endian, row-major, without padding, as binary data and gRPC send them.

https://docs.nvidia.com/deeplearning/triton-inference-server, extension_binary_data. BOOL is one byte,
0 or 1; an element of BYTES is its length as u32, then its bytes. NumPy has no BF16: inside this
process such a tensor is FP32, which holds each of its values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from falaj.facts.models import Datatype
from falaj.serving.refusals import Finding, Refusal

__all__ = ["SIZES", "WIRE", "from_raw", "text", "to_raw"]

# Datatype -> how its elements lie in raw bytes.
WIRE: Final[dict[Datatype, str]] = {
    Datatype.BOOL: "u1",
    Datatype.UINT8: "u1",
    Datatype.UINT16: "<u2",
    Datatype.UINT32: "<u4",
    Datatype.UINT64: "<u8",
    Datatype.INT8: "i1",
    Datatype.INT16: "<i2",
    Datatype.INT32: "<i4",
    Datatype.INT64: "<i8",
    Datatype.FP16: "<f2",
    Datatype.BF16: "<u2",
    Datatype.FP32: "<f4",
    Datatype.FP64: "<f8",
}
SIZES: Final = {kind: np.dtype(form).itemsize for kind, form in WIRE.items()}
LENGTH: Final = struct.Struct("<I")


def from_raw(name: str, datatype: Datatype, shape: Sequence[int], data: memoryview) -> NDArray[Any]:
    """Read one tensor; the array shares the bytes where it can, and is then read-only.

    Raises Refusal: a size that disagrees with the shape, a BOOL that is neither 0 nor 1, text that
    is not UTF-8.
    """
    if datatype is Datatype.BYTES:
        return _texts(name, shape, data)
    expected = math.prod(shape) * SIZES[datatype]
    if len(data) != expected:
        words = f"{name}: got {len(data)} bytes, expected {expected} for {datatype} {list(shape)}"
        raise Refusal(Finding("serving.shape", words, name))
    array: NDArray[Any] = np.frombuffer(data, WIRE[datatype]).reshape(tuple(shape))
    if datatype is Datatype.BOOL:
        wrong = np.flatnonzero(array.ravel() > 1)
        if wrong.size:
            row = int(wrong[0]) // max(array.size // array.shape[0], 1)
            words = f"{name}: row {row}: got byte {array.ravel()[wrong[0]]}, expected 0 or 1"
            raise Refusal(Finding("serving.type", words, name, row))
        return array.view(np.bool_)
    if datatype is Datatype.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def to_raw(datatype: Datatype, array: NDArray[Any]) -> bytes:
    """Write one tensor. Text is UTF-8; BF16 is rounded to the nearest, ties to even."""
    if datatype is Datatype.BYTES:
        cells = [text(value) for value in array.ravel().tolist()]
        return b"".join(LENGTH.pack(len(cell)) + cell for cell in cells)
    if datatype is Datatype.BF16:
        wide = np.ascontiguousarray(array, np.float32).view(np.uint32)
        rounded = (wide + np.uint32(0x7FFF) + ((wide >> 16) & 1)) >> 16
        holes = (wide & 0x7FFFFFFF) > 0x7F800000  # rounding must not turn NaN into infinity
        return np.where(holes, (wide >> 16) | 0x40, rounded).astype("<u2").tobytes()
    if datatype is Datatype.BOOL:
        return np.asarray(array, np.bool_).tobytes()
    return np.asarray(array, WIRE[datatype]).tobytes()


def text(value: object) -> bytes:
    """Bytes of one element of BYTES."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _texts(name: str, shape: Sequence[int], data: memoryview) -> NDArray[Any]:
    total = math.prod(shape)
    found: list[str] = []
    at, size = 0, len(data)
    each = max(total // shape[0], 1) if shape else 1
    while at < size and len(found) <= total:
        row = len(found) // each
        if size - at < 4 or size - at - 4 < (length := LENGTH.unpack_from(data, at)[0]):
            words = f"{name}: element {len(found)} ends behind the data"
            raise Refusal(Finding("serving.data", words, name, row))
        at += 4
        try:
            found.append(str(data[at : at + length], "utf-8"))
        except UnicodeDecodeError:
            words = f"{name}: row {row}: got bytes that are not UTF-8"
            raise Refusal(Finding("serving.type", words, name, row)) from None
        at += length
    if len(found) != total or at != size:
        got = f"more than {total}" if len(found) > total else len(found)
        words = f"{name}: got {got} elements, expected {total} for {list(shape)}"
        raise Refusal(Finding("serving.shape", words, name))
    array = np.empty(total, np.object_)
    array[:] = found
    return array.reshape(tuple(shape))
