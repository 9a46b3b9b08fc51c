"""Run by test_ray_executor.py in the environment of the part `ray`, inside a closed network.

The contract of every executor on two nodes of a real cluster, and what only a cluster can do wrong.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
pytest.register_assert_rewrite("test_executor")

import test_executor as contract  # noqa: E402 it lies where the line before has just put it
from ray_cluster import Cluster, words_of  # noqa: E402 same
from test_executor import *  # noqa: F403, E402 its tests are collected here, with our fixtures
from test_executor import Shop, assert_nothing_left  # noqa: E402 same

from falaj.base.errors import FalajError  # noqa: E402 same
from falaj.base.files import write_atomic  # noqa: E402 same
from falaj.links.python.environment import read_environment  # noqa: E402 same
from falaj.links.ray.executor import RayExecutor, _Cluster  # noqa: E402 same

ENTRY = "falaj.doors.worker.node:attempt"


@pytest.fixture
def own_cluster(tmp_path_factory):
    """One node, for a test that takes its head away."""
    made = Cluster(tmp_path_factory.mktemp("o"))
    done = made.start("head", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    yield made
    made.end()


def on_ray(root, address, token_file, at_once=1, **more):
    def expects():
        return {"falaj": version("falaj"), **msgspec.to_builtins(read_environment(root)[0]), **more}

    (root / ".falaj").mkdir(exist_ok=True)
    return RayExecutor(
        address=address, token_file=token_file, entry=ENTRY, state=root / ".falaj",
        expects=expects, at_once=at_once,
    )  # fmt: skip


class RayShop(Shop):
    cluster: Cluster

    def executor(self, at_once):
        if self.kind != "ray":
            return super().executor(at_once)
        return on_ray(self.root, self.cluster.address, self.cluster.token_file, at_once)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("c"))
    for name, cores in (("head", 2), ("b", 1)):
        done = made.start(name, cores)
        assert done.returncode == 0, done.stdout + done.stderr
    RayShop.cluster = made
    print(f"\nstart: {made.seconds}")
    yield made
    made.end()


@pytest.fixture
def shop(cluster, tmp_path):
    made = RayShop(tmp_path, "ray")
    yield made
    made.cache.close()


@pytest.fixture
def apart(shop):
    return shop


def processes(word):
    """Pids of living processes with this word in their command."""
    folders = Path("/proc").glob("[0-9]*")
    return [int(folder.name) for folder in folders if any(word in one for one in words_of(folder))]


def no_steps_left():
    end = time.monotonic() + 15
    while (left := processes("falaj.doors.worker.steps")) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []


@pytest.fixture(autouse=True)
def nothing_stays(cluster):
    """Nor does a test: a cluster that does not answer is a finding, not a reason to wait."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(90)
    yield
    no_steps_left()
    signal.alarm(0)


def too_long(_number, _frame):
    raise TimeoutError("after 90 s")


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return path.read_text()


# --- of the contract: those that name an executor of their own ---


def test_both_make_the_same_keys_and_answers(cluster, tmp_path):
    """One run here, one on the cluster: the second one finds all that the first has made."""
    text = """
    import random
    @step
    def a(n: int) -> list[int]:
        return [random.randrange(1000) for _ in range(n)]
    @step
    def b(xs: list[int], *, add: int = 1) -> int:
        return sum(xs) + add
    @pipeline
    def main(n: int = 3) -> int:
        return b(a(n))
    """
    found = []
    for kind, other in (("worker", "ray"), ("ray", "worker")):
        (tmp_path / kind).mkdir()
        shop = RayShop(tmp_path / kind, kind)
        shop.write(text)
        outcome = shop.run()
        assert outcome.executed == 2
        found.append([(s.key, [o.digest for o in s.outputs]) for s in outcome.steps])
        shop.kind = other
        assert shop.run().executed == 0
        shop.cache.close()
    assert found[0] == found[1]


