"""Where an unlogged decision is forbidden, a full log means no answer."""

from __future__ import annotations

import time

import msgspec
import pytest

ROW = (30.0, 733.0, 14.0)


@pytest.mark.parametrize(("on_full", "status"), [("drop", 200), ("refuse", 503)])
def test_a_full_log_refuses_only_where_the_plan_says_so(house, on_full, status):
    made = house.release("1")
    house.place(made)
    plan = house.plan(made)
    model = msgspec.structs.replace(plan.models["delay"], on_full=on_full)
    house.write(msgspec.structs.replace(plan, models={"delay": model}))
    client = house.start()
    assert client.infer(ROW)[0] == 200
    spool = house.root / "spool"
    gone = spool.with_name("gone")
    spool.rename(gone)
    end = time.monotonic() + 10
    while client.infer(ROW)[0] != status and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(0.6)
    found, headers, told = client.infer(ROW)
    assert found == status
    if status == 503:
        assert (told["code"], headers["retry-after"]) == ("serving.log-full", "1")
    assert b"falaj_log_dropped_total" in client.get("/metrics")[2]
    gone.rename(spool)
    while client.infer(ROW)[0] != 200 and time.monotonic() < end:
        time.sleep(0.2)
    assert client.infer(ROW)[0] == 200
