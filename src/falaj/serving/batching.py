"""Runs together what one turn of the loop delivered. No timer, so nothing waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from falaj.serving.loading import EngineFailed, Outputs
from falaj.serving.schema import Rows

__all__ = ["MAX_ROWS", "Engine", "Turn", "Waiting"]

MAX_ROWS: Final = 64


class Engine(Protocol):
    """What a batch runs on. away: it is asked, and its answer comes in a later turn."""

    away: bool

    def ask(self, jobs: list[Waiting]) -> None:
        """Ask for all; `settle` or `fail` of each is called when it is known. Only where `away`."""

    def run(self, parts: list[Rows]) -> Outputs:
        """Answer all parts in one call. Raises EngineFailed."""


class Waiting(Protocol):
    """A request that waits for its turn. Hashable arms: `engine` is the group.

    until: seconds of `time.perf_counter` when nobody wants the answer any more.
    """

    rows: Rows
    engine: Any
    until: float

    def settle(self, outputs: Outputs, first: int, waited_ns: int) -> None:
        """Take rows `first` and following. waited_ns: spent on other engines in this turn."""

    def fail(self, error: EngineFailed, waited_ns: int) -> None:
        """No answer from this engine; the request may join the same turn with another one."""


class Turn:
    """Collects requests and runs them once the loop has handed out what was there.

    Time that a request waits for *another* engine of the turn is told apart: both arms of a
    rollout share a loop, and the small arm would otherwise be timed with the large one's work.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        self.later = later
        self.waiting: list[Waiting] = []
        self.cost_us = 0.0  # predicted, of what joined this turn

    def add(self, job: Waiting) -> None:
        if not self.waiting:
            self.later(self.flush)
        self.waiting.append(job)

    def flush(self) -> None:
        jobs, self.waiting = self.waiting, []
        self.cost_us = 0.0
        groups: dict[Any, list[Waiting]] = {}
        for job in jobs:
            groups.setdefault(job.engine, []).append(job)
        waited = 0
        for engine, group in groups.items():
            begun = time.perf_counter_ns()
            for part in parts(group):
                if engine.away:
                    engine.ask(part)
                else:
                    settle(engine, part, waited)
            waited += time.perf_counter_ns() - begun


def parts(jobs: list[Waiting], rows: int = MAX_ROWS) -> list[list[Waiting]]:
    """Cut in order into parts of at most `rows` rows, unless one job alone has more.

    Inputs whose inner axes differ in size do not go together.
    """
    found: list[list[Waiting]] = []
    room = 0
    inner = None
    for job in jobs:
        if job.rows.n > room or job.rows.inner != inner:
            found.append([])
            room = rows
            inner = job.rows.inner
        found[-1].append(job)
        room -= job.rows.n
    return found


def settle(engine: Engine, jobs: list[Waiting], waited_ns: int) -> None:
    """Run one part; a bad row hurts its own request only."""
    try:
        outputs = engine.run([job.rows for job in jobs])
    except EngineFailed as error:
        if len(jobs) == 1:
            jobs[0].fail(error, waited_ns)
        else:
            for job in jobs:
                settle(engine, [job], waited_ns)
        return
    first = 0
    for job in jobs:
        job.settle(outputs, first, waited_ns)
        first += job.rows.n