def test_a_warm_process_is_used_again_and_an_isolated_step_gets_its_own(shop):
    """Ray chooses the place of each step, so there is a warm process for each core at most."""
    shop.write(
        """
        @step
        def a(pids: list[int]) -> list[int]:
            return [*pids, os.getpid()]
        @step(isolate=True)
        def own(pids: list[int]) -> list[int]:
            return [*pids, os.getpid()]
        @step
        def none() -> list[int]:
            return []
        @pipeline
        def main() -> list[int]:
            pids = none()
            for _ in range(10):
                pids = a(pids)
            return own(pids)
        """
    )
    *warm, own = shop.value(shop.run())
    assert len(set(warm)) <= 3 < len(warm) == 10
    assert own not in warm and os.getpid() not in (*warm, own)


def test_a_worker_whose_run_was_killed_does_not_stay(shop):
    """kill -9 of the one who gave the order: the cluster ends its tasks."""
    shop.step(
        "subprocess.Popen(['sleep', '1000'])\n"
        "(HERE / 'on').write_text(str(os.getpid()))\ntime.sleep(1000)\nreturn 1"
    )
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[4:6]\n"
        "from inside_ray import RayShop, FileBlobs, FileStepCache, Cluster\n"
        "shop = RayShop.__new__(RayShop); shop.root = Path(sys.argv[1]); shop.kind = 'ray'\n"
        "at = Cluster.__new__(Cluster); at.address = sys.argv[2]\n"
        "at.token_file = Path(sys.argv[3]); RayShop.cluster = at\n"
        "shop.blobs = FileBlobs(shop.root / '.falaj' / 'blobs')\n"
        "shop.cache = FileStepCache(shop.root / '.falaj' / 'cache.db')\n"
        "shop.run()\n"
    )
    at = RayShop.cluster
    words = (shop.root, at.address, at.token_file, HERE, HERE.parent / "parts")
    child = subprocess.Popen([sys.executable, "-c", program, *map(str, words)])
    group = int(wait_for(shop.root / "on"))
    child.kill()
    child.wait()
    assert_nothing_left(group)


# --- of a cluster alone ---

WIDE = """
import numpy as np
import polars as pl
@step
def rows(n: int) -> pl.DataFrame:
    print("rows", n)
    return pl.DataFrame({"x": np.arange(n), "y": np.arange(n) % 3})
@step
def part(frame: pl.DataFrame, k: int) -> np.ndarray:
    falaj.log(k=k)
    return frame.filter(pl.col("y") == k)["x"].to_numpy().astype("float64")
@step(resources={"cpu": 1, "memory_mb": 50})
def total(arrays: list[np.ndarray]) -> float:
    falaj.plot("sizes", {"x": [0, 1, 2], "y": [len(a) for a in arrays]}, x="x", y="y")
    return float(sum(a.sum() for a in arrays))
@step
def low(value: float) -> bool:
    return value < 0
@step
def never(value: float) -> float:
    return value
@pipeline
def main(n: int = 3000) -> float:
    frame = rows(n)
    value = total([part(frame, k) for k in range(3)])
    falaj.when(low(value), never, value)
    return value
"""


VOLATILE = {  # when, how long, how much, which process, and the names that follow from that
    "id", "started", "ended", "seconds", "cpu_s", "peak_mb", "process", "at",
}  # fmt: skip


def told(value):
    """A record without what differs between any two runs, also of one executor."""
    if isinstance(value, dict):
        return {name: told(one) for name, one in value.items() if name not in VOLATILE}
    return [told(one) for one in value] if isinstance(value, list | tuple) else value


def lines_of(record):
    return json.dumps(told(record), indent=1, sort_keys=True).splitlines()


def test_records_are_those_of_worker_processes(cluster, tmp_path):
    """Frames, arrays, metrics, plots, logs and a condition: equal to the last digest.

    One after another: why a step ran names the newest run of that step.
    """
    found = {}
    for kind in ("worker", "ray"):
        (tmp_path / kind).mkdir()
        shop = RayShop(tmp_path / kind, kind)
        shop.write(WIDE)
        outcome = shop.run()
        assert shop.value(outcome) == sum(range(3000))
        found[kind] = lines_of(msgspec.to_builtins([outcome.steps, outcome.metrics]))
        shop.cache.close()
    assert found["ray"] == found["worker"]


