"""How long a bad release still answers, how often a good one goes back, how soon a bad one is caught.

The first is measured on the local target under real requests; the others are simulated days through
the real decision code (`rollouts_cases.py`).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import ROOT, Row, say, value, version, write
from bench.rollouts_cases import DAYS, Day, walk
from falaj.facts.rollouts import Phase

NOTES = """
*Last bad answer*: seconds from the decision (its time in the log) to the last answer of the release that
goes back, over rounds of a canary at 50 % that a person aborts; real requests from 8 callers, two
servers, one worker process with its usual half second between turns. *From the wish*: from the moment
that a person's wish is stored.

*False rollbacks*: share of simulated days on which a release that is no worse was rolled back, in
percent; alpha is 5 %, 96 looks a day, errors and four latency thresholds, four steps. The target is alpha.
*Doubling*: twice the odds of errors (base 0.5 %) at 5 % of 6000 requests a minute, alpha 1 %; median of
simulated minutes until it goes back, with the dispersion measured by an A/A phase, and assumed.
"""

SETTINGS = """
steps_pct = [50, 100]
alpha = 0.001
stratum = "500ms"
grace = "300ms"
warmup = "0s"
min_time = "1h"
min_requests = 1000000
stall = "1m"
"""


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    rows = [*simulated(runs=40 if quick else 100), *caught(runs=15 if quick else 60)]
    decided, wished, requests, failed = goes_back(rounds=5 if quick else 30)
    rows += [
        value("last bad answer after the decision, median", "s", statistics.median(decided), 1.0),
        value("last bad answer after the decision, p99", "s", quantile(decided, 0.99), 1.0),
        value("last bad answer after the wish, median", "s", statistics.median(wished), 2.0),
        value("last bad answer after the wish, p99", "s", quantile(wished, 0.99), 2.0),
        value(f"requests failed of {requests}", "requests", failed, 0),
    ]
    versions = {"falaj": version(Path(sys.executable), "falaj")}
    return write("rollouts", rows, versions=versions, load=load, notes=NOTES)


def simulated(*, runs: int) -> Iterator[Row]:
    alpha = 0.05
    for number, (name, day) in enumerate(DAYS.items()):
        ended = [
            walk(day, np.random.default_rng([number, seed]), alpha=alpha) for seed in range(runs)
        ]
        back = sum(one.phase is Phase.ROLLING_BACK for one in ended)
        say(f"{name}: {back} of {runs} good ones went back")
        yield value(f"false rollbacks, {name}, {runs} days", "%", 100 * back / runs, 100 * alpha)


def caught(*, runs: int) -> Iterator[Row]:
    day = Day(per_minute=6000, minutes=1, strata=240, steps_pct=(5, 100))
    for aa, words, most in ((True, "measured", 15.0), (False, "assumed", 30.0)):
        ended = [
            walk(day, np.random.default_rng(seed), alpha=0.01, ratio=2.0, aa=aa)
            for seed in range(runs)
        ]
        found = sum(one.phase is Phase.ROLLING_BACK for one in ended)
        say(f"dispersion {words}: {found} of {runs} doublings were caught")
        minutes = statistics.median(one.minutes for one in ended)
        name = f"doubling caught, dispersion {words}, {found} of {runs}"
        yield value(name, "minutes", minutes, most, holds=found == runs and minutes <= most)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


@contextmanager
def tests_parts() -> Iterator[None]:
    """The small project and the callers are those of the tests."""
    place = str(ROOT / "tests" / "parts")
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def goes_back(*, rounds: int) -> tuple[list[float], list[float], int, int]:
    """Seconds to the last bad answer since the decision and since the wish; requests, failed ones."""
    with tests_parts(), tempfile.TemporaryDirectory() as scratch:
        import loans
        import walks
        from traffic import Traffic

        root = loans.write_project(Path(scratch) / "loans")
        head, _, _ = loans.TOML.partition("steps_pct")
        text = head.replace("approvals = 1", "approvals = 1\nreplicas = 2") + SETTINGS
        (root / "falaj.toml").write_text(text)
        by = walks.hands(root)
        by.owner.post("/identities", {"name": walks.READER, "roles": ["approver"]})
        for number in (1, 2):
            walks.made(by, f"1.{number}.0", month=number)
        walks.turn(by, walks.start(by, "1.1.0"))
        bad = by.owner.get("/releases/1.2.0")["release"]["id"]
        walks.let_leases_run_out(root)
        worker = walks.begin(root, "worker", "--duty", "rollouts")
        try:
            with Traffic(walks.server_of(by, 1)["url"], rate=400, callers=8) as traffic:
                found = [one_round(walks, by, traffic, bad) for _ in range(rounds)]
        finally:
            worker.terminate()
            worker.wait()
            by.works.ground.targets["local"].stop(loans.PLACE)
            by.works.close()
        failed = sum(call.status != 200 for call in traffic.calls)
        return [a for a, _ in found], [b for _, b in found], len(traffic.calls), failed


def one_round(walks: Any, by: Any, traffic: Any, bad: str) -> tuple[float, float]:
    rollout = walks.start(by, "1.2.0")
    walks.wait(lambda: walks.who(by)["weight_bp"] == 5000, what="half of the traffic")
    time.sleep(0.7)
    wished = datetime.now(UTC)
    by.owner.post("/environments/production/rollout/abort", {"why": "measured"})
    walks.over(by, rollout)
    time.sleep(0.5)
    decided = walks.instant(walks.decisions(by, rollout)[-1]["at"])
    last = max(call.done for call in traffic.answered if call.release == bad)
    took = max((last - decided).total_seconds(), 0.0), (last - wished).total_seconds()
    say(f"last bad answer {took[0]:.2f} s after the decision, {took[1]:.2f} s after the wish")
    return took
