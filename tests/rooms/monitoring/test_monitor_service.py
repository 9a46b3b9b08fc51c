from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from falaj.base.errors import Conflict, FalajError
from falaj.facts.monitoring import Alert, AlertState, MonitorState, Window
from falaj.facts.project import DriftTable, LabelsTable
from falaj.monitoring import service

LIVE = "sha256:live"


class Known(NamedTuple):
    release: str
    event_time: object
    arrival_ms: int
    wrong: bool


def answers(bench, n, wrong, hour, release=LIVE):
    at = bench.start + timedelta(hours=hour, minutes=5)
    ms = int(bench.now.timestamp() * 1000)
    return [Known(release, at, ms, i < wrong) for i in range(n)]


def take(ground, bench, frozen, rows, offsets, release=LIVE, **more):
    return service.take(
        ground, "production", "delay", release, frozen, rows, offsets, now=bench.now, **more
    )


def take_labels(ground, bench, rows, offsets, release=LIVE, **more):
    return service.take_labels(
        ground, "production", "delay", release, rows, offsets, now=bench.now, **more
    )


def events(ground):
    ground.store.integrate()
    return [event.type for _, event in ground.store.events()]


def counted(ground, monitor="drift"):
    """All rows that the monitor has counted, closed and open."""
    state = ground.store.get(MonitorState, f"production/delay/{monitor}").fact
    closed = sum(one.rows for one in ground.store.find(Window, monitor=monitor))
    return closed + sum(one["rows"] for one in state.open.values())


def test_rows_become_windows_and_the_position_is_kept_with_them(make_ground, bench, frozen):
    ground = make_ground()
    rows = bench.rows(2000, minutes=200)
    windows, alert = take(ground, bench, frozen, rows, {"log-a-0.jsonl": 500})
    assert [one.rows for one in windows] == [600, 600, 600]
    assert alert is None
    assert ground.store.find(Window) == list(reversed(windows))
    assert service.positions(ground, "production", "delay", "drift") == {"log-a-0.jsonl": 500}
    assert service.positions(ground, "production", "delay", "labels") == {}
    assert counted(ground) == 2000
    assert events(ground) == ["monitor.read"] + ["window.closed"] * 3


def test_a_shifted_column_opens_one_alert_and_only_one(make_ground, bench, frozen):
    ground = make_ground()
    rows = bench.rows(1200, shift=1.0, minutes=120)
    _, alert = take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10})
    assert alert.title == "drift in wind"
    rows = bench.rows(1200, seed=3, shift=1.0, minutes=120, after=120)
    windows, again = take(ground, bench, frozen, rows, {"log-a-0.jsonl": 20})
    assert again is None
    assert any(one.violated for window in windows for one in window.features)
    assert ground.store.find(Alert) == [alert]
    assert events(ground).count("alert.opened") == 1


def test_the_same_offsets_told_twice_change_nothing(make_ground, bench, frozen):
    ground = make_ground()
    rows = bench.rows(900, minutes=100)
    take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10, "log-b-0.jsonl": 7})
    before = ground.store.get(MonitorState, "production/delay/drift")
    told = events(ground)
    for offsets in ({"log-a-0.jsonl": 10, "log-b-0.jsonl": 7}, {"log-a-0.jsonl": 9}, {}):
        assert take(ground, bench, frozen, rows, offsets) == ((), None)
    assert ground.store.get(MonitorState, "production/delay/drift") == before
    assert events(ground) == told


def test_a_batch_that_is_partly_counted_is_refused(make_ground, bench, frozen):
    ground = make_ground()
    rows = bench.rows(50)
    take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10, "log-b-0.jsonl": 7})
    with pytest.raises(Conflict) as caught:
        take(ground, bench, frozen, rows, {"log-a-0.jsonl": 9, "log-b-0.jsonl": 8})
    assert caught.value.code == "monitoring.moved-on"
    with pytest.raises(Conflict):
        take(ground, bench, frozen, rows, {"log-a-0.jsonl": 20}, since={"log-a-0.jsonl": 4})
    assert counted(ground) == 50
    since = service.positions(ground, "production", "delay", "drift")
    take(ground, bench, frozen, rows, {"log-a-0.jsonl": 20}, since=since)
    assert counted(ground) == 100


def test_a_new_release_starts_anew_reads_on_and_ends_the_old_ones_alert(make_ground, bench, frozen):
    ground = make_ground()
    rows = bench.rows(1500, shift=1.0, minutes=150)
    _, alert = take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10})
    assert alert is not None
    # The same stretch of time once more, as in a replay: nothing of it is late for the new one.
    fresh = bench.rows(1500, seed=8, minutes=150, release="sha256:next")
    other = bench.frozen(seed=5)
    windows, none = take(ground, bench, other, fresh, {"log-a-0.jsonl": 20}, release="sha256:next")
    assert [one.release for one in windows] == ["sha256:next"] * 2
    assert none is None
    closed = ground.store.get(Alert, alert.id).fact
    assert (closed.state, closed.closed) == (AlertState.CLOSED, bench.now)
    assert events(ground).count("alert.closed") == 1
    state = ground.store.get(MonitorState, "production/delay/drift").fact
    assert (state.release, state.offsets, state.late) == ("sha256:next", {"log-a-0.jsonl": 20}, 0)


