"""Keys that sign and never show themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from falaj.base.dsse import Signs
from falaj.facts.releases import RevocationKind, Trust

__all__ = ["Keys", "PrivateKeys"]


class PrivateKeys(Protocol):
    """Where private keys lie: files, or a token that never lets them out.

    ECDSA P-256; keys of log/ and witness/ names, which sign checkpoints, are Ed25519 and lie in files.

    Every adapter passes tests/contracts/test_keys.py beneath a key ring. The ring holds a lock while
    it makes or moves keys, so an adapter need not.
    """

    def names(self) -> tuple[str, ...]:
        """Those that have a key, sorted."""

    def make(self, name: str) -> Signs:
        """Make a new key, in the place of an older one of that name."""

    def read(self, name: str) -> Signs:
        """Raises NotFound, or NotAllowed when it may not or cannot be used."""

    def move(self, name: str, to: str) -> None:
        """Give the key of `name` another name, in the place of the key that bore it."""


class Keys(Protocol):
    """The key ring of a workspace and its trust root. Every adapter passes tests/contracts/test_keys.py.

    What changes the trust root makes its next version; it raises FalajError `keys.root-short` when
    others have to sign that first.
    """

    def create(self, identity: str, roles: tuple[str, ...]) -> str:
        """Make a key for `identity`, trust it for `roles`, return its hint.

        Not an error when the identity has a key: its hint is returned, roles are added.
        """

    def signer(self, identity: str) -> Signs:
        """Raises NotFound when the identity has no key here."""

    def names(self) -> tuple[str, ...]:
        """Identities that have a key here."""

    def admit(self, identity: str, roles: tuple[str, ...], pem: str, *, name: str = "") -> str:
        """Trust a public key, or the one name of a certificate authority, from elsewhere.

        Returns the key's hint or the certificate's fingerprint.
        """

    def rotate(self, identity: str) -> str:
        """A new key in the same roles; the old one is retired. `root`: signed by the old and the new."""

    def revoke(
        self,
        subject: str,
        kind: RevocationKind,
        *,
        since: datetime | None = None,
        reason: str = "",
        releases: tuple[str, ...] = (),
    ) -> tuple[str, ...]:
        """Take trust back: from an identity (all its keys), a hint, a fingerprint, a release id.

        Returns what was revoked. `releases`: made with a compromised key and good all the same.
        """

    def require(
        self, role: str, threshold: int, *, environment: str = "", witnessed: bool = False
    ) -> None:
        """So many distinct identities must sign in `role`, everywhere or for one environment."""

    def adopt(self, text: str) -> Trust:
        """Go on to a next version that enough roots of this one and of that one have signed."""

    def countersign(self, text: str) -> str:
        """Sign a proposed trust root with the root key of this ring, which it must name."""

    def trust(self) -> Trust:
        """The trust root of this workspace."""

    def trust_text(self) -> str:
        """The same as a file that others can check: the signed trust.json."""
