"""Places that hold the checkpoints of a log, where the administrator of the log cannot alter them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from falaj.base.errors import Conflict, FalajError

if TYPE_CHECKING:
    from falaj.base.tlog import Checkpoint, Growth

__all__ = ["Away", "Behind", "Held", "Refused", "Witness"]


class Away(FalajError):
    """It cannot be reached, or does not work now; asking again later may help."""

    exit = Conflict.exit
    status = 503


class Refused(FalajError):
    """It says no, and will say no again: a forked log, an unknown one, or a place that can be altered."""

    exit = 7
    status = 502


class Behind(Exception):
    """It holds another checkpoint than the proof begins with. size: of the one it holds."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"it holds the checkpoint of {size} events")


class Held(NamedTuple):
    """It holds the checkpoint now. line: a cosignature, or a word about where it lies.

    at: Unix seconds.
    """

    line: str
    at: int


class Witness(Protocol):
    """Every adapter passes tests/contracts/test_witness.py.

    It never holds two checkpoints of a log that are not consistent, and never forgets one.
    """

    @property
    def name(self) -> str: ...

    @property
    def where(self) -> str:
        """Where it is, for people: an address, a folder, a bucket."""

    def latest(self, origin: str) -> Checkpoint | None:
        """The largest checkpoint of that log that it holds, where it can be asked. Raises Away."""

    def add(self, growth: Growth, checkpoint: Checkpoint) -> Held:
        """Hold one more. growth: proof from what it holds, and the signed note of `checkpoint`.

        The same one again is no error. Raises Behind when the proof begins elsewhere, Refused when
        it does not hold or the place is none, Away.
        """

    def probe(self) -> tuple[str, ...]:
        """Try what it promises; what was found. Raises Refused or Away, and says what to do."""
