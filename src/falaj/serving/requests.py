"""Names of requests: which release answered R, also when the log row was lost.

32 hex digits: boot of the server process (64 bits, random) | slot of the answering release (16)
| counter (48). Slot 0 answers nothing: such a request was refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count
from typing import Final, NamedTuple

from falaj.facts.serving import Boot

__all__ = ["Parts", "RequestIds", "parts", "which_release"]

REQUEST: Final = re.compile(r"[0-9a-f]{32}")
SLOTS: Final = 0xFFFF


class Parts(NamedTuple):
    """What a request's id says."""

    boot: str
    slot: int
    counter: int


class RequestIds:
    """Gives slots to releases and names to requests of one process."""

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.counter = 0  # the newest that was given
        self.numbers = count(1)
        self.slots: dict[str, int] = {}  # release -> slot
        self.prefixes: dict[str, str] = {"": boot + "0000"}

    def next(self) -> int:
        """Number of a new request; from any thread."""
        self.counter = number = next(self.numbers)
        return number

    def slot(self, release: str) -> int:
        """Slot of a release; a new one the first time. Raises OverflowError after 65,535."""
        if release not in self.slots:
            slot = len(self.slots) + 1
            if slot > SLOTS:
                raise OverflowError("a process has 65,535 slots for releases")
            self.slots[release] = slot
            self.prefixes[release] = f"{self.boot}{slot:04x}"
        return self.slots[release]

    def name(self, release: str, counter: int) -> str:
        """Name of a request that `release` answered; an empty release means nobody did."""
        return f"{self.prefixes[release]}{counter:012x}"


def parts(request: str) -> Parts:
    """Take a request's id apart. Raises ValueError."""
    if REQUEST.fullmatch(request) is None:
        raise ValueError(f"request: got {request[:40]!r}, expected 32 lower-case hex digits")
    return Parts(request[:16], int(request[16:20], 16), int(request[20:], 16))


def which_release(request: str, boots: Iterable[Boot]) -> str | None:
    """Release that answered a request; None when no boot record knows it. Raises ValueError."""
    boot, slot, _ = parts(request)
    for record in boots:
        if record.boot == boot:
            return record.slots.get(str(slot))
    return None
