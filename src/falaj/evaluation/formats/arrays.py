"""npy (NEP 1) and npz: numbers and fixed texts, never Python objects."""

from __future__ import annotations

import io
import math

import numpy as np

from falaj.evaluation.formats.verdict import Format, Refused
from falaj.evaluation.formats.zips import Archive

__all__ = ["judge_npy", "judge_npz"]


def judge_npy(data: bytes | memoryview) -> Format:
    file = io.BytesIO(data[: 1 << 17])
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise Refused(f"npy of version {version}")
        shape, _, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError):
        raise Refused("npy whose header is damaged") from None
    if dtype.hasobject:
        raise Refused("npy that holds Python objects, which are pickles")
    fits = all(type(side) is int and side >= 0 for side in shape)
    if not fits or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise Refused("npy that is cut off or has bytes behind its array")
    return Format("npy", {"bytes": len(data), "dtype": str(dtype)})


def judge_npz(archive: Archive) -> Format:
    """Every member is npy, and the archive holds nothing else."""
    for member in archive.members:
        if not member.name.endswith(".npy"):
            raise Refused(
                f"a zip file with the member {member.name!r} (Keras, models of other tools and "
                "pickles are so)"
            )
        inner = archive.read(member)
        if bytes(inner[:6]) != b"\x93NUMPY":
            raise Refused(f"a zip file whose member {member.name!r} is no npy")
        judge_npy(inner)
    return Format("npz", {"bytes": len(archive.data), "arrays": len(archive.members)})
