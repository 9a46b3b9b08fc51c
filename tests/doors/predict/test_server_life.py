"""One server process from start to end: verification, plans, canary, counts, death, drain."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from scipy.stats import binomtest
from servers import SCHEMA, Client, expected, graph, infer_body

from falaj.base import digests
from falaj.facts.models import Column, Datatype, Schema, Tensor
from falaj.serving import spool
from falaj.serving.requests import which_release

ROW = (30.0, 733.0, 14.0)
MORNING = (30.0, 733.0, 9.0)
OTHER = {"onnx_bytes": graph(bias=-2.0)}


def newest(house):
    found = spool.newest(mark.fact for mark in spool.counts(house.root / "spool"))
    told = {}
    for line in found.values():
        sums = told.setdefault((line.rollout, line.metric), [0, 0, 0, 0])
        for at, value in enumerate((line.n_c, line.x_c, line.n_s, line.x_s)):
            sums[at] += value
    return told


def settled(house, total, rollout="r1"):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        found = newest(house)
        requests = found.get((rollout, "requests"), [0, 0, 0, 0])
        if requests[0] + requests[2] >= total:
            return {metric: sums for (of, metric), sums in found.items() if of == rollout}
        time.sleep(0.05)
    raise AssertionError(f"counts stay at {found}")


class Load:
    """Clients that ask without pause; every answer is kept."""

    def __init__(self, client, clients=4, row=ROW):
        self.client = client
        self.row = row
        self.answers = []
        self.failures = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(clients)]

    def work(self):
        mine = Client(self.client.url)
        while not self.stop.is_set():
            try:
                status, headers, told = mine.infer(self.row)
            except OSError as error:
                self.failures.append(repr(error))
                mine.close()
                continue
            self.answers.append(
                (status, headers.get("falaj-release"), headers["falaj-request"], told)
            )
            if status != 200:
                self.failures.append(told)
        mine.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(20)


# verification


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_tampered_model_is_not_served_and_the_file_is_named(house):
    made = house.release("1")
    house.apply(made)
    flip(house.place(made) / "model" / "model.onnx")
    process = house.start(ready=False)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 7
    assert out == b""
    assert b"model/model.onnx" in err
    assert b"Traceback" not in err
    assert (
        "model/model.onnx" in json.loads((house.root / "server-1.failed").read_bytes())["problem"]
    )


def unsigned(house):
    made = house.release("1", sign=False)
    house.apply(made)
    return "sign"


def other_release(house):
    made, other = house.release("1"), house.release("2", **OTHER)
    house.apply(made)
    to = house.root / "releases" / digests.short(made.id)
    to.rename(house.root / "gone")
    house.place(other).rename(to)
    return ""


def extra_file(house):
    made = house.release("1")
    house.apply(made)
    (house.place(made) / "model" / "more.onnx").write_bytes(b"x")
    return "more.onnx"


def no_folder(house):
    house.write(house.plan(house.release("1")))
    return ""


def unsigned_plan(house):
    made = house.release("1")
    house.place(made)
    house.write(house.plan(made), signer="releaser")
    return "plan.json"


def broken_model(house):
    house.apply(house.release("1", onnx_bytes=b"not a graph"))
    return "model.onnx"


def other_schema(house):
    wrong = Schema(
        inputs=(Tensor(name="y", datatype=Datatype.FP32, shape=(-1, 3)),), outputs=SCHEMA.outputs
    )
    house.apply(house.release("1", schema=wrong))
    return "model.onnx"


def wrong_probes(house):
    probes = {"inputs": [list(ROW)], "outputs": [[expected(ROW) + 1e-3]], "tolerance": 1e-5}
    house.apply(house.release("1", probes=probes))
    return "reference/probes.json"


def another_models_release(house):
    house.apply(house.release("1", model="other"))
    return "other"


@pytest.mark.parametrize(
    "make",
    [
        unsigned,
        other_release,
        extra_file,
        no_folder,
        unsigned_plan,
        broken_model,
        other_schema,
        wrong_probes,
        another_models_release,
    ],
)
def test_what_does_not_verify_is_never_loaded(house, make):
    words = make(house)
    process = house.start(ready=False)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, b"")
    assert words in err.decode()
    assert b"error[" in err
    assert b"fix:" in err


def test_probe_rows_that_hold_are_no_obstacle(house):
    rows = [list(ROW), [None, 5.0, 6.0]]
    probes = {
        "inputs": rows,
        "outputs": [[expected(row)] for row in rows],
        "tolerance": 1e-5,
    }
    house.apply(house.release("1", probes=probes))
    assert house.start().infer(ROW)[0] == 200


def test_without_a_plan_nothing_starts(house):
    process = house.start(ready=False)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert b"plan.json" in err


def test_plain_http_stays_on_this_machine(house):
    house.apply(house.release("1"))
    process = house.start("--host", "0.0.0.0", ready=False)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 6
    assert b"loopback" in err


def test_two_servers_of_one_name_do_not_share_files(house):
    house.apply(house.release("1"))
    house.start()
    second = house.start(ready=False)
    _, err = second.communicate(timeout=20)
    assert second.returncode == 8
    assert b"runs already" in err


def test_no_copy_of_the_model_stays_behind(house):
    house.apply(house.release("1"))
    house.start()
    assert list((house.root / ".staged").iterdir()) == []


def test_a_change_after_the_start_isolates_the_server(house):
    made = house.release("1")
    house.apply(made)
    client = house.start("--reverify-s", "0.2")
    assert client.infer(ROW)[0] == 200
    flip(house.place(made) / "model" / "model.onnx")
    told = client.until(lambda told: not told["ready"])
    assert "model/model.onnx" in told["problem"]
    status, headers, told = client.infer(ROW)
    assert (status, told["code"]) == (503, "serving.isolated")
    assert headers["retry-after"] == "1"


# plans


def test_a_new_plan_is_obeyed_without_a_failed_request(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one)
    client = house.start()
    with Load(client) as load:
        for _ in range(3):
            for made in (two, one):
                plan = house.apply(made)
                client.until(lambda told, seq=plan.seq: told["plan_seq"] == seq)
                time.sleep(0.1)
    assert load.failures == []
    assert len(load.answers) > 100
    assert {release for _, release, _, _ in load.answers} == {one.id, two.id}
    boots = spool.boots(house.root / "spool")
    by = {one.id: expected(ROW), two.id: expected(ROW, bias=-2.0)}
    for _, release, request, told in load.answers:
        assert which_release(request, boots) == release
        assert told["outputs"][1]["data"][1] == pytest.approx(by[release], abs=1e-6)


def test_a_plan_with_a_bad_release_is_refused_whole(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    plan = house.apply(one)
    client = house.start()
    flip(house.place(two) / "model" / "model.onnx")
    house.apply(one, two, 5000)
    told = client.until(lambda told: told["problem"])
    assert "model/model.onnx" in told["problem"]
    assert (told["ready"], told["plan_seq"]) == (True, plan.seq)
    assert client.infer(ROW)[1]["falaj-release"] == one.id
    assert b"falaj_problem_info{" in client.get("/metrics")[2]
    assert "model/model.onnx" in client.get("/")[2].decode()
    good = house.apply(one)
    told = client.until(lambda told: told["plan_seq"] == good.seq)
    assert told["problem"] == ""


REFUSED_PLANS = {
    "an older number": lambda h, made: (setattr(h, "seq", 0), h.write(h.plan(made))),
    "the same number, other content": lambda h, made: (
        setattr(h, "seq", h.seq - 1),
        h.write(h.plan(made, step=9)),
    ),
    "signed by another role": lambda h, made: h.write(h.plan(made), signer="releaser"),
    "no JSON": lambda h, made: (h.root / "plan.json").write_text("{"),
    "a bad field": lambda h, made: h.write(h.plan(made, latency_us=(5, 4, 3, 2))),
    "another environment": lambda h, made: h.write(
        __import__("msgspec").structs.replace(h.plan(made), environment="staging")
    ),
}


@pytest.mark.parametrize("change", REFUSED_PLANS.values(), ids=REFUSED_PLANS)
def test_a_bad_plan_leaves_the_old_one_in_force(house, change):
    made = house.release("1")
    house.apply(made)
    house.seq += 5
    plan = house.apply(made)
    client = house.start()
    change(house, made)
    told = client.until(lambda told: told["problem"])
    assert "plan refused" in told["problem"]
    assert told["plan_seq"] == plan.seq
    assert client.infer(ROW)[0] == 200


# canary and counts


def test_half_the_requests_go_to_the_canary_and_the_counts_are_true(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000, step=2)
    client = house.start()
    with Load(client) as load:
        while len(load.answers) < 3000:
            time.sleep(0.05)
    assert load.failures == []
    total = len(load.answers)
    canary = sum(release == two.id for _, release, _, _ in load.answers)
    assert binomtest(canary, total, 0.5).pvalue > 1e-6
    counts = settled(house, total)
    assert counts["requests"] == [canary, 0, total - canary, 0]
    assert counts["errors"] == [canary, 0, total - canary, 0]
    over = [counts[f"latency.{at}"] for at in range(4)]
    assert all(line[0] == canary and line[2] == total - canary for line in over)
    assert [line[3] for line in over] == sorted((line[3] for line in over), reverse=True)
    assert client.terminate() == 0
    rows = [mark.fact for mark in spool.log(house.root / "spool")]
    assert len(rows) == total
    assert {row.request for row in rows} == {request for _, _, request, _ in load.answers}
    assert sum(row.arm == "canary" for row in rows) == canary
    assert {(row.rollout, row.step) for row in rows} == {("r1", 2)}
    histogram = spool.latencies(house.root / "spool")["delay"][one.id]
    assert sum(histogram[1]) == total - canary


@pytest.mark.parametrize("trouble", ["nan", "crash"])
def test_what_the_canary_cannot_answer_stable_does_and_the_canary_pays(house, trouble):
    """assigned = answered + rescued + failed, in both arms."""
    one = house.release("1")
    two = house.release("2", onnx_bytes=graph(trouble=trouble))
    house.apply(one, two, 5000)
    client = house.start()
    seen = []
    for number in range(400):
        status, headers, told = client.infer(ROW if number % 2 else MORNING)
        assert status == 200
        seen.append((number % 2, headers["falaj-release"], headers["falaj-request"]))
        row = ROW if number % 2 else MORNING
        assert told["outputs"][1]["data"][1] == pytest.approx(expected(row), abs=1e-6)
    assert all(release == one.id for afternoon, release, _ in seen if afternoon)
    counts = settled(house, 400)
    answered_by_canary = sum(release == two.id for _, release, _ in seen)
    n_c, errors_c, n_s, errors_s = counts["errors"]
    assert n_c == answered_by_canary + errors_c
    assert n_c + n_s == 400
    assert errors_c > 50
    assert errors_s == 0
    assert counts["latency.0"][0] == answered_by_canary
    assert client.terminate() == 0
    rows = {mark.fact.request: mark.fact for mark in spool.log(house.root / "spool")}
    rescued = [row for row in rows.values() if row.outcome == "rescued"]
    assert len(rescued) == errors_c
    assert all((r.assigned, r.arm, r.release) == ("canary", "stable", one.id) for r in rescued)


def test_large_requests_are_rescued_too(house):
    one = house.release("1")
    two = house.release("2", onnx_bytes=graph(trouble="crash"))
    house.apply(one, two, 10_000)
    client = house.start()
    status, headers, _ = client.infer(*[ROW] * 500)
    assert (status, headers["falaj-release"]) == (200, one.id)
    assert settled(house, 1)["errors"] == [1, 1, 0, 0]


def test_a_bad_row_of_stable_is_its_own_500_and_an_error(house):
    one = house.release("1", onnx_bytes=graph(trouble="crash"))
    two = house.release("2", **OTHER)
    house.apply(one, two, 0)
    client = house.start()
    with Load(client, clients=3, row=MORNING) as load:
        for _ in range(20):
            status, _, told = client.infer(ROW)
            assert (status, told["code"]) == (500, "serving.engine")
    assert load.failures == []
    total = len(load.answers) + 20
    counts = settled(house, total)
    assert counts["errors"] == [0, 0, total, 20]


def test_a_canary_that_is_late_is_an_error_and_stable_answers(house):
    one = house.release("1")
    two = house.release("2", **OTHER)
    house.apply(one, two, 10_000, timeout_ms=1)
    client = house.start()
    for _ in range(20):
        status, headers, _ = client.infer(*[ROW] * 4000)
        assert status == 200
    counts = settled(house, 20)
    assert counts["errors"][:2] == [20, 20]
    assert headers["falaj-release"] == one.id


def test_a_server_whose_canary_does_not_verify_answers_and_says_so(house):
    """A restart while a release was tampered with: no outage, and the canary's share is its errors."""
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 10_000)
    flip(house.place(two) / "model" / "model.onnx")
    client = house.start()
    told = client.ready()
    assert told["ready"]
    assert "model/model.onnx" in told["problem"]
    for _ in range(10):
        status, headers, _ = client.infer(ROW)
        assert (status, headers["falaj-release"]) == (200, one.id)
    assert settled(house, 10)["errors"] == [10, 10, 0, 0]


