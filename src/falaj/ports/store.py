"""Where facts and events are kept. One transaction for both; revisions against lost updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic, NamedTuple, Protocol, TypeVar

from falaj.facts.events import Event
from falaj.facts.wire import Fact

__all__ = ["Kept", "Lease", "Store", "Unit"]

F = TypeVar("F", bound=Fact)


class Kept(NamedTuple, Generic[F]):
    """A fact and the revision it was read at."""

    fact: F
    revision: int


class Lease(NamedTuple):
    """Held until `until_ms` (Unix milliseconds). `fence` grows with every new holder."""

    name: str
    owner: str
    fence: int
    until_ms: int


class Unit(Protocol):
    """One transaction. Leaving it without an exception commits facts and events together."""

    def get(self, kind: type[F], id: str) -> Kept[F]:
        """Read inside the transaction. Raises NotFound."""

    def find(self, kind: type[F], *, limit: int = 1000, **where: str) -> list[F]:
        """Read inside the transaction, newest first, by the family's indexed columns."""

    def add(self, fact: Fact) -> None:
        """Keep a new fact. Raises Conflict when its id exists."""

    def replace(self, was: Kept[F], fact: F) -> None:
        """Put `fact` in the place of `was`. Raises Conflict when it moved on meanwhile."""

    def append(self, event: Event) -> None:
        """Write the event of this change. A unit that wrote facts without one is refused."""

    def forget(self, person: str) -> tuple[tuple[str, ...], int]:
        """Remove who a pseudonym was, and what that person wrote beside events.

        Returns names of the accounts and the number of remarks. The log stays as it is.
        """

    def number(self, sequence: str) -> int:
        """Next number of a named sequence, from 1, without gaps."""

    def hold(self, lease: Lease) -> None:
        """Go on only while the lease is ours. Raises Conflict when it was taken over."""


class Store(Protocol):
    """Facts by family and id. Every adapter passes tests/contracts/test_store.py."""

    def begin(self) -> AbstractContextManager[Unit]:
        """Open a transaction that sees a consistent state and waits for other writers."""

    def get(self, kind: type[F], id: str) -> Kept[F]:
        """Raises NotFound, naming the family and the id."""

    def find(self, kind: type[F], *, limit: int = 1000, after: str = "", **where: str) -> list[F]:
        """Newest first (by id); `after` continues behind an id. `where`: indexed columns only."""

    def bodies(self) -> Iterator[tuple[str, str, bytes]]:
        """Every fact as (noun, id, its bytes), for looking at what it names."""

    def events(self, *, after: int = -1, limit: int = 1000) -> Sequence[tuple[int, Event]]:
        """The river in its order: only events that the integrator has placed."""

    def leaves(self) -> Sequence[tuple[int, bytes]]:
        """All bodies of the log in order: canonical bytes, for export and proofs."""

    def integrate(self, *, limit: int = 1000) -> int:
        """Give a place in the log to events without one; return the size of the log."""

    def root(self) -> tuple[int, bytes]:
        """Size and RFC 6962 root of the log."""

    def take(self, name: str, owner: str, seconds: float) -> Lease | None:
        """Take or renew a lease; None while someone else holds it."""

    def release(self, lease: Lease) -> None:
        """Give the lease back. Not an error when it was lost."""
