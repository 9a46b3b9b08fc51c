"""Content-addressed bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from falaj.base.errors import NotFound

__all__ = ["BlobMissing", "Blobs", "SealedBlobs", "SizedBlobs", "SweptBlobs"]


class BlobMissing(NotFound):
    """No bytes are kept under this digest, they were altered and are refused, or their key was erased."""

    def __init__(self, message: str) -> None:
        super().__init__(
            "store.blob-gone",
            message,
            why="it was removed or altered, or the key that sealed it was erased",
            fix="make it anew: `falaj run`; or put the workspace's blobs back from a copy",
        )


class Blobs(Protocol):
    """Every adapter passes tests/contracts/test_blobs.py."""

    def put(self, data: bytes) -> str:
        """Store `data`, return its digest. Storing twice is not an error."""

    def put_file(self, path: Path) -> str:
        """Store a file's bytes, return their digest. The file stays where it is."""

    def get(self, digest: str) -> bytes:
        """Return the bytes. Raises BlobMissing; never returns altered bytes."""

    def copy(self, digest: str, to: Path) -> None:
        """Write the bytes to a new file, verified while copying. Raises BlobMissing."""

    def has(self, digest: str) -> bool: ...


@runtime_checkable
class SizedBlobs(Protocol):
    """The size is known without holding the bytes."""

    def size(self, digest: str) -> int:
        """How many bytes were put. Raises BlobMissing."""


@runtime_checkable
class SweptBlobs(Protocol):
    """Bytes that nothing needs any more can be looked for and removed."""

    def kept(self) -> Iterator[tuple[str, int, float]]:
        """All blobs: digest, bytes, Unix seconds of when it was written."""

    def remove(self, digest: str) -> None:
        """Not an error when it is gone."""


@runtime_checkable
class SealedBlobs(Protocol):
    """Bytes that were put before there was a key can be sealed later."""

    def seal_rest(self) -> int:
        """Seal what lies in the clear; how many. Nothing where nothing is sealed."""
