"""Keys that wrap keys, and where wrapped keys are kept."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from falaj.ports.sealing import Cells, Sealing

__all__ = ["Kms", "ScopeKey", "ScopeStore", "Scopes", "Wrapped"]


class Wrapped(NamedTuple):
    """A wrapped key, and which key-encryption key wrapped it."""

    kek: str
    text: str  # base64


class Kms(Protocol):
    """A provider of key-encryption keys, which never leave it. Every adapter passes tests/contracts/test_kms.py.

    context is bound to what is wrapped: unwrapping with another one is refused.
    """

    @property
    def country(self) -> str:
        """Where the keys lie: two small letters."""

    def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrapped:
        """Wrap 32 bytes under the newest key."""

    def unwrap(self, wrapped: Wrapped, context: Mapping[str, str]) -> bytes:
        """Raises NotAllowed: another context, another key, altered, or destroyed."""

    def newest(self) -> str:
        """Id of the key that wraps now, made on first use."""

    def rotate(self) -> str:
        """Make a new one that wraps from now on; older ones still unwrap."""

    def destroy(self, kek: str) -> None:
        """For ever. Raises NotAllowed for the newest one."""

    def known(self) -> list[str]:
        """Ids of all that still unwrap, oldest first."""

    def steady(self, *, alone: bool = False) -> AbstractContextManager[None]:
        """Held from wrapping something until it is kept; alone while all that is kept is gone through.

        Whoever destroys a key, alone, then misses nothing that it wrapped.
        """


class ScopeKey(NamedTuple):
    """One version of one scope's key. `wrapped` is empty after it was erased.

    binding: HMAC under the key itself over the rest, for providers that bind no context.
    """

    scope: str
    version: int
    residency: str  # countries, sorted, joined by a comma
    wrapped: Wrapped
    binding: str
    created: datetime
    erased: datetime | None = None


class ScopeStore(Protocol):
    """The one place where scope keys are kept, wrapped."""

    def all(self) -> list[ScopeKey]:
        """By scope and version, erased ones too."""

    def of(self, scope: str) -> list[ScopeKey]:
        """The versions of one scope, rising."""

    def add(self, key: ScopeKey) -> bool:
        """False when that version is there already: somebody else was quicker."""

    def rewrap(self, key: ScopeKey, wrapped: Wrapped, binding: str) -> None:
        """Not when it was erased or wrapped anew meanwhile."""

    def erase(self, scope: str, at: datetime) -> list[ScopeKey]:
        """Overwrite the wrapped keys of all versions, also in the files of the store."""


class Scopes(Protocol):
    """The scope keys of a workspace, for those who keep them."""

    def listed(self) -> list[ScopeKey]: ...

    def renew(self, scope: str) -> int:
        """A new version for new objects; returns its number."""

    def rewrap(self) -> tuple[str, int]:
        """All under a new key-encryption key; the older ones are destroyed. Its id, how many."""

    def erase(self, scope: str) -> tuple[ScopeKey, ...]:
        """For ever. Returns the versions that were erased."""

    def sealing(self, scope: str, classification: str) -> Sealing:
        """Seals under this scope; opens what any scope of the workspace sealed."""

    def cells(self, scope: str) -> Cells:
        """For columns of the database, all under this scope."""

    def writing(self, scope: str) -> tuple[int, bytes]:
        """The version that seals now, and the public half (X25519) of a key derived from it.

        For processes that write and never read: it opens nothing.
        """

    def reading(self, scope: str, version: int) -> bytes:
        """The private half. Raises ValueError: erased, or never was."""
