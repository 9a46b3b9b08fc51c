"""Canary and shadow in processes of their own: killed, stopped, lying; stable answers through it all.

`FALAJ_FULL=1` runs the sizes that a release is judged by: 20 kills and 20 hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from servers import SCHEMA, Client, child, children, cmdline, expected, graph

from falaj.base import digests
from falaj.doors.predict.channel import Started
from falaj.doors.predict.loads import manifest_of
from falaj.doors.predict.remote import Remote
from falaj.serving import spool
from falaj.serving.loading import EngineFailed
from falaj.serving.schema import Rows
from falaj.serving.wire.frames import Frames, Kind, blob, pack

ROW = (30.0, 733.0, 14.0)
OTHER = {"onnx_bytes": graph(bias=-2.0)}
FULL = bool(os.environ.get("FALAJ_FULL"))
TIMES = 20 if FULL else 3


class Load:
    """Clients that ask without pause. Each answer: seconds, status, release, request."""

    def __init__(self, client, clients=3):
        self.client = client
        self.answers = []
        self.failures = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(clients)]

    def work(self):
        mine = Client(self.client.url)
        while not self.stop.is_set():
            begun = time.monotonic()
            try:
                status, headers, told = mine.infer(ROW)
            except OSError as error:
                self.failures.append(repr(error))
                mine.close()
                continue
            took = time.monotonic() - begun
            self.answers.append(
                (took, status, headers.get("falaj-release"), headers["falaj-request"])
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

    def until(self, release, seconds=40.0):
        """Wait until a release answers (again)."""
        seen, end = len(self.answers), time.monotonic() + seconds
        while time.monotonic() < end:
            if any(answer[2] == release for answer in self.answers[seen:]):
                return
            time.sleep(0.02)
        raise AssertionError(f"{release[:19]} does not answer")


def errors_of(house, total):
    """Canary and stable: requests and errors, once all are counted."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        lines = spool.newest(mark.fact for mark in spool.counts(house.root / "spool"))
        errors = [line for line in lines.values() if line.metric == "errors"]
        sums = [sum(getattr(one, name) for one in errors) for name in ("n_c", "x_c", "n_s", "x_s")]
        if sums[0] + sums[2] >= total:
            return sums
        time.sleep(0.05)
    raise AssertionError(f"counts stay at {sums}")


def judged(house, load, two):
    """Nothing failed, and what the canary did not answer is its error."""
    assert load.failures == []
    answered = sum(release == two.id for _, _, release, _ in load.answers)
    n_c, x_c, n_s, x_s = errors_of(house, len(load.answers))
    assert n_c + n_s == len(load.answers)
    assert n_c - x_c == answered
    assert x_s == 0
    return n_c, x_c


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_canary_that_dies_or_hangs_fails_no_request(house, how):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000, timeout_ms=150, stratum_ms=3_600_000)
    client = house.start()
    known = []
    with Load(client) as load:
        for _ in range(TIMES):
            known.append(child(client, known))
            load.until(two.id)
            os.kill(known[-1], how)
        child(client, known)
        load.until(two.id)
    _, rescued = judged(house, load, two)
    assert rescued >= TIMES
    metrics = client.get("/metrics")[2].decode()
    assert "falaj_rescued_total{" in metrics
    assert (
        f'falaj_model_process_total{{arm="canary",event="deaths",model="delay"}} {TIMES}' in metrics
    )
    assert client.terminate() == 0
    rows = [mark.fact for mark in spool.log(house.root / "spool")]
    stable = sorted(row.latency_us for row in rows if row.assigned == "stable")
    assert stable[int(len(stable) * 0.98)] < 100_000, "stable does not wait for a hanging canary"
    assert not any(cmdline(pid) for pid in known if b"predict.model" in cmdline(pid))


