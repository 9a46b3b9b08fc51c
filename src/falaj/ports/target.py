"""A place where releases run. Declarative: say what should be, look at what is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from falaj.facts.serving import Counts, Desired, Observed

__all__ = ["Target"]


class Target(Protocol):
    """Every adapter passes tests/contracts/test_target.py."""

    def apply(self, desired: Desired) -> None:
        """Move towards `desired`: place release folders, write the plan, start what is missing.

        Idempotent; returns before everything is ready. A plan with a smaller `seq` than the one
        in place is ignored, so that a worker that lost its lease cannot turn back the clock.
        Raises FalajError when the target cannot do it at all.
        """

    def observe(self, environment: str) -> Observed:
        """What runs now, as it answers by itself. Never raises for a dead process."""

    def counts(self, environment: str, rollout: str) -> list[Counts]:
        """Cumulative counts that the servers have written for one rollout, any order."""

    def spool(self, environment: str) -> Path:
        """A local folder with what the servers left: log, ground truth, counts, boot records."""

    def prune(self, environment: str, keep: frozenset[str]) -> None:
        """Remove release folders that are not in `keep` (`releases/<name>`), but for the newest one.

        Asked for only when every server shows the plan that needs no others.
        """

    def stop(self, environment: str) -> None:
        """End all processes of the environment. Not an error when there are none."""