def test_a_client_that_names_a_version_is_left_out_of_the_counts(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 1)
    client = house.start()
    path = "/v2/models/delay/versions/2/infer"
    for _ in range(20):
        assert client.post(path, infer_body(ROW))[1]["falaj-release"] == two.id
    client.infer(ROW)
    counts = settled(house, 1)
    assert counts["requests"][0] + counts["requests"][2] == 1


def test_refused_requests_are_in_no_arm(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000)
    client = house.start()
    for _ in range(50):
        assert client.infer((1, -1, 1))[0] == 400
    client.infer(ROW)
    counts = settled(house, 1)
    assert counts["requests"][0] + counts["requests"][2] == 1


def test_a_canary_with_another_schema_reads_requests_its_own_way(house):
    narrow = Schema(
        inputs=(
            Tensor(
                name="x",
                datatype=Datatype.FP32,
                shape=(-1, 3),
                columns=(
                    Column(name="dep_delay", nullable=True),
                    Column(name="distance", minimum=0.0, maximum=20000.0),
                    Column(name="hour", minimum=0.0, maximum=12.0),
                ),
            ),
        ),
        outputs=SCHEMA.outputs,
    )
    one, two = house.release("1"), house.release("2", schema=narrow, **OTHER)
    house.apply(one, two, 10_000)
    client = house.start()
    assert client.infer(MORNING)[1]["falaj-release"] == two.id
    assert client.infer(ROW)[1]["falaj-release"] == one.id  # stable takes 14 o'clock
    assert settled(house, 2)["errors"] == [2, 1, 0, 0]


