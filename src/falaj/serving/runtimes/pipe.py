"""Arrays over a pipe: lengths first, raw row-major bytes, no pickle.

message: u32 length | u8 kind | u8 version | u16 tensors | u32 rows; then each tensor:
u16 length of its name | name | u8 type | u8 axes | u32 shape[axes] | u64 bytes | bytes.
Little-endian. Texts are a JSON list. Kinds: 1 run, 2 answer, 3 error (words follow), 4 hello.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["ANSWER", "ERROR", "HEAD", "HELLO", "MOST", "RUN", "Malformed", "pack", "said", "unpack"]

RUN, ANSWER, ERROR, HELLO = 1, 2, 3, 4
VERSION: Final = 1
HEAD: Final = struct.Struct("<IBBHI")
MOST: Final = 256 << 20  # bytes of one message
AXES: Final = 8
TYPES: Final = ("?", "u1", "i1", "<i2", "<i4", "<i8", "<f4", "<f8")
TEXT: Final = len(TYPES)
CODES: Final = {np.dtype(name): code for code, name in enumerate(TYPES)} | {
    np.dtype("<u2"): 9,
    np.dtype("<u4"): 10,
    np.dtype("<u8"): 11,
}
BY_CODE: Final = {code: dtype for dtype, code in CODES.items()}


class Malformed(ValueError):
    """The other side does not speak this; it is not to be talked to any more."""


def pack(kind: int, arrays: Mapping[str, NDArray[Any]], rows: int) -> list[bytes | memoryview]:
    """Pieces to be written one after the other; numbers are not copied. Raises ValueError."""
    body: list[bytes | memoryview] = []
    for name, given in arrays.items():
        array = np.asarray(given)
        if array.dtype.kind in "OUS":
            code = TEXT
            raw: bytes | memoryview = msgspec.json.encode(
                [plain(one) for one in array.ravel().tolist()]
            )
        else:
            array = np.ascontiguousarray(array)
            found = CODES.get(array.dtype)
            if found is None:
                raise ValueError(f"{name}: arrays of {array.dtype} cannot be handed on")
            code, raw = found, array.reshape(-1).view(np.uint8).data
        word = name.encode()
        body.append(
            struct.pack(f"<H{len(word)}sBB", len(word), word, code, array.ndim)
            + struct.pack(f"<{array.ndim}IQ", *array.shape, len(raw))
        )
        body.append(raw)
    length = HEAD.size - 4 + sum(map(len, body))
    if length > MOST:
        raise ValueError(f"{length} bytes, more than {MOST}")
    return [HEAD.pack(length, kind, VERSION, len(arrays), rows), *body]


def said(words: str) -> bytes:
    """An error, in words."""
    data = words.encode(errors="replace")[:2000]
    return HEAD.pack(HEAD.size - 4 + len(data), ERROR, VERSION, 0, 0) + data


def plain(one: Any) -> str:
    return one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)


def unpack(tensors: int, data: memoryview) -> dict[str, NDArray[Any]]:
    """Arrays behind a head, views of `data`. Raises Malformed for anything that does not add up."""
    found: dict[str, NDArray[Any]] = {}
    at = 0
    try:
        for _ in range(tensors):
            (length,) = struct.unpack_from("<H", data, at)
            name = bytes(data[at + 2 : at + 2 + length]).decode()
            at += 2 + length
            code, axes = struct.unpack_from("<BB", data, at)
            if axes > AXES:
                raise Malformed(f"{axes} axes")
            *shape, size = struct.unpack_from(f"<{axes}IQ", data, at + 2)
            at += 2 + 4 * axes + 8
            raw = data[at : at + size]
            at += size
            if len(raw) != size or name in found:
                raise Malformed("sizes that disagree")
            found[name] = array_of(code, shape, raw)
    except (struct.error, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise Malformed(str(error)) from None
    if at != len(data):
        raise Malformed("bytes behind the last array")
    return found


def array_of(code: int, shape: list[int], raw: memoryview) -> NDArray[Any]:
    if code == TEXT:
        texts = msgspec.json.decode(raw, type=list[str])
        if len(texts) != math.prod(shape):
            raise Malformed("sizes that disagree")
        return np.array(texts, np.object_).reshape(shape)
    dtype = BY_CODE.get(code)
    if dtype is None or math.prod(shape) * dtype.itemsize != len(raw):
        raise Malformed("sizes that disagree")
    return np.frombuffer(raw, dtype).reshape(shape)