BREAKS = {
    "an exception": "print('before')\nraise ValueError('boom')",
    "one below a helper": "helped(3)\nreturn 1",
    "sys.exit": "sys.exit(3)",
    "wrong type": "return 'text'",
    "no memory": "raise MemoryError('full')",
    "os._exit": "os._exit(3)",
    "kill -9": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfault": "ctypes.string_at(0)",
    "too late": "time.sleep(60)",
}


@pytest.mark.parametrize("body", BREAKS.values(), ids=BREAKS)
def test_a_failure_reads_as_it_does_here(shop, body):
    """Code, words, place, why and fix, the record of the step, and its log."""
    shop.step(body, "timeout='2s', retries=0")
    with (shop.root / "pipeline.py").open("a") as file:
        file.write("def helped(n: int) -> None:\n    raise KeyError(n)\n")
    found = {}
    for shop.kind in ("worker", "ray"):
        outcome = shop.run()
        told_why = msgspec.to_builtins(outcome.error.problems)
        whole = json.dumps([told_why, told(msgspec.to_builtins(outcome.steps)), shop.log(outcome)])
        found[shop.kind] = re.sub(r"\d+\.\d s", "N s", whole)
    assert found["ray"] == found["worker"]


TWENTY = """
import numpy as np
@step
def sizes(n: int) -> list[int]:
    return list(range(n))
@step
def part(k: int, *, n: int) -> list[str]:
    print("part", k)
    falaj.log(k=k)
    pids = HERE / "pids"
    pids.mkdir(exist_ok=True)
    (pids / os.environ["RAY_RAYLET_PID"]).touch()
    end = time.monotonic() + 60  # nobody ends before the other node has begun
    while len(list(pids.iterdir())) < 2:
        assert time.monotonic() < end, "alone"
        time.sleep(0.02)
    return [str(k), os.environ["RAY_RAYLET_PID"]]
@step
def joined(parts: list[list[str]]) -> list[str]:
    assert [int(k) for k, _ in parts] == list(range(len(parts)))
    return sorted({pid for _, pid in parts})
@step
def last(pids: list[str]) -> int:
    return len(pids)
@pipeline
def main(n: int = 17) -> int:
    return last(joined(falaj.map(part, sizes(n), n=n)))
"""


def test_twenty_steps_spread_and_a_rerun_asks_no_cluster(shop, cluster):
    """A list, seventeen elements of it, and two more; then the same with a cluster that is not there."""
    shop.write(TWENTY)
    outcome = shop.run(at_once=8)
    assert shop.value(outcome) == 2, "all on one node"
    assert len(outcome.steps) == 20 and outcome.executed == 20
    raylets = {str(cluster.raylet(name)) for name in ("head", "b")}
    assert {path.name for path in (shop.root / "pids").iterdir()} == raylets
    logs = [
        shop.log(outcome, at)
        for at, step in enumerate(outcome.steps)
        if step.step.startswith("part")
    ]
    assert sorted(logs) == sorted(f"part {k}\n" for k in range(17))
    away = on_ray(shop.root, "127.0.0.1:9", cluster.token_file)
    again = shop.run(executor=away)
    assert shop.value(again) == 2
    assert again.executed == 0 and {step.status.value for step in again.steps} == {"cached"}


def test_both_nodes_are_used(shop):
    """Three steps that wait for each other need three cores; no node has three."""
    shop.write(
        """
        @step
        def a(k: int) -> str:
            (HERE / f"on-{k}").write_text("")
            end = time.monotonic() + 60
            while len(list(HERE.glob("on-*"))) < 3:
                assert time.monotonic() < end, "alone"
                time.sleep(0.02)
            return os.environ["RAY_RAYLET_PID"]
        @step
        def nodes(pids: list[str]) -> int:
            return len(set(pids))
        @pipeline
        def main() -> int:
            return nodes([a(k) for k in range(3)])
        """
    )
    assert shop.value(shop.run(at_once=3)) == 2