def test_a_header_can_be_the_key(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000, key="header:x-user", sticky=True)
    client = house.start()
    path = "/v2/models/delay/infer"
    arms = {}
    for _ in range(3):
        for user in range(30):
            head = {"x-user": f"u{user}"}
            found = client.ask("POST", path, infer_body(ROW), head)[1]["falaj-release"]
            assert arms.setdefault(user, found) == found
    assert len(set(arms.values())) == 2


def test_strata_follow_the_clock(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000, stratum_ms=200)
    client = house.start()
    total = 0
    until = time.monotonic() + 1.1
    while time.monotonic() < until:
        client.infer(ROW)
        total += 1
    settled(house, total)
    lines = spool.newest(mark.fact for mark in spool.counts(house.root / "spool")).values()
    strata = {line.stratum for line in lines}
    assert 5 <= len(strata) <= 8
    assert max(strata) - time.time() * 5 < 2


# death and drain


def test_kill_9_and_a_new_start_lose_no_name(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000)
    client = house.start()
    with Load(client, clients=2) as load:
        settled(house, 300)
        os.kill(client.process.pid, signal.SIGKILL)
        client.process.wait(10)
    again = house.start()
    assert again.infer(ROW)[0] == 200
    boots = spool.boots(house.root / "spool")
    assert len(boots) == 2
    for status, release, request, _ in load.answers:
        assert status == 200
        assert which_release(request, boots) == release
    # What was counted is no more than what was answered, and little less: 0.25 s may be lost.
    counted = newest(house)["r1", "requests"]
    assert counted[0] + counted[2] <= len(load.answers) + 3
    logged = {mark.fact.request for mark in spool.log(house.root / "spool")}
    assert logged
    request = load.answers[0][2]
    body = {"rows": [{"request": request, "row": 0, "value": 0}]}
    assert again.post("/ground-truth/delay", body)[2]["accepted"] == 1


