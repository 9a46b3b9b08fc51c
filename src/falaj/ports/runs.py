"""What is asked of many runs at once: points of metrics, and the search over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from falaj.base.filters import Filter, Order
from falaj.base.points import Series
from falaj.facts.runs import Run

__all__ = ["Runs"]


class Runs(Protocol):
    """Derived from runs and their artifacts; can be made anew. tests/contracts/test_runs.py."""

    def record(self, run: Run, series: Iterable[Series]) -> None:
        """Make a run searchable, with its points. Recording it again replaces what was there."""

    def append(self, run: str, metrics: Mapping[str, float], series: Iterable[Series]) -> None:
        """What a running step says: last values, and points behind those that are there.

        It may be lost when the store is busy: `record` brings all of it in the end.
        """

    def last(self, run: str) -> dict[str, float]:
        """The last value of each metric, also of a run that goes on."""

    def search(self, where: Filter | None, order: Order | None, *, limit: int) -> Sequence[str]:
        """Ids of runs, in the order asked for, newest first without one.

        A run without a metric or parameter never meets a comparison of it, and is not among the
        ordered ones.
        """

    def series(self, run: str, name: str) -> Series:
        """All points of one metric; an empty series where there is none."""

    def names(self, run: str) -> Sequence[str]:
        """Metrics with points."""
