"""The evidence of one rollout: how its metrics are judged, and one closed stratum after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, Final

import numpy as np

from falaj.facts.rollouts import Rollout, RolloutPlan, Strategy, Stratum
from falaj.rollouts import measuring
from falaj.rollouts.traffic import weight_bp
from falaj.stats import eproc
from falaj.stats.analysis import MetricRule, Policy, start_states
from falaj.stats.eproc import GRID, TWO_SIDED_GRID, Srm, State
from falaj.stats.summaries import Counts2x2, Pairs
from falaj.stats.summaries import Stratum as Where

__all__ = ["ERRORS", "LABELS", "LATENCY", "PAIRS", "SCORES", "Rest", "States"]
__all__ += ["fed", "latency_name", "opened", "policy_of"]

LATENCY: Final = ("p50", "p90", "p95", "p99")
ERRORS: Final = "errors"
LABELS: Final = "labels"
PAIRS: Final = "labels.pairs"
REQUESTS: Final = "requests"
SCORES: Final = "score."
OWN: Final = "own."
MOST: Final = 12.0  # of an alarm's evidence: a long incident is over when it is over

States = dict[str, tuple[State, ...]]
Floats = tuple[float, ...]
ZERO: Final = (0.0,) * len(GRID)


@dataclass(frozen=True, slots=True)
class Rest:
    """What is kept besides the e-processes of the metrics.

    requests: canary, stable, and the same on this step alone. alarm_c, alarm_s: of each arm against
    the share of errors that is an incident. scores: by threshold, two-sided.
    """

    srm: Srm = field(default_factory=Srm)
    requests: tuple[int, int, int, int] = (0, 0, 0, 0)
    alarm_c: Floats = ZERO
    alarm_s: Floats = ZERO
    scores: tuple[tuple[str, Floats], ...] = ()

    def plain(self) -> dict[str, Any]:
        return {
            "srm": list(self.srm),
            "requests": list(self.requests),
            "alarm": [list(self.alarm_c), list(self.alarm_s)],
            "scores": {name: list(sums) for name, sums in self.scores},
        }


def policy_of(plan: RolloutPlan, *, latency: bool) -> Policy:
    """The analysis' policy. latency: thresholds were frozen, so it can be judged."""

    def rule(name: str, **more: Any) -> MetricRule:
        return MetricRule(
            margin=plan.margins.get(name, plan.margin),
            slo=plan.slo.get(name) if name != "latency" else None,
            required=name in proven,
            **more,
        )

    proven = (LABELS,) if plan.strategy is Strategy.SHADOW else plan.prove
    metrics = {LABELS: rule(LABELS, tolerate=plan.tolerate)}
    if plan.strategy is not Strategy.SHADOW:
        metrics = {ERRORS: rule(ERRORS, tolerate=plan.tolerate)} | metrics
        if latency:
            metrics["latency"] = rule("latency", tolerate=plan.latency_tolerate, thresholds=LATENCY)
        for name, own in sorted(plan.metrics.items()):
            metrics[name] = MetricRule(
                tolerate=own.tolerate,
                margin=own.margin,
                weight=own.weight,
                slo=own.slo,
                required=own.prove,
            )
    return Policy(
        metrics=metrics,
        alpha=plan.alpha,
        beta=plan.beta,
        min_requests=plan.min_requests,
        min_minutes=plan.min_time_s / 60,
    )


def opened(rollout: Rollout, policy: Policy) -> tuple[States, Rest]:
    kept = rollout.analysis
    if not kept:
        return start_states(policy), Rest()
    states = {
        name: tuple(State.from_json(state) for state in some)
        for name, some in kept["states"].items()
    }
    done, step, weight, canary, total, peak = kept["srm"]
    n_c, n_s, here_c, here_s = kept["requests"]
    alarm_c, alarm_s = kept.get("alarm", (ZERO, ZERO))
    return states, Rest(
        Srm(done, step, weight, canary, total, peak),
        (n_c, n_s, here_c, here_s),
        tuple(alarm_c),
        tuple(alarm_s),
        tuple((name, tuple(sums)) for name, sums in kept.get("scores", {}).items()),
    )


