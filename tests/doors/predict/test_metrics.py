"""Metrics as a scraper reads them, of one server and of all; counts of the spool behind a position."""

from __future__ import annotations

import json
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
from servers import Client

from falaj.doors.predict import sums
from falaj.serving.refusals import Refusal

ROW = (30.0, 733.0, 14.0)
NAMES = {
    "falaj_requests", "falaj_request_seconds", "falaj_rows", "falaj_shed", "falaj_rescued",
    "falaj_refused", "falaj_log_rows", "falaj_log_dropped", "falaj_spool_bytes", "falaj_plan_seq",
    "falaj_plan_age_seconds", "falaj_release", "falaj_verified_timestamp_seconds",
    "falaj_loop_lag_seconds", "falaj_connections", "falaj_turned_away", "falaj_auth", "falaj_ready",
}  # fmt: skip


def read(text):
    return {family.name: family for family in families(text.decode())}


def total(found, family, **labels):
    return sum(
        sample.value
        for sample in found[family].samples
        if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
    )


def card(house, name="server-1"):
    return json.loads((house.root / f"{name}.json").read_bytes())


def admin(house, path, name="server-1"):
    with urllib.request.urlopen(card(house, name)["own_url"] + path, timeout=10) as answer:
        return answer.read()


def test_a_real_parser_reads_every_family(house):
    one, two = house.release("1"), house.release("2")
    house.apply(one, two, 5000)
    client = house.start()
    names = [client.infer(ROW)[1]["falaj-request"] for _ in range(40)]
    client.infer((1.0, 2.0))
    client.infer(*[ROW] * 3)
    found = read(client.get("/metrics")[2])
    assert found.keys() >= NAMES
    assert total(found, "falaj_requests", code="ok", door="http", model="delay") == 41
    assert total(found, "falaj_refused", code="serving.shape") == 1
    seconds = found["falaj_request_seconds"].samples
    exemplars = [sample.exemplar for sample in seconds if sample.exemplar]
    assert len(exemplars) == 1
    assert exemplars[0].labels["request"][:16] == names[0][:16]
    labels = {label for family in found.values() for s in family.samples for label in s.labels}
    assert not labels & {"request", "principal", "key"}
    buckets = [sample.value for sample in seconds if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)


def test_the_admin_listener_adds_up_all_servers(house):
    house.apply(house.release("1"))
    port = card_port(house.start(name="server-1"))
    house.start("--port", str(port), name="server-2")
    for name, n in (("server-1", 3), ("server-2", 4)):
        own = Client(card(house, name)["own_url"])
        assert [own.infer(ROW)[0] for _ in range(n)] == [200] * n
        own.close()
    for name in ("server-1", "server-2"):
        found = read(admin(house, "/metrics", name))
        assert total(found, "falaj_requests", code="ok") == 7
        states = {s.labels["state"]: s.value for s in found["falaj_servers"].samples}
        assert states == {"answering": 2, "silent": 0}
    house.processes[1].kill()
    house.processes[1].wait()
    found = read(admin(house, "/metrics"))
    assert total(found, "falaj_requests", code="ok") == 3


def card_port(client):
    return client.port


def test_what_is_added_and_what_is_not():
    one = (
        b"# TYPE falaj_plan_seq gauge\n# HELP falaj_plan_seq N.\nfalaj_plan_seq 7\n"
        b"# TYPE falaj_shed counter\n# HELP falaj_shed N.\n"
        b'falaj_shed_total{reason="a \\" # {b} 1"} 2\n'
        b"# TYPE falaj_release info\n# HELP falaj_release N.\n"
        b'falaj_release_info{release="a"} 1\n# EOF\n'
    )
    two = one.replace(b"seq 7", b"seq 5").replace(b"} 2\n", b"} 40\n")
    found = read(sums.merged([one, two], missing=1))
    assert found["falaj_plan_seq"].samples[0].value == 5
    assert total(found, "falaj_shed", reason='a " # {b} 1') == 42
    assert found["falaj_release"].samples[0].value == 1
    assert [s.value for s in found["falaj_servers"].samples] == [2, 1]


def test_summaries_go_on_where_the_last_answer_stopped(house):
    one, two = house.release("1"), house.release("2")
    house.apply(one, two, 5000)
    client = house.start()
    for _ in range(5):
        client.infer(ROW)
    client.terminate()
    client = house.start()
    told = json.loads(admin(house, "/summaries"))
    newest = {}
    for line in told["counts"]:
        key = line["source"], line["stratum"], line["metric"]
        if key not in newest or newest[key]["seq"] < line["seq"]:
            newest[key] = line
    assert sum(x["n_s"] + x["n_c"] for x in newest.values() if x["metric"] == "requests") == 5
    assert told["more"] is False
    again = json.loads(admin(house, f"/summaries?after={told['after']}"))
    assert again["counts"] == []
    assert client.get("/summaries")[0] == 404  # not for the public


@pytest.mark.parametrize("after", ["x", "e30", "eyJhIjotMX0=", "eyIuLi9hIjoxfQ==", "W10="])
def test_a_position_that_is_none_is_refused(tmp_path, after):
    with pytest.raises(Refusal):
        sums.summaries(tmp_path, after)
