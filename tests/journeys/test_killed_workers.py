"""Workers are killed and frozen in the middle; the next one goes on, and nothing is lost or twice."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sqlite3
import subprocess
import sys
import time

import loans
import proofs
import pytest
import walks
from traffic import Traffic

from falaj.base.errors import Conflict
from falaj.journeys import reconcile

# A worker that is killed at its n-th edge: before and after each commit, and around each call of
# the target. Between two edges nothing outlasts the process.
CRASHING = """
import os, signal, sys, time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from falaj.app import Works
from falaj.facts.rollouts import Rollout

left = int(sys.argv[1])


def edge():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Store:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    @contextmanager
    def begin(self):
        with self.inner.begin() as unit:
            yield unit
            edge()
        edge()


class Target:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def apply(self, desired):
        edge()
        self.inner.apply(desired)
        edge()

    def observe(self, environment):
        seen = self.inner.observe(environment)
        edge()
        return seen


works = Works.open(Path())
local = Target(works.ground.targets["local"])
works.ground = replace(works.ground, store=Store(works.ground.store), targets={"local": local})
while works.ground.store.get(Rollout, sys.argv[2]).fact.phase not in ("promoted", "rolled-back"):
    works.turn(frozenset({"rollouts"}))
    time.sleep(float(sys.argv[3]))
