"""From counts to a finding: which strata are closed, what they say, what the plan still needs.

Pure. The state in `Rollout.analysis` can be replayed bit by bit from the strata in its decisions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from falaj.facts.rollouts import Outcome, Rollout, RolloutPlan, Stratum
from falaj.facts.serving import Counts
from falaj.rollouts.rules import Finding, weight_bp
from falaj.stats import eproc
from falaj.stats.analysis import Exposure, MetricRule, Policy, analyse, start_states
from falaj.stats.eproc import ASSUMED_PHI, Plan, Srm, State
from falaj.stats.summaries import Counts2x2
from falaj.stats.summaries import Stratum as Where

__all__ = ["Read", "forecast", "judge", "policy_of", "read"]

LATENCY: Final = ("p50", "p90", "p95", "p99")
REQUESTS: Final = "requests"
DOUBLING: Final = 2.0


class Read(NamedTuple):
    """What the target and the labels have told up to now.

    fresh: closed strata that the analysis has not taken yet, in order. canary_ms, stable_ms: start
    of the newest stratum with counts of that arm, -1 for never.
    """

    fresh: tuple[tuple[int, tuple[Stratum, ...]], ...]
    canary_ms: int
    stable_ms: int


def read(
    rollout: Rollout, counts: Iterable[Counts], labels: Sequence[Stratum], *, now: datetime
) -> Read:
    """Add over sources (newest sequence of each), then keep the strata that are closed and new.

    A stratum closes by the clock: its end plus the grace. Never by what was counted in it.
    """
    merged = merge(counts)
    size_ms = round(rollout.plan.stratum_s * 1000)
    now_ms = now.timestamp() * 1000
    closed = math.floor((now_ms - rollout.plan.grace_s * 1000) / size_ms) - 1
    first = math.ceil((rollout.started.timestamp() + rollout.plan.warmup_s) * 1000 / size_ms)
    by_time: dict[int, list[Stratum]] = defaultdict(list)
    for row in [*merged, *labels]:
        if max(rollout.done_stratum + 1, first) <= row.stratum <= closed:
            by_time[row.stratum].append(row)
    seen = [row for row in merged if row.metric == REQUESTS]
    return Read(
        fresh=tuple(
            (at, tuple(sorted(rows, key=lambda r: (r.step, r.zone, r.metric))))
            for at, rows in sorted(by_time.items())
        ),
        canary_ms=max((row.stratum * size_ms for row in seen if row.n_c), default=-1),
        stable_ms=max((row.stratum * size_ms for row in seen if row.n_s), default=-1),
    )


def merge(counts: Iterable[Counts]) -> list[Stratum]:
    """One row a (stratum, zone, step, metric): duplicates and retries change nothing."""
    newest: dict[tuple[str, int, str, int, str], Counts] = {}
    for row in counts:
        key = (row.source, row.stratum, row.zone, row.step, row.metric)
        known = newest.get(key)
        if known is None or row.seq > known.seq:
            newest[key] = row
    sums: dict[tuple[int, str, int, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in newest.values():
        cell = sums[row.stratum, row.zone, row.step, row.metric]
        for at, value in enumerate((row.n_c, row.x_c, row.n_s, row.x_s)):
            cell[at] += value
    return [
        Stratum(
            stratum=stratum,
            zone=zone,
            step=step,
            metric=metric,
            n_c=n_c,
            x_c=x_c,
            n_s=n_s,
            x_s=x_s,
        )
        for (stratum, zone, step, metric), (n_c, x_c, n_s, x_s) in sums.items()
    ]


def policy_of(plan: RolloutPlan, *, latency: bool) -> Policy:
    """The analysis' policy. latency: thresholds were frozen, so it can be judged."""

    def rule(name: str, **more: Any) -> MetricRule:
        return MetricRule(
            margin=plan.margins.get(name, plan.margin),
            slo=plan.slo.get(name) if name != "latency" else None,
            required=name in plan.prove,
            **more,
        )

    metrics = {
        "errors": rule("errors", tolerate=plan.tolerate),
        "labels": rule("labels", tolerate=plan.tolerate),
    }
    if latency:
        metrics["latency"] = rule("latency", tolerate=plan.latency_tolerate, thresholds=LATENCY)
    return Policy(
        metrics=metrics,
        alpha=plan.alpha,
        beta=plan.beta,
        min_requests=plan.min_requests,
        min_minutes=plan.min_time_s / 60,
    )


def judge(rollout: Rollout, got: Read, *, now: datetime) -> tuple[Rollout, Finding, dict[str, Any]]:
    """Feed the fresh strata, ask the analysis; return the new state, the finding, all numbers."""
    policy = policy_of(rollout.plan, latency=bool(rollout.latency_us))
    states, srm, total = opened(rollout, policy)
    for _, rows in got.fresh:
        states, srm, total = fed(rollout.plan, states, srm, total, rows)
    exposure = exposed(rollout, got, srm, total, states, now)
    said = analyse(states, policy, exposure)
    numbers: dict[str, Any] = {
        **said.numbers,
        "words": dict(said.words),
        "word": said.word,
        "dispersion": f"assumed {ASSUMED_PHI}",
        "strata": [
            [row.stratum, row.step, row.metric, row.n_c, row.x_c, row.n_s, row.x_s]
            for _, rows in got.fresh
            for row in rows
        ],
        "totals": {
            state.metric: [state.n_c, state.x_c, state.n_s, state.x_s]
            for some in states.values()
            for state in some
        },
    }
    after = rollout
    if got.fresh:
        after = replace(
            rollout,
            done_stratum=got.fresh[-1][0],
            analysis={
                "states": {k: [s.to_json() for s in some] for k, some in states.items()},
                "srm": list(srm),
                "requests": list(total),
            },
        )
    return after, Finding(Outcome(said.outcome), said.advance, said.reasons), numbers


