"""How bytes are sealed before they touch a disk, and who holds the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from falaj.base.fenc import Read

__all__ = ["Sealing"]


class Sealing(Protocol):
    """Encryption at rest. Stores take one or none; what they promise stays the same."""

    def seal(self, source: Read, to: BinaryIO, object: str) -> None:
        """Seal all of `source`. object: what it is, bound to the content."""

    def opened(self, source: BinaryIO, object: str) -> Iterator[bytes]:
        """The content, verified piece by piece. Raises ValueError when it is not what was sealed."""
