"""A server seals what it was asked and what it answered, and holds nothing that opens it."""

from __future__ import annotations

import base64
import os
import signal
import time

import msgspec
import pytest

from falaj.base.fenclog import public_of
from falaj.facts.serving import LogKey
from falaj.serving import spool

ROW = (30.0, 733.0, 14.0)
PRIVATE = bytes(range(32))


def key(version=1, **other):
    public = base64.b64encode(public_of(PRIVATE)).decode()
    said = {"scope": "inference/production/2026-11", "version": version, "public": public}
    return LogKey(**(said | other))


def plan(house, made, log_key):
    house.place(made)
    return house.write(msgspec.structs.replace(house.plan(made), log_key=log_key))


def rows(house):
    return list(spool.log(house.root / "spool", key=lambda _: PRIVATE))


def until(check):
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def logs(house):
    return sorted((house.root / "spool").glob("log-*"))


def test_nothing_of_the_log_lies_in_the_clear_also_after_a_kill(house):
    made = house.release("1")
    plan(house, made, key())
    client = house.start()
    for _ in range(5):
        assert client.infer(ROW)[0] == 200
    until(lambda: len(rows(house)) == 5)
    os.kill(client.process.pid, signal.SIGKILL)
    client.process.wait(10)
    (segment,) = logs(house)
    assert segment.name.endswith(".fenc.part")
    assert b"733" not in segment.read_bytes()
    assert [mark.fact.x for mark in rows(house)] == [list(ROW)] * 5
    assert not list(house.root.rglob("*.jsonl.part"))


def test_a_plan_with_another_key_ends_the_segment(house):
    made = house.release("1")
    plan(house, made, None)
    client = house.start()
    client.infer(ROW)
    until(lambda: len(rows(house)) == 1)
    for version in (1, 2):
        seq = plan(house, made, key(version)).seq
        client.until(lambda told, seq=seq: told["plan_seq"] == seq)
        client.infer(ROW)
        until(lambda version=version: len(rows(house)) == version + 1)
    assert client.terminate() in (0, None)
    client.process.wait(10)
    assert [path.suffix for path in logs(house)] == [".jsonl", ".fenc", ".fenc"]
    assert len(rows(house)) == 3


BAD = {
    "no base64": {"public": "?"},
    "too short": {"public": base64.b64encode(b"short").decode()},
    "a point of small order": {"public": base64.b64encode(bytes(32)).decode()},
    "no scope": {"scope": ""},
    "a scope of two lines": {"scope": "a\nb"},
    "a version that is none": {"version": 0},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_key_that_cannot_seal_is_no_plan(house, bad):
    plan(house, house.release("1"), key(**bad))
    process = house.start(ready=False)
    assert process.wait(20) != 0
    assert b"serving.plan-field" in process.stderr.read()
    assert logs(house) == []
