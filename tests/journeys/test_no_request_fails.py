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
from loans import PLACE
from traffic import Traffic

LOAD = int(os.environ.get("FALAJ_LOAD", "6000"))
RATE = float(os.environ.get("FALAJ_LOAD_RATE", "500"))
CALLERS = 8
ROLLOUT = "[environments.production.rollout]\n"


@pytest.fixture
def two(prepared, tmp_path, at):
    """1.0.0 answers from two servers."""
    root = walks.copied(prepared, tmp_path / "loans")
    text = loans.TOML.replace("approvals = 1", "approvals = 1\nreplicas = 2", 1)
    (root / "falaj.toml").write_text(text)
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    return by


def strategy(by, name):
    path = by.root / "falaj.toml"
    text = path.read_text().replace(ROLLOUT, f'{ROLLOUT}strategy = "{name}"\n')
    path.write_text(text)


def replaced(by, number):
    """End a server as an operator does, and wait for the one that takes its place."""
    old = walks.server_of(by, number)
    os.kill(old["pid"], signal.SIGTERM)
    walks.wait(
        lambda: (s := walks.server_of(by, number))["ready"] and s["boot"] != old["boot"],
        what=f"server-{number} again",
    )


def test_a_load_through_everything(two, processes, at):
    by = two
    url = walks.server_of(by, 1)["url"]
    walks.let_leases_run_out(by.root)
    processes.append(walks.worker(by.root, "rollouts"))
    with Traffic(url, rate=RATE, callers=CALLERS) as traffic:
        for version, phase in (("1.1.0", "promoted"), ("1.2.0", "rolled-back")):
            done = walks.over(by, walks.start(by, version))
            assert done["phase"] == phase, done["why"]
        for number in (1, 2):
            replaced(by, number)
        processes[-1].terminate()
        processes[-1].wait()
        strategy(by, "blue-green")  # 1.0.0 comes back whole
        again = at(by.root)
        walks.let_leases_run_out(by.root)
        processes.append(walks.worker(by.root, "rollouts"))
        done = walks.over(again, walks.start(again, "1.0.0"))
        assert done["phase"] == "promoted", done["why"]
        walks.wait(
            lambda: len(traffic.calls) >= LOAD, seconds=LOAD / RATE * 2 + 60, what="the load"
        )
    failed = [call for call in traffic.calls if call.status != 200]
    print(f"{len(traffic.calls)} requests, {len(failed)} failed, {traffic.by_release()}")
    assert failed == []
    assert len(traffic.calls) >= LOAD
    assert len(traffic.by_release()) == 3
    proofs.by_plan(again, traffic.calls)
    proofs.nothing_twice(again)
    assert PLACE
