"""safetensors: offsets contiguous from 0, no hole, no overlap, no byte behind the last tensor.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import math
from typing import Final

from falaj.evaluation.formats.configs import code_of, read
from falaj.evaluation.formats.verdict import Format, Refused

__all__ = ["begins", "header_of", "judge"]

MOST_HEADER: Final = 100 << 20
# The format's own dtypes, in bits.
ITEM_BITS: Final = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


def begins(head: bytes, size: int) -> bool:
    """Whether the first nine bytes of a file of `size` bytes read like this format."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def header_of(head: bytes) -> int:
    """Bytes of the header behind the first eight. Refused above 100 MB."""
    length = int.from_bytes(head[:8], "little")
    if length > MOST_HEADER:
        raise Refused("safetensors with a header of more than 100 MB")
    return length


def judge(data: bytes, size: int) -> Format:
    """data: at least the header; size: of the whole file. Tensors themselves hold numbers alone."""
    length = header_of(data)
    header = read(data[8 : 8 + length], "safetensors' header")
    if not isinstance(header, dict):
        raise Refused("safetensors whose header is no table")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise Refused("safetensors whose metadata is not text")
    if code_of(notes):
        raise Refused("safetensors whose metadata brings code along")
    spans = sorted(span(name, entry) for name, entry in header.items())
    at = 0
    for begin, end, name in spans:
        if begin != at:
            raise Refused(f"safetensors with a hole or an overlap before {name!r}")
        at = end
    if 8 + length + at != size:
        raise Refused("safetensors that is cut off or has bytes behind its last tensor")
    return Format("safetensors", {"bytes": size, "tensors": len(spans)})


def span(name: str, entry: object) -> tuple[int, int, str]:
    match entry:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [int(begin), int(end)],
        } if (
            len(entry) == 3  # type: ignore[arg-type]
            and dtype in ITEM_BITS
            and all(type(side) is int and side >= 0 for side in shape)
            and end - begin == math.prod(shape) * ITEM_BITS[dtype] // 8
        ):
            return begin, end, name
        case _:
            raise Refused(f"safetensors whose tensor {name!r} does not fit its place")
