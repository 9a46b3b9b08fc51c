"""Known vulnerabilities of packages, in a database that came signed from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from falaj.facts.scans import AdvisoryStatement

__all__ = ["Advisories", "AdvisoryShelf"]


class Advisories(Protocol):
    """One opened database."""

    def of(self, package: str) -> Sequence[Mapping[str, Any]]:
        """Records in OSV form that name the package (a normalised name), withdrawn ones too."""


class AdvisoryShelf(Protocol):
    """Databases by their digest. Every adapter passes tests/contracts/test_advisories.py."""

    def look(self, bundle: Path, keys: Mapping[str, bytes]) -> tuple[AdvisoryStatement, str]:
        """What the bundle states, and the hint of the key that signed it; nothing is kept.

        keys: hint -> PEM of those who may sign advisories. Raises Unverified.
        """

    def keep(self, bundle: Path, stated: AdvisoryStatement) -> None:
        """Keep the database of a bundle, when it is the one that is stated. Raises Unverified.

        Keeping twice is not an error; a half-written one is never seen.
        """

    def forget(self, digest: str) -> None:
        """Remove a database that is not used any more. Not an error when it is not there."""

    def opened(self, digest: str) -> Advisories:
        """The database. Raises NotFound; Unverified when its bytes are not those of the digest."""