def test_a_new_release_is_seen_without_new_rows(make_ground, bench, frozen):
    ground = make_ground()
    take(ground, bench, frozen, bench.rows(10), {"log-a-0.jsonl": 10})
    rows = bench.rows(10, release="sha256:next")
    take(ground, bench, frozen, rows, {"log-a-0.jsonl": 4}, release="sha256:next")
    state = ground.store.get(MonitorState, "production/delay/drift").fact
    assert (state.release, state.open, state.offsets) == ("sha256:next", {}, {"log-a-0.jsonl": 10})


def test_flush_closes_what_still_fills_and_counts_nothing_again(make_ground, bench, frozen):
    ground = make_ground()
    rows = bench.rows(600, minutes=30)
    assert take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10}) == ((), None)
    windows, _ = take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10}, flush=True)
    assert [one.rows for one in windows] == [600]
    assert take(ground, bench, frozen, rows, {"log-a-0.jsonl": 10}, flush=True) == ((), None)


def test_no_monitor_takes_nothing(make_ground, bench, frozen):
    ground = make_ground(drift=None)
    assert take(ground, bench, frozen, bench.rows(10), {"log": 10}) == ((), None)
    assert take_labels(ground, bench, answers(bench, 9, 9, 0), {"log": 10}) == ((), None)
    assert ground.store.find(MonitorState) == []


def test_bad_references_and_unknown_columns_are_refused_and_write_nothing(
    make_ground, bench, frozen
):
    ground = make_ground(drift=DriftTable(features=("windy",)))
    for given in (b"{}", frozen):
        with pytest.raises(FalajError):
            take(ground, bench, given, bench.rows(10), {"log": 10})
    assert ground.store.find(MonitorState) == []


def test_wrong_answers_open_an_alert_whose_evidence_is_spent(make_ground, bench):
    ground = make_ground()
    for hour in range(3):
        windows, alert = take_labels(
            ground, bench, answers(bench, 300, 40, hour), {"labels": hour + 1}
        )
        assert alert is None
    assert [(one.labelled, one.wrong) for one in windows] == [(300, 40)]
    take_labels(ground, bench, answers(bench, 300, 180, 3), {"labels": 10})
    (window,), alert = take_labels(ground, bench, answers(bench, 300, 180, 4), {"labels": 20})
    assert window.wrong == 180
    assert alert.kind == "labels"
    assert "180 of 300 wrong (0.6000)" in alert.reasons[1]
    assert ground.store.get(MonitorState, "production/delay/labels").fact.guard == {}
    _, again = take_labels(ground, bench, answers(bench, 300, 180, 5), {"labels": 30})
    assert again is None
    assert len(ground.store.find(Alert)) == 1


def test_few_wrong_labels_are_no_alert_but_stay_evidence(make_ground, bench):
    ground = make_ground()
    for hour in range(4):
        _, alert = take_labels(ground, bench, answers(bench, 45, 45, hour), {"labels": hour + 1})
        assert (alert is not None) is (hour == 3), "three windows of 45 are more than min_rows"


def test_labels_wait_for_the_truth_that_takes_long(make_ground, bench):
    ground = make_ground(labels=LabelsTable(window="1h", delay="5h", max_wrong=0.2))
    windows, _ = take_labels(ground, bench, answers(bench, 10, 0, 0), {"labels": 1})
    windows, _ = take_labels(ground, bench, answers(bench, 10, 0, 5), {"labels": 2})
    assert windows == ()
    windows, _ = take_labels(ground, bench, answers(bench, 10, 0, 6), {"labels": 3})
    assert [one.opens for one in windows] == [bench.start]
    take_labels(ground, bench, answers(bench, 10, 0, 0), {"labels": 4})
    take_labels(ground, bench, answers(bench, 10, 0, 24 * 365 * 20), {"labels": 5})
    state = ground.store.get(MonitorState, "production/delay/labels").fact
    assert (state.late, state.skipped) == (10, 10)


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Bench, project
from dataclasses import fields
from falaj.facts.project import DriftTable
from falaj.links.sql.store import SqlStore
from falaj.monitoring import service
from falaj.ports.ground import Ground

left = [int(sys.argv[3])]

def now():
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return Bench.now

rest = dict.fromkeys(field.name for field in fields(Ground))
ground = Ground(**(rest | {
    "store": SqlStore.open(Path(sys.argv[2])),
    "project": project(drift=DriftTable(window="1h")),
    "now": now,
}))
rows, frozen = Bench.rows(2000, shift=1.0, minutes=300), Bench.frozen(2000)
while (at := service.positions(ground, "production", "delay", "drift").get("log", 0)) < 2000:
    service.take(ground, "production", "delay", "sha256:live", frozen, rows[at:at + 700],
                 {"log": min(at + 700, 2000)}, now=Bench.now)
"""


def test_a_worker_killed_inside_any_transaction_counts_no_row_twice_and_loses_none(
    make_ground, bench, tmp_path
):
    """The clock of the events is asked inside the transaction: there the child kills itself."""
    for at in (1, 4, 5, 0):
        here = [str(Path(__file__).parent), str(tmp_path / "store.db"), str(at)]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *here], capture_output=True, text=True, check=False
        )
        assert done.returncode == (-9 if at else 0), done.stderr
    ground = make_ground()
    assert counted(ground) == 2000
    windows = ground.store.find(Window)
    assert [one.rows for one in reversed(windows)] == [400] * 4
    assert len({one.opens for one in windows}) == 4
    assert events(ground).count("window.closed") == 4
