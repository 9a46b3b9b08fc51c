"""Scope keys: one for everything that is erased together. Wrapped in the store, open in memory only.

    a key-encryption key, in its provider  ->  scope key, in the table `scope_key`  ->  a key an object

Rotating the first re-wraps few rows and touches no object; erasing the second one ends all objects of
the scope, in every backup of them, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from time import monotonic
from typing import BinaryIO, Final, NamedTuple

from falaj.base import canonical, fenc
from falaj.base.errors import NotAllowed
from falaj.base.fenc import KeyErased, Read, Unsealable
from falaj.base.fenclog import public_of
from falaj.ports.kms import Kms, ScopeKey, ScopeStore, Wrapped

__all__ = ["MEMORY", "ScopeCells", "ScopeKeys", "ScopeSealing"]

MEMORY: Final = timedelta(minutes=10)  # how long an open key stays in memory
NAMES: Final = "names"
NONCE: Final = 12


class Held(NamedTuple):
    key: bytes
    until: float


class ScopeKeys:
    """The scope keys of one workspace.

    residency: countries in which the data may lie; a provider elsewhere is refused.
    """

    def __init__(
        self,
        store: ScopeStore,
        kms: Kms,
        *,
        residency: tuple[str, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._kms, self._now = store, kms, now
        self._residency = ",".join(sorted({country.lower() for country in residency}))
        self._held: dict[tuple[str, int], Held] = {}
        self._lock = threading.Lock()
        if kms.country.lower() not in self._residency.split(","):
            raise NotAllowed(
                "keys.residency",
                f"the key-encryption keys lie in {kms.country!r}, the data may be in "
                f"{self._residency or 'no country'}",
                why="who holds the key holds the data",
                fix="use a provider of keys in one of these countries",
            )

    def current(self, scope: str) -> tuple[int, bytes]:
        """The version that seals now and its key, made on first use and after an erasure."""
        # The table is asked each time: under a key that somebody has erased nothing is sealed.
        for _ in range(8):
            versions = self._store.of(scope)
            if versions and versions[-1].erased is None:
                version = versions[-1].version
                with self._lock:
                    held = self._held.get((scope, version))
                fresh = held is not None and held.until > monotonic()
                return version, held.key if held and fresh else self._opened(versions[-1])
            with self._kms.steady():
                self._store.add(self._made(scope, versions[-1].version + 1 if versions else 1))
        raise NotAllowed("keys.unwrap", f"no key can be made for {scope!r}")

    def key(self, scope: str, version: int) -> bytes:
        """Raises Unsealable when it was erased or never was."""
        with self._lock:
            held = self._held.get((scope, version))
            if held is not None and held.until > monotonic():
                return held.key
        for one in self._store.of(scope):
            if one.version == version:
                return self._opened(one)
        raise Unsealable(f"there is no key of scope {scope!r}, version {version}")

    def renew(self, scope: str) -> int:
        """A new version for new objects; older ones go on opening theirs."""
        versions = self._store.of(scope)
        version = versions[-1].version + 1 if versions else 1
        with self._kms.steady():
            self._store.add(self._made(scope, version))
        return version

    def rewrap(self) -> tuple[str, int]:
        """Under a new key-encryption key; the older ones are destroyed. Its id, how many rows."""
        with self._kms.steady(alone=True):
            fresh = self._kms.rotate()
            count = 0
            for one in self._store.all():
                if one.erased is None and one.wrapped.kek != fresh:
                    key = self._opened(one)
                    wrapped = self._kms.wrap(key, self._context(one.scope, one.version))
                    self._store.rewrap(
                        one, wrapped, self._binding(key, one.scope, one.version, wrapped)
                    )
                    count += 1
            left = {one.wrapped.kek for one in self._store.all() if one.erased is None}
            for kek in set(self._kms.known()) - left - {fresh}:
                self._kms.destroy(kek)
        return fresh, count

    def erase(self, scope: str) -> tuple[ScopeKey, ...]:
        """Erase all versions, for ever. Returns what was erased."""
        gone = self._store.erase(scope, self._now())
        with self._lock:
            for name in [name for name in self._held if name[0] == scope]:
                del self._held[name]
        return tuple(gone)

    def sealing(self, scope: str, classification: str) -> ScopeSealing:
        return ScopeSealing(self, lambda: scope, classification)

    def cells(self, scope: str) -> ScopeCells:
        return ScopeCells(self, scope)

    def writing(self, scope: str) -> tuple[int, bytes]:
        version, key = self.current(scope)
        return version, public_of(derived(key, b"log"))

    def reading(self, scope: str, version: int) -> bytes:
        return derived(self.key(scope, version), b"log")

    def listed(self) -> list[ScopeKey]:
        return self._store.all()

    def _made(self, scope: str, version: int) -> ScopeKey:
        key = os.urandom(32)
        wrapped = self._kms.wrap(key, self._context(scope, version))
        return ScopeKey(
            scope=scope,
            version=version,
            residency=self._residency,
            wrapped=wrapped,
            binding=self._binding(key, scope, version, wrapped),
            created=self._now(),
        )

    def _opened(self, one: ScopeKey) -> bytes:
        if one.erased is not None:
            raise KeyErased(
                f"the key of scope {one.scope!r} was erased at {one.erased.isoformat()}"
            )
        key = self._kms.unwrap(one.wrapped, self._context(one.scope, one.version, one.residency))
        bound = self._binding(key, one.scope, one.version, one.wrapped, one.residency)
        if not hmac.compare_digest(bound, one.binding):
            raise NotAllowed(
                "keys.unwrap",
                f"the key of scope {one.scope!r} belongs to something else",
                why="its row says another scope, version, country or wrapping key than it was made for",
                fix="put the table of scope keys back from a copy",
            )
        with self._lock:
            self._held[one.scope, one.version] = Held(key, monotonic() + MEMORY.total_seconds())
        return key

    def _context(self, scope: str, version: int, residency: str | None = None) -> dict[str, str]:
        where = self._residency if residency is None else residency
        return {"scope": scope, "version": str(version), "residency": where}

    def _binding(
        self, key: bytes, scope: str, version: int, wrapped: Wrapped, residency: str | None = None
    ) -> str:
        said = {**self._context(scope, version, residency), "kek": wrapped.kek}
        return hmac.new(derived(key, b"binding"), canonical.dumps(said), hashlib.sha256).hexdigest()


class ScopeSealing:
    """Adapter of ports.sealing.Sealing. scope: of what is sealed now, such as a month."""

    def __init__(self, keys: ScopeKeys, scope: Callable[[], str], classification: str) -> None:
        self._keys, self._scope, self._classification = keys, scope, classification
        self._naming = b""

    def seal(self, source: Read, to: BinaryIO, object: str) -> None:
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap

        scope = self._scope()
        version, key = self._keys.current(scope)
        what = aes_key_wrap(derived(key, b"digest"), bytes.fromhex(object.removeprefix("sha256:")))
        labels = {
            "object": self.name(object),
            "what": base64.b64encode(what).decode(),
            "scope": scope,
            "scope_version": str(version),
            "classification": self._classification,
        }
        fenc.seal(source, to, key, labels)

    def opened(self, source: BinaryIO, object: str) -> Iterator[bytes]:
        _, key = self._header(source)
        return fenc.opened(source, key, object=self.name(object))

    def name(self, object: str) -> str:
        if not self._naming:
            _, key = self._keys.current(NAMES)
            self._naming = derived(key, b"names")
        return hmac.new(self._naming, object.encode(), hashlib.sha256).hexdigest()

    def object(self, source: BinaryIO) -> str:
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        labels, key = self._header(source)
        try:
            what = base64.b64decode(labels["what"], validate=True)
            return "sha256:" + aes_key_unwrap(derived(key, b"digest"), what).hex()
        except (InvalidUnwrap, ValueError, KeyError):
            raise Unsealable("its header was altered") from None

    def _header(self, source: BinaryIO) -> tuple[dict[str, str], bytes]:
        """The labels and the key that they name; `source` stands at its beginning again."""
        labels = fenc.labels_of(source)
        source.seek(0)
        try:
            return labels, self._keys.key(labels["scope"], int(labels["scope_version"]))
        except (KeyError, ValueError) as error:
            if isinstance(error, Unsealable):
                raise
            raise Unsealable("its header was altered") from None


class ScopeCells:
    """Adapter of ports.sealing.Cells: `version | nonce | AES-256-GCM`, bound to table|column|row."""

    def __init__(self, keys: ScopeKeys, scope: str) -> None:
        self._keys, self._scope = keys, scope

    def ready(self) -> None:
        self._keys.current(self._scope)

    def seal(self, data: bytes, *, table: str, column: str, row: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        version, key = self._keys.current(self._scope)
        nonce = os.urandom(NONCE)
        cipher = AESGCM(derived(key, b"cells"))
        return (
            version.to_bytes(4, "big")
            + nonce
            + cipher.encrypt(nonce, data, place(table, column, row))
        )

    def opened(self, data: bytes, *, table: str, column: str, row: str) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._keys.key(self._scope, int.from_bytes(data[:4], "big"))
        nonce, sealed = data[4 : 4 + NONCE], data[4 + NONCE :]
        try:
            return AESGCM(derived(key, b"cells")).decrypt(nonce, sealed, place(table, column, row))
        except (InvalidTag, ValueError):
            raise Unsealable("the cell was altered or stood elsewhere") from None


def place(table: str, column: str, row: str) -> bytes:
    if "|" in table or "|" in column:
        raise ValueError("names of tables and columns have no '|'")
    return f"{table}|{column}|{row}".encode()


def derived(key: bytes, purpose: bytes) -> bytes:
    """One key a purpose: HMAC-SHA256 as a key derivation."""
    return hmac.new(key, b"falaj/" + purpose, hashlib.sha256).digest()