def test_a_task_whose_own_process_is_killed_is_lost_once_and_tried_by_our_rules(shop):
    """Ray would run it four times, silently; executions are as many as attempts."""
    shop.step(
        """
        with (HERE / "count").open("a") as file:
            file.write("x")
        print("on")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
        return 1
        """,
        "retries=1",
    )
    outcome = shop.run()
    assert outcome.error is not None and outcome.error.code == "pipelines.step-lost"
    assert "Ray's process for it went away" in str(outcome.error)
    assert [a.ending.value for a in outcome.steps[0].attempts] == ["lost", "lost"]
    assert (shop.root / "count").read_text() == "xx"


def test_a_node_that_dies_loses_its_step_and_the_result_is_right(shop, cluster, capfd):
    """Three steps that wait for each other fill both nodes; one of them goes down."""
    shop.write(
        """
        @step
        def a(k: int) -> int:
            raylet = os.environ["RAY_RAYLET_PID"]
            with (HERE / f"ran-{k}").open("a") as file:
                file.write(f"{raylet} {os.getpid()}\\n")
            end = time.monotonic() + 60
            while not (HERE / "go").exists():
                assert time.monotonic() < end, "alone"
                time.sleep(0.02)
            if raylet == (HERE / "go").read_text():
                time.sleep(1000)
            return k + 1
        @step
        def add(xs: list[int]) -> int:
            return sum(xs)
        @pipeline
        def main() -> int:
            return add([a(k) for k in range(3)])
        """
    )
    doomed, killed = str(cluster.raylet("b")), []

    def kill():
        for k in range(3):
            wait_for(shop.root / f"ran-{k}")
        killed.append(time.monotonic())
        cluster.kill("b")
        write_atomic(shop.root / "go", doomed.encode())

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        outcome = shop.run(at_once=3)
        seconds = time.monotonic() - killed[0]
    finally:
        thread.join()
        assert cluster.start("b", 1).returncode == 0
    assert shop.value(outcome) == 6
    assert capfd.readouterr().out == "", "what Ray prints would stand in the document of --json"
    ran = [(shop.root / f"ran-{k}").read_text().splitlines() for k in range(3)]
    assert sorted(map(len, ran)) == [1, 1, 2]
    (lost,) = [k for k in range(3) if len(ran[k]) == 2]
    assert [line.split()[0] for line in ran[lost]] == [doomed, str(cluster.raylet("head"))]
    (step,) = [s for s in outcome.steps if len(s.attempts) == 2]
    assert [a.ending.value for a in step.attempts] == ["lost", "done"]
    assert "was lost" in step.attempts[0].reason
    assert_nothing_left(int(ran[lost][0].split()[1]))
    print(f"\nnode killed, result right {seconds:.1f} s later")


def test_a_node_that_has_just_died_is_no_reason_to_refuse_a_run(shop, cluster):
    """For a while the head still lists it among the living."""
    assert cluster.start("c", 1).returncode == 0
    cluster.kill("c")
    shop.step("return 1")
    begun = time.monotonic()
    assert shop.value(shop.run()) == 1
    print(f"\na node has just died: {time.monotonic() - begun:.1f} s")


def test_the_only_node_that_could_run_a_step_dies(shop, cluster):
    """Ray would wait for another one for good; here the step is lost, and it is said why."""
    assert cluster.start("c", 3).returncode == 0
    shop.step("(HERE / 'on').write_text('')\ntime.sleep(1000)\nreturn 1", "resources={'cpu': 3}")
    thread = threading.Thread(target=lambda: (wait_for(shop.root / "on"), cluster.kill("c")))
    thread.start()
    outcome = shop.run()
    thread.join()
    assert outcome.error is not None and outcome.error.code == "pipelines.step-lost"
    first, second = outcome.steps[0].attempts
    assert "was lost" in first.reason
    assert "no node of the cluster has cpu 3" in second.reason


def test_a_run_that_ends_leaves_nothing_though_another_goes_on(shop, cluster):
    """Both share one place in the cluster, so the first one's end is not the end of that."""
    _Cluster.enter(cluster.address, cluster.token_file)
    try:
        shop.step("subprocess.Popen(['sleep', '1000'])\nreturn os.getpid()")
        group = shop.value(shop.run())
        assert_nothing_left(group)
    finally:
        _Cluster.leave()


