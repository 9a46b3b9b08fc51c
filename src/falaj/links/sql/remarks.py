"""A person's words beside an event: sealed in a row that can be removed; the leaf only binds them.

The leaf holds HMAC-SHA-256 of the words under a salt that lies in the same row, so that without the row
nobody can try words against it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["BadRemark", "Remarks", "Sealed", "bound", "secret_beside"]

SALT = 32
NONCE = 12


class BadRemark(ValueError):
    """It was altered, or sealed under another key."""


class Sealed(NamedTuple):
    salt: bytes
    sealed: bytes


def bound(salt: bytes, words: str) -> str:
    """What the leaf says of the words."""
    return hmac.digest(salt, words.encode(), "sha256").hex()


def secret_beside(database: Path) -> bytes:
    """32 random bytes that stay beside the database, readable by this user only."""
    path = database.with_name("remarks.key")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        with suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(handle)
        return path.read_bytes()


class Remarks:
    """Seals with AES-256-GCM; the event's id is bound to it. key: 32 bytes, asked for when wanted."""

    def __init__(self, key: Callable[[], bytes] | None) -> None:
        self._ask = key
        self._known = b""

    @property
    def _key(self) -> bytes:
        if not self._known:
            if self._ask is None:
                raise BadRemark("this store was opened without a key for remarks")
            self._known = self._ask()
        return self._known

    def seal(self, event: str, words: str) -> Sealed:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt, nonce = os.urandom(SALT), os.urandom(NONCE)
        return Sealed(
            salt, nonce + AESGCM(self._key).encrypt(nonce, words.encode(), event.encode())
        )

    def open(self, event: str, sealed: bytes) -> str:
        """Raises BadRemark."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            found = AESGCM(self._key).decrypt(sealed[:NONCE], sealed[NONCE:], event.encode())
        except (InvalidTag, ValueError):
            raise BadRemark(f"the remark of event {event} does not open") from None
        return found.decode()