States = dict[str, tuple[State, ...]]
Total = tuple[int, int, int, int]  # canary, stable; and the same on this step alone


def opened(rollout: Rollout, policy: Policy) -> tuple[States, Srm, Total]:
    kept = rollout.analysis
    if not kept:
        return start_states(policy), Srm(), (0, 0, 0, 0)
    states = {
        name: tuple(State.from_json(state) for state in some)
        for name, some in kept["states"].items()
    }
    done, step, weight, canary, total, peak = kept["srm"]
    n_c, n_s, here_c, here_s = kept["requests"]
    return states, Srm(done, step, weight, canary, total, peak), (n_c, n_s, here_c, here_s)


def fed(
    plan: RolloutPlan, states: States, srm: Srm, total: Total, rows: Sequence[Stratum]
) -> tuple[States, Srm, Total]:
    """One closed stratum into every state that it speaks of.

    Labels are stratified by their arrival, so the rows of one metric come in order of time, step.
    """
    keys = {"errors": "errors", "labels": "labels"} | {
        f"latency.{at}": f"latency/{name}" for at, name in enumerate(LATENCY)
    }
    for row in rows:
        weight = weight_bp(plan, row.step) / 10_000
        if row.metric == REQUESTS:
            if row.step != srm.step:
                total = (total[0], total[1], 0, 0)
            srm = eproc.step_srm(srm, row.step, weight, row.n_c, row.n_s)
            total = (total[0] + row.n_c, total[1] + row.n_s, total[2] + row.n_c, total[3] + row.n_s)
            continue
        key = keys.get(row.metric, "")
        name = key.partition("/")[0]
        if name not in states:
            continue
        counts = Counts2x2(
            metric=key,
            stratum=Where(t=row.stratum, zone=row.zone, step=row.step),
            n_c=row.n_c,
            x_c=row.x_c,
            n_s=row.n_s,
            x_s=row.x_s,
        )
        states[name] = tuple(
            eproc.step_metric(state, counts, ASSUMED_PHI) if state.metric == key else state
            for state in states[name]
        )
    return states, srm, total


def exposed(
    rollout: Rollout, got: Read, srm: Srm, total: Total, states: States, now: datetime
) -> Exposure:
    """What was seen so far, and whether this step has seen what the plan asks."""
    elapsed = (now - rollout.started).total_seconds()
    step_s = (now - rollout.since).total_seconds()
    silent: list[str] = []
    if step_s > rollout.plan.stall_s:
        newest_ms = {"canary": got.canary_ms, "stable": got.stable_ms}
        limit = (now.timestamp() - rollout.plan.stall_s) * 1000
        silent = [arm for arm, at in newest_ms.items() if at < limit]
    planned = forecast(rollout.plan, rollout.step, bad_rates(states))
    here = total[2] if srm.step == rollout.step else 0
    return Exposure(
        n_c=total[0],
        n_s=total[1],
        minutes=elapsed / 60,
        step_reached=here >= planned.requests_canary,
        silent=tuple(silent),
        srm=srm.peak,
    )


def bad_rates(states: States) -> float:
    """Largest rate of bad answers of stable over the metrics: what will tell soonest."""
    found = [
        state.x_s / state.n_s
        for name, some in states.items()
        if name != "latency"
        for state in some
        if state.n_s >= 50 and state.x_s
    ]
    return max(found, default=0.01)


def forecast(plan: RolloutPlan, step: int, bad_rate: float, *, per_minute: float = 1.0) -> Plan:
    """Planned exposure of a step: a doubling on the first one, the margin's midpoint later.

    Dispersion is assumed, so every bit of evidence costs its factor more. Later steps wait for
    `min_requests` at most: evidence is kept over all steps, so a higher weight only brings the
    proof sooner, and 100 % waits for the proof anyway.
    """
    weight = min(weight_bp(plan, step) / 10_000, 0.5)
    ratio = DOUBLING if step == 0 else 1 + (plan.margin - 1) / 2
    rate = min(max(bad_rate, 1e-6), 0.5)
    found = eproc.plan_rollback(
        ratio, weight=weight, bad_rate=rate, per_minute=per_minute, alpha=plan.alpha
    )
    most = plan.min_requests if step else math.inf
    return Plan(
        found.events * ASSUMED_PHI,
        found.bad_canary * ASSUMED_PHI,
        found.minutes * ASSUMED_PHI,
        min(found.requests_canary * ASSUMED_PHI, most),
    )
