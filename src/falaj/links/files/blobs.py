"""Blobs in a folder: `ab/cdef...` under the first two hex digits. Verified whenever they are read.

With a Sealing the files are encrypted and named so that the names tell nothing; digests are of the bytes
before that, so nothing else changes. What was put before is read where it lies, and sealed by `seal_rest`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from falaj.base import digests, files
from falaj.base.fenc import MAGIC
from falaj.ports.blobs import BlobMissing
from falaj.ports.sealing import Sealing

__all__ = ["FileBlobs"]

CHUNK: Final = 1 << 20


class FileBlobs:
    """The port Blobs over one folder. Safe for several processes: names are made by rename only."""

    def __init__(self, folder: Path, sealing: Sealing | None = None) -> None:
        self.folder = folder
        self._sealing = sealing
        self._home = f"{folder}{os.sep}"
        self._seen: dict[str, tuple[int, int, int, int]] = {}

    def put(self, data: bytes) -> str:
        digest = digests.of_bytes(data)
        if not self.has(digest):
            if self._sealing is None:
                files.write_atomic(self._plain(digest), data, mode=0o444)
            else:
                self._seal(io.BytesIO(data), digest)
        return digest

    def put_file(self, path: Path) -> str:
        digest = digests.of_file(path)
        if self.has(digest):
            return digest
        with path.open("rb") as source:
            if self._sealing is None:
                self._write(self._path(digest), _chunks(source), digest)
            else:
                self._seal(source, digest)
        return digest

    def get(self, digest: str) -> bytes:
        data = b"".join(self._read(digest))
        if digests.of_bytes(data) != digest:
            raise BlobMissing(f"{digest}: the stored bytes were altered")
        return data

    def copy(self, digest: str, to: Path) -> None:
        self._write(to, self._read(digest), digest)

    def _read(self, digest: str) -> Iterator[bytes]:
        path = self._where(digest)
        try:
            source = open(path, "rb")  # noqa: PTH123, SIM115 plain text as above; closed below
        except FileNotFoundError:
            raise BlobMissing(digest) from None
        with source:
            if self._sealing is None or path == self._plain(digest):
                yield from _chunks(source)
                return
            try:
                yield from self._sealing.opened(source, digest)
            except ValueError as error:
                raise BlobMissing(f"{digest}: {error}") from None

    def seal_rest(self) -> int:
        """Seal what was put before there was a key; how many."""
        if self._sealing is None:
            return 0
        sealed = 0
        for path in self._files():
            digest = f"sha256:{path.parent.name}{path.name}"
            if self._is_sealed(path):
                continue
            with path.open("rb") as source:
                self._seal(source, digest)
            path.unlink()
            sealed += 1
        return sealed

    def _seal(self, source: BinaryIO, digest: str) -> None:
        assert self._sealing is not None  # noqa: S101 asked with one only
        heard = _Heard(source)
        with files.replacing(self._path(digest), mode=0o444) as target:
            self._sealing.seal(heard, target, digest)
            if heard.digest != digest:
                raise BlobMissing(f"{digest}: the bytes were altered while they were sealed")

    def has(self, digest: str) -> bool:
        """True when the bytes are here and unaltered; verified again whenever the file changed."""
        path = self._where(digest)
        try:
            status = os.stat(path)  # noqa: PTH116 asked for every artifact of a cached run
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._seen.get(digest) == stamp:
                return True
            if not self._is_whole(digest):
                return False
        except (FileNotFoundError, BlobMissing):
            return False
        self._seen[digest] = stamp
        return True

    def _is_whole(self, digest: str) -> bool:
        running = hashlib.sha256()
        for chunk in self._read(digest):
            running.update(chunk)
        return "sha256:" + running.hexdigest() == digest

    def size(self, digest: str) -> int:
        if self._sealing is not None:
            return sum(len(chunk) for chunk in self._read(digest))
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobMissing(digest) from None

    def kept(self) -> Iterator[tuple[str, int, float]]:
        for path in self._files():
            status = path.stat()
            digest = f"sha256:{path.parent.name}{path.name}"
            if self._sealing is not None and self._is_sealed(path):
                # One whose key was erased keeps its name: nothing needs it, so it is swept.
                with path.open("rb") as source, contextlib.suppress(ValueError):
                    digest = self._sealing.object(source)
            yield digest, status.st_size, status.st_mtime

    def remove(self, digest: str) -> None:
        for path in {self._name(digest), self._plain(digest)}:
            Path(path).unlink(missing_ok=True)
        self._seen.pop(digest, None)

    def _files(self) -> Iterator[Path]:
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if not path.name.startswith("."):
                    yield path

    @staticmethod
    def _is_sealed(path: Path) -> bool:
        with path.open("rb") as source:
            return source.read(len(MAGIC)) == MAGIC

    def _path(self, digest: str) -> Path:
        return Path(self._name(digest))

    def _where(self, digest: str) -> str:
        """Where it lies: sealed, or in the clear from a time before."""
        name = self._name(digest)
        if self._sealing is None or os.path.exists(name):  # noqa: PTH110 plain text as below
            return name
        plain = self._plain(digest)
        return plain if os.path.exists(plain) else name  # noqa: PTH110 plain text as below

    def _name(self, digest: str) -> str:
        """The path of what is written now."""
        if self._sealing is None:
            return self._plain(digest)
        if not digests.is_digest(digest):
            raise BlobMissing(f"{digest!r} is not a digest")
        hexed = self._sealing.name(digest)
        return f"{self._home}{hexed[:2]}{os.sep}{hexed[2:]}"

    def _plain(self, digest: str) -> str:
        """The path as plain text: taking paths apart costs as much as asking for the file."""
        if not digests.is_digest(digest):
            raise BlobMissing(f"{digest!r} is not a digest")
        hexed = digest.removeprefix("sha256:")
        return f"{self._home}{hexed[:2]}{os.sep}{hexed[2:]}"

    @staticmethod
    def _write(path: Path, chunks: Iterator[bytes], digest: str) -> None:
        """Write whole or not at all; bytes that are not `digest` never get the name."""
        running = hashlib.sha256()
        with files.replacing(path) as file:
            for chunk in chunks:
                running.update(chunk)
                file.write(chunk)
            if "sha256:" + running.hexdigest() != digest:
                raise BlobMissing(f"{digest}: the bytes were altered")


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(CHUNK), b"")


class _Heard:
    """A file whose digest is taken while somebody else reads it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._running = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._running.update(data)
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._running.hexdigest()
