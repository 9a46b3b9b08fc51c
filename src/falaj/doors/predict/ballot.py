"""Whether all workers switch to a plan, or none. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["NEWER", "Ballot", "Verdict"]

NEWER: Final = "a newer plan came in between"


class Verdict(NamedTuple):
    """What workers are told about a plan: switch (no reason), or why not."""

    seq: int
    why: str
    workers: tuple[int, ...]


class Ballot:
    """Votes by plan and worker. A worker that died or drains has no say."""

    def __init__(self) -> None:
        self.votes: dict[int, dict[int, str]] = {}

    def cast(self, seq: int, worker: int, why: str, voters: Iterable[int]) -> list[Verdict]:
        """Note a vote; returns what is decided by it."""
        found = [
            Verdict(old, NEWER, tuple(self.votes.pop(old)))
            for old in sorted(self.votes)
            if old < seq
        ]
        self.votes.setdefault(seq, {})[worker] = why
        return found + self.count(voters)

    def count(self, voters: Iterable[int]) -> list[Verdict]:
        """Decide what can be decided, also after the number of workers has changed."""
        entitled = set(voters)
        found = []
        for seq, votes in sorted(self.votes.items()):
            reasons = [why for worker, why in votes.items() if why and worker in entitled]
            if reasons:
                found.append(Verdict(seq, reasons[0], tuple(votes)))
            elif entitled <= votes.keys():
                found.append(Verdict(seq, "", tuple(votes)))
        for verdict in found:
            del self.votes[verdict.seq]
        return found
