"""CPU of a request, memory and start of ours and of the servers that people use, in one run.

Fixed numbers of requests over kept connections; CPU is user + system of the server's whole process tree.
Round after round all servers are asked in turn, so that a noisy minute hits all of them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import closed
from bench.batch import MLFLOW
from bench.harness import HERE, QUIET, Row, compared, ours, peer, say, value, version, write
from bench.harness import environment as make
from bench.serving_load import Load, Took, head_of, load
from bench.serving_peers import BODIES, PEERS, Peer
from bench.tree import cpu_s, members, pss_mb

ROUNDS = 5
DISTINCT = 1000
CPU_S = 0.4  # of a measurement; ticks are 10 ms
MOST = 40_000
OURS, ECHO = "falaj", "echo"


class Server:
    """One started server: where it is, when it first answered, what it has used."""

    def __init__(
        self, name: str, words: Sequence[str | Path], port: int, *, at: Path, env: Mapping[str, str]
    ) -> None:
        self.name, self.port = name, port
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 closed when it is stopped
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [str(word) for word in words], cwd=at, env=dict(env), stdin=subprocess.DEVNULL,
            stdout=self.said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.first_s = self.loads = self.idle_mb = float("nan")

    def wait(self, path: str, body: bytes, seconds: float = 180.0) -> bytes:
        """Until it answers for the first time. Raises RuntimeError with what it said."""
        last: object = ""
        while time.perf_counter() - self.begun < seconds and self.process.poll() is None:
            try:
                wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                wire.request("POST", path, body, {"Content-Type": "application/json"})
                answer = wire.getresponse()
                data = answer.read()
                wire.close()
                if answer.status == http.HTTPStatus.OK:
                    self.first_s = time.perf_counter() - self.begun
                    self.idle_mb = pss_mb(self.pids())
                    return data
                last = (answer.status, data[:300])
            except (OSError, http.client.HTTPException) as error:
                last = error
            time.sleep(0.02)
        self.said.seek(0)
        words = self.said.read()[-1500:].decode(errors="replace")
        self.stop()
        raise RuntimeError(f"{self.name} does not answer: {last}\n{words}")

    def pids(self) -> list[int]:
        return members(self.process.pid)

    def used_s(self) -> float:
        return cpu_s(self.pids())

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + 8
            for pid in self.pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            while time.monotonic() < end and self.pids():
                self.process.poll()
                time.sleep(0.05)
        self.process.wait()
        self.said.close()


def free_port() -> int:
    """Three neighbours, as some servers take more than one."""
    while True:
        port = random.randint(20_000, 50_000)
        try:
            for at in range(3):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port + at))
        except OSError:
            continue
        return port


def environment(home: Path, bin_: Path | None = None, **more: str) -> dict[str, str]:
    path = f"{bin_}:/usr/bin:/bin" if bin_ else "/usr/bin:/bin"
    return {
        **QUIET,
        "HOME": str(home),
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "MODEL": str(home / "trees" / "model.onnx"),
        **more,
    }


def start_ours(home: Path) -> Server:
    port = free_port()
    words = [
        ours() / "falaj",
        "serve",
        home / "release-trees",
        "--trust",
        home / "trust.json",
        "--port",
        str(port),
    ]
    return Server(OURS, words, port, at=home, env=environment(home, ours()))


def start_echo(home: Path) -> Server:
    port = free_port()
    return Server(
        ECHO,
        [ours() / "python", HERE / "serving_echo.py", str(port)],
        port,
        at=home,
        env=environment(home, ours()),
    )


def start_peer(one: Peer, home: Path) -> Server:
    port, bin_ = free_port(), peer(one.lock)
    folder = home / one.name.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    for name, text in one.files.items():
        (folder / name).write_text(text)
    if not one.files:
        folder = home
    words = one.command(bin_, folder, port)
    return Server(one.name, words, port, at=folder, env=environment(home, bin_, **one.env(port)))


def requests_for(path: str, body: str, rows: Sequence[Sequence[float]], each: int) -> list[bytes]:
    """Distinct requests; of many rows there are fewer, since each is large."""
    count = DISTINCT if each == 1 else 20
    made = BODIES[body]
    return [
        head_of(path, made(rows[at * each : (at + 1) * each]))
        for at in range(min(count, len(rows) // each))
    ]


def measured(server: Server, given: Load, connections: int, requests: int) -> tuple[float, Took]:
    """CPU microseconds of a request, and the answers' times."""
    before = server.used_s()
    took = load(given, requests=requests, connections=connections)
    return (server.used_s() - before) * 1e6 / requests, took


