"""How bytes are sealed before they touch a disk, and who holds the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from falaj.base.fenc import Read

__all__ = ["Cells", "Sealing"]


class Sealing(Protocol):
    """Encryption at rest. Stores take one or none; what they promise stays the same."""

    def seal(self, source: Read, to: BinaryIO, object: str) -> None:
        """Seal all of `source`. object: its digest, bound to the content, not told in the clear."""

    def opened(self, source: BinaryIO, object: str) -> Iterator[bytes]:
        """The content, verified piece by piece. Raises ValueError when it is not what was sealed."""

    def name(self, object: str) -> str:
        """64 hex digits that tell nothing of the digest to whoever has no key.

        A digest in the clear would confirm a guess of what was sealed.
        """

    def object(self, source: BinaryIO) -> str:
        """The digest of what lies in a sealed file. Raises ValueError without its key."""


class Cells(Protocol):
    """Sensitive columns of a database, sealed cell by cell."""

    def ready(self) -> None:
        """Make the key where there is none: inside a transaction it could not be written."""

    def seal(self, data: bytes, *, table: str, column: str, row: str) -> bytes:
        """Bound to its place: moved to another one it does not open."""

    def opened(self, data: bytes, *, table: str, column: str, row: str) -> bytes:
        """Raises ValueError: altered or moved; KeyErased (base/fenc), one of them."""
