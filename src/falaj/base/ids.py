"""ULIDs: 128-bit names that sort by the millisecond they were made in."""

from __future__ import annotations

import os
import time
from typing import Final

__all__ = ["new"]

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32, as the ULID spec says


def new(at_ms: int | None = None) -> str:
    """Return 26 characters: 48 bits of Unix milliseconds, 80 random bits."""
    ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    number = (ms << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
