"""What every target promises; run here over the one on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from servers import Client, House, graph

from falaj.base.errors import FalajError
from falaj.links.local.target import LocalTarget

ROW = (30.0, 733.0, 14.0)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def target(tmp_path):
    made = LocalTarget(tmp_path / "targets")
    yield made
    made.stop("production")


def until(target, check, seconds=15.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen = target.observe("production")
        if seen.servers and all(check(server) for server in seen.servers):
            return seen
        time.sleep(0.05)
    raise AssertionError(f"not seen: {seen}")


def ready(server):
    return server.ready


def test_nothing_runs_before_something_is_asked_for(target):
    assert target.observe("production").servers == ()
    assert target.counts("production", "r") == []
    target.stop("production")


def test_apply_brings_up_what_is_desired_and_again_changes_nothing(target, house):
    made = house.release("1")
    desired = house.desired(house.plan(made), made, replicas=2)
    target.apply(desired)
    seen = until(target, ready)
    assert [server.name for server in seen.servers] == ["server-1", "server-2"]
    assert {server.live["delay"] for server in seen.servers} == {made.id}
    assert {server.plan_seq for server in seen.servers} == {desired.plan.seq}
    assert len({server.url for server in seen.servers}) == 1
    assert len({server.boot for server in seen.servers}) == 2
    target.apply(desired)
    assert until(target, ready) == seen
    assert Client(seen.servers[0].url).infer(ROW)[1]["falaj-release"] == made.id


def test_a_new_plan_reaches_the_running_servers(target, house):
    one, two = house.release("1"), house.release("2", onnx_bytes=graph(bias=-2.0))
    target.apply(house.desired(house.plan(one), one))
    before = until(target, ready).servers[0]
    desired = house.desired(house.plan(one, two, 5000), one, two)
    target.apply(desired)
    after = until(target, lambda server: server.plan_seq == desired.plan.seq).servers[0]
    assert (after.pid, after.url) == (before.pid, before.url)
    assert after.canary == {"delay": two.id}
    client = Client(after.url)
    for _ in range(200):
        assert client.infer(ROW)[0] == 200
    end = time.monotonic() + 5
    while time.monotonic() < end:
        lines = [line for line in target.counts("production", "r1") if line.metric == "requests"]
        if sum(line.n_c + line.n_s for line in lines) == 200:
            break
        time.sleep(0.05)
    assert sum(line.n_c + line.n_s for line in lines) == 200
    assert sum(line.n_c for line in lines) > 50
    assert target.counts("production", "another") == []
    fresh = LocalTarget(target.root).counts("production", "r1")
    assert sorted(fresh, key=repr) == sorted(target.counts("production", "r1"), key=repr)


def test_an_older_plan_is_ignored(target, house):
    one, two = house.release("1"), house.release("2", onnx_bytes=graph(bias=-2.0))
    old = house.desired(house.plan(one), one)
    new = house.desired(house.plan(two), two)
    target.apply(new)
    until(target, ready)
    target.apply(old)
    time.sleep(0.8)
    server = until(target, ready).servers[0]
    assert (server.plan_seq, server.live["delay"]) == (new.plan.seq, two.id)


def test_a_dead_server_comes_back_at_the_same_address(target, house):
    made = house.release("1")
    desired = house.desired(house.plan(made), made)
    target.apply(desired)
    before = until(target, ready).servers[0]
    os.kill(before.pid, signal.SIGKILL)
    until(target, lambda server: not server.ready)
    target.apply(desired)
    end = time.monotonic() + 15
    while not target.observe("production").servers[0].ready and time.monotonic() < end:
        target.apply(desired)
        time.sleep(0.1)
    after = target.observe("production").servers[0]
    assert after.ready
    assert after.url == before.url
    assert after.boot != before.boot


def test_a_server_that_cannot_start_is_not_started_for_ever(target, house):
    made = house.release("1")
    (made.folder / "model" / "model.onnx").write_bytes(b"tampered")
    desired = house.desired(house.plan(made), made)
    here = target.root / "production"
    for _ in range(8):
        target.apply(desired)
        until(target, lambda server: not server.pid)
        end = time.monotonic() + 10
        while target_runs(here) and time.monotonic() < end:
            time.sleep(0.02)
        skip_the_wait(here)
    seen = target.observe("production").servers[0]
    assert not seen.ready
    assert "died 5 times" in seen.problem
    assert "model/model.onnx" in seen.problem
    starts = msgspec.json.decode((here / "server-1.starts").read_bytes())
    assert len(starts["at"]) == 5
    good = house.release("2")
    target.apply(house.desired(house.plan(good), good))
    assert until(target, ready).servers[0].problem == ""


def target_runs(here):
    from falaj.links.local.target import _runs

    return _runs(here, "server-1")


def skip_the_wait(here):
    """Let the pause between two starts have passed."""
    path = here / "server-1.starts"
    told = msgspec.json.decode(path.read_bytes())
    told["at"] = [at - 8 for at in told["at"]]
    path.write_bytes(msgspec.json.encode(told))


def test_servers_outlive_their_caller_and_the_next_one_finds_them(target, house, tmp_path):
    made = house.release("1")
    desired = house.desired(house.plan(made), made)
    (tmp_path / "desired.json").write_bytes(msgspec.json.encode(desired))
    code = (
        "import sys, msgspec, os; from pathlib import Path\n"
        "from falaj.links.local.target import LocalTarget\n"
        "from falaj.facts.serving import Desired\n"
        "desired = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=Desired)\n"
        "LocalTarget(Path(sys.argv[1])).apply(desired)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    caller = [sys.executable, "-c", code, str(target.root), str(tmp_path / "desired.json")]
    assert subprocess.run(caller, check=False, timeout=30).returncode == -9
    target.apply(desired)
    seen = until(target, ready)
    assert len(seen.servers) == 1
    assert started(target) == 1


def started(target):
    return len(list((target.root / "production" / "spool").glob("boot-*.json")))


@pytest.mark.parametrize("after_ms", [0, 20, 60, 120])
def test_killing_the_caller_at_any_time_is_harmless(target, house, tmp_path, after_ms):
    made = house.release("1")
    desired = house.desired(house.plan(made), made)
    (tmp_path / "desired.json").write_bytes(msgspec.json.encode(desired))
    code = (
        "import sys, msgspec; from pathlib import Path\n"
        "from falaj.links.local.target import LocalTarget\n"
        "from falaj.facts.serving import Desired\n"
        "desired = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=Desired)\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    LocalTarget(Path(sys.argv[1])).apply(desired)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code, str(target.root), str(tmp_path / "desired.json")],
        stdout=subprocess.PIPE,
    )
    caller.stdout.readline()
    time.sleep(after_ms / 1000)
    caller.kill()
    caller.communicate()
    target.apply(desired)
    until(target, ready)
    assert started(target) == 1


def test_callers_at_once_start_one_server(target, house):
    made = house.release("1")
    desired = house.desired(house.plan(made), made)
    others = [LocalTarget(target.root) for _ in range(4)]
    threads = [threading.Thread(target=other.apply, args=(desired,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    until(target, ready)
    assert started(target) == 1


def test_a_card_that_names_another_process_is_not_believed(target, house):
    """Process ids are given again: only id and start time together name a process."""
    made = house.release("1")
    desired = house.desired(house.plan(made), made)
    target.apply(desired)
    server = until(target, ready).servers[0]
    os.kill(server.pid, signal.SIGKILL)
    until(target, lambda server: not server.ready)
    here = target.root / "production"
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    card = msgspec.json.decode((here / "server-1.json").read_bytes())
    (here / "server-1.json").write_bytes(msgspec.json.encode(card | {"pid": bystander.pid}))
    assert not target.observe("production").servers[0].ready
    target.stop("production")
    assert bystander.poll() is None
    bystander.communicate(b"\n", timeout=10)


def test_fewer_replicas_end_the_others(target, house):
    made = house.release("1")
    plan = house.plan(made)
    target.apply(house.desired(plan, made, replicas=2))
    pids = {server.name: server.pid for server in until(target, ready).servers}
    target.apply(house.desired(plan, made, replicas=1))
    assert len(target.observe("production").servers) == 1
    end = time.monotonic() + 10
    while Path(f"/proc/{pids['server-2']}/cmdline").exists() and time.monotonic() < end:
        target.observe("production")
        time.sleep(0.05)
    assert not Path(f"/proc/{pids['server-2']}/cmdline").exists()
    assert until(target, ready).servers[0].pid == pids["server-1"]


def test_stop_ends_all_and_twice_is_no_error(target, house):
    made = house.release("1")
    target.apply(house.desired(house.plan(made), made, replicas=2))
    until(target, ready)
    target.stop("production")
    target.stop("production")
    assert target.observe("production").servers == ()
    assert not target_runs(target.root / "production")


def test_stop_also_ends_a_server_that_is_just_starting(target, house):
    made = house.release("1")
    target.apply(house.desired(house.plan(made), made))
    target.stop("production")
    assert not target_runs(target.root / "production")


REFUSED = {
    "a folder outside": lambda h, made: h.desired(outside(h.plan(made)), made),
    "a release without a folder": lambda h, made: h.desired(h.plan(made)),
    "a source that is not there": lambda h, made: h.desired(
        h.plan(made), made._replace(folder=h.base / "nowhere")
    ),
}


def outside(plan):
    model = plan.models["delay"]
    arm = msgspec.structs.replace(model.stable, folder="../../etc")
    return msgspec.structs.replace(
        plan, models={"delay": msgspec.structs.replace(model, stable=arm)}
    )


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_said(target, house, make):
    with pytest.raises(FalajError) as caught:
        target.apply(make(house, house.release("1")))
    assert caught.value.code.startswith("target.")
    assert not (target.root / "production" / "plan.json").exists()


@pytest.mark.parametrize("name", ["..", "a/b", "", "a b", "\0", "é"])
def test_an_environment_is_a_plain_name(target, name):
    with pytest.raises(FalajError, match="cannot be a folder"):
        target.observe(name)
