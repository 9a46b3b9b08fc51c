"""Key-encryption keys in a folder: for one machine. Whoever is this user can read them."""

from __future__ import annotations

import base64
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from falaj.base import canonical
from falaj.base.errors import NotAllowed
from falaj.ports.kms import Wrapped

__all__ = ["LocalKms"]

NONCE: Final = 12
SUFFIX: Final = ".key"


class LocalKms:
    """Adapter of ports.kms.Kms: 32 random bytes a file (0600) in a folder (0700)."""

    def __init__(self, folder: Path, *, country: str) -> None:
        self._folder, self._country = folder, country
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        refuse_wide(folder, folder.lstat(), 0o700)

    @property
    def country(self) -> str:
        return self._country

    def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrapped:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        kek = self.newest()
        nonce = os.urandom(NONCE)
        sealed = AESGCM(self._read(kek)).encrypt(nonce, key, canonical.dumps(dict(context)))
        return Wrapped(kek, base64.b64encode(nonce + sealed).decode())

    def unwrap(self, wrapped: Wrapped, context: Mapping[str, str]) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher = AESGCM(self._read(wrapped.kek))
        try:
            data = base64.b64decode(wrapped.text, validate=True)
            bound = canonical.dumps(dict(context))
            return cipher.decrypt(data[:NONCE], data[NONCE:], bound)
        except (InvalidTag, ValueError):
            raise NotAllowed(
                "keys.unwrap",
                f"a key wrapped under {wrapped.kek} does not open",
                why="it was altered, or it is the key of something else",
                fix="put the table of scope keys back from a copy",
            ) from None

    def newest(self) -> str:
        found = self.known()
        return found[-1] if found else self.rotate()

    def rotate(self) -> str:
        while True:
            found = self.known()
            kek = f"kek-{int(found[-1][4:]) + 1 if found else 1:06d}"
            path = self._folder / f"{kek}{SUFFIX}"
            try:
                handle = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            except FileExistsError:
                continue  # another process was quicker
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(handle)
            return kek

    def destroy(self, kek: str) -> None:
        if kek == self.newest():
            raise NotAllowed(
                "keys.kek-in-use",
                f"{kek} wraps what is made now",
                why="without it nothing that is sealed could be read",
                fix="falaj keys rewrap makes a new one first",
            )
        path = self._path(kek)
        if path.exists():
            # Overwritten first: on a plain file system the old bytes are then gone.
            with path.open("r+b") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()

    def known(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob(f"kek-*{SUFFIX}"))

    @contextmanager
    def steady(self, *, alone: bool = False) -> Iterator[None]:
        handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    def _path(self, kek: str) -> Path:
        if not (kek.startswith("kek-") and kek[4:].isdecimal()):
            raise lost(kek)
        return self._folder / f"{kek}{SUFFIX}"

    def _read(self, kek: str) -> bytes:
        path = self._path(kek)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise lost(kek) from None
        with os.fdopen(handle, "rb") as file:
            refuse_wide(path, os.fstat(handle), 0o600)
            key = file.read()
        if len(key) != 32:
            raise lost(kek)
        return key


def lost(kek: str) -> NotAllowed:
    return NotAllowed(
        "keys.kek-missing",
        f"the key-encryption key {kek!r} is not here",
        why="what it wraps cannot be read without it, by nobody",
        fix="put its file back from a copy",
    )


def refuse_wide(path: Path, found: os.stat_result, wanted: int) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid() or mode & 0o077 or stat.S_ISLNK(found.st_mode):
        raise NotAllowed(
            "keys.too-open",
            f"{path} has mode {mode:04o} or another owner, expected {wanted:04o} and this user",
            why="who can read a key can read all that it seals",
            fix=f"run `chmod {wanted:o} {path}`; if others had access: falaj keys rewrap",
        )