def test_a_node_that_is_silent_does_not_hold_a_late_step_for_good(shop):
    """Its own process is frozen, so nobody there ends the step; the driver does."""
    shop.step(
        "(HERE / 'on').write_text(str(os.getpid()))\nos.kill(os.getppid(), signal.SIGSTOP)\n"
        "time.sleep(1000)\nreturn 1",
        "timeout='1s'",
    )
    begun = time.monotonic()
    outcome = shop.run()
    assert 10 < time.monotonic() - begun < 60
    assert outcome.error is not None and outcome.error.code == "pipelines.step-timeout"
    assert len(outcome.steps[0].attempts) == 1
    assert_nothing_left(int((shop.root / "on").read_text()))


def test_a_head_that_goes_fails_the_run_and_not_the_process(shop, own_cluster):
    """Ray would end the process that asked: `falaj run`, or the whole server."""
    shop.write(
        """
        @step
        def a() -> int:
            return 1
        @step
        def b(x: int) -> int:
            (HERE / "on").write_text("")
            time.sleep(1000)
            return x
        @pipeline
        def main() -> int:
            return b(a())
        """
    )
    settings = (
        f'[pipelines]\nexecutor = "ray"\n[links.ray]\naddress = "{own_cluster.address}"\n'
        f'region = "ae"\ntoken_file = "{own_cluster.token_file}"\n'
    )
    (shop.root / "falaj.toml").write_text(contract.PROJECT + settings)
    thread = threading.Thread(target=lambda: (wait_for(shop.root / "on"), own_cluster.behead()))
    thread.start()
    done = falaj("run", cwd=shop.root)
    thread.join()
    assert done.returncode not in (0, -signal.SIGABRT)
    assert "pipelines.cluster-unreachable" in done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    runs = falaj("runs", "list", cwd=shop.root)
    assert "failed" in runs.stdout, runs.stdout + runs.stderr


def test_what_no_node_has_is_said_at_once(shop):
    shop.step("return 1", "resources={'cpu': 64}, retries=0")
    outcome = shop.run()
    assert outcome.error is not None and outcome.error.code == "pipelines.step-lost"
    assert "no node of the cluster has cpu 64" in str(outcome.error)
    shop.step("return 1", "resources={'gpu': 1}, retries=0")
    assert "no node of the cluster has gpu 1" in str(shop.run().error)


def test_time_in_the_queue_is_not_time_of_the_step(shop):
    """Three steps of two cores on one node that has two: the last one waits longer than its limit."""
    shop.write(
        """
        @step(resources={"cpu": 2}, timeout="4s")
        def a(k: int) -> int:
            time.sleep(2.0)
            return k
        @step
        def add(xs: list[int]) -> int:
            return sum(xs)
        @pipeline
        def main() -> int:
            return add([a(k) for k in range(3)])
        """
    )
    outcome = shop.run(at_once=6)
    assert shop.value(outcome) == 3
    assert all(step.seconds < 4 for step in outcome.steps)


# --- refusals ---


def refused(shop, executor):
    with pytest.raises(FalajError) as found:
        shop.run(executor=executor)
    assert not list((shop.root / ".falaj").glob("nodes-*")), "the witness stays behind"
    return found.value


def test_a_wrong_token_is_refused(shop, cluster, tmp_path):
    """In a process of its own: Ray reads the token once."""
    shop.step("return 1")
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[4:6]\n"
        "import inside_ray as i\n"
        "shop = i.RayShop.__new__(i.RayShop); shop.root = Path(sys.argv[1]); shop.kind = 'ray'\n"
        "shop.blobs = i.FileBlobs(shop.root / '.falaj' / 'blobs')\n"
        "shop.cache = i.FileStepCache(shop.root / '.falaj' / 'cache.db')\n"
        "try:\n"
        "    shop.run(executor=i.on_ray(shop.root, sys.argv[2], Path(sys.argv[3])))\n"
        "except i.FalajError as error:\n"
        "    print(error.code, error)\n"
    )
    words = (shop.root, cluster.address, wrong, HERE, HERE.parent / "parts")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True,
        timeout=80, check=False,
    )  # fmt: skip
    print(f"\na wrong token: refused after {time.monotonic() - begun:.1f} s")
    assert done.returncode == 0, done.stderr
    assert "pipelines.cluster-token" in done.stdout, done.stdout + done.stderr
    assert "0" * 64 not in done.stdout + done.stderr
    assert time.monotonic() - begun < 20


