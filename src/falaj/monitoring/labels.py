"""Tumbling windows of answers whose truth is known, and the guard that reads them. Pure.

A window closes when the newest event time has passed its end by the delay of the truth: before
that the quick labels alone would speak, and wrong answers are often the quick ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from falaj.base import time
from falaj.facts.monitoring import MonitorState, Window
from falaj.monitoring import guard
from falaj.monitoring.guard import Guard
from falaj.monitoring.windows import AHEAD, EPOCH, due, start_of

__all__ = ["Judged", "add", "close"]


class Judged(Protocol):
    """One answer with its truth, as `learning` joins them.

    event_time: what the row is about. arrival_ms: Unix milliseconds when both were here.
    """

    @property
    def release(self) -> str: ...
    @property
    def event_time(self) -> datetime: ...
    @property
    def arrival_ms(self) -> int: ...
    @property
    def wrong(self) -> bool: ...


def add(state: MonitorState, rows: Iterable[Judged], *, length: timedelta) -> MonitorState:
    """Count the answers of `state.release`; each (request, row) is given once, in any order."""
    opened, latest, late, skipped = dict(state.open), state.latest, 0, 0
    for row in rows:
        if row.release != state.release:
            continue
        if row.event_time - EPOCH - timedelta(milliseconds=row.arrival_ms) > AHEAD:
            skipped += 1
            continue
        start = start_of(row.event_time, length)
        if latest is None or row.event_time > latest:
            latest = row.event_time
        if state.closed_until is not None and start < state.closed_until:
            late += 1
            continue
        key = time.text(start)
        cell = opened.get(key, {"rows": 0, "wrong": 0})
        opened[key] = {"rows": cell["rows"] + 1, "wrong": cell["wrong"] + bool(row.wrong)}
    return replace(
        state,
        open=opened,
        latest=latest,
        late=state.late + late,
        skipped=state.skipped + skipped,
    )


def close(
    state: MonitorState,
    until: datetime | None,
    *,
    length: timedelta,
    limit: float,
    at: datetime,
    name: Callable[[], str],
) -> tuple[MonitorState, tuple[Window, ...], Guard]:
    """Make facts of the windows that end at or before `until`, and step the guard by each.

    Every window is evidence, however small: the guard is exact for any number of rows.
    """
    environment, model, monitor = state.id.split("/")
    seen = guard.of_plain(state.guard, limit)
    state, complete = due(state, until, length)
    windows = []
    for one in complete:
        rows, wrong = one.counts["rows"], one.counts["wrong"]
        seen = guard.step(seen, wrong, rows)
        windows.append(
            Window(
                id=name(),
                monitor=monitor,
                environment=environment,
                model=model,
                release=state.release,
                opens=one.opens,
                closes=one.closes,
                rows=rows,
                labelled=rows,
                wrong=wrong,
                at=at,
            )
        )
    return replace(state, guard=guard.plain(seen)), tuple(windows), seen
