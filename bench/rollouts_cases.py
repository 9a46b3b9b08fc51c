"""Simulated rollouts through the real decision code: read, judge, decide; nothing else decides.

Traffic is drawn by numpy; what it draws goes in as the counts that servers write.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from falaj.facts.rollouts import Phase, Rollout, RolloutPlan, Strategy, Stratum
from falaj.facts.serving import Counts
from falaj.rollouts import analysis, measuring, rules

__all__ = ["DAYS", "Day", "Ended", "measured", "walk"]

START = datetime(2026, 11, 24, tzinfo=UTC)
SLOW = (0.5, 0.1, 0.05, 0.01)  # shares above p50, p90, p95, p99


class Day(NamedTuple):
    """per_minute: requests. cycle: load and rates follow the hour. incident: both arms fail for an hour."""

    per_minute: int = 600
    minutes: int = 15  # of a stratum
    strata: int = 96
    rate: float = 0.005
    cycle: bool = False
    incident: bool = False
    steps_pct: tuple[int, ...] = (5, 25, 50, 100)
    zones: tuple[float, ...] = (1.0,)  # base rate of each, relative


DAYS = {
    "a ramp": Day(),
    "a ramp through a day": Day(cycle=True),
    "a ramp through a day with an incident of both arms": Day(cycle=True, incident=True),
    "two zones of unlike rates": Day(cycle=True, zones=(0.5, 4.0)),
}


class Ended(NamedTuple):
    phase: Phase
    minutes: float
    bad_canary: int
    requests_canary: int


def plan(day: Day, alpha: float, **more: object) -> RolloutPlan:
    made = RolloutPlan(
        strategy=Strategy.CANARY,
        steps_pct=day.steps_pct,
        stratum_s=60.0 * day.minutes,
        grace_s=0.0,
        warmup_s=0.0,
        alpha=alpha,
        # It never promotes: every null has the whole day to be rolled back falsely.
        min_requests=1_000_000_000,
        hold_s=60.0 * day.minutes * day.strata / 4,
        incident=0.6,
        prove=("errors",),
    )
    return replace(made, **more)


def begun(day: Day, alpha: float, **more: object) -> Rollout:
    return Rollout(
        id="R", change="C", environment="e", model="m", release="new", version="2",
        previous="old", previous_version="1", plan=plan(day, alpha, **more),
        phase=Phase.PROGRESSING, salt="", started=START, since=START, opened=START,
        latency_us=(1, 2, 3, 4),
    )  # fmt: skip


def measured(rollout: Rollout, day: Day, dice: np.random.Generator, strata: int = 120) -> Rollout:
    """The rollout after an A/A phase of the same traffic, in minutes."""
    rows = []
    for at in range(strata):
        n_a = int(dice.binomial(day.per_minute, 0.5))
        n_b = day.per_minute - n_a
        for metric, share in (
            ("errors", day.rate),
            *((f"latency.{i}", s) for i, s in enumerate(SLOW)),
        ):
            rows.append(
                Stratum(
                    stratum=at, zone="a", step=0, metric=metric, n_c=n_a,
                    x_c=int(dice.binomial(n_a, share)), n_s=n_b, x_s=int(dice.binomial(n_b, share)),
                )
            )  # fmt: skip
    after, *_ = measuring.measured(rollout, rows, now=START)
    return after


def walk(
    day: Day, dice: np.random.Generator, *, alpha: float, ratio: float = 1.0, aa: bool = False,
    **more: object,
) -> Ended:  # fmt: skip
    """One rollout from its start to its end, or to the end of the day. ratio: odds of canary errors."""
    rollout = begun(day, alpha, **more)
    if aa:
        rollout = measured(rollout, day, dice)
    first = int(START.timestamp() // (60 * day.minutes))
    bad = asked = 0
    for number in range(day.strata):
        counts = []
        for zone, factor in enumerate(day.zones):
            row = drawn(day, rollout, number, factor, ratio, dice)
            asked += row["requests"][0]
            bad += row["errors"][1]
            counts += [
                Counts(
                    source=f"s{zone}", seq=1, model="m", rollout="R", stratum=first + number,
                    zone=f"z{zone}", step=rollout.step, metric=metric,
                    n_c=n_c, x_c=x_c, n_s=n_s, x_s=x_s,
                )
                for metric, (n_c, x_c, n_s, x_s) in row.items()
            ]  # fmt: skip
        now = START + timedelta(minutes=day.minutes * (number + 1), seconds=1)
        after, finding, _ = analysis.judge(
            rollout, analysis.read(rollout, counts, [], now=now), now=now
        )
        rollout, _ = rules.decide(after, finding, now=now)
        if rollout.phase is not Phase.PROGRESSING:
            break
    return Ended(rollout.phase, day.minutes * (number + 1), bad, asked)


def drawn(
    day: Day, rollout: Rollout, number: int, factor: float, ratio: float, dice: np.random.Generator
) -> dict[str, tuple[int, int, int, int]]:
    hour = 2 * math.pi * number / day.strata
    load = day.per_minute * day.minutes / len(day.zones)
    load *= 1 + 0.6 * math.sin(hour - 2) if day.cycle else 1
    rate = day.rate * factor * (1 + 0.5 * math.sin(hour - 4) if day.cycle else 1)
    if day.incident and number in range(46, 50):
        rate = min(20 * rate, 0.5)
    odds = ratio * rate / (1 - rate)
    total = int(dice.poisson(load))
    n_c = int(dice.binomial(total, rollout.plan.steps_pct[rollout.step] / 100))
    n_s = total - n_c
    found = {
        "requests": (n_c, 0, n_s, 0),
        "errors": (
            n_c,
            int(dice.binomial(n_c, odds / (1 + odds))),
            n_s,
            int(dice.binomial(n_s, rate)),
        ),
    }
    slow_c = slow_s = 1.0
    over_c, over_s = n_c, n_s
    for at, share in enumerate(SLOW):  # nested: who is above p90 is above p50
        over_c = int(dice.binomial(over_c, share / slow_c))
        over_s = int(dice.binomial(over_s, share / slow_s))
        slow_c = slow_s = share
        found[f"latency.{at}"] = (n_c, over_c, n_s, over_s)
    return found