def size_of(server: Server, given: Load, connections: int) -> int:
    """So many requests that the clock's ticks do not matter."""
    n = max(connections * 4, 50)
    while True:
        us, _ = measured(server, given, connections, n)
        if us * n >= CPU_S * 1e6 / 4 or n >= MOST:
            return int(min(MOST, max(connections * 4, CPU_S * 1e6 / max(us, 5))))
        n *= 4


def both_kinds(single: Load, large: Load, requests: int) -> tuple[float, float]:
    """p99 of single rows alone, and beside two streams of requests of 1,000 rows; microseconds."""
    alone = load(single, requests=requests, connections=1).quantile(0.99)
    ending = threading.Event()

    def stream() -> None:
        while not ending.is_set():
            load(large, requests=4, connections=1)

    threads = [threading.Thread(target=stream) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        beside = load(single, requests=requests, connections=1).quantile(0.99)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    return alone, beside


def prepare(home: Path) -> list[list[float]]:
    say("training the flights model")
    env = environment(home, ours())
    subprocess.run([ours() / "python", HERE / "serving_model.py", home], check=True, env=env)
    made = [peer("mlflowserve") / "python", "-c", MLFLOW, home, "", "", "trees"]
    subprocess.run(made, check=True, env=env, capture_output=True)
    code = "import json, numpy as np; print(json.dumps([[round(float(v), 4) for v in r] for r in np.load('x.npy')[:20000]]))"
    done = subprocess.run(
        [ours() / "python", "-c", code],
        cwd=home,
        check=True,
        env=env,
        capture_output=True,
        text=True,
    )
    rows: list[list[float]] = json.loads(done.stdout)
    return rows


def main(*, quick: bool) -> int:
    ours()
    rpc()
    for one in PEERS:
        peer(one.lock)
    if not closed.is_closed():
        return closed.run_closed("bench.serving", quick=quick)
    closed.loopback_up()
    at_start = os.getloadavg()[0]
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="fs-") as scratch:
        home = Path(scratch)
        rows = prepare(home)
        numbers, memory, broken = rounds_of(home, rows, rounds)
        near = beside_large(home, rows, 300 if quick else 2000, rounds)
        calls = over_grpc(home, rows, 1000 if quick else 5000, rounds)
    versions = {
        "falaj": version(ours() / "python", "falaj"),
        "onnxruntime": version(ours() / "python", "onnxruntime"),
    }
    versions |= {one.package: version(peer(one.lock) / "python", one.package) for one in PEERS}
    notes = NOTES + (
        f"\nThese did not answer in this run: {', '.join(broken)}.\n" if broken else ""
    )
    return write(
        "serving",
        results(numbers, memory, near, calls),
        versions=versions,
        load=at_start,
        notes=notes,
    )


Key = tuple[str, int, int]  # server, rows, connections


