"""Frames between a server and its model processes: tensors as raw bytes, and nothing that runs.

Little-endian. `u32 length | u8 kind | u8 version | u16 tensors | u64 batch | u32 rows | u32
budget_us`, then per tensor `u8 type | u8 axes | u16 0 | u32 shape[axes]`, zeros to a multiple of 8,
`u64 bytes`, the data in row-major order, zeros to a multiple of 8. `length` counts what follows it.
Text is each element's length as u32 before its UTF-8. One pair of sizes that disagrees, one byte of
padding that is not zero, and the frame is refused: its sender is not who it should be.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_FRAME", "BadFrame", "Frame", "Frames", "Kind", "blob", "pack", "text_of"]

VERSION: Final = 1
MAX_FRAME: Final = 64 << 20
MAX_TENSORS: Final = 1024
MAX_AXES: Final = 32

HEAD: Final = struct.Struct("<IBBHQII")
LENGTH: Final = struct.Struct("<I")
TENSOR: Final = struct.Struct("<BBH")
SIZE: Final = struct.Struct("<Q")
# Type, two axes, and the size: what nearly every tensor is.
VECTOR: Final = struct.Struct("<BBHIQ")
MATRIX: Final = struct.Struct("<BBHII4xQ")

TEXT: Final = 13
BOOL: Final = 1
FORMS: Final = {
    BOOL: np.dtype("?"),
    2: np.dtype("u1"),
    3: np.dtype("<u2"),
    4: np.dtype("<u4"),
    5: np.dtype("<u8"),
    6: np.dtype("i1"),
    7: np.dtype("<i2"),
    8: np.dtype("<i4"),
    9: np.dtype("<i8"),
    10: np.dtype("<f2"),
    11: np.dtype("<f4"),
    12: np.dtype("<f8"),
}
CODES: Final = {form: code for code, form in FORMS.items()}


class Kind(enum.IntEnum):
    RUN = 1
    ANSWER = 2
    ERROR = 3  # a blob of JSON: what went wrong
    HELLO = 4  # a blob of JSON: the model is loaded, warm and probed
    DRAIN = 5  # no more will be asked


class BadFrame(ValueError):
    """These bytes are no frame: nothing that follows them can be trusted."""


class Frame(NamedTuple):
    """batch: number that the answer carries back.

    budget_us: of a question, what the asker will wait; of an answer, what the model took.
    """

    kind: Kind
    batch: int
    rows: int
    budget_us: int
    tensors: list[NDArray[Any]]


def pack(
    kind: Kind, batch: int, rows: int, tensors: Sequence[NDArray[Any]], budget_us: int = 0
) -> bytes:
    """Write a frame. Raises ValueError for what no frame can hold."""
    parts: list[Any] = [b""]
    size = HEAD.size - LENGTH.size
    for tensor in tensors:
        head, data = _packed(tensor)
        rest = -len(data) % 8
        parts += (head, data, bytes(rest)) if rest else (head, data)
        size += len(head) + len(data) + rest
    if size + LENGTH.size > MAX_FRAME or len(tensors) > MAX_TENSORS:
        raise ValueError(f"a frame of {size} bytes and {len(tensors)} tensors is too large")
    parts[0] = HEAD.pack(size, kind, VERSION, len(tensors), batch, rows, min(budget_us, 0xFFFFFFFF))
    return b"".join(parts)


def blob(data: bytes) -> NDArray[np.uint8]:
    """Bytes as a tensor."""
    return np.frombuffer(data, np.uint8)


def text_of(tensor: NDArray[Any]) -> bytes:
    """Bytes that came as a tensor. Raises BadFrame for any other one."""
    if tensor.dtype != np.uint8 or tensor.ndim != 1:
        raise BadFrame("expected bytes")
    return tensor.tobytes()


class Frames:
    """Bytes as they arrive -> frames. Holds at most one unfinished frame."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self.rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now. Raises BadFrame, and is of no use after it."""
        rest = self.rest
        if rest:
            rest += data
            if len(rest) < 4 or len(rest) < 4 + self._length(rest, 0):
                return []
            data = bytes(rest)
            rest.clear()
        found: list[Frame] = []
        at = 0
        while len(data) - at >= 4:
            end = at + 4 + self._length(data, at)
            if end > len(data):
                break
            found.append(_frame(data, at, end))
            at = end
        if at < len(data):
            rest += data[at:] if at else data
        return found

    def _length(self, data: bytes | bytearray, at: int) -> int:
        length: int = LENGTH.unpack_from(data, at)[0]
        if not HEAD.size - 4 <= length <= self.limit - 4:
            raise BadFrame(f"length: got {length}, expected {HEAD.size - 4} to {self.limit - 4}")
        return length


