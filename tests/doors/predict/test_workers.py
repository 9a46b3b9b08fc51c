"""Workers behind one address: respawned, replaced one after the other, all on one plan or none.

`FALAJ_FULL=1` runs the sizes that a release is judged by: 100 rolling restarts.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from servers import Client, graph, infer_body

from falaj.serving import spool

ROW = (30.0, 733.0, 14.0)
OTHER = {"onnx_bytes": graph(bias=-2.0)}
FULL = bool(os.environ.get("FALAJ_FULL"))
ROLLS = 50 if FULL else 2  # each way: new connections and kept ones
FAST = ("--drain-s", "0.1", "--idle-s", "2")


class Tree(Client):
    """A supervisor: its own listener beside the one of its workers."""

    def __init__(self, house, *more, workers=2):
        found = house.start("--workers", str(workers), *FAST, *more)
        super().__init__(found.url, found.process)
        card = json.loads((house.root / "server-1.json").read_bytes())
        assert card["pid"] == self.process.pid
        self.admin = Client(card["own_url"])

    def ready(self):
        return self.admin.get("/v2/health/ready")[2]

    def pids(self):
        """Workers that answer, without those that leave."""
        return {one["pid"] for one in self.ready()["workers"] if one["ready"]}

    def rolled(self):
        text = self.admin.get("/metrics")[2].decode()
        return int(next(l for l in text.splitlines() if l.startswith("falaj_restarts_total"))[20:])

    def roll(self):
        before = self.rolled()
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while self.rolled() == before:
            assert time.monotonic() < end, "the restart does not end"
            time.sleep(0.05)


@pytest.fixture
def tree(house):
    house.apply(house.release("1"))
    return Tree(house)


class Load:
    """Clients with a new connection for each request, or one that is kept while the server likes."""

    def __init__(self, client, *, fresh, clients=4):
        self.client = client
        self.fresh = fresh
        self.done = 0
        self.failures = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(clients)]
        self.body = json.dumps(infer_body(ROW)).encode()

    def work(self):
        wire = None
        while not self.stop.is_set():
            try:
                if wire is None:
                    wire = http.client.HTTPConnection(
                        self.client.host, self.client.port, timeout=20
                    )
                wire.request("POST", "/v2/models/delay/infer", self.body)
                answer = wire.getresponse()
                text = answer.read()
                if answer.status != 200:
                    self.failures.append((answer.status, text))
                if self.fresh or answer.getheader("connection") == "close":
                    wire.close()
                    wire = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                wire = None
            self.done += 1
        if wire is not None:
            wire.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(20)


@pytest.mark.parametrize("fresh", [True, False], ids=["new connections", "kept connections"])
def test_rolling_restarts_fail_no_request(tree, fresh):
    seen = set(tree.pids())
    with Load(tree, fresh=fresh) as load:
        for _ in range(ROLLS):
            tree.roll()
            now = tree.pids()
            assert len(now) == 2
            assert not now & seen
            seen |= now
    assert load.failures == []
    assert load.done > 50 * ROLLS
    print(f"rolling restarts: {ROLLS}, requests: {load.done}, failed: 0")


def test_a_worker_that_dies_comes_back(tree):
    before = tree.pids()
    os.kill(min(before), signal.SIGKILL)
    end = time.monotonic() + 30
    while len(tree.pids()) != 2 or min(before) in tree.pids():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert max(before) in tree.pids()
    assert tree.infer(ROW)[0] == 200
    assert b"falaj_workers_started_total 1" in tree.admin.get("/metrics")[2]


def test_a_worker_that_is_stuck_is_replaced(tree):
    before = tree.pids()
    os.kill(min(before), signal.SIGSTOP)
    end = time.monotonic() + 30
    while len(tree.pids()) != 2 or min(before) in tree.pids():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_worker_that_dies_again_and_again_makes_it_not_ready(house):
    house.apply(house.release("1"))
    tree = Tree(house, workers=1)
    for _ in range(5):
        end = time.monotonic() + 30
        while not tree.pids():
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(tree.pids().pop(), signal.SIGKILL)
        time.sleep(0.3)
    told = tree.ready()
    assert not told["ready"]
    assert "die again and again" in told["problem"]


def test_workers_leave_with_a_supervisor_that_is_killed(tree):
    before = tree.pids()
    tree.process.kill()
    tree.process.wait(10)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in before):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_end_drains_all_and_leaves_no_card(house, tree):
    before = tree.pids()
    assert tree.infer(ROW)[0] == 200
    tree.admin.close()
    assert tree.terminate() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    assert not (house.root / "server-1.json").exists()
    assert len(list(spool.log(house.root / "spool"))) == 1
    assert not list((house.root / "spool").glob("*.part"))


def test_what_does_not_verify_starts_no_worker(house):
    made = house.release("1")
    house.apply(made)
    path = house.place(made) / "model" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    process = house.start("--workers", "2", ready=False)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (7, b"")
    assert b"model/model.onnx" in err
    assert b"Traceback" not in err


def test_a_taken_port_is_said(house):
    house.apply(house.release("1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = house.start("--workers", "2", "--port", port, ready=False)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"serving.port" in err


def test_all_workers_switch_to_a_plan(house, tree):
    two = house.release("2", **OTHER)
    with Load(tree, fresh=False) as load:
        plan = house.apply(two)
        tree.until(lambda told: told["plan_seq"] == plan.seq)
        after = time.monotonic() + 0.3
        found = set()
        while time.monotonic() < after:
            fresh = Client(tree.url)
            found.add(fresh.infer(ROW)[1]["falaj-release"])
            fresh.close()
    assert load.failures == []
    assert found == {two.id}


def test_a_plan_that_one_worker_cannot_follow_is_refused_by_all(house, tree):
    seq = tree.ready()["plan_seq"]
    two = house.release("2", **OTHER)
    path = house.place(two) / "model" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    house.apply(two)
    told = tree.until(lambda told: told["problem"])
    assert "model/model.onnx" in told["problem"]
    assert (told["ready"], told["plan_seq"]) == (True, seq)
    time.sleep(0.6)
    assert {one["ready"] for one in tree.ready()["workers"]} == {True}


def test_the_metrics_of_all_workers_are_added_up(tree):
    for _ in range(60):
        fresh = Client(tree.url)
        assert fresh.infer(ROW)[0] == 200
        fresh.close()
    text = tree.admin.get("/metrics")[2].decode()
    assert text.endswith("# EOF\n")
    total = sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("falaj_requests_total")
    )
    assert total == 60
    worker = Client(own_of(tree))
    alone = worker.get("/metrics")[2].decode()
    assert "falaj_workers" not in alone, "a worker that asked for all would ask without end"
    assert "falaj_workers 2" in text


def own_of(tree):
    """The listener of one worker's own."""
    pid = min(tree.pids())
    hexes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        target = str(fd.readlink())
        if target.startswith("socket:["):
            hexes.add(target[8:-1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        port = int(words[1].partition(":")[2], 16)
        if words[3] == "0A" and words[9] in hexes and port != tree.port:
            return f"http://127.0.0.1:{port}"
    raise AssertionError("a worker has a listener of its own")


def test_the_supervisor_holds_no_model(tree):
    maps = Path(f"/proc/{tree.process.pid}/maps").read_text()
    assert "onnxruntime" not in maps
    assert "numpy" not in maps


def test_requests_do_not_go_to_the_listener_of_the_supervisor(tree):
    status, _, told = tree.admin.post("/v2/models/delay/infer", infer_body(ROW))
    assert (status, told["code"]) == (405, "serving.method")
    assert tree.admin.get("/v2")[0] == 404


def test_one_worker_can_be_replaced_too(house):
    house.apply(house.release("1"))
    tree = Tree(house, workers=1)
    before = tree.pids()
    with Load(tree, fresh=True, clients=2) as load:
        tree.roll()
    assert load.failures == []
    assert not tree.pids() & before


def test_a_new_generation_that_cannot_start_changes_nothing(house, tree):
    before = tree.pids()
    (path,) = house.root.glob("releases/*/model/model.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    tree.process.send_signal(signal.SIGHUP)
    time.sleep(3)
    assert tree.pids() == before
    assert tree.infer(ROW)[0] == 200


def test_no_process_is_left(tree):
    assert isinstance(tree.process, subprocess.Popen)
    pids = tree.pids()
    os.kill(max(pids), signal.SIGTERM)  # a worker alone is told to go: its place is filled
    end = time.monotonic() + 30
    while len(tree.pids() - {max(pids)}) != 2:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_share_one_address_of_grpc(house):
    house.apply(house.release("1"))
    tree = Tree(house, "--grpc-port", "0")
    host, _, port = json.loads((house.root / "server-1.json").read_bytes())["grpc"].partition(":")
    os.kill(min(tree.pids()), signal.SIGKILL)
    for _ in range(20):
        socket.create_connection((host, int(port)), timeout=5).close()