def rounds_of(
    home: Path, rows: list[list[float]], rounds: int
) -> tuple[dict[Key, list[float]], dict[str, tuple[float, float, float]], list[str]]:
    """Start all, then ask them in turn. Memory: (idle, after the load, seconds to the first answer)."""
    numbers: dict[Key, list[float]] = {}
    running: list[tuple[Server, str, str]] = []
    broken: list[str] = []
    try:
        for start, path, body in starters(home):
            server = start()
            try:
                server.wait(path, BODIES[body](rows[:1]))
            except RuntimeError as error:
                say(str(error))
                broken.append(server.name)
                continue
            say(
                f"{server.name}: first answer after {server.first_s:.2f} s, {server.idle_mb:.0f} MB"
            )
            running.append((server, path, body))
        sizes: dict[Key, int] = {}
        for number in range(rounds):
            for each, connections in ((1, 8), (1, 64), (32, 8), (1000, 8)):
                for server, path, body in running:
                    key = (server.name, each, connections)
                    given = Load(server.port, requests_for(path, body, rows, each))
                    if key not in sizes:
                        sizes[key] = size_of(server, given, connections)
                    us, took = measured(server, given, connections, sizes[key])
                    if took.failed:
                        say(f"{server.name}: {took.failed} of {took.requests} failed; not counted")
                        continue
                    numbers.setdefault(key, []).append(us)
                    say(
                        f"round {number + 1}: {server.name}, {each} rows, {connections} connections: {us:.1f} us, p50 {took.quantile(0.5) / 1e3:.2f} ms, p99 {took.quantile(0.99) / 1e3:.2f} ms"
                    )
        memory = {s.name: (s.idle_mb, pss_mb(s.pids()), s.first_s) for s, _, _ in running}
    finally:
        for server, _, _ in running:
            server.stop()
    return numbers, memory, broken


def starters(home: Path):
    yield (lambda: start_echo(home)), "/v2/models/flights/infer", "v2"
    yield (lambda: start_ours(home)), "/v2/models/flights/infer", "v2"
    for one in PEERS:
        yield (lambda one=one: start_peer(one, home)), one.path, one.body


def beside_large(
    home: Path, rows: list[list[float]], requests: int, rounds: int
) -> tuple[float, float]:
    server = start_ours(home)
    path = "/v2/models/flights/infer"
    try:
        server.wait(path, BODIES["v2"](rows[:1]))
        single = Load(server.port, requests_for(path, "v2", rows, 1))
        large = Load(server.port, requests_for(path, "v2", rows, 1000))
        load(single, requests=500, connections=1)
        load(large, requests=20, connections=1)
        found = [both_kinds(single, large, requests) for _ in range(rounds)]
    finally:
        server.stop()
    return statistics.median(a for a, _ in found), statistics.median(b for _, b in found)


RPC = ("MLServer", "KServe V2")


def rpc() -> Path:
    """Falaj with grpcio beside it."""
    return make("rpc", HERE.parent / "requirements" / "dev.txt", HERE.parent)


def over_grpc(home: Path, rows: list[list[float]], requests: int, rounds: int) -> dict[str, float]:
    """CPU of a call of one row from a real client, eight at once: ours, a bare echo, packaged peers."""
    found: dict[str, list[float]] = {}
    running: list[tuple[Server, int]] = []
    env = environment(home, rpc())
    try:
        port = free_port()
        words = [rpc() / "python", HERE / "serving_rpc.py", "echo", str(port)]
        running.append((Server(ECHO, words, port, at=home, env=env), port))
        port = free_port()
        trust = ("--trust", home / "trust.json")
        words = [
            rpc() / "falaj",
            "serve",
            home / "release-trees",
            *trust,
            "--port",
            str(port),
            "--grpc-port",
            str(port + 1),
        ]
        one = Server(OURS, words, port, at=home, env=env)
        one.wait("/v2/models/flights/infer", BODIES["v2"](rows[:1]))
        running.append((one, port + 1))
        for known in PEERS:
            if known.name in RPC:
                try:
                    one = start_peer(known, home)
                    one.wait(known.path, BODIES[known.body](rows[:1]))
                except RuntimeError as error:
                    say(str(error))
                    continue
                running.append((one, one.port + 1))
        for number in range(rounds + 1):  # the first one warms up
            for server, at in running:
                words = [
                    rpc() / "python",
                    HERE / "serving_rpc.py",
                    "ask",
                    str(at),
                    str(requests),
                    "8",
                    home / "x.npy",
                ]
                before = server.used_s()
                done = subprocess.run(
                    [str(word) for word in words],
                    check=True,
                    env=env,
                    capture_output=True,
                    text=True,
                )
                us = (server.used_s() - before) * 1e6 / requests
                told = json.loads(done.stdout)
                say(f"gRPC, round {number}: {server.name}: {us:.0f} us a call, {told}")
                if number and not told["failed"]:
                    found.setdefault(server.name, []).append(us)
    finally:
        for server, _ in running:
            server.stop()
    return {name: statistics.median(us) for name, us in found.items()}


