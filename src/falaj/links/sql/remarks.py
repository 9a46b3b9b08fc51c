"""A person's words beside an event: sealed in a row that can be removed; the leaf only binds them.

The leaf holds HMAC-SHA-256 of the words under a salt that lies in the same row, so that without the row
nobody can try words against it. Where the project seals, both lie in one cell under a scope key: when that
is erased, copies of the row tell nothing either.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from falaj.base.fenc import KeyErased
from falaj.ports.sealing import Cells

__all__ = ["SCOPE", "BadRemark", "Remarks", "Sealed", "bound", "kept", "secret_beside"]

SALT = 32
NONCE = 12
SCOPE = "remarks"
CELL = b"FCELL\0\x01\n"  # begins what is sealed under a scope key; the rest begins at random


class BadRemark(ValueError):
    """It was altered, or sealed under another key."""


class Sealed(NamedTuple):
    salt: bytes
    sealed: bytes


def kept(made: Sealed) -> Sealed:
    """What is written: under a scope key the salt lies in the cell alone."""
    return Sealed(b"", made.sealed) if made.sealed.startswith(CELL) else made


class Opened(NamedTuple):
    salt: bytes
    words: str


def place(event: str) -> dict[str, str]:
    """Where a cell is bound to."""
    return {"table": "remark", "column": "sealed", "row": event}


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
        self._cells: Cells | None = None

    def under(self, cells: Cells) -> None:
        """From now on seal under a scope key; what was sealed before opens as before."""
        self._cells = cells

    def ready(self) -> None:
        """To be called before the transaction that seals."""
        if self._cells is not None:
            self._cells.ready()

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
        if self._cells is not None:
            cell = self._cells.seal(salt + words.encode(), **place(event))
            return Sealed(salt, CELL + cell)
        return Sealed(
            salt, nonce + AESGCM(self._key).encrypt(nonce, words.encode(), event.encode())
        )

    def open(self, event: str, sealed: bytes, salt: bytes) -> Opened:
        """Raises BadRemark; KeyErased where nobody can read it any more."""
        if sealed.startswith(CELL):
            return self._cell(event, sealed[len(CELL) :])
        return Opened(salt, self._old(event, sealed))

    def _cell(self, event: str, cell: bytes) -> Opened:
        if self._cells is None:
            # A project that seals nothing opens only after all keys were erased.
            raise KeyErased("the workspace has no keys any more")
        try:
            found = self._cells.opened(cell, **place(event))
            return Opened(found[:SALT], found[SALT:].decode())
        except KeyErased:
            raise
        except ValueError:
            raise BadRemark(f"the remark of event {event} does not open") from None

    def _old(self, event: str, sealed: bytes) -> str:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            found = AESGCM(self._key).decrypt(sealed[:NONCE], sealed[NONCE:], event.encode())
        except (InvalidTag, ValueError):
            raise BadRemark(f"the remark of event {event} does not open") from None
        return found.decode()
