"""ULIDs: 128-bit names that sort in the order in which this process made them."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

__all__ = ["new"]

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32, as the ULID spec says


class Last:
    """The newest name of this process. Two events of one millisecond keep their order by it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a forked child must not go on from its parent's name."""
        self.lock = threading.Lock()
        self.number = 0

    def next(self, fresh: int) -> int:
        with self.lock:
            if fresh <= self.number:
                fresh = self.number + 1 + int.from_bytes(os.urandom(4), "big")
            self.number = fresh
            return fresh


LAST: Final = Last()
os.register_at_fork(after_in_child=LAST.forget)


def new(at_ms: int | None = None) -> str:
    """Return 26 characters: 48 bits of Unix milliseconds, 80 random bits.

    Without `at_ms` each name is greater than all that this process made before, also within one
    millisecond and after the clock was set back; other processes are ordered by the clock alone.
    """
    ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    number = (ms << 80) | int.from_bytes(os.urandom(10), "big")
    if at_ms is None:
        number = LAST.next(number)
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
