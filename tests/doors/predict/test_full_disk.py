"""A disk without room for the spool costs rows of the log, never an answer and never a count."""

from __future__ import annotations

import resource
import time

from servers import graph

from falaj.serving import spool

ROW = (30.0, 733.0, 14.0)
FULL, ROOM = 4096, resource.RLIM_INFINITY  # bytes that a file may have


def asked(client, number):
    found = [client.infer(ROW) for _ in range(number)]
    assert {status for status, *_ in found} == {200}
    return [headers["falaj-release"] for _, headers, _ in found]


def counted(house):
    newest = spool.newest(mark.fact for mark in spool.counts(house.root / "spool"))
    rows = [row for row in newest.values() if row.metric == "requests"]
    return sum(row.n_c for row in rows), sum(row.n_s for row in rows)


def test_answers_go_on_and_counts_catch_up_when_there_is_room_again(house):
    one, two = house.release("1"), house.release("2", onnx_bytes=graph(bias=-2.0))
    house.apply(one, two, 5000, stratum_ms=500)
    client = house.start()
    answers = asked(client, 100)
    resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (FULL, ROOM))
    for _ in range(8):  # past several beats of the spool
        answers += asked(client, 50)
        time.sleep(0.15)
    seen = counted(house)
    assert sum(seen) < len(answers), "the disk is full"
    assert "falaj_log_dropped_total" in client.get("/metrics")[2].decode()
    resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (ROOM, ROOM))
    end = time.monotonic() + 10
    while counted(house) != (answers.count(two.id), answers.count(one.id)):
        assert time.monotonic() < end, counted(house)
        time.sleep(0.1)
    answers += asked(client, 20)
    assert client.terminate() == 0
    assert counted(house) == (answers.count(two.id), answers.count(one.id))
    assert 0 < sum(1 for _ in spool.log(house.root / "spool")) <= len(answers)
