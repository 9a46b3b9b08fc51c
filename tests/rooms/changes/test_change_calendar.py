"""Windows and freezes in the environment's own clock, with its summer time; calendars of others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.base.errors import FalajError
from falaj.changes import calendar
from falaj.facts.governance import DAYS, Freeze, FreezeTable, WindowTable
from falaj.links.files.calendar import read_calendar

DUBAI = ZoneInfo("Asia/Dubai")  # UTC+4, no summer time
BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = WindowTable(days=("sun", "mon", "tue", "wed", "thu"), opens="09:00", closes="16:00")
NIGHT = WindowTable(days=("fri",), opens="22:00", closes="04:00")


def at(words):
    return datetime.fromisoformat(words).replace(tzinfo=UTC)


OPEN = {  # 2026-11-22 is a Sunday
    "in the morning there, at night here": ((OFFICE,), DUBAI, "2026-11-22T05:00", True),
    "a minute too early": ((OFFICE,), DUBAI, "2026-11-22T04:59:59", False),
    "at the end": ((OFFICE,), DUBAI, "2026-11-22T12:00", False),
    "a second before the end": ((OFFICE,), DUBAI, "2026-11-22T11:59:59", True),
    "on a free day": ((OFFICE,), DUBAI, "2026-11-20T08:00", False),
    "already Sunday there": ((WindowTable(days=("sun",)),), DUBAI, "2026-11-21T20:00", True),
    "over midnight, before it": ((NIGHT,), DUBAI, "2026-11-20T19:00", True),
    "over midnight, after it": ((NIGHT,), DUBAI, "2026-11-20T23:59", True),
    "over midnight, ended": ((NIGHT,), DUBAI, "2026-11-21T00:00", False),
    "summer time": ((OFFICE,), BERLIN, "2026-07-06T07:30", True),
    "winter time": ((OFFICE,), BERLIN, "2026-11-23T07:30", False),
    "without a window always": ((), DUBAI, "2026-11-20T03:00", True),
    "one of two is enough": ((OFFICE, NIGHT), DUBAI, "2026-11-20T19:00", True),
}


@pytest.mark.parametrize(("windows", "zone", "when", "open_"), OPEN.values(), ids=OPEN)
def test_windows(windows, zone, when, open_):
    assert calendar.in_window(windows, zone, at(when)) is open_


def test_a_day_of_a_freeze_is_a_day_there():
    table = FreezeTable(name="year end", starts="2026-12-20", ends="2026-12-31")
    (freeze,) = calendar.of_tables([table], "production", DUBAI)
    assert (freeze.starts, freeze.ends) == (at("2026-12-19T20:00"), at("2026-12-31T20:00"))
    assert calendar.frozen_by([freeze], at("2026-12-31T19:59")) is freeze
    assert calendar.frozen_by([freeze], at("2026-12-31T20:00")) is None


def test_a_freeze_holds_where_it_is_said():
    table = FreezeTable(
        name="x", starts="2026-12-20T18:00", ends="2026-12-20T19:00", environments=("staging",)
    )
    assert calendar.of_tables([table], "production", UTC) == ()
    (freeze,) = calendar.of_tables([table], "staging", UTC)
    assert freeze.ends - freeze.starts == timedelta(hours=1)


NEXT = {
    "now, when it is open": ((OFFICE,), (), "2026-11-22T06:00", "2026-11-22T06:00"),
    "the next morning": ((OFFICE,), (), "2026-11-22T13:00", "2026-11-23T05:00"),
    "after the free days": ((OFFICE,), (), "2026-11-19T13:00", "2026-11-22T05:00"),
    "after the freeze": (
        (OFFICE,), (Freeze(name="f", starts=at("2026-11-22T00:00"), ends=at("2026-11-23T08:00")),),
        "2026-11-22T06:00", "2026-11-23T08:00",
    ),
    "after the freeze, when the window opens": (
        (OFFICE,), (Freeze(name="f", starts=at("2026-11-22T00:00"), ends=at("2026-11-22T20:00")),),
        "2026-11-22T06:00", "2026-11-23T05:00",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("windows", "freezes", "now", "opens"), NEXT.values(), ids=NEXT)
def test_the_next_opening(windows, freezes, now, opens):
    assert calendar.next_opening(windows, freezes, DUBAI, at(now)) == at(opens)


def test_no_opening_within_a_year():
    for_ever = Freeze(name="f", starts=at("2026-01-01T00:00"), ends=at("2036-01-01T00:00"))
    found = calendar.next_opening((OFFICE,), (for_ever,), UTC, at("2026-11-22T06:00"))
    assert found is None or found >= for_ever.ends


@given(
    st.integers(0, 2 * 365 * 24 * 60),
    st.sampled_from([DUBAI, BERLIN, UTC, ZoneInfo("Australia/Lord_Howe")]),
    st.lists(st.sampled_from(DAYS), min_size=1, max_size=3, unique=True),
    st.integers(0, 23),
    st.integers(0, 23),
)
def test_what_is_called_the_next_opening_is_open(minutes, zone, days, opens, closes):
    if opens == closes:
        closes = (opens + 1) % 24
    window = WindowTable(days=tuple(days), opens=f"{opens:02}:00", closes=f"{closes:02}:00")
    moment = at("2026-01-01") + timedelta(minutes=minutes)
    found = calendar.next_opening((window,), (), zone, moment)
    assert found is not None
    assert found >= moment
    assert calendar.in_window((window,), zone, found)


BAD = {
    "a window that is never open": (WindowTable, {"opens": "09:00", "closes": "09:00"}),
    "a freeze on no day": (FreezeTable, {"name": "x", "starts": "2026-02-30", "ends": "2026-03-01"}),
    "a freeze that ends before": (
        FreezeTable, {"name": "x", "starts": "2026-03-02", "ends": "2026-03-01"}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), BAD.values(), ids=BAD)
def test_a_table_that_makes_no_sense(kind, value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, kind)


# --- calendars of others ---

HEAD = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\n"
TAIL = "END:VEVENT\r\nEND:VCALENDAR\r\n"
BERLINERS = (
    "SUMMARY:x\r\nDTSTART;TZID=Europe/Berlin:20261220T100000\r\n"
    "DTEND;TZID=Europe/Berlin:20261220T110000\r\n"
)
ALARMED = (
    "DTSTART:20261220T100000Z\r\nDURATION:P1W\r\nBEGIN:VALARM\r\nDURATION:PT5M\r\nEND:VALARM\r\n"
)
READ = {
    "whole days": (
        "SUMMARY:Year end\r\nDTSTART;VALUE=DATE:20261220\r\nDTEND;VALUE=DATE:20270104\r\n",
        ("Year end", "2026-12-19T20:00", "2027-01-03T20:00"),
    ),
    "one day without an end": (
        "SUMMARY:Holiday\r\nDTSTART;VALUE=DATE:20261202\r\n",
        ("Holiday", "2026-12-01T20:00", "2026-12-02T20:00"),
    ),
    "in UTC": (
        "SUMMARY:x\r\nDTSTART:20261220T100000Z\r\nDTEND:20261220T110000Z\r\n",
        ("x", "2026-12-20T10:00", "2026-12-20T11:00"),
    ),
    "in its own zone": (
        BERLINERS,
        ("x", "2026-12-20T09:00", "2026-12-20T10:00"),
    ),
    "with a duration": (
        "SUMMARY:x\r\nDTSTART:20261220T100000\r\nDURATION:PT1H30M\r\n",
        ("x", "2026-12-20T06:00", "2026-12-20T07:30"),
    ),
    "a folded line and escapes": (
        "SUMMARY:No change\\, \r\n please\r\nDTSTART:20261220T100000Z\r\nDURATION:P1D\r\n",
        ("No change, please", "2026-12-20T10:00", "2026-12-21T10:00"),
    ),
    "with an alarm inside": (
        ALARMED,
        ("freeze", "2026-12-20T10:00", "2026-12-27T10:00"),
    ),
}


def written(tmp_path, body):
    path = tmp_path / "freezes.ics"
    path.write_bytes((HEAD + body + TAIL).encode())
    return path


@pytest.mark.parametrize(("body", "wanted"), READ.values(), ids=READ)
def test_events_are_freezes(tmp_path, body, wanted):
    (freeze,) = read_calendar(written(tmp_path, body), "Asia/Dubai")
    assert (freeze.name, freeze.starts, freeze.ends) == (wanted[0], at(wanted[1]), at(wanted[2]))


def test_a_cancelled_event_is_none(tmp_path):
    body = "STATUS:CANCELLED\r\nDTSTART;VALUE=DATE:20261220\r\n"
    assert read_calendar(written(tmp_path, body), "UTC") == ()


REFUSED = {
    "a rule of repetition": ("DTSTART;VALUE=DATE:20261220\r\nRRULE:FREQ=YEARLY\r\n", 6),
    "no start": ("SUMMARY:x\r\n", 6),
    "no end of a time": ("DTSTART:20261220T100000Z\r\n", 5),
    "no such day": ("DTSTART;VALUE=DATE:20261320\r\n", 5),
    "no such zone": ("DTSTART;TZID=Mars/Base:20261220T100000\r\nDURATION:PT1H\r\n", 5),
    "an end before the start": (
        "DTSTART;VALUE=DATE:20261220\r\nDTEND;VALUE=DATE:20261219\r\n", 5),
    "a line that is none": ("DTSTART;VALUE=DATE:20261220\r\nwhat is this\r\n", 6),
    "a duration of nothing": ("DTSTART:20261220T100000Z\r\nDURATION:P\r\n", 6),
}  # fmt: skip


@pytest.mark.parametrize(("body", "line"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_with_its_line(tmp_path, body, line):
    with pytest.raises(FalajError) as caught:
        read_calendar(written(tmp_path, body), "Asia/Dubai")
    assert caught.value.code == "changes.bad-calendar"
    assert caught.value.problems[0].place.line == line


def test_a_calendar_that_is_not_there_is_no_calendar_without_freezes(tmp_path):
    with pytest.raises(FalajError, match="cannot be read"):
        read_calendar(tmp_path / "gone.ics", "UTC")