def latency_name(metric: str) -> str:
    """`latency.2` of a server is `latency/p95` here."""
    kind, _, at = metric.partition(".")
    return f"latency/{LATENCY[int(at)]}" if kind == "latency" and at.isdecimal() else metric


def fed(
    rollout: Rollout, states: States, rest: Rest, rows: Sequence[Stratum]
) -> tuple[States, Rest]:
    """One closed stratum into every state that it speaks of.

    Labels are stratified by their arrival, so the rows of one metric come in order of time, step.
    """
    states = dict(states)
    for row in rows:
        weight = weight_bp(rollout.plan, row.step) / 10_000
        if row.metric == REQUESTS:
            rest = counted(rest, row, weight)
            continue
        if row.metric.startswith(SCORES):
            rest = scored(rest, row, measuring.phi(rollout.dispersion, ERRORS, weight))
            continue
        if row.metric == PAIRS:
            states[LABELS] = (eproc.step_pairs(states[LABELS][0], pairs(row)),)
            continue
        key = latency_name(row.metric).removeprefix(OWN)
        name = key.partition("/")[0]
        if name not in states:
            continue
        if row.metric == ERRORS:
            rest = alarmed(rest, row, rollout.plan.incident)
        phi = measuring.phi(rollout.dispersion, key, weight)
        states[name] = tuple(
            eproc.step_metric(state, table(key, row), phi) if state.metric == key else state
            for state in states[name]
        )
    return states, rest


def where(row: Stratum) -> Where:
    return Where(t=row.stratum, zone=row.zone, step=row.step)


def table(key: str, row: Stratum) -> Counts2x2:
    return Counts2x2(
        metric=key, stratum=where(row), n_c=row.n_c, x_c=row.x_c, n_s=row.n_s, x_s=row.x_s
    )


def pairs(row: Stratum) -> Pairs:
    """n_c: all pairs. x_c, x_s: only the challenger, only the champion was wrong. n_s: both."""
    return Pairs(
        metric=LABELS,
        stratum=where(row),
        right_right=row.n_c - row.x_c - row.x_s - row.n_s,
        right_wrong=row.x_c,
        wrong_right=row.x_s,
        wrong_wrong=row.n_s,
    )


def counted(rest: Rest, row: Stratum, weight: float) -> Rest:
    total = rest.requests
    if row.step != rest.srm.step:
        total = (total[0], total[1], 0, 0)
    return changed(
        rest,
        srm=eproc.step_srm(rest.srm, row.step, weight, row.n_c, row.n_s),
        requests=(
            total[0] + row.n_c,
            total[1] + row.n_s,
            total[2] + row.n_c,
            total[3] + row.n_s,
        ),
    )


def alarmed(rest: Rest, row: Stratum, limit: float) -> Rest:
    """Evidence of an incident starts anew whenever it has fallen to nothing (CUSUM)."""

    def up(sums: Floats, x: int, n: int) -> Floats:
        grown = np.maximum(np.array(sums), 0.0) + eproc.slo_log_increment(x, n, limit)
        return tuple(np.minimum(grown, MOST).tolist())

    return changed(
        rest,
        alarm_c=up(rest.alarm_c, row.x_c, row.n_c),
        alarm_s=up(rest.alarm_s, row.x_s, row.n_s),
    )


def scored(rest: Rest, row: Stratum, phi: float) -> Rest:
    """Share of scores above one threshold, in any direction."""
    sums = dict(rest.scores)
    old = np.array(sums.get(row.metric, (0.0,) * len(TWO_SIDED_GRID)))
    more = eproc.log_increment(row.x_c, row.n_c, row.x_s, row.n_s, TWO_SIDED_GRID) / phi
    sums[row.metric] = tuple((old + more).tolist())
    return changed(rest, scores=tuple(sorted(sums.items())))
