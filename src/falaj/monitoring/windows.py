"""Tumbling windows of the inference log, counted on the reference's edges. Pure.

A window is [k * length, (k + 1) * length) since 1970, by the time that a row is about. Counts are
integers, so any split and any order of rows gives the same window. A window closes when the newest
event time seen has passed its end by the allowed lateness; a row that comes later is told in
`late` and counts nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, cast

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from falaj.base import time
from falaj.base.errors import FalajError
from falaj.facts.monitoring import FeatureDrift, MonitorState, Window
from falaj.monitoring.reference import SCORE, Column, Reference, as_served
from falaj.stats.drift import DISCOVERY, kolmogorov_smirnov, merged_cells, psi, psi_null
from falaj.stats.paired import benjamini_hochberg
from falaj.stats.special import chdtrc
from falaj.stats.summaries import Hist, bin_counts, empty, merge, of_plain, to_plain

__all__ = [
    "AHEAD",
    "Due",
    "add",
    "close",
    "compare",
    "due",
    "event_time",
    "judged",
    "skip_partial",
    "start_of",
    "watched",
    "watermark",
]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
AHEAD: Final = timedelta(days=400)
"""A row about a later time than this from its answer is an error of its sender: it would close
every window that is still filling."""

Floats = NDArray[np.float64]


# --- time ---


def start_of(at: datetime, length: timedelta) -> datetime:
    """Where the window that holds `at` begins."""
    step = length // MICROSECOND
    return EPOCH + timedelta(microseconds=(at - EPOCH) // MICROSECOND // step * step)


def event_time(row: Mapping[str, Any]) -> datetime | None:
    """What a log row is about, else when it was answered; None when it cannot be that.

    Times are instants or RFC 3339 text.
    """
    at = _instant(row["at"])
    about = row.get("event_time")
    if about is None:
        return at
    try:
        found = _instant(about)
    except ValueError:
        return None
    return None if found - at > AHEAD else found


def skip_partial(
    state: MonitorState, rows: Sequence[Mapping[str, Any]], *, length: timedelta
) -> MonitorState:
    """Leave out the window that the release entered in the middle.

    Half a week holds other weekdays than a whole one: that is no drift. A window whose first row
    comes within its first 1/24 counts as whole. Rows that are left out are told in `late`.
    """
    if state.latest is not None or state.closed_until is not None:
        return state
    times = [event_time(row) for row in rows if row["release"] == state.release]
    first = min((at for at in times if at is not None), default=None)
    if first is None:
        return state
    start = start_of(first, length)
    return state if first - start <= length / 24 else replace(state, closed_until=start + length)


def watermark(state: MonitorState, lateness: timedelta) -> datetime | None:
    """Windows that end here or before are complete; None before the first row."""
    return None if state.latest is None else state.latest - lateness


def _instant(value: Any) -> datetime:
    if isinstance(value, str):
        return time.parse_instant(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    raise TypeError(f"got {value!r}, expected an instant")


# --- counting ---


def watched(reference: Reference, chosen: Sequence[str]) -> tuple[str, ...]:
    """Columns to count: those chosen, or all. Raises FalajError for one that is not there."""
    missing = [name for name in chosen if name not in reference.columns]
    if missing:
        raise FalajError(
            "monitoring.no-feature",
            f"the release has no column {missing[0]!r}",
            why=f"its columns are {', '.join(reference.columns)}",
            fix="correct `features` in [monitors.drift]",
        )
    return tuple(chosen) or tuple(reference.columns)


class Batch(NamedTuple):
    """Rows of one release as arrays. x: shape (n, width). starts: window of each row."""

    starts: list[datetime]
    x: Floats
    rows: list[Mapping[str, Any]]


def add(
    state: MonitorState,
    rows: Iterable[Mapping[str, Any]],
    reference: Reference,
    *,
    length: timedelta,
    names: Sequence[str] = (),
    chosen: Sequence[str] = (),
) -> MonitorState:
    """Count the rows that `state.release` answered as stable.

    names: the model's inputs in the order of `x`; nothing: those of the reference. chosen: columns
    that are watched; nothing: all. Rows of other releases and arms are not of this monitor: what a
    canary failed on and stable answered would look like drift.
    """
    inputs = tuple(names) or reference.features
    columns = [name for name in watched(reference, chosen) if name in inputs or name == SCORE]
    state, batch = _batch(state, rows, inputs, length)
    places: dict[datetime, list[int]] = {}
    for i, start in enumerate(batch.starts):
        places.setdefault(start, []).append(i)
    opened = dict(state.open)
    for start, at in places.items():
        key = time.text(start)
        hists = {name: _count(reference.columns[name], inputs, batch, at) for name in columns}
        opened[key] = _grown(opened.get(key), len(at), hists)
    return replace(state, open=opened)


def _batch(
    state: MonitorState,
    rows: Iterable[Mapping[str, Any]],
    inputs: Sequence[str],
    length: timedelta,
) -> tuple[MonitorState, Batch]:
    """Rows that count, and the state that tells of those that do not."""
    kept, starts, width = [], [], len(inputs)
    latest, late, skipped = state.latest, 0, 0
    for row in rows:
        if (
            row["release"] != state.release
            or row["arm"] != "stable"
            or row.get("assigned", "stable") != "stable"
        ):
            continue
        about = event_time(row)
        if about is None or len(row["x"]) != width:
            skipped += 1
            continue
        start = start_of(about, length)
        if latest is None or about > latest:
            latest = about
        if state.closed_until is not None and start < state.closed_until:
            late += 1
            continue
        kept.append(row)
        starts.append(start)
    x, good = _matrix([row["x"] for row in kept], width)
    if len(good) < len(kept):
        skipped += len(kept) - len(good)
        kept, starts = [kept[i] for i in good], [starts[i] for i in good]
    after = replace(state, latest=latest, late=state.late + late, skipped=state.skipped + skipped)
    return after, Batch(starts, x, kept)


def _matrix(rows: list[Any], width: int) -> tuple[Floats, Sequence[int]]:
    """All rows as numbers, null as NaN; and which of them are numbers at all."""
    good: Sequence[int] = range(len(rows))
    try:
        found = np.array(rows, dtype=np.float64)
        if found.ndim == 2:
            return found, good
    except (TypeError, ValueError, OverflowError):
        pass
    good = [i for i, row in enumerate(rows) if _is_numbers(row)]
    return np.array([rows[i] for i in good], np.float64).reshape(len(good), width), good


def _is_numbers(row: Any) -> bool:
    try:
        return np.array(row, dtype=np.float64).ndim == 1
    except (TypeError, ValueError, OverflowError):
        return False


def _count(column: Column, inputs: Sequence[str], batch: Batch, at: list[int]) -> Hist:
    name = column.edges.column
    place = inputs.index(name) if name in inputs else -1
    if place >= 0:
        values = batch.x[at, place]
    else:
        values = np.array([_score(batch.rows[i]) for i in at], dtype=np.float64)
    counts, missing = bin_counts(as_served(column.edges, values), column.edges.edges)
    null = 0
    if missing:
        lost = [batch.rows[at[i]] for i in np.flatnonzero(np.isnan(values))]
        null = sum((row["x"][place] if place >= 0 else _score(row)) is None for row in lost)
    return Hist(
        edges=column.hist.edges,
        counts=tuple(counts.tolist()),
        nan=missing - null,
        null=null,
    )


def _score(row: Mapping[str, Any]) -> float | None:
    """The score as the server wrote it, else the last output; None when there was no answer."""
    score = row.get("score")
    if score is None and row.get("y"):
        score = row["y"][-1]
    return float(score) if isinstance(score, int | float) else None


def _grown(known: dict[str, Any] | None, rows: int, hists: Mapping[str, Hist]) -> dict[str, Any]:
    if known is not None:
        rows += known["rows"]
        before = known["hists"]  # a column that is watched only since now starts in mid-window
        hists = {
            name: merge(_hist(before[name]), one) if name in before else one
            for name, one in hists.items()
        }
    return {"rows": rows, "hists": {name: to_plain(one) for name, one in hists.items()}}


def _hist(plain: object) -> Hist:
    return cast("Hist", of_plain(plain))


# --- closing ---


class Due(NamedTuple):
    """A window that is complete, with what was counted in it."""

    opens: datetime
    closes: datetime
    counts: dict[str, Any]


def due(
    state: MonitorState, until: datetime | None, length: timedelta
) -> tuple[MonitorState, tuple[Due, ...]]:
    """Take the windows that end at or before `until` out of the state, oldest first."""
    left, found = dict(state.open), []
    for key in sorted(state.open):
        opens = time.parse_instant(key)
        if until is not None and opens + length <= until:
            found.append(Due(opens, opens + length, left.pop(key)))
    if not found:
        return state, ()
    return replace(state, open=left, closed_until=found[-1].closes), tuple(found)


def close(
    state: MonitorState,
    until: datetime | None,
    reference: Reference,
    *,
    length: timedelta,
    at: datetime,
    name: Callable[[], str],
    min_rows: int = 500,
    psi_limit: float = 0.10,
) -> tuple[MonitorState, tuple[Window, ...]]:
    """Make facts of the windows that end at or before `until`. name: gives each its id."""
    environment, model, monitor = state.id.split("/")
    state, complete = due(state, until, length)
    windows = tuple(
        Window(
            id=name(),
            monitor=monitor,
            environment=environment,
            model=model,
            release=state.release,
            opens=one.opens,
            closes=one.closes,
            rows=one.counts["rows"],
            features=judged(
                {column: _hist(plain) for column, plain in one.counts["hists"].items()},
                reference,
                min_rows=min_rows,
                psi_limit=psi_limit,
            ),
            at=at,
        )
        for one in complete
    )
    return state, windows


def judged(
    hists: Mapping[str, Hist], reference: Reference, *, min_rows: int, psi_limit: float
) -> tuple[FeatureDrift, ...]:
    """Compare one window with the reference, column by column.

    1. Fewer than `min_rows` rows in the window or in the reference: inconclusive.
    2. Violated: PSI above what 99 % of windows without drift stay below, its p survives Benjamini
       and Hochberg at .05 over the columns of the window (statistically real), and PSI at least
       max(`psi_limit`, 95 % of the reference's own block to block) (practically large).
    3. Else not.
    """
    found = {name: compare(reference.columns[name].hist, one) for name, one in hists.items()}
    ripe = [name for name, one in found.items() if min(one.n, one.m) >= max(min_rows, 1)]
    # PSI / (1/n + 1/m) is chi-square without drift; one cell alone cannot move
    raw = [
        float(chdtrc(one.bins - 1, one.psi / (1 / one.n + 1 / one.m))) if one.bins > 1 else 1.0
        for one in (found[name] for name in ripe)
    ]
    p = dict(zip(ripe, benjamini_hochberg(raw).tolist(), strict=True))
    features = []
    for name, one in found.items():
        own = reference.columns[name].own
        limit = max(psi_limit, own.psi) if own.known else psi_limit
        null = psi_null(one.bins, one.n, one.m) if one.n and one.m else 0.0
        real = name in p and one.psi > null and p[name] <= DISCOVERY
        features.append(
            FeatureDrift(
                feature=name,
                psi=one.psi,
                psi_null=null,
                psi_limit=limit,
                p=p.get(name, 1.0),
                ks=one.ks,
                violated=real and one.psi >= limit,
                inconclusive=name not in p,
            )
        )
    return tuple(features)


class Compared(NamedTuple):
    """psi on `bins` cells; ks on all bins. n, m: rows of window and reference. Never NaN."""

    psi: float
    ks: float
    bins: int
    n: int
    m: int


def compare(reference: Hist, window: Hist) -> Compared:
    """Distance of a window from the reference; 0 where one side has no rows.

    Cells: ~10 of equal reference mass; missing values; and values where the reference has none at
    all. Joined with a neighbour such values could not be seen: a constant column that changes its
    constant would have one cell before and after. Raises Unmergeable for counts on other edges.
    """
    merge(empty(reference), empty(window))
    a, b = (np.array(one.counts, np.int64) for one in (reference, window))
    unseen = int(b[a == 0].sum())
    starts = [start for start, _ in merged_cells(a)]
    cells = [
        [*np.add.reduceat(a, starts).tolist(), 0],
        [*np.add.reduceat(np.where(a == 0, 0, b), starts).tolist(), unseen],
    ]
    missing = (reference.nan + reference.null, window.nan + window.null)
    rows = np.array([[*one, lost] for one, lost in zip(cells, missing, strict=True)])
    rows = rows[:, rows.any(axis=0)]
    if not reference.n or not window.n:
        return Compared(0.0, 0.0, rows.shape[1], window.n, reference.n)
    ks = kolmogorov_smirnov(a, b)
    return Compared(
        psi(rows[0], rows[1]), 0.0 if math.isnan(ks) else ks, rows.shape[1], window.n, reference.n
    )
