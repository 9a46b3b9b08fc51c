"""Which closed windows are an alert, and which alerts a new release ends. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from falaj.facts.monitoring import Alert, AlertState, FeatureDrift, Window
from falaj.monitoring.guard import CROSSED, Guard

__all__ = ["DRIFT", "LABELS", "alert_for", "closes"]

DRIFT: Final = "drift"
LABELS: Final = "labels"
NAMED: Final = 3  # columns in a title; the reasons have all


def alert_for(
    windows: Sequence[Window],
    open_alerts: Iterable[Alert],
    *,
    id: str,
    at: datetime,
    guard: Guard | None = None,
    min_rows: int = 1,
) -> Alert | None:
    """The alert that these windows, just closed, open. All are of one monitor and release.

    1. One open alert a monitor, environment, model and release: it is not said twice.
    2. Drift: a window has a violated column.
    3. Labels: the guard has crossed, and at least `min_rows` labelled answers stand behind it.
    """
    if not windows:
        return None
    last = windows[-1]
    same = (last.monitor, last.environment, last.model, last.release)
    if any(
        (one.kind, one.environment, one.model, one.release) == same
        for one in open_alerts
        if one.state is AlertState.OPEN
    ):
        return None
    if last.monitor == DRIFT:
        found = _drift(windows)
    elif guard is not None and guard.crossed and guard.n >= min_rows:
        found = _labels(windows, guard)
    else:
        found = None
    if found is None:
        return None
    title, reasons, behind = found
    return Alert(
        id=id,
        kind=last.monitor,
        environment=last.environment,
        model=last.model,
        release=last.release,
        state=AlertState.OPEN,
        title=title,
        reasons=reasons,
        windows=behind,
        at=at,
    )


def closes(open_alerts: Iterable[Alert], live: str, *, at: datetime) -> tuple[Alert, ...]:
    """Open alerts of monitors that speak of a release that is no longer live, now closed.

    Alerts of a rollback or a verification are a person's to close.
    """
    return tuple(
        replace(one, state=AlertState.CLOSED, closed=at)
        for one in open_alerts
        if one.state is AlertState.OPEN and one.kind in (DRIFT, LABELS) and one.release != live
    )


Found = tuple[str, tuple[str, ...], tuple[str, ...]]


def _drift(windows: Sequence[Window]) -> Found | None:
    """Each violated column once, with the window in which it is farthest away."""
    worst: dict[str, tuple[FeatureDrift, Window]] = {}
    behind = []
    for window in windows:
        violated = [one for one in window.features if one.violated]
        if violated:
            behind.append(window.id)
        for one in violated:
            if one.feature not in worst or one.psi > worst[one.feature][0].psi:
                worst[one.feature] = (one, window)
    if not worst:
        return None
    ranked = sorted(worst.values(), key=lambda pair: (-pair[0].psi, pair[0].feature))
    names = [one.feature for one, _ in ranked]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    title = f"drift in {', '.join(names[:NAMED])}{more}"
    return title, tuple(_moved(one, window) for one, window in ranked), tuple(behind)


def _moved(one: FeatureDrift, window: Window) -> str:
    return (
        f"{one.feature}: PSI {one.psi:.4f}, large from {one.psi_limit:.4f}; without drift below "
        f"{one.psi_null:.4f} in 99 %; adjusted p {one.p:.3g}; KS {one.ks:.4f}; "
        f"{window.rows} rows from {_day(window.opens)} to {_day(window.closes)}"
    )


def _labels(windows: Sequence[Window], guard: Guard) -> Found:
    share = guard.wrong / guard.n
    title = f"more than {guard.limit:.4g} of the answers are wrong"
    reasons = [
        (
            f"wrong answers above {guard.limit:.4g}: e = {_power(guard.log_e)}, an alert from "
            f"{math.exp(CROSSED):.0f}; {guard.wrong} of {guard.n} labelled answers were wrong "
            f"({share:.4f}) in {guard.windows} windows"
        )
    ]
    reasons += [
        f"{one.wrong} of {one.labelled} wrong ({one.wrong / one.labelled:.4f}) "
        f"from {_day(one.opens)} to {_day(one.closes)}"
        for one in windows
        if one.labelled
    ]
    return title, tuple(reasons), tuple(one.id for one in windows)


def _power(log_e: float) -> str:
    """Evidence as a power of ten: it may be beyond what a float holds."""
    return f"10^{log_e / math.log(10):.1f}"


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M")
