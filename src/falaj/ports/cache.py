"""What steps have already made, by key; and who is making it now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

__all__ = ["Memo", "StepCache", "SweptCache"]


class Memo(Protocol):
    """Small remembered computations. Losing one costs time, never truth."""

    def memo(self, kind: str, key: str) -> str | None:
        """A small remembered computation, e.g. the digest of one source file's syntax tree."""

    def remember(self, kind: str, key: str, value: str) -> None: ...


class StepCache(Memo, Protocol):
    """Entries are plain JSON. Every adapter passes tests/contracts/test_step_cache.py."""

    def get(self, key: str) -> dict[str, Any] | None: ...

    def put(self, key: str, step: str, entry: dict[str, Any]) -> None:
        """Keep the entry. The first one wins; a second one for the same key changes nothing."""

    def forget(self, key: str) -> None:
        """Drop an entry whose bytes are gone, so that a new one can be put. Not an error twice."""

    def newest(self, step: str) -> dict[str, Any] | None:
        """The newest entry of a step, for saying what differs."""

    def claim(self, key: str, owner: str, seconds: float) -> int | None:
        """Take or renew the right to make `key`; returns a fence, None while another holds it.

        The fence grows with every new holder. An adapter may take over before the time is up
        when it can tell that the holder's process is gone.
        """

    def free(self, key: str, owner: str) -> None:
        """Give the claim back. Not an error when it was lost."""


@runtime_checkable
class SweptCache(Protocol):
    """Entries that nothing needs any more can be looked for; `forget` removes them."""

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All keys and entries."""
