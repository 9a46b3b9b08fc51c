"""Counts by assignment, cumulative per stratum; and a latency histogram to freeze edges from."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from falaj.facts.serving import Counts

__all__ = ["BUCKETS", "Cell", "Histogram", "Tally", "bucket", "upper_us"]

BUCKETS: Final = 8 * 25  # up to 2**27 us, a bit over two minutes
STABLE: Final = 0
CANARY: Final = 1
MOST_KEYS: Final = 1_000_000


class Cell:
    """Counts of one model in one stratum of one step; pairs are (stable, canary).

    n: requests whose outcome is known, errors: without an answer of their own arm in time,
    timed: those with one, over[i]: of these, slower than threshold i. edges: of each arm; those of
    the canary lie higher by the difference that does not matter, so that it is proven slower only
    by more than that.
    """

    __slots__ = (
        "changed",
        "edges",
        "errors",
        "model",
        "n",
        "over",
        "rollout",
        "step",
        "stratum",
        "timed",
        "zone",
    )

    def __init__(
        self,
        model: str,
        rollout: str,
        step: int,
        stratum: int,
        zone: str,
        edges: tuple[int, ...],
        margin: int = 0,
    ) -> None:
        self.model = model
        self.rollout = rollout
        self.step = step
        self.stratum = stratum
        self.zone = zone
        self.edges = (edges, tuple(edge + margin for edge in edges))
        self.n = [0, 0]
        self.errors = [0, 0]
        self.timed = [0, 0]
        self.over = [[0, 0] for _ in edges]
        self.changed = False

    def lines(self, source: str, seq: int) -> list[Counts]:
        told: list[tuple[str, list[int], list[int]]] = [
            ("requests", self.n, [0, 0]),
            ("errors", self.n, self.errors),
            *((f"latency.{at}", self.timed, over) for at, over in enumerate(self.over)),
        ]
        return [
            Counts(
                source=source,
                seq=seq,
                model=self.model,
                rollout=self.rollout,
                stratum=self.stratum,
                zone=self.zone,
                step=self.step,
                metric=metric,
                n_c=n[CANARY],
                x_c=x[CANARY],
                n_s=n[STABLE],
                x_s=x[STABLE],
            )
            for metric, n, x in told
        ]


class Tally:
    """All open cells of a process. A late outcome still counts in the cell of its assignment."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.seq = 0
        self.cells: dict[tuple[Any, ...], Cell] = {}
        self.dirty: list[Cell] = []
        self.users: dict[str, set[bytes]] = {}

    def first(self, rollout: str, key: bytes) -> bool:
        """Whether a sticky key is met for the first time: each counts once, in one stratum.

        Above `MOST_KEYS` no more are counted: fewer counts are slow, doubled ones are wrong.
        """
        seen = self.users.get(rollout)
        if seen is None:
            self.users = {rollout: (seen := set())}
        mark = hashlib.blake2b(key, digest_size=8).digest()
        if mark in seen or len(seen) >= MOST_KEYS:
            return False
        seen.add(mark)
        return True

    def cell(
        self,
        model: str,
        rollout: str,
        step: int,
        stratum: int,
        zone: str,
        edges: tuple[int, ...],
        margin: int = 0,
    ) -> Cell:
        """The open cell, made on first use. edges, margin: microseconds."""
        key = (model, rollout, step, stratum)
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = Cell(model, rollout, step, stratum, zone, edges, margin)
            # Requests in work hold their own cell; the table itself needs the newest few only.
            while len(self.cells) > 256:
                del self.cells[next(iter(self.cells))]
        return found

    def count(self, cell: Cell, arm: int, latency_us: int) -> None:
        """One outcome; latency_us below 0: no answer of its own arm."""
        cell.n[arm] += 1
        if latency_us < 0:
            cell.errors[arm] += 1
        else:
            cell.timed[arm] += 1
            for edge, over in zip(cell.edges[arm], cell.over, strict=True):
                if latency_us <= edge:
                    break
                over[arm] += 1
        if not cell.changed:
            cell.changed = True
            self.dirty.append(cell)

    def changes(self) -> list[Counts]:
        """Cumulative counts of every cell that changed since the last call."""
        if not self.dirty:
            return []
        dirty, self.dirty = self.dirty, []
        self.seq += 1
        found = []
        for cell in dirty:
            cell.changed = False
            found.extend(cell.lines(self.source, self.seq))
        return found


def bucket(us: int) -> int:
    """Bucket of a latency: eight a doubling, exact below 16."""
    if us < 16:
        return max(us, 0)
    shift = us.bit_length() - 4
    return min((shift << 3) + (us >> shift), BUCKETS - 1)


def upper_us(index: int) -> int:
    """Return the largest latency of a bucket."""
    if index < 16:
        return index
    shift = (index >> 3) - 1
    return (((index & 7) + 8 + 1) << shift) - 1


EDGES_US: Final = tuple(upper_us(index) for index in range(BUCKETS))


class Histogram:
    """Latencies of one release in microseconds: bin i holds (edges[i-1], edges[i]].

    slowest: latency and name of the slowest request since somebody looked last.
    """

    __slots__ = ("counts", "release", "rows", "slowest", "total_us")

    def __init__(self, release: str) -> None:
        self.release = release
        self.counts = [0] * BUCKETS
        self.total_us = 0
        self.rows = 0
        self.slowest = (-1, "")

    def add(self, us: int) -> None:
        self.counts[bucket(us)] += 1
        self.total_us += us

    def note(self, us: int, rows: int, request: str) -> None:
        """Add an answered request, and keep its name while it is the slowest."""
        self.counts[bucket(us)] += 1
        self.total_us += us
        self.rows += rows
        if us > self.slowest[0]:
            self.slowest = (us, request)

    def told(self) -> dict[str, Any]:
        """Leave out empty ends; edges are upper bounds."""
        used = [at for at, count in enumerate(self.counts) if count]
        if not used:
            return {"release": self.release, "edges_us": [], "counts": []}
        low, high = used[0], used[-1] + 1
        return {
            "release": self.release,
            "edges_us": list(EDGES_US[low:high]),
            "counts": self.counts[low:high],
        }
