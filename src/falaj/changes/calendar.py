"""When rollouts may begin: windows, and times that are frozen, in the environment's own clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from falaj.facts.governance import DAYS, Freeze, FreezeTable, WindowTable

__all__ = ["frozen_by", "in_window", "next_opening", "of_tables", "said", "zone_of"]

LOOK_AHEAD_DAYS: Final = 400
MIDNIGHT: Final = 24 * 60


def zone_of(name: str) -> tzinfo:
    """A time zone that falaj.toml has been read with."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def of_tables(tables: Sequence[FreezeTable], environment: str, zone: tzinfo) -> tuple[Freeze, ...]:
    """Freezes of falaj.toml that hold in an environment, as instants.

    A day as the end means that whole day; a moment means until then.
    """
    found = []
    for table in tables:
        if table.environments and environment not in table.environments:
            continue
        starts = datetime.fromisoformat(table.starts)
        ends = datetime.fromisoformat(table.ends)
        if "T" not in table.ends:
            ends += timedelta(days=1)
        found.append(
            Freeze(
                name=table.name,
                starts=starts.replace(tzinfo=zone).astimezone(UTC),
                ends=ends.replace(tzinfo=zone).astimezone(UTC),
            )
        )
    return tuple(found)


def in_window(windows: Sequence[WindowTable], zone: tzinfo, at: datetime) -> bool:
    """Whether a rollout may begin at this moment; without any window it always may."""
    if not windows:
        return True
    local = at.astimezone(zone)
    minute = local.hour * 60 + local.minute
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    for window in windows:
        opens, closes = _minutes(window.opens), _minutes(window.closes)
        if opens < closes:
            if today in window.days and opens <= minute < closes:
                return True
        elif (today in window.days and minute >= opens) or (
            yesterday in window.days and minute < closes
        ):
            return True
    return False


def frozen_by(freezes: Sequence[Freeze], at: datetime) -> Freeze | None:
    """The freeze that holds at this moment; of several the one that ends last."""
    holding = [freeze for freeze in freezes if freeze.starts <= at < freeze.ends]
    return max(holding, key=lambda freeze: freeze.ends, default=None)


def next_opening(
    windows: Sequence[WindowTable], freezes: Sequence[Freeze], zone: tzinfo, now: datetime
) -> datetime | None:
    """The first moment from now on at which a rollout may begin; None where there is none in a year."""
    candidates = {now, *(freeze.ends for freeze in freezes), *_openings(windows, zone, now)}
    for at in sorted(at for at in candidates if at >= now):
        if in_window(windows, zone, at) and frozen_by(freezes, at) is None:
            return at
    return None


def _openings(windows: Sequence[WindowTable], zone: tzinfo, now: datetime) -> Iterator[datetime]:
    first: date = now.astimezone(zone).date()
    for ahead in range(LOOK_AHEAD_DAYS):
        day = first + timedelta(days=ahead)
        for window in windows:
            if DAYS[day.weekday()] not in window.days:
                continue
            minutes = _minutes(window.opens)
            local = datetime.combine(day, time(minutes // 60, minutes % 60), zone)
            yield local.astimezone(UTC)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def said(windows: Sequence[WindowTable], timezone: str) -> str:
    """The windows in one line for people."""
    if not windows:
        return "always"
    words = []
    for window in windows:
        days = ", ".join(window.days) if len(window.days) < len(DAYS) else "every day"
        words.append(f"{days} {window.opens} to {window.closes}")
    return f"{'; '.join(words)} ({timezone})"
