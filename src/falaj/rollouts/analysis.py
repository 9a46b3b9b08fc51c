"""From counts to a finding: which strata are closed, what they say, what the plan still needs.

Pure. The state in `Rollout.analysis` can be replayed bit by bit from the inputs in its decisions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from falaj.base import digests, time
from falaj.facts.rollouts import Outcome, Rollout, Strategy, Stratum
from falaj.facts.serving import Counts
from falaj.rollouts import limits, measuring
from falaj.rollouts.evidence import ERRORS, LABELS, Rest, States, fed, opened, policy_of
from falaj.rollouts.planning import forecast
from falaj.rollouts.rules import Finding
from falaj.rollouts.traffic import weight_bp
from falaj.stats.analysis import Exposure, analyse

__all__ = ["REQUESTS", "Read", "judge", "read", "state_digest"]

REQUESTS: Final = "requests"


class Read(NamedTuple):
    """What the target and the labels have told up to now.

    fresh: closed strata that the analysis has not taken yet, in order. canary_ms, stable_ms: end
    of the newest stratum with counts of that arm, -1 for never. late: requests of canary and stable
    that were counted after their stratum was taken. shown: the target runs what the plan says.
    """

    fresh: tuple[tuple[int, tuple[Stratum, ...]], ...]
    canary_ms: int
    stable_ms: int
    late: tuple[int, int] = (0, 0)
    shown: bool = True


def read(
    rollout: Rollout,
    counts: Iterable[Counts],
    labels: Sequence[Stratum],
    *,
    now: datetime,
    shown: bool = True,
) -> Read:
    """Add over sources (newest sequence of each), then keep the strata that are closed and new.

    A stratum closes by the clock: its end plus the grace. Never by what was counted in it.
    """
    merged = merge(counts)
    size_ms = round(rollout.plan.stratum_s * 1000)
    first, closed = bounds(rollout, now)
    by_time: dict[int, list[Stratum]] = defaultdict(list)
    for row in [*merged, *labels]:
        if max(rollout.done_stratum + 1, first) <= row.stratum <= closed:
            by_time[row.stratum].append(row)
    seen = [row for row in merged if row.metric == REQUESTS]
    old = [row for row in seen if first <= row.stratum <= rollout.done_stratum]
    taken = rollout.analysis.get("requests", (0, 0))
    return Read(
        fresh=tuple(
            (at, tuple(sorted(rows, key=lambda r: (r.step, r.zone, r.metric))))
            for at, rows in sorted(by_time.items())
        ),
        canary_ms=max(((row.stratum + 1) * size_ms for row in seen if row.n_c), default=-1),
        stable_ms=max(((row.stratum + 1) * size_ms for row in seen if row.n_s), default=-1),
        late=(
            max(sum(row.n_c for row in old) - taken[0], 0),
            max(sum(row.n_s for row in old) - taken[1], 0),
        ),
        shown=shown,
    )


def bounds(rollout: Rollout, now: datetime) -> tuple[int, int]:
    """The first stratum that counts, and the newest one that is closed."""
    size_ms = round(rollout.plan.stratum_s * 1000)
    begun = rollout.opened or rollout.started
    first = math.ceil((begun.timestamp() + rollout.plan.warmup_s) * 1000 / size_ms)
    closed = math.floor((now.timestamp() * 1000 - rollout.plan.grace_s * 1000) / size_ms) - 1
    return first, closed


def next_due(rollout: Rollout, now: datetime) -> datetime:
    """When the next stratum closes, or the hold time ends where that is later."""
    _, closed = bounds(rollout, now)
    at_s = (closed + 2) * rollout.plan.stratum_s + rollout.plan.grace_s
    ahead = timedelta(seconds=max(at_s - now.timestamp(), 0.0))
    return max(now + ahead, rollout.since + timedelta(seconds=rollout.plan.hold_s))


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


def judge(rollout: Rollout, got: Read, *, now: datetime) -> tuple[Rollout, Finding, dict[str, Any]]:
    """Feed the fresh strata, ask the analysis; return the new state, the finding, all numbers."""
    policy = policy_of(rollout.plan, latency=bool(rollout.latency_us))
    states, rest = opened(rollout, policy)
    for _, rows in got.fresh:
        states, rest = fed(rollout, states, rest, rows)
    after = rollout
    if got.fresh:
        after = replace(
            rollout,
            done_stratum=got.fresh[-1][0],
            analysis={
                "states": {k: [s.to_json() for s in some] for k, some in states.items()},
                **rest.plain(),
            },
        )
    seen = exposed(rollout, got, rest, states, now)
    said = analyse(states, policy, seen)
    if rollout.plan.strategy in (Strategy.BLUE_GREEN, Strategy.ROLLING):
        said = limits.judged(rollout, states, rest, said, seen)
    said = limits.incident(rollout.plan, rest, said)
    scores = limits.scores(rest, rollout.plan.alpha)
    words = dict(said.words) | ({"scores": scores.word} if scores.seen else {})
    numbers: dict[str, Any] = {
        **said.numbers,
        "words": words,
        "word": said.word,
        "dispersion": measuring.words(rollout.dispersion),
        "strata": [
            [row.stratum, row.step, row.metric, row.n_c, row.x_c, row.n_s, row.x_s, row.zone]
            for _, rows in got.fresh
            for row in rows
        ],
        "totals": {
            state.metric: [state.n_c, state.x_c, state.n_s, state.x_s]
            for some in states.values()
            for state in some
        },
        "next_due": time.text(next_due(rollout, now)),
        "read": [got.canary_ms, got.stable_ms, *got.late, got.shown],
        "state": state_digest(after),
        "before": before(rollout),
    }
    if scores.seen:
        numbers["scores.log_e"] = scores.log_e
    reasons = (*said.reasons, *scores.reasons)
    return after, Finding(Outcome(said.outcome), said.advance and got.shown, reasons), numbers


def before(rollout: Rollout) -> dict[str, Any]:
    """Where it stood when it was judged: with the strata, all that the decision depended on."""
    return {
        "phase": str(rollout.phase),
        "step": rollout.step,
        "since": time.text(rollout.since),
        "opened": time.text(rollout.opened) if rollout.opened else "",
        "why": rollout.why,
        "asked": rollout.asked,
        "asked_why": rollout.asked_why,
        "let_through": rollout.let_through,
        "advised": rollout.advised,
    }


def state_digest(rollout: Rollout) -> str:
    """Of every bit of evidence; a replay must come to the same."""
    return digests.of_bytes(msgspec.json.encode(rollout.analysis, order="sorted"))


def exposed(rollout: Rollout, got: Read, rest: Rest, states: States, now: datetime) -> Exposure:
    """What was seen so far, and whether this step has seen what the plan asks."""
    plan = rollout.plan
    begun = rollout.opened or rollout.started
    total, srm = rest.requests, rest.srm
    switching = plan.strategy in (Strategy.BLUE_GREEN, Strategy.ROLLING, Strategy.SHADOW)
    planned = (
        plan.min_requests
        if switching
        else forecast(plan, rollout.step, bad_rates(states), phi=first_phi(rollout)).requests_canary
    )
    here = total[2] if srm.step == rollout.step else 0
    n_c = states[LABELS][0].n_c if plan.strategy is Strategy.SHADOW else total[0]
    return Exposure(
        n_c=n_c,
        n_s=total[1],
        minutes=(now - begun).total_seconds() / 60,
        step_reached=got.shown and here >= planned,
        silent=silent(rollout, got, now),
        srm=0.0 if switching else srm.peak,
        aa=measuring.peaks(rollout.dispersion),
        late_c=got.late[0],
        late_s=got.late[1],
    )


def first_phi(rollout: Rollout) -> float:
    weight = weight_bp(rollout.plan, rollout.step) / 10_000
    return measuring.phi(rollout.dispersion, ERRORS, weight)


def silent(rollout: Rollout, got: Read, now: datetime) -> tuple[str, ...]:
    """Arms that should have traffic under this plan and were not heard of."""
    plan = rollout.plan
    if (now - rollout.since).total_seconds() <= plan.stall_s:
        return ()
    arms = {"canary": got.canary_ms, "stable": got.stable_ms}
    if plan.strategy is Strategy.SHADOW or plan.steps_pct[rollout.step] == 0:
        del arms["canary"]
    if plan.strategy is not Strategy.SHADOW and plan.steps_pct[rollout.step] == 100:
        del arms["stable"]
    limit = (now.timestamp() - plan.stall_s) * 1000
    return tuple(arm for arm, at in arms.items() if at < limit)


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
