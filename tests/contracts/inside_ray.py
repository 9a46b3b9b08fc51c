"""Run by test_ray_executor.py in the environment of the part `ray`, inside a closed network.

The contract of every executor on two nodes of a real cluster, and what only a cluster can do wrong.
"""

from __future__ import annotations

import json
import os
import signal
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
from falaj.links.python.environment import read_environment  # noqa: E402 same
from falaj.links.ray.executor import RayExecutor  # noqa: E402 same

ENTRY = "falaj.doors.worker.node:attempt"


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
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if any(word in one for one in words_of(folder)):
            found.append(int(folder.name))
    return found


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


def test_a_worker_whose_run_was_killed_does_not_stay(shop):
    """kill -9 of the one who gave the order: the cluster ends its tasks."""
    shop.step("(HERE / 'on').write_text(str(os.getpid()))\ntime.sleep(1000)\nreturn 1")
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
    with falaj.when(low(value)):
        never(value)
    return value
"""


def told(step):
    """All of a step's record but when, how long, how much, and where it came from."""
    plain = msgspec.to_builtins(step)
    for name in ("started", "seconds", "cpu_s", "origin", "peak_mb", "memory_mb", "peak_bytes"):
        plain.pop(name, None)
    for attempt in plain.get("attempts", ()):
        for name in ("started", "seconds", "cpu_s", "peak_mb", "memory_mb", "peak_bytes"):
            attempt.pop(name, None)
    return plain


def test_records_are_those_of_worker_processes(cluster, tmp_path):
    """A pipeline with frames, arrays, metrics, plots, logs and a condition: equal to the last digest."""
    found = {}
    for kind in ("worker", "ray"):
        (tmp_path / kind).mkdir()
        shop = RayShop(tmp_path / kind, kind)
        shop.write(WIDE)
        outcome = shop.run(at_once=3)
        assert shop.value(outcome) == sum(range(3000))
        found[kind] = ([told(step) for step in outcome.steps], outcome.metrics)
        again = shop.run(at_once=3)
        assert again.executed == 0
        assert all(step.status.value != "executed" for step in again.steps)
        shop.cache.close()
    assert found["ray"] == found["worker"]


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


def test_a_node_that_dies_loses_its_step_and_the_result_is_right(shop, cluster):
    """Which node has it is known by its raylet; the other one takes the second attempt."""
    shop.write(
        """
        @step
        def before() -> int:
            return 20
        @step
        def a(x: int) -> int:
            with (HERE / "ran").open("a") as file:
                file.write(os.environ["RAY_RAYLET_PID"] + " ")
            if len((HERE / "ran").read_text().split()) == 1:
                (HERE / "on").write_text(str(os.getpid()))
                time.sleep(1000)
            return x + 1
        @step
        def hold() -> int:
            (HERE / "held").write_text("")
            while not (HERE / "on").exists():
                time.sleep(0.02)
            return 1
        @step
        def after(x: int, y: int) -> int:
            return x * 2 + y
        @pipeline
        def main() -> int:
            return after(a(before()), hold())
        """
    )
    killed = []

    def kill():
        group = int(wait_for(shop.root / "on"))
        raylet = int((shop.root / "ran").read_text())
        killed.extend((raylet, group))
        assert raylet == cluster.raylet("b"), "the head's end is the cluster's"
        cluster.kill("b")

    # `hold` takes both cores of the head, so that `a` has to go to b.
    text = (shop.root / "pipeline.py").read_text()
    text = text.replace("@step\ndef hold", '@step(resources={"cpu": 2})\ndef hold')
    text = text.replace("@step\ndef before() -> int:\n", "@step\ndef before() -> int:\n    " +
        "while not (HERE / 'held').exists():\n        time.sleep(0.02)\n")  # fmt: skip
    (shop.root / "pipeline.py").write_text(text)
    thread = threading.Thread(target=kill)
    thread.start()
    begun = time.monotonic()
    try:
        outcome = shop.run(at_once=4)
    finally:
        thread.join()
        seconds = time.monotonic() - begun
        assert cluster.start("b", 1).returncode == 0
    assert len(killed) == 2
    assert shop.value(outcome) == 43
    (step,) = [s for s in outcome.steps if s.step == "a"]
    assert [a.ending.value for a in step.attempts] == ["lost", "done"]
    assert "was lost" in step.attempts[0].reason
    ran = (shop.root / "ran").read_text().split()
    assert len(ran) == 2 and ran[0] == str(killed[0]) and ran[1] == str(cluster.raylet("head"))
    assert_nothing_left(killed[1])
    print(f"\nnode lost and result right after {seconds:.1f} s")


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
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pipelines.cluster-token" in done.stdout, done.stdout + done.stderr
    assert "0" * 64 not in done.stdout + done.stderr


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


def test_a_cluster_that_is_not_there_is_said(shop, cluster):
    shop.step("return 1")
    error = refused(shop, on_ray(shop.root, "127.0.0.1:9", cluster.token_file))
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


def test_falaj_run_on_the_cluster(shop, cluster):
    shop.write(WIDE)
    settings = (
        f'\n[pipelines]\nexecutor = "ray"\n[links.ray]\naddress = "{cluster.address}"\n'
        f'token_file = "{cluster.token_file}"\n'
    )
    (shop.root / "falaj.toml").write_text(contract.PROJECT + settings)
    begun = time.monotonic()
    first = falaj("run", "--json", cwd=shop.root)
    seconds = time.monotonic() - begun
    assert first.returncode == 0, first.stdout + first.stderr
    second = falaj("run", "--json", cwd=shop.root)
    assert second.returncode == 0, second.stdout + second.stderr
    runs = [json.loads(done.stdout) for done in (first, second)]
    statuses = [{s["step"]: s["status"] for s in found_steps(run)} for run in runs]
    assert statuses[0]["total"] == "executed" and statuses[1]["total"] == "cached"
    token = cluster.token_file.read_text()
    for path in (shop.root / ".falaj").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
    print(f"\nfalaj run of 7 steps on the cluster: {seconds:.1f} s")


def found_steps(value):
    """The step runs in a document, wherever they stand."""
    if isinstance(value, dict):
        if "steps" in value and value["steps"] and "status" in value["steps"][0]:
            return value["steps"]
        return next((found for one in value.values() if (found := found_steps(one))), [])
    return []


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
        print(f"\n{kind}: first step after {ends[0] - begun:.2f} s, then {each * 1000:.0f} ms a step")
        assert not list((shop.root / ".falaj").glob("nodes-*"))
        shop.cache.close()



