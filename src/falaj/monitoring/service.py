"""Takes rows into windows, opens and closes alerts: each call is one transaction.

How far the spool was read is stored with the counts, in one fact. So a worker that dies at any
point counts no row twice and loses none: the next one asks `positions` and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from msgspec.structs import replace

from falaj.base import ids
from falaj.base.errors import Conflict, NotFound
from falaj.facts.monitoring import Alert, AlertState, MonitorState, Window
from falaj.facts.wire import plain
from falaj.monitoring import labels, rules, windows
from falaj.monitoring.guard import Guard
from falaj.monitoring.labels import Judged
from falaj.monitoring.reference import open_reference
from falaj.ports.ground import Ground
from falaj.ports.store import Kept, Unit

__all__ = ["positions", "take", "take_labels"]

LATENESS: Final = 1 / 24  # of a window: an hour for a day
WORKER: Final = "worker:monitor"

Taken = tuple[tuple[Window, ...], Alert | None]
Counted = tuple[MonitorState, tuple[Window, ...], Guard | None]


class Count(Protocol):
    """Counts the rows of this call, when they are fresh, and closes what is complete."""

    def __call__(self, state: MonitorState, *, fresh: bool) -> Counted: ...


def positions(ground: Ground, environment: str, model: str, monitor: str) -> dict[str, int]:
    """How far `drift` or `labels` has read: spool file -> bytes. Read on behind these."""
    kept = _kept(ground, f"{environment}/{model}/{monitor}")
    return dict(kept.fact.offsets) if kept else {}


def take(
    ground: Ground,
    environment: str,
    model: str,
    release: str,
    reference: bytes,
    rows: Iterable[Mapping[str, Any]],
    offsets: Mapping[str, int],
    *,
    now: datetime,
    names: Sequence[str] = (),
    since: Mapping[str, int] | None = None,
    flush: bool = False,
    actor: str = WORKER,
) -> Taken:
    """Count log rows in the drift windows of the live `release`; close what is complete.

    rows: of the inference log, read up to `offsets`; other releases and arms may be among them.
    reference: bytes of `reference/edges.json` of the release. names: the model's inputs in the
    order of `x`, when they are not those of the reference. since: the positions that the rows were
    read behind; Conflict when the monitor has moved on from there. flush: close all windows, also
    those that still fill. Nothing is taken where the project has no drift monitor.

    Raises Conflict when another worker was faster; FalajError for a reference that cannot be read.
    """
    table = ground.project.monitors.drift
    if table is None:
        return (), None
    length = timedelta(seconds=table.window_s)

    def count(state: MonitorState, *, fresh: bool) -> Counted:
        frozen = open_reference(reference)
        given = list(rows) if fresh else []
        state = windows.skip_partial(state, given, length=length)
        state = windows.add(state, given, frozen, length=length, names=names, chosen=table.features)
        until = _until(state, length, timedelta(0), flush=flush)
        after, closed = windows.close(
            state,
            until,
            frozen,
            length=length,
            at=now,
            name=ids.new,
            min_rows=table.min_rows,
            psi_limit=table.psi_limit,
        )
        return after, closed, None

    name = f"{environment}/{model}/{rules.DRIFT}"
    return _take(ground, name, release, offsets, since, count, now, actor, flush=flush)


def take_labels(
    ground: Ground,
    environment: str,
    model: str,
    release: str,
    rows: Iterable[Judged],
    offsets: Mapping[str, int],
    *,
    now: datetime,
    since: Mapping[str, int] | None = None,
    flush: bool = False,
    actor: str = WORKER,
) -> Taken:
    """Count answers with their truth in the windows of `labels`; the guard reads closed ones.

    rows: what `learning` joined while it read log and ground truth up to `offsets` (both kinds of
    files stand in it); other releases may be among them. The rest is as in `take`.
    """
    table = ground.project.monitors.labels
    if table is None:
        return (), None
    length = timedelta(seconds=table.window_s)

    def count(state: MonitorState, *, fresh: bool) -> Counted:
        state = labels.add(state, rows if fresh else (), length=length)
        until = _until(state, length, timedelta(seconds=table.delay_s), flush=flush)
        return labels.close(
            state, until, length=length, limit=table.max_wrong, at=now, name=ids.new
        )

    name = f"{environment}/{model}/{rules.LABELS}"
    return _take(
        ground,
        name,
        release,
        offsets,
        since,
        count,
        now,
        actor,
        flush=flush,
        min_rows=table.min_rows,
    )


def _take(
    ground: Ground,
    id: str,
    release: str,
    offsets: Mapping[str, int],
    since: Mapping[str, int] | None,
    count: Count,
    now: datetime,
    actor: str,
    *,
    flush: bool,
    min_rows: int = 1,
) -> Taken:
    kept = _kept(ground, id)
    before = kept.fact if kept else MonitorState(id=id, release=release)
    fresh = _is_fresh(before, offsets, since)
    if not fresh and before.release == release and not (flush and before.open):
        return (), None
    state = before
    if before.release != release:
        # Counts on the old release's edges say nothing about the new one.
        state = MonitorState(id=id, release=release, offsets=before.offsets)
    state, closed, guard = count(state, fresh=fresh)
    if fresh:
        state = replace(state, offsets={**state.offsets, **offsets})
    with ground.store.begin() as unit:
        opened = _open_alerts(unit, state)
        alert = rules.alert_for(
            closed, opened, id=ids.new(), at=now, guard=guard, min_rows=min_rows
        )
        if alert is not None and guard is not None:
            state = replace(state, guard={})  # this evidence is spent: the next asks anew
        if kept is None:
            unit.add(state)
        else:
            unit.replace(kept, state)
        _write(ground, unit, actor, before, state, closed)
        _write_alerts(ground, unit, actor, opened, alert, release, now)
    return closed, alert


def _kept(ground: Ground, id: str) -> Kept[MonitorState] | None:
    try:
        return ground.store.get(MonitorState, id)
    except NotFound:
        return None


def _is_fresh(
    state: MonitorState, offsets: Mapping[str, int], since: Mapping[str, int] | None
) -> bool:
    """Whether these rows were never counted. Raises Conflict when some of them were."""
    ahead = [name for name, end in offsets.items() if end > state.offsets.get(name, 0)]
    behind = [name for name, end in offsets.items() if end < state.offsets.get(name, 0)]
    if not ahead:
        return False
    moved = since is not None and any(
        since.get(name, 0) != state.offsets.get(name, 0) for name in ahead
    )
    if behind or moved:
        raise Conflict(
            "monitoring.moved-on",
            f"monitor {state.id} was read on by someone else meanwhile",
            why="some of these rows are counted already, and a row counts once",
            fix="read the spool again behind the monitor's own positions",
        )
    return True


def _until(
    state: MonitorState, length: timedelta, delay: timedelta, *, flush: bool
) -> datetime | None:
    if flush and state.latest is not None:
        return state.latest + length
    return windows.watermark(state, delay + length * LATENESS)


def _open_alerts(unit: Unit, state: MonitorState) -> list[Alert]:
    """Open alerts of this monitor."""
    environment, model, monitor = state.id.split("/")
    found = unit.find(Alert, model=model, state=AlertState.OPEN)
    return [one for one in found if (one.environment, one.kind) == (environment, monitor)]


def _write(
    ground: Ground,
    unit: Unit,
    actor: str,
    before: MonitorState,
    state: MonitorState,
    closed: tuple[Window, ...],
) -> None:
    subject = f"monitor/{state.id}"
    told = {
        "release": state.release,
        "offsets": sum(state.offsets.values()),
        "late": state.late,
        "skipped": state.skipped,
    }
    if before.release != state.release:
        told["left"] = before.release
        told["dropped_windows"] = len(before.open)
    unit.append(ground.event("monitor.read", actor, subject, told))
    for window in closed:
        unit.add(window)
        violated = [one.feature for one in window.features if one.violated]
        unit.append(
            ground.event(
                "window.closed",
                actor,
                subject,
                plain(
                    {
                        "window": window.id,
                        "opens": window.opens,
                        "closes": window.closes,
                        "release": window.release,
                        "rows": window.rows,
                        "labelled": window.labelled,
                        "wrong": window.wrong,
                        "violated": violated,
                    }
                ),
            )
        )


def _write_alerts(
    ground: Ground,
    unit: Unit,
    actor: str,
    opened: list[Alert],
    alert: Alert | None,
    release: str,
    now: datetime,
) -> None:
    for one in rules.closes(opened, release, at=now):
        unit.replace(unit.get(Alert, one.id), one)
        unit.append(
            ground.event(
                "alert.closed", actor, f"alert/{one.id}", {"kind": one.kind, "live": release}
            )
        )
    if alert is not None:
        unit.add(alert)
        unit.append(
            ground.event(
                "alert.opened",
                actor,
                f"alert/{alert.id}",
                {
                    "kind": alert.kind,
                    "of": alert.release,
                    "windows": list(alert.windows),
                    "reasons": list(alert.reasons),
                },
            )
        )
