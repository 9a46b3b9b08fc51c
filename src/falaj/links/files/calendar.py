"""Reads freezes from a calendar file (iCalendar, RFC 5545). What is not understood is refused.

An event that were skipped silently would be a freeze that does not hold, so a rule of repetition, an
end that is missing or a zone that is unknown is a mistake with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final, NamedTuple

from falaj.base.errors import FalajError, Place
from falaj.base.time import parse_span
from falaj.facts.governance import Freeze

__all__ = ["read_calendar"]

LINE: Final = re.compile(
    r"(?P<name>[A-Za-z-]+)(?P<words>(?:;[A-Za-z-]+=(?:\"[^\"]*\"|[^;:\"]*))*):(?P<value>.*)"
)
STAMP: Final = re.compile(r"(\d{8})(?:T(\d{6})(Z?))?")
SPAN: Final = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
LARGEST: Final = 4 << 20


class Line(NamedTuple):
    number: int
    name: str
    words: dict[str, str]
    value: str


def read_calendar(path: Path, timezone: str) -> tuple[Freeze, ...]:
    """Every event that was not cancelled. timezone: of days and of times that name no zone.

    Raises FalajError with the line of the mistake.
    """
    try:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise ValueError(f"it has {len(data):,} bytes, at most {LARGEST:,} are read")
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise FalajError(
            "changes.bad-calendar",
            f"{path.name} cannot be read: {getattr(error, 'strerror', None) or error}",
            why="its events are freezes; without it nobody knows whether one holds (rule freeze)",
            fix="put the file back, or take `calendar` out of falaj.toml",
        ) from None
    found: list[Freeze] = []
    event: dict[str, Line] | None = None
    inner = 0
    for line in unfolded(text, path):
        begins, ends = line.name == "BEGIN", line.name == "END"
        if event is None:
            if begins and line.value.upper() == "VEVENT":
                event = {}
        elif begins:
            inner += 1  # an alarm inside the event
        elif ends and inner:
            inner -= 1
        elif ends:
            freeze = freeze_of(event, line.number, path, timezone)
            found += [freeze] if freeze else []
            event = None
        elif not inner:
            event[line.name] = line
    return tuple(found)


def unfolded(text: str, path: Path) -> Iterator[Line]:
    """Content lines, with those that begin with a blank joined to the one before."""
    whole: list[tuple[int, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        if raw[:1] in (" ", "\t") and whole:
            whole[-1] = (whole[-1][0], whole[-1][1] + raw[1:])
        elif raw.strip():
            whole.append((number, raw))
    for number, raw in whole:
        matched = LINE.fullmatch(raw)
        if matched is None:
            raise mistake(path, number, f"got {raw[:40]!r}, expected NAME:VALUE")
        words = {}
        for word in matched["words"].split(";")[1:]:
            key, _, value = word.partition("=")
            words[key.upper()] = value.strip('"')
        yield Line(number, matched["name"].upper(), words, matched["value"])


def freeze_of(event: dict[str, Line], number: int, path: Path, timezone: str) -> Freeze | None:
    if "STATUS" in event and event["STATUS"].value.upper() == "CANCELLED":
        return None
    for name in ("RRULE", "RDATE"):
        if name in event:
            raise mistake(
                path, event[name].number, f"{name}: an event that repeats is not understood here",
                "write each time as an event of its own",
            )  # fmt: skip
    if "DTSTART" not in event:
        raise mistake(path, number, "an event without DTSTART")
    starts, days = moment(event["DTSTART"], path, timezone)
    if "DTEND" in event:
        ends, _ = moment(event["DTEND"], path, timezone)
    elif "DURATION" in event:
        ends = starts + span(event["DURATION"], path)
    elif days:
        ends, _ = moment(event["DTSTART"], path, timezone, later=timedelta(days=1))
    else:
        raise mistake(path, event["DTSTART"].number, "an event without DTEND or DURATION")
    if ends <= starts:
        raise mistake(path, event["DTSTART"].number, "an event that ends before it starts")
    said = event["SUMMARY"].value if "SUMMARY" in event else "freeze"
    name = re.sub(r"\\(.)", lambda m: " " if m[1] in "nN" else m[1], said)
    return Freeze(name=name[:200], starts=starts, ends=ends)


def moment(
    line: Line, path: Path, timezone: str, later: timedelta = timedelta()
) -> tuple[datetime, bool]:
    """The instant, and whether it is a whole day."""
    matched = STAMP.fullmatch(line.value)
    if matched is None:
        raise mistake(
            path, line.number, f"{line.name}: got {line.value[:40]!r}, no day and no time"
        )
    day, clock, utc = matched.groups()
    try:
        local = datetime.strptime(f"{day}{clock or '000000'}", "%Y%m%d%H%M%S") + later  # noqa: DTZ007 the zone follows
    except ValueError:
        raise mistake(path, line.number, f"{line.name}: {line.value} is no day") from None
    zone = UTC if utc else zone_of(line, path, line.words.get("TZID", timezone))
    return local.replace(tzinfo=zone).astimezone(UTC), clock is None


def zone_of(line: Line, path: Path, name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise mistake(
            path, line.number, f"{line.name}: {name[:60]!r} is no time zone that this machine knows",
            "use a name such as Asia/Dubai",
        ) from None  # fmt: skip


def span(line: Line, path: Path) -> timedelta:
    matched = SPAN.fullmatch(line.value)
    if matched is None or not any(matched.groups()):
        raise mistake(path, line.number, f"DURATION: got {line.value[:40]!r}")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in matched.groups())
    whole = 7 * weeks + days
    return parse_span(f"{whole}d{hours}h{minutes}m{seconds}s")


def mistake(path: Path, number: int, words: str, fix: str = "") -> FalajError:
    return FalajError(
        "changes.bad-calendar",
        f"{path.name}: {words}",
        why="its events are freezes; one that is not understood would not hold (rule freeze)",
        fix=fix or "mend the line, or export the calendar again",
        place=Place(file=path.name, line=number),
    )
