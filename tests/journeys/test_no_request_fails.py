"""Real requests through everything that can happen to a release: none fails, each names its release.

`FALAJ_LOAD` sets how many requests there are in all; 100,000 is the full size.
"""

from __future__ import annotations

import os
import signal

import loans
import proofs
import pytest
import walks
from traffic import Traffic

LOAD = int(os.environ.get("FALAJ_LOAD", "6000"))
RATE = float(os.environ.get("FALAJ_LOAD_RATE", "500"))
CALLERS = 8
ROLLOUT = "[environments.production.rollout]"


@pytest.fixture
def two(prepared, tmp_path, at):
    """1.0.0 answers from two servers."""
    root = walks.copied(prepared, tmp_path / "loans")
    text = loans.TOML.replace("approvals = 1", "approvals = 1\nreplicas = 2", 1)
    (root / "falaj.toml").write_text(text)
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    return by


def working(by, processes, name):
    """A worker that carries rollouts out by this strategy from now on."""
    if processes and processes[-1].poll() is None:
        processes[-1].terminate()
        processes[-1].wait()
    path = by.root / "falaj.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("strategy")]
    lines.insert(lines.index(ROLLOUT) + 1, f'strategy = "{name}"')
    path.write_text("\n".join(lines))
    again = walks.hands(by.root)
    walks.let_leases_run_out(by.root)
    processes.append(walks.worker(by.root, "rollouts"))
    return again


def replaced(by, number):
    """End a server as an operator does, and wait for the one that takes its place."""
    old = walks.server_of(by, number)
    os.kill(old["pid"], signal.SIGTERM)
    walks.wait(
        lambda: (s := walks.server_of(by, number))["ready"] and s["boot"] != old["boot"],
        what=f"server-{number} again",
    )


def test_a_load_through_everything(two, processes):
    by = two
    with Traffic(walks.server_of(by, 1)["url"], rate=RATE, callers=CALLERS) as traffic:
        rounds = 0
        while not rounds or len(traffic.calls) < LOAD:
            rounds += 1
            by = working(by, processes, "canary")
            for version, phase in (("1.1.0", "promoted"), ("1.2.0", "rolled-back")):
                done = walks.over(by, walks.start(by, version))
                assert done["phase"] == phase, done["why"]
            for number in (1, 2):
                replaced(by, number)
            by = working(by, processes, "blue-green")  # 1.0.0 comes back whole
            done = walks.over(by, walks.start(by, "1.0.0"))
            assert done["phase"] == "promoted", done["why"]
    failed = [call for call in traffic.calls if call.status != 200]
    print(f"{len(traffic.calls)} requests, {rounds} rounds, {len(failed)} failed")
    assert failed == []
    assert len(traffic.by_release()) == 3
    proofs.by_plan(by, traffic.calls)
    proofs.nothing_twice(by)