def _packed(tensor: NDArray[Any]) -> tuple[bytes, bytes]:
    """Head and data of one tensor."""
    shape = tensor.shape
    if tensor.dtype == object:
        code, data = TEXT, _texts(tensor)
    else:
        form = tensor.dtype.newbyteorder("<") if tensor.dtype.byteorder == ">" else tensor.dtype
        found = CODES.get(form)
        if found is None:
            raise ValueError(f"a tensor of {tensor.dtype} has no form in a frame")
        code, data = found, tensor.astype(form, copy=False).tobytes()
    if len(shape) == 2:
        return MATRIX.pack(code, 2, 0, *shape, len(data)), data
    if len(shape) == 1:
        return VECTOR.pack(code, 1, 0, shape[0], len(data)), data
    if len(shape) > MAX_AXES:
        raise ValueError(f"a tensor of {len(shape)} axes has no form in a frame")
    head = TENSOR.pack(code, len(shape), 0) + struct.pack(f"<{len(shape)}I", *shape)
    return head + bytes(-len(head) % 8) + SIZE.pack(len(data)), data


def _texts(tensor: NDArray[Any]) -> bytes:
    cells = [
        cell if isinstance(cell, bytes) else str(cell).encode() for cell in tensor.ravel().tolist()
    ]
    return b"".join(LENGTH.pack(len(cell)) + cell for cell in cells)


def _frame(data: bytes, at: int, end: int) -> Frame:
    _, kind, version, count, batch, rows, budget_us = HEAD.unpack_from(data, at)
    if version != VERSION:
        raise BadFrame(f"version: got {version}, expected {VERSION}")
    if not Kind.RUN <= kind <= Kind.DRAIN:
        raise BadFrame(f"kind: got {kind}")
    if count > MAX_TENSORS:
        raise BadFrame(f"tensors: got {count}, expected at most {MAX_TENSORS}")
    at += HEAD.size
    tensors = []
    for _ in range(count):
        tensor, at = _tensor(data, at, end)
        tensors.append(tensor)
    if at != end:
        raise BadFrame(f"{end - at} bytes behind the last tensor")
    return Frame(Kind(kind), batch, rows, budget_us, tensors)


def _tensor(data: bytes, at: int, end: int) -> tuple[NDArray[Any], int]:
    if end - at < 16:
        raise BadFrame("a tensor is cut short")
    code, axes, zero = TENSOR.unpack_from(data, at)
    if zero or axes > MAX_AXES:
        raise BadFrame(f"axes: got {axes}, expected at most {MAX_AXES}")
    head = 4 + 4 * axes
    pad = -head % 8
    if end - at < head + pad + SIZE.size:
        raise BadFrame("a tensor is cut short")
    shape = struct.unpack_from(f"<{axes}I", data, at + 4)
    _zeros(data, at + head, pad)
    at += head + pad
    size: int = SIZE.unpack_from(data, at)[0]
    at += SIZE.size
    pad = -size % 8
    if size + pad > end - at:
        raise BadFrame(f"bytes: got {size}, there are {end - at}")
    _zeros(data, at + size, pad)
    after = at + size + pad
    count = math.prod(shape)
    if not count and math.prod(axis or 1 for axis in shape) > MAX_FRAME:
        raise BadFrame(f"shape: {list(shape)} holds nothing and is too large all the same")
    if code == TEXT:
        return _read_texts(data, at, size, count).reshape(shape), after
    form = FORMS.get(code)
    if form is None:
        raise BadFrame(f"type: got {code}")
    if size != count * form.itemsize:
        raise BadFrame(f"bytes: got {size}, expected {count * form.itemsize} for {list(shape)}")
    if code == BOOL and size and np.frombuffer(data, np.uint8, size, at).max() > 1:
        raise BadFrame("a truth value that is neither 0 nor 1")
    return np.frombuffer(data, form, count, at).reshape(shape), after


def _read_texts(data: bytes, at: int, size: int, count: int) -> NDArray[Any]:
    end = at + size
    if count * LENGTH.size > size:
        raise BadFrame(f"{count} texts do not fit into {size} bytes")
    cells: list[str] = []
    for _ in range(count):
        if end - at < LENGTH.size:
            raise BadFrame("a text is cut short")
        length: int = LENGTH.unpack_from(data, at)[0]
        at += LENGTH.size
        if length > end - at:
            raise BadFrame("a text is cut short")
        try:
            cells.append(data[at : at + length].decode())
        except UnicodeDecodeError:
            raise BadFrame("a text is not UTF-8") from None
        at += length
    if at != end:
        raise BadFrame(f"{end - at} bytes behind the last text")
    found = np.empty(count, np.object_)
    found[:] = cells
    return found


def _zeros(data: bytes, at: int, size: int) -> None:
    if data[at : at + size].strip(b"\0"):
        raise BadFrame("padding that is not zero")
