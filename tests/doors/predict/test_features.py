"""Features by key: looked up, logged as used, stale, missing, required; tables that change or break."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from servers import expected

from falaj.base.errors import FalajError
from falaj.facts.serving import FeaturePlan
from falaj.serving import plan as plans
from falaj.serving import spool
from falaj.serving.features import BadTable, Lookup, read_table
from falaj.serving.refusals import Refusal

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
PLAN = FeaturePlan(table="tails.json", key="tail", columns=("distance", "dep_delay"))


def table(rows, as_of=NOW):
    return json.dumps({"as_of": as_of.isoformat(), "rows": rows}).encode()


def lookup(plan=PLAN, rows=None, now=NOW):
    made = None if rows is None else read_table(table(rows))
    results = {}
    return Lookup(plan, lambda: made, results, now.timestamp), results


def changed(**about):
    return msgspec.structs.replace(PLAN, **about)


def test_a_key_becomes_the_columns_behind_it():
    fill, results = lookup(rows={"N1": {"distance": 700.0, "dep_delay": None, "other": 1}})
    assert fill([{"tail": "N1", "hour": 3}]) == [{"distance": 700.0, "dep_delay": None, "hour": 3}]
    assert results == {"found": 1}


def test_what_a_request_sends_itself_is_not_replaced():
    fill, results = lookup(rows={"N1": {"distance": 700.0}})
    assert fill([{"tail": "N1", "distance": 1.0}])[0]["distance"] == 1.0
    assert fill([{"distance": 2.0}]) == [{"distance": 2.0}]
    assert results == {"found": 1}


def test_an_unknown_key_gives_the_defaults():
    fill, results = lookup(changed(defaults={"distance": "733.5"}), rows={})
    assert fill([{"tail": "N9", "hour": 1}]) == [{"distance": 733.5, "hour": 1}]
    assert results == {"missing": 1}


@pytest.mark.parametrize(("rows", "result"), [({}, "missing"), (None, "unavailable")])
def test_where_features_are_required_there_is_no_answer_without_them(rows, result):
    fill, results = lookup(changed(required=True, defaults={"distance": "1"}), rows=rows)
    with pytest.raises(Refusal) as refused:
        fill([{"tail": "N9"}])
    assert (refused.value.status, refused.value.findings[0].code) == (503, "serving.features")
    assert results == {result: 1}


def test_what_is_too_old_is_used_and_counted_as_stale():
    old = (NOW - timedelta(hours=2)).isoformat()
    rows = {"N1": {"distance": 1.0, "as_of": old}, "N2": {"distance": 2.0}}
    fill, results = lookup(changed(max_age_s=3600), rows=rows)
    found = fill([{"tail": "N1"}, {"tail": "N2"}])
    assert [row["distance"] for row in found] == [1.0, 2.0]
    assert results == {"stale": 1, "found": 1}


@pytest.mark.parametrize("key", [None, [], {}, 1.5, True])
def test_a_key_that_is_none_is_missing(key):
    fill, results = lookup(rows={"N1": {}})
    fill([{"tail": key}])
    assert results == {"missing": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"rows":{}}',
        b'{"as_of":"2026-11-24T10:00:00","rows":{}}',  # a time without its zone
        b'{"as_of":"2026-11-24T10:00:00Z","rows":{"a":{"x":[1]}}}',
        b'{"as_of":"2026-11-24T10:00:00Z","rows":{"a":{"x":{}}}}',
        b'{"as_of":"2026-11-24T10:00:00Z","rows":{"a":{"as_of":"soon"}}}',
        b'{"as_of":"2026-11-24T10:00:00Z","rows":{"a":{"x":"\xff"}}}',
    ],
)
def test_a_file_that_is_no_table_is_refused(data):
    with pytest.raises(BadTable):
        read_table(data)


@pytest.mark.parametrize(
    ("about", "field"),
    [
        ({"table": "../x"}, "table"),
        ({"table": "a/b"}, "table"),
        ({"key": ""}, "key"),
        ({"columns": ()}, "columns"),
        ({"columns": ("tail",)}, "columns"),
        ({"max_age_s": -1}, "max_age_s"),
        ({"defaults": {"hour": "1"}}, "defaults"),
        ({"defaults": {"distance": "1."}}, "defaults.distance"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_name(house, about, field):
    plan = planned(house, house.release("1"), **about)
    with pytest.raises(FalajError, match=field):
        plans.check(plan)


def planned(house, made, **about):
    house.place(made)
    plan = house.plan(made)
    model = msgspec.structs.replace(plan.models["delay"], features=changed(**about))
    return msgspec.structs.replace(plan, models={"delay": model})


def put(house, data):
    folder = house.root / "features"
    folder.mkdir(exist_ok=True)
    part = folder / ".part"
    part.write_bytes(data)
    part.replace(folder / "tails.json")


def asked(client, *rows):
    status, _, told = client.post("/predict", {"rows": list(rows)})
    return status, told


def test_a_server_looks_up_logs_what_it_used_and_takes_up_a_new_table(house):
    house.write(planned(house, house.release("1"), required=True, max_age_s=3600))
    put(house, table({"N1": {"distance": 700.0, "dep_delay": 9.0}}, datetime.now(UTC)))
    client = house.start()
    status, told = asked(client, {"tail": "N1", "hour": 14.0})
    assert status == 200
    seen = told["predictions"][0]["probability"]
    assert seen == pytest.approx(expected((9.0, 700.0, 14.0)), abs=1e-6)
    status, told = asked(client, {"tail": "N2", "hour": 14.0})
    assert (status, told["code"], told["row"]) == (503, "serving.features", 0)

    put(house, b"{ half a table")
    put_at = time.monotonic()
    while time.monotonic() - put_at < 2.5:
        assert asked(client, {"tail": "N1", "hour": 14.0})[0] == 200
        time.sleep(0.3)
    put(house, table({"N2": {"distance": 1.0, "dep_delay": 0.0}}, NOW - timedelta(days=9)))
    end = time.monotonic() + 10
    while asked(client, {"tail": "N2", "hour": 1.0})[0] != 200 and time.monotonic() < end:
        time.sleep(0.2)
    assert asked(client, {"tail": "N2", "hour": 1.0})[0] == 200
    text = client.get("/metrics")[2].decode()
    for result in ("found", "missing", "stale"):
        assert f'falaj_features_total{{result="{result}"}}' in text
    assert client.terminate() == 0
    first = next(iter(spool.log(house.root / "spool"))).fact
    assert first.x == [9.0, 700.0, 14.0]
