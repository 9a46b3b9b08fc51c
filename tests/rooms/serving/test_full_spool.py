"""A log that cannot be written: rows are dropped and counted, and room is noticed again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from falaj.serving.journal import LogFile
from falaj.serving.labels import LabelFile
from falaj.serving.spool import LabelRow, LogRow

BOOT = "a" * 16
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def row():
    return LogRow(
        at=NOW, request="r" * 32, row=0, model="m", release="r", assigned="stable", arm="stable",
        outcome="ok", latency_us=1, stratum=-1, step=0, rollout="", x=[1.0], y=[1.0],
    )  # fmt: skip


def written(log, rows=1):
    log.add(rows, lambda: [row()] * rows)
    log.flush()


def test_a_disk_that_comes_back_is_noticed_without_a_request(tmp_path):
    folder = tmp_path / "spool"
    log = LogFile(folder, BOOT)
    written(log)
    assert (log.full, log.dropped) == (True, {"disk": 1})
    log.probe()
    assert log.full
    folder.mkdir()
    log.probe()
    assert not log.full
    written(log)
    assert (log.full, log.rows, list(folder.glob(".probe*"))) == (False, 1, [])


def test_who_ships_the_log_away_makes_room(tmp_path):
    log = LogFile(tmp_path, BOOT, segment=10_000, total=80_000)
    while not log.full:
        written(log, 20)
    assert log.dropped == {"space": 20}
    log.probe()
    assert log.full
    for path in tmp_path.glob("log-*.jsonl"):
        path.unlink()
    log.probe()
    assert not log.full
    written(log)
    assert log.dropped == {"space": 20}


def test_a_queue_that_is_full_is_not_full_for_ever(tmp_path):
    log = LogFile(tmp_path, BOOT)
    log.add(65_000, lambda: [row()] * 1000)
    log.add(1000, lambda: [row()])
    assert (log.full, log.dropped) == (True, {"queue": 1000})
    while log.flush():
        pass
    log.probe()
    assert not log.full


def test_ground_truth_is_refused_not_dropped(tmp_path):
    file = LabelFile(tmp_path, BOOT, room=400)

    def label(at):
        return LabelRow(model="m", request="r" * 32, row=at, value=1.0, received=NOW)

    assert file.write([label(0)]) == 1
    with pytest.raises(OSError, match="as much ground truth"):
        file.write([label(1), label(2), label(3)])
    assert file.path.read_bytes().count(b"\n") == 1
    assert file.write([label(0)]) == 0
