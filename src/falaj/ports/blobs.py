"""Content-addressed bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

__all__ = ["BlobMissing", "Blobs"]


class BlobMissing(KeyError):
    """No bytes are kept under this digest, or they were altered and are refused."""


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