works.turn(frozenset({"rollouts"}))  # and once more when all is done
"""


def killed_everywhere(by, rollout, *, pause=0.02):
    """Kill a worker at its first edge, the next at its second, and so on; return how many died."""
    for dead in range(60):
        before, decided = walks.history(by), walks.decisions(by, rollout)
        walks.let_leases_run_out(by.root)
        done = subprocess.run(
            [sys.executable, "-c", CRASHING, str(dead), rollout["id"], str(pause)],
            cwd=by.root,
            env=walks.quiet(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        proofs.nothing_lost(by, before, rollout, decided)
        proofs.nothing_twice(by)
        if done.returncode == 0:
            return dead
        assert done.returncode == -signal.SIGKILL, done.stderr
    raise AssertionError("no worker came to an end")


def test_killed_at_every_edge_of_a_switch_and_of_the_way_back(direct):
    by = direct  # no judgement in between: every edge is near
    first, second = (by.owner.get(f"/releases/{v}")["release"]["id"] for v in ("1.0.0", "1.1.0"))
    with Traffic(walks.server(by)["url"], rate=100) as traffic:
        forward = walks.start(by, "1.1.0")
        assert killed_everywhere(by, forward) >= 8
        assert walks.rollout_of(by, forward)["phase"] == "promoted"
        assert walks.who(by)["stable"] == second

        back = by.owner.post("/environments/production/rollback", {"why": "it was worse"})
        assert killed_everywhere(by, back) >= 8
        assert walks.rollout_of(by, back)["phase"] == "rolled-back"
        assert walks.who(by)["stable"] == first
        walks.wait(lambda: traffic.calls[-1].release == first, what="the first one again")

    assert {call.status for call in traffic.calls} == {200}, "callers felt nothing"
    proofs.by_plan(by, traffic.calls)
    aliases = [e["data"] for e in walks.history(by) if e["type"] == "falaj.alias.moved"]
    assert [move["release"] for move in aliases] == [first, second, first]


def test_killed_at_every_edge_of_a_judged_rollout(prepared, tmp_path, at):
    """Blue-green: starting, warm, judged with all of the traffic, promoted; every edge on the way."""
    root = walks.copied(prepared, tmp_path / "loans")
    text = loans.TOML.replace("steps_pct", 'strategy = "blue-green"\nsteps_pct')
    text = text.replace('hold = "500ms"', 'hold = "0s"').replace(
        'min_time = "1s"', 'min_time = "0s"'
    )
    (root / "falaj.toml").write_text(text)
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    with Traffic(walks.server(by)["url"], rate=200) as traffic:
        forward = walks.start(by, "1.1.0")
        assert killed_everywhere(by, forward, pause=0.4) >= 12
        assert walks.rollout_of(by, forward)["phase"] == "promoted"
        second = by.owner.get("/releases/1.1.0")["release"]["id"]
        walks.wait(lambda: traffic.calls[-1].release == second, what="the new one")
    assert {call.status for call in traffic.calls} == {200}
    proofs.by_plan(by, traffic.calls)
    assert by.owner.get(f"/rollouts/{forward['id']}/replay")["same"]
    actions = [d["action"] for d in walks.decisions(by, forward) if d["action"] != "hold"]
    assert actions == ["advance", "promote"], "each move once, whoever died"


def test_two_workers_race_through_a_canary(live, processes):
    with Traffic(walks.server(live)["url"]) as traffic:
        walks.let_leases_run_out(live.root)
        processes += [walks.worker(live.root, "rollouts") for _ in range(2)]
        done = walks.over(live, walks.start(live, "1.1.0"))
    assert done["phase"] == "promoted", done["why"]
    assert {call.status for call in traffic.calls} == {200}
    proofs.by_plan(live, traffic.calls)
    proofs.nothing_twice(live)
    assert live.owner.get(f"/rollouts/{done['id']}/replay")["same"]


def test_a_database_that_somebody_locks_for_a_while_only_costs_the_while(live, processes):
    with Traffic(walks.server(live)["url"]) as traffic:
        walks.let_leases_run_out(live.root)
        processes.append(walks.worker(live.root, "rollouts"))
        rollout = walks.start(live, "1.1.0")
        walks.wait(lambda: walks.who(live)["weight_bp"], what="traffic on the canary")
        held = sqlite3.connect(live.root / ".falaj" / "store.db", isolation_level=None)
        with contextlib.closing(held):
            held.execute("BEGIN IMMEDIATE")
            asked = len(traffic.calls)
            time.sleep(3)
            assert len(traffic.calls) > asked + 100, "callers do not wait for a database"
            held.execute("ROLLBACK")
        done = walks.over(live, rollout)
    assert done["phase"] == "promoted", done["why"]
    assert processes[-1].poll() is None
    assert {call.status for call in traffic.calls} == {200}
    proofs.by_plan(live, traffic.calls)
    proofs.nothing_twice(live)


def test_a_step_longer_than_its_lease_keeps_it(live, at):
    """A large release takes longer to copy than a lease lasts; nobody else does it meanwhile."""
    other = at(live.root)
    local = live.works.ground.targets["local"]
    walks.start(live, "1.1.0")
    seen = []

    class Slow:
        def __getattr__(self, name):
            return getattr(local, name)

        def apply(self, desired):
            time.sleep(1.5)
            seen.append(other.works.turn(frozenset({"rollouts"})))
            local.apply(desired)

    slow = dataclasses.replace(live.works.ground, targets={"local": Slow()})
    before = walks.history(live)
    reconcile.reconcile(slow, live.works.name, lambda _: [], lease_s=0.6)
    assert seen == [[]], "the lease was held"
    plans = [e for e in walks.history(live)[len(before) :] if e["type"] == "falaj.plan.issued"]
    assert len(plans) == 1


def test_killed_in_a_canary_another_worker_goes_on(live, processes):
    with Traffic(walks.server(live)["url"]) as traffic:
        processes.append(walks.worker(live.root, "rollouts"))
        rollout = walks.start(live, "1.1.0")
        for reached in (
            lambda: walks.rollout_of(live, rollout)["phase"] == "progressing",
            lambda: walks.rollout_of(live, rollout)["step"] == 1,
        ):
            walks.wait(reached, what="the moment to kill at")
            before, decided = walks.history(live), walks.decisions(live, rollout)
            processes[-1].kill()
            processes[-1].wait()
            processes.append(walks.worker(live.root, "rollouts"))
            walks.wait(lambda old=before: len(walks.history(live)) > len(old) + 2, what="going on")
            proofs.nothing_lost(live, before, rollout, decided)
        done = walks.over(live, rollout)
    assert done["phase"] == "promoted", done["why"]
    assert {call.status for call in traffic.calls} == {200}
    proofs.by_plan(live, traffic.calls)
    proofs.nothing_twice(live)
    actions = [d["action"] for d in walks.decisions(live, rollout) if d["action"] != "hold"]
    assert actions == ["advance", "promote"]


def test_frozen_past_its_lease_a_worker_is_fenced(live, processes):
    with Traffic(walks.server(live)["url"]) as traffic:
        frozen = walks.worker(live.root, "rollouts")
        processes.append(frozen)
        rollout = walks.start(live, "1.1.0")
        walks.wait(lambda: walks.decisions(live, rollout), what="a first decision")
        walks.freeze(frozen, live.root)
        before = walks.history(live)
        processes.append(walks.worker(live.root, "rollouts"))
        walks.wait(lambda: len(walks.history(live)) > len(before) + 2, what="the other going on")
        frozen.send_signal(signal.SIGCONT)
        done = walks.over(live, rollout)
        time.sleep(0.5)  # the frozen one turns as well, and finds the lease elsewhere
    assert frozen.poll() is None
    assert done["phase"] == "promoted", done["why"]
    workers = [
        event["actor"]
        for event in walks.history(live)[len(before) :]
        if event["actor"].startswith("worker:worker-")
    ]
    assert len(set(workers)) == 1, "what the frozen one still held in its hands was refused"
    proofs.by_plan(live, traffic.calls)
    proofs.nothing_twice(live)
    assert "error" not in (live.root / "processes.log").read_text()


@pytest.mark.parametrize("verdict", ["look", "decide"])
def test_what_a_fenced_worker_still_wants_to_write_is_refused(live, at, verdict):
    """Frozen exactly between looking and writing: the worst moment."""
    other = at(live.root)
    rollout = walks.start(live, "1.1.0")
    walks.turn(live, rollout, when=lambda now: walks.who(live)["weight_bp"])
    if verdict == "decide":  # a wish makes both of them decide the same thing
        live.owner.post("/environments/production/rollout/pause", {"why": "wait"})
    after = []

    def frozen_here(_rollout):
        if not after:
            walks.let_leases_run_out(live.root)
            other.works.turn(frozenset({"rollouts"}))
            after.extend(walks.history(other))
        return []

    with Traffic(walks.server(live)["url"], rate=200):
        if verdict == "look":
            time.sleep(1.5)  # strata that both of them would take
        with pytest.raises(Conflict) as refusal:
            reconcile.reconcile(live.works.ground, live.works.name, frozen_here)
    assert refusal.value.code in ("store.lease-lost", "store.moved-on")
    assert walks.history(other) == after, "not one event of the fenced one is in the log"
    proofs.nothing_twice(live)
