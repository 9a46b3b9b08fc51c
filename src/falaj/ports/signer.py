"""Keys that sign and never show themselves."""

from __future__ import annotations

from typing import Protocol

from falaj.base.dsse import Signs
from falaj.facts.releases import Trust

__all__ = ["Keys"]


class Keys(Protocol):
    """The key ring of a workspace. Every adapter passes tests/contracts/test_keys.py."""

    def create(self, identity: str, roles: tuple[str, ...]) -> str:
        """Make a key for `identity`, trust it for `roles`, return its hint.

        Not an error when the identity has a key: its hint is returned, roles are added.
        """

    def signer(self, identity: str) -> Signs:
        """Raises NotFound when the identity has no key here."""

    def trust(self) -> Trust:
        """The trust root of this workspace."""

    def trust_text(self) -> str:
        """The same as a file that others can check: the signed trust.json."""
