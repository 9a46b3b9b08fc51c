"""The tree over the events: its nodes, its signed checkpoints, who has seen them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from falaj.base.errors import Exit, FalajError
from falaj.facts.events import Event

__all__ = ["Asked", "Leaf", "LogStore", "LogUnavailable", "Receipt", "Signed"]


class LogUnavailable(FalajError):
    """The log cannot go on. Nothing that needs it is done."""

    exit = Exit.UNVERIFIED
    status = 503


class Signed(NamedTuple):
    """A checkpoint. note: as the log signed it, without cosignatures."""

    size: int
    root: bytes
    note: bytes


class Receipt(NamedTuple):
    """That a witness holds the checkpoint of `size`. line: its cosignature, or what it answered.

    at: Unix seconds.
    """

    size: int
    witness: str
    line: str
    at: int


class Leaf(NamedTuple):
    """An event in its place. columns: what is kept beside the body, to be searched."""

    idx: int
    id: str
    body: bytes
    leaf: bytes
    columns: dict[str, str]


class Asked(NamedTuple):
    """Which events. Nothing said: all. type: the whole one, or a beginning that ends with a dot."""

    actor: str = ""
    subject: str = ""
    type: str = ""
    since: datetime | None = None
    until: datetime | None = None


class LogStore(Protocol):
    """Adapters pass tests/contracts/test_log_store.py."""

    def size(self) -> int:
        """How many events have their place."""

    def nodes(self, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Hashes of complete subtrees (level, idx); one that is not there is left out."""

    def level(self, level: int) -> Iterator[tuple[int, bytes]]:
        """Every subtree of one level, (idx, hash) in order."""

    def levels(self) -> int:
        """How many levels have a node."""

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[Leaf]:
        """Events in their places, in order; a gap is a gap. Leaf.body is the canonical event."""

    def place(self, event: str) -> int | None:
        """Where an event stands; None when it has no place, or is unknown."""

    def search(
        self, asked: Asked, *, before: int | None = None, limit: int = 100
    ) -> list[tuple[int, Event]]:
        """The newest first, below the place `before`."""

    def last(self) -> Signed | None:
        """The largest checkpoint."""

    def signed(self, at_least: int) -> Signed | None:
        """The smallest checkpoint of that size or more."""

    def checkpoints(self) -> Iterator[Signed]:
        """All, by size."""

    def keep(self, signed: Signed) -> None:
        """Keep a checkpoint; of the same size and root the newer note stays. Another root: Conflict."""

    def receive(self, receipt: Receipt) -> None:
        """Keep what a witness answered; the first answer for a size stays."""

    def receipts(self, size: int) -> list[Receipt]:
        """Who holds the checkpoint of that size."""

    def newest(self, witness: str) -> Receipt | None:
        """The largest checkpoint that a witness holds, as far as we were told."""

    def seen(self, origin: str) -> Signed | None:
        """The last checkpoint of another log that was witnessed here."""

    def see(self, origin: str, was: int, now: Signed) -> bool:
        """Put `now` in the place of the one of size `was` (0: none yet); False when it moved on."""

    def remark(self, event: str) -> str | None:
        """A person's words beside an event; None when there are none, or they were erased."""

    def remarks_that_differ(self) -> Iterator[str]:
        """Ids of events whose remark is not the one that their leaf binds."""

    def waiting(self) -> int:
        """How many events have no place yet."""

    def witnesses(self) -> Sequence[str]:
        """Names that receipts were kept of."""