def results(
    numbers: Mapping[Key, Sequence[float]],
    memory: Mapping[str, tuple[float, float, float]],
    near: tuple[float, float],
    calls: Mapping[str, float],
) -> list[Row]:
    cells = {key: statistics.median(us) for key, us in numbers.items()}
    packaged = [one.name for one in PEERS if one.packaged]
    rows: list[Row] = []
    for connections in (8, 64):
        mine = cells[OURS, 1, connections]
        what = f"1 row, {connections} connections: CPU a request"
        best = min(
            (cells[name, 1, connections], name)
            for name in packaged
            if (name, 1, connections) in cells
        )
        rows.append(
            compared(
                f"{what}, best packaged peer", mine, best[0], best[1], unit="us", target=1 / 10
            )
        )
        rows += [
            compared(
                what,
                mine,
                cells[one.name, 1, connections],
                one.name,
                unit="us",
                target=None if one.packaged else 1 / 4,
            )
            for one in PEERS
            if (one.name, 1, connections) in cells
        ]
        rows.append(
            compared(what, mine, cells[ECHO, 1, connections], "own echo", unit="us", target=2.0)
        )
    for each in (32, 1000):
        rows += [
            compared(
                f"{each} rows, 8 connections: CPU a request",
                cells[OURS, each, 8],
                cells[one.name, each, 8],
                one.name,
                unit="us",
            )
            for one in PEERS
            if (one.name, each, 8) in cells and (OURS, each, 8) in cells
        ]
    idle, after, first = memory[OURS]
    rows.append(value("first answer of ours", "s", first, 1.0))
    rows.append(value("memory of ours (PSS of the tree), after the load", "MB", after, 150))
    rows += [
        compared(
            "memory at the first answer (PSS of the tree)",
            idle,
            memory[name][0],
            name,
            unit="MB",
            target=1.0,
        )
        for name in packaged
        if name in memory
    ]
    rows += [
        compared("seconds to the first answer", first, memory[one.name][2], one.name, unit="s")
        for one in PEERS
        if one.name in memory
    ]
    if {OURS, ECHO} <= set(calls):
        what = "gRPC, 1 row, 8 at once: CPU a call"
        rows.append(
            compared(what, calls[OURS], calls[ECHO], "bare echo of grpcio", unit="us", target=1.25)
        )
        rows += [
            compared(what, calls[OURS], calls[name], name, unit="us", target=0.5)
            for name in RPC
            if name in calls
        ]
    alone, beside = near
    rows.append(
        value(
            "p99 of single rows beside two streams of 1,000 rows, against alone",
            "times",
            beside / alone,
            3.0,
        )
    )
    rows.append(Row(metric="p99 of single rows alone", unit="ms", ours=alone / 1e3))
    return rows


NOTES = """
The flights model (100 trees of histogram boosting over 15 numbers, ONNX) behind each server, one worker
and one engine thread each, access logs off, otherwise as installed; ours is `falaj serve` as it is, with
counts and the inference log. Fixed numbers of requests over kept connections, at least 0.4 s of the
server's CPU each, 1,000 distinct bodies; CPU is user + system of the whole process tree. Servers are asked
in turn, round after round; medians. The load is made by an own program on the same cores, whose CPU does
not count. All in a network of loopback alone. Times that a clock on the wall tells are not compared, but
for the first answer and the two kinds of traffic side by side. gRPC is asked by a real client of grpcio with
eight threads and a channel each; the echo there is grpcio with four threads that answers fixed bytes.
"""

if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv))