def test_a_drain_finishes_what_was_begun(house):
    made = house.release("1")
    house.apply(made)
    client = house.start("--drain-s", "0.5")
    body = json.dumps(infer_body(*[ROW] * 20_000)).encode()
    head = b"POST /v2/models/delay/infer HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection((client.host, client.port), timeout=10) as sock:
        sock.sendall(head % len(body) + body[:-1])
        client.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        status, headers, told = Client(client.url).get("/v2/health/ready")
        assert (status, told["ready"], headers["connection"]) == (503, False, "close")
        sock.sendall(body[-1:])
        answer = b""
        while part := sock.recv(1 << 20):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer[:500]
    assert answer.endswith(b"]}]}")
    assert client.process.wait(10) == 0
    assert len(list(spool.log(house.root / "spool"))) == 64
    assert not list((house.root / "spool").glob("*.part"))
    assert not (house.root / "server-1.json").exists()


ALONE = (
    "import sys; from pathlib import Path\n"
    "from falaj.doors.predict.main import serve_folder\n"
    "sys.exit(serve_folder(Path(sys.argv[1]), Path(sys.argv[2]), 0))"
)


def test_one_folder_alone(house):
    made = house.release("1")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            ALONE,
            str(made.folder),
            str(house.trust),
        ],
        stdout=subprocess.PIPE,
    )
    house.processes.append(process)
    client = Client(json.loads(process.stdout.readline())["url"], process)
    assert client.infer(ROW)[1]["falaj-release"] == made.id
    assert client.terminate() == 0


def test_one_tampered_folder_alone(house):
    made = house.release("1")
    flip(made.folder / "model" / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(made.folder), str(house.trust)],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 7
    assert b"model/model.onnx" in done.stderr