def test_the_models_die_with_a_server_that_is_killed(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000)
    client = house.start()
    pid = child(client)
    os.kill(pid, signal.SIGSTOP)  # even one that can hear nothing
    client.process.kill()
    client.process.wait(10)
    end = time.monotonic() + 5
    while b"predict.model" in cmdline(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert b"predict.model" not in cmdline(pid)


def test_a_canary_whose_files_change_is_isolated_alone(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 10_000)
    client = house.start("--reverify-s", "0.2")
    assert client.infer(ROW)[1]["falaj-release"] == two.id
    path = house.place(two) / "model" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    told = client.until(lambda told: told["problem"])
    assert "model/model.onnx" in told["problem"]
    assert told["ready"], "stable verifies"
    for _ in range(5):
        status, headers, _ = client.infer(ROW)
        assert (status, headers["falaj-release"]) == (200, one.id)
    time.sleep(0.5)
    assert children(client.process.pid) == [], "and never comes back with changed bytes"


def test_a_changed_canary_does_not_come_back_after_its_death(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 10_000)
    client = house.start()
    assert client.infer(ROW)[1]["falaj-release"] == two.id
    path = house.place(two) / "model" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.kill(child(client), signal.SIGKILL)
    told = client.until(lambda told: "model/model.onnx" in told["problem"])
    assert told["ready"]
    for _ in range(5):
        status, headers, _ = client.infer(ROW)
        assert (status, headers["falaj-release"]) == (200, one.id)


def test_a_client_that_names_the_canary_gets_it_or_nothing(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 1)
    client = house.start()
    path = "/v2/models/delay/versions/2/infer"
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": list(ROW)}]}
    assert client.post(path, body)[1]["falaj-release"] == two.id
    os.kill(child(client), signal.SIGKILL)
    status, headers, told = client.post(path, body)
    assert (status, told["code"], headers["retry-after"]) == (503, "serving.arm", "1")


def test_large_requests_pass_through_the_canary_and_its_death(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 10_000)
    client = house.start()
    status, headers, told = client.infer(*[ROW] * 3000)
    assert (status, headers["falaj-release"]) == (200, two.id)
    assert told["outputs"][1]["data"][-1] == pytest.approx(expected(ROW, bias=-2.0), abs=1e-6)
    os.kill(child(client), signal.SIGKILL)
    status, headers, _ = client.infer(*[ROW] * 3000)
    assert (status, headers["falaj-release"]) == (200, one.id)


def test_a_new_plan_takes_the_canary_in_and_sends_its_process_away(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    house.apply(one, two, 5000)
    client = house.start()
    pid = child(client)
    with Load(client) as load:
        plan = house.apply(two)
        client.until(lambda told: told["plan_seq"] == plan.seq)
        load.until(two.id)
        end = time.monotonic() + 10
        while children(client.process.pid) and time.monotonic() < end:
            time.sleep(0.02)
    assert load.failures == []
    assert not cmdline(pid)


# shadow


def shadowed(house, one, two, bp=10_000):
    house.place(one), house.place(two)
    return house.write(
        house.plan(one, shadow=house.arm(two), shadow_bp=bp, rollout="r1"),
    )


def test_a_shadow_sees_the_requests_and_answers_nobody(house):
    one, two = house.release("1"), house.release("2", **OTHER)
    shadowed(house, one, two)
    client = house.start()
    requests = set()
    for _ in range(50):
        status, headers, _ = client.infer(ROW)
        assert (status, headers["falaj-release"]) == (200, one.id)
        requests.add(headers["falaj-request"])
    time.sleep(0.5)
    assert client.terminate() == 0
    rows = [mark.fact for mark in spool.log(house.root / "spool")]
    shown = [row for row in rows if row.assigned == "shadow"]
    assert {row.request for row in shown} == requests
    assert {(row.release, row.arm, row.outcome, row.rollout) for row in shown} == {
        (two.id, "shadow", "ok", "r1")
    }
    assert shown[0].score == pytest.approx(expected(ROW, bias=-2.0), abs=1e-6)
    assert {row.request for row in rows if row.assigned == "stable"} == requests
    assert errors_of(house, 50) == [0, 0, 50, 0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_shadow_that_dies_or_hangs_is_nobodys_business(house, how):
    one, two = house.release("1"), house.release("2", **OTHER)
    shadowed(house, one, two)
    client = house.start()
    with Load(client) as load:
        load.until(one.id)
        os.kill(child(client), how)
        time.sleep(1.0)
    assert load.failures == []
    assert {release for _, _, release, _ in load.answers} == {one.id}
    assert errors_of(house, len(load.answers))[1::2] == [0, 0]
    assert sorted(answer[0] for answer in load.answers)[int(len(load.answers) * 0.99)] < 0.2


# a process that lies


class Liar:
    """The server's end of a process that the test plays."""

    def __init__(self, house):
        made = house.release("1")
        manifest = manifest_of(made.folder, made.id)
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.sock.settimeout(5)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        self.process = process
        command = ["--folder", "/nowhere", "--trust", "/nowhere", "--release", made.id]
        command += ["--model", "delay"]
        started = Started(process, ours, (0.0, 0.0))
        self.remote = Remote(made.id, manifest, 1, command, Path("/nowhere"), started)
        self.remote.timeout_s = 0.3
        self.frames = Frames()
        self.found = []
        self.remote.attach(asyncio.get_running_loop())

    def ask(self, n=1):
        rows = Rows(n, 3, [1.0] * 3 * n, np.ones(3 * n, "<f4").tobytes())
        self.remote.submit([rows], self.found.append, time.perf_counter() + self.remote.timeout_s)

    async def asked(self):
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.run_in_executor(None, self.sock.recv, 1 << 16)
            for frame in self.frames.feed(data):
                return frame

    def end(self):
        self.remote.retire()
        self.sock.close()
        self.process.kill()
        self.process.wait()


def answer(frame, n=1, label=np.int64, p=np.float32, batch=None):
    outputs = [np.zeros(n, label), np.full((n, 2), 0.5, p)]
    return pack(Kind.ANSWER, frame.batch if batch is None else batch, n, outputs)


LIES = {
    "bytes that are no frame": lambda f: b"\xff" * 64,
    "an answer to what was not asked": lambda f: answer(f, batch=99),
    "an answer twice": lambda f: answer(f, n=2) + answer(f),
    "too many rows": lambda f: answer(f, n=2),
    "text for numbers": lambda f: answer(f, p=object),
    "infinity": lambda f: pack(
        Kind.ANSWER, f.batch, 1, [np.zeros(1, np.int64), np.full((1, 2), np.inf, np.float32)]
    ),
    "one output too few": lambda f: pack(Kind.ANSWER, f.batch, 1, [np.zeros(1, np.int64)]),
    "a question of its own": lambda f: pack(Kind.RUN, f.batch, 1, [np.zeros((1, 3), np.float32)]),
    "an error without words": lambda f: pack(Kind.ERROR, f.batch, 0, []),
    "an error of wrong bytes": lambda f: pack(Kind.ERROR, f.batch, 0, [blob(b"\x80\x04")]),
    "an announced giant": lambda f: b"\xff\xff\xff\x7f",
    "nothing": lambda f: b"",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_whatever_a_process_says_the_request_is_let_go_once(house, lie):
    async def story():
        liar = Liar(house)
        try:
            liar.ask()
            frame = await liar.asked()
            with contextlib.suppress(OSError):
                liar.sock.sendall(lie(frame))
            await asyncio.sleep(0.6)
            assert len(liar.found) == 1
            assert isinstance(liar.found[0], EngineFailed)
        finally:
            liar.end()

    asyncio.run(story())


def test_an_honest_process_is_believed(house):
    async def story():
        liar = Liar(house)
        try:
            liar.ask(n=2)
            frame = await liar.asked()
            assert (frame.kind, frame.rows, frame.tensors[0].shape) == (Kind.RUN, 2, (2, 3))
            liar.sock.sendall(answer(frame, n=2))
            await asyncio.sleep(0.1)
            assert liar.found[0].array(1).tolist() == [[0.5, 0.5]] * 2
        finally:
            liar.end()

    asyncio.run(story())


def test_a_late_answer_is_dropped_and_counted(house):
    async def story():
        liar = Liar(house)
        try:
            liar.ask()
            frame = await liar.asked()
            await asyncio.sleep(0.5)
            assert isinstance(liar.found[0], EngineFailed)
            liar.sock.sendall(answer(frame))
            await asyncio.sleep(0.1)
            assert len(liar.found) == 1
            assert liar.remote.up
            assert (liar.remote.counts["late"], liar.remote.counts["garbage"]) == (1, 0)
        finally:
            liar.end()

    asyncio.run(story())


def test_a_process_that_reads_nothing_is_not_filled_for_ever(house):
    async def story():
        liar = Liar(house)
        liar.remote.timeout_s = 30.0
        try:
            for _ in range(2000):
                liar.ask(n=200)
            assert len(liar.remote.waiting) <= 256
            assert liar.remote.channel is None or liar.remote.channel.unsent < 16 << 20
            assert sum(isinstance(found, EngineFailed) for found in liar.found) >= 1744
        finally:
            liar.end()

    asyncio.run(story())


def test_the_schema_of_a_process_is_the_planned_one(house):
    made = house.release("1")
    assert manifest_of(made.folder, made.id).schema == SCHEMA
    assert digests.of_file(made.folder / "release.json") == made.id
