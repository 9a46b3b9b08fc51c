"""Blobs in a folder: `ab/cdef...` under the first two hex digits. Verified whenever they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from falaj.base import digests, files
from falaj.ports.blobs import BlobMissing

__all__ = ["FileBlobs"]

CHUNK: Final = 1 << 20


class FileBlobs:
    """The port Blobs over one folder. Safe for several processes: names are made by rename only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[int, int, int, int]] = {}

    def put(self, data: bytes) -> str:
        digest = digests.of_bytes(data)
        if not self.has(digest):
            files.write_atomic(self._path(digest), data, mode=0o444)
        return digest

    def put_file(self, path: Path) -> str:
        digest = digests.of_file(path)
        if self.has(digest):
            return digest
        with path.open("rb") as source:
            self._write(self._path(digest), iter(lambda: source.read(CHUNK), b""), digest)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(digest) from None
        if digests.of_bytes(data) != digest:
            raise BlobMissing(f"{digest}: the stored bytes were altered")
        return data

    def copy(self, digest: str, to: Path) -> None:
        try:
            source = self._path(digest).open("rb")
        except FileNotFoundError:
            raise BlobMissing(digest) from None
        with source:
            self._write(to, iter(lambda: source.read(CHUNK), b""), digest)

    def has(self, digest: str) -> bool:
        """True when the bytes are here and unaltered; verified again whenever the file changed."""
        path = self._path(digest)
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._seen.get(digest) == stamp:
                return True
            if digests.of_file(path) != digest:
                return False
        except FileNotFoundError:
            return False
        self._seen[digest] = stamp
        return True

    def kept(self) -> Iterator[tuple[str, int, float]]:
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if not path.name.startswith("."):
                    status = path.stat()
                    yield f"sha256:{folder.name}{path.name}", status.st_size, status.st_mtime

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)
        self._seen.pop(digest, None)

    def _path(self, digest: str) -> Path:
        if not digests.is_digest(digest):
            raise BlobMissing(f"{digest!r} is not a digest")
        hexed = digest.removeprefix("sha256:")
        return self.folder / hexed[:2] / hexed[2:]

    @staticmethod
    def _write(path: Path, chunks: Iterator[bytes], digest: str) -> None:
        """Write whole or not at all; bytes that are not `digest` never get the name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        running = hashlib.sha256()
        try:
            with part.open("xb") as file:
                for chunk in chunks:
                    running.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if "sha256:" + running.hexdigest() != digest:
                raise BlobMissing(f"{digest}: the bytes were altered")
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        files.sync_folder(path.parent)