def test_a_node_with_a_wrong_token_does_not_come_in(cluster, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    done = cluster.start("c", 1, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode != 0
    assert cluster.raylet("c") is None


@pytest.mark.parametrize("content", [None, "", " \n"], ids=["absent", "empty", "blank"])
def test_no_token_is_refused_before_anything_is_sent(shop, cluster, tmp_path, content):
    file = tmp_path / "none"
    if content is not None:
        file.write_text(content)
    shop.step("return 1")
    error = refused(shop, on_ray(shop.root, cluster.address, file))
    assert error.code == "pipelines.cluster-token"


def test_a_cluster_that_is_not_there_is_said_at_once(shop, cluster):
    shop.step("return 1")
    begun = time.monotonic()
    error = refused(shop, on_ray(shop.root, "127.0.0.1:9", cluster.token_file))
    assert error.code == "pipelines.cluster-unreachable"
    assert time.monotonic() - begun < 6


def test_a_head_that_takes_the_connection_and_is_silent_is_not_waited_for(shop, cluster):
    """Such as one that is frozen, or some other server on that port."""
    shop.step("return 1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        error = refused(shop, on_ray(shop.root, address, cluster.token_file))
        print(f"\na silent head: given up after {time.monotonic() - begun:.1f} s")
    assert error.code == "pipelines.cluster-unreachable"


def test_another_environment_is_refused(shop, cluster):
    """Both nodes are told, before the step runs."""
    shop.step("(HERE / 'ran').write_text('')\nreturn 1")
    executor = on_ray(shop.root, cluster.address, cluster.token_file, lock="sha256:" + "1" * 64)
    error = refused(shop, executor)
    assert [p.code for p in error.problems] == ["pipelines.node-differs"] * 2
    assert not (shop.root / "ran").exists()


def test_a_variable_that_differs_on_a_node_is_refused(shop, monkeypatch):
    """The key holds its digest; the step would have read another value."""
    monkeypatch.setenv("MOOD", "calm")
    shop.step("(HERE / 'ran').write_text('')\nreturn 1", "env=['MOOD']")
    error = refused(shop, None)
    assert error.code == "pipelines.node-differs" and "MOOD" in str(error)
    assert "calm" not in str(error.problems)
    assert not (shop.root / "ran").exists()


def test_a_node_that_does_not_see_the_project_is_refused(shop, cluster):
    """A third node, over whose view of the folder lies an empty one."""
    shop.step("(HERE / 'ran').write_text('')\nreturn 1")
    hide = f'mount -t tmpfs none {shop.root} && exec "$@"'
    before = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hide, "sh")
    done = cluster.start("c", 1, before=before)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        error = refused(shop, None)
    finally:
        cluster.kill("c")
    assert error.code == "pipelines.node-blind" and len(error.problems) == 1
    assert str(shop.root) in error.problems[0].why
    assert not (shop.root / "ran").exists()


# --- the command line ---


def falaj(*words, cwd):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [Path(sys.executable).with_name("falaj"), *words], cwd=cwd, capture_output=True, text=True,
        timeout=180, check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip


WHOLE = """
import polars as pl
from falaj import Dataset
@step
def load(*, rows: Dataset) -> pl.DataFrame:
    print("loading")
    return rows.read()
@step
def scaled(frame: pl.DataFrame, k: int) -> pl.DataFrame:
    falaj.log(k=k)
    return frame * k
@step(resources={"cpu": 1, "memory_mb": 50})
def total(frames: list[pl.DataFrame]) -> float:
    sums = [float(frame["x"].sum()) for frame in frames]
    falaj.plot("sums", {"k": list(range(len(sums))), "sum": sums}, x="k", y="sum")
    return sum(sums)
@step
def low(value: float) -> bool:
    return value < 0
@step
def never(value: float) -> float:
    return value
@pipeline
def main(n: int = 3) -> float:
    frame = load()
    value = total([scaled(frame, k) for k in range(n)])
    falaj.when(low(value), never, value)
    return value
"""
ONE = "[pipelines]\nparallel = 1\n"
DATA = """
[[datasets]]
name = "rows"
source = "rows.csv"
classification = "internal"
purpose = ["tests"]
"""


def test_falaj_run_keeps_the_same_record_as_with_worker_processes(cluster, tmp_path):
    """The whole command, on a dataset of the project; then again, then with the cluster away."""
    settings = (
        f'executor = "ray"\n[links.ray]\naddress = "{cluster.address}"\n'
        'region = "ae"\n'
        f'token_file = "{cluster.token_file}"\n'
    )
    runs, seconds = {}, {}
    for kind, more in (("worker", ""), ("ray", settings)):
        (tmp_path / kind).mkdir()
        shop = RayShop(tmp_path / kind, kind)
        shop.cache.close()
        shop.write(WHOLE)
        (shop.root / "rows.csv").write_text("x,y\n1,2\n3,4\n")
        (shop.root / "falaj.toml").write_text(contract.PROJECT + ONE + more + DATA)
        begun = time.monotonic()
        runs[kind] = run_of(shop.root)
        seconds[kind] = time.monotonic() - begun
    assert {step["status"] for step in runs["ray"]["steps"]} == {"executed", "skipped"}
    assert runs["ray"].pop("principal") != runs["worker"].pop("principal")  # each workspace's own
    assert lines_of(runs["ray"]) == lines_of(runs["worker"])
    print(f"\nfalaj run, {len(runs['ray']['steps'])} steps: {seconds}")
    root = tmp_path / "ray" / "project"
    log = falaj("runs", "log", runs["ray"]["id"], "load", cwd=root)
    assert log.stdout.strip().endswith("loading"), log.stdout + log.stderr
    assert {step["status"] for step in run_of(root)["steps"]} == {"cached", "skipped"}
    away = (root / "falaj.toml").read_text().replace(cluster.address, "127.0.0.1:9")
    (root / "falaj.toml").write_text(away)
    assert {step["status"] for step in run_of(root)["steps"]} == {"cached", "skipped"}
    changed = falaj("run", "-p", "n=30", cwd=root)
    assert changed.returncode != 0 and "pipelines.cluster-unreachable" in changed.stderr
    assert len(changed.stderr.splitlines()) <= 16 and "Traceback" not in changed.stderr
    token = cluster.token_file.read_text()
    for path in (root / ".falaj").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def run_of(root):
    done = falaj("run", "--json", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["data"]


def test_what_a_step_costs_here_and_there(cluster, tmp_path):
    """Printed, not judged: the machine is shared. No file of a run is left."""
    text = """
    @step
    def a(x: int) -> int:
        return x + 1
    @pipeline
    def main() -> int:
        x = 0
        for _ in range(30):
            x = a(x)
        return x
    """
    for kind in ("worker", "ray"):
        (tmp_path / kind).mkdir()
        shop = RayShop(tmp_path / kind, kind)
        shop.write(text)
        begun = time.monotonic()
        ends = []
        tell = lambda _id, status, _s: ends.append(time.monotonic()) if status == "executed" else 0  # noqa: E731, B023
        outcome = contract.run_pipeline(
            "pipeline:main", root=shop.root, parameters={}, seed=7, datasets={}, blobs=shop.blobs,
            cache=shop.cache, codecs=contract.codecs(), lock=contract.LOCK, executor=shop.executor(1),
            on_step=tell,
        )  # fmt: skip
        assert shop.value(outcome) == 30
        each = (ends[-1] - ends[0]) / (len(ends) - 1)
        print(
            f"\n{kind}: first step after {ends[0] - begun:.2f} s, then {each * 1000:.0f} ms a step"
        )
        assert not list((shop.root / ".falaj").glob("nodes-*"))
        shop.cache.close()
