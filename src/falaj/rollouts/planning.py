"""What a rollout will take, said before it starts: requests, minutes, bad answers."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from msgspec.structs import replace

from falaj.facts.rollouts import RolloutPlan, Strategy
from falaj.rollouts.traffic import weight_bp
from falaj.stats import eproc
from falaj.stats.eproc import ASSUMED_PHI, Plan

__all__ = ["Promise", "forecast", "promise"]

DOUBLING: Final = 2.0


def forecast(
    plan: RolloutPlan,
    step: int,
    bad_rate: float,
    *,
    per_minute: float = 1.0,
    phi: float = ASSUMED_PHI,
) -> Plan:
    """Planned exposure of a step: a doubling on the first one, the margin's midpoint later.

    phi: dispersion of the first step; every bit of evidence costs its factor more. Later steps wait
    for `min_requests` at most: evidence is kept over all steps, so a higher weight only brings the
    proof sooner, and 100 % waits for the proof anyway.
    """
    weight = min(max(weight_bp(plan, step) / 10_000, 1e-4), 0.5)
    ratio = DOUBLING if step == 0 else 1 + (plan.margin - 1) / 2
    rate = min(max(bad_rate, 1e-6), 0.5)
    found = eproc.plan_rollback(
        ratio, weight=weight, bad_rate=rate, per_minute=per_minute, alpha=plan.alpha
    )
    most = plan.min_requests if step else math.inf
    return Plan(
        found.events * phi,
        found.bad_canary * phi,
        found.minutes * phi,
        min(found.requests_canary * phi, most),
    )


class Promise(NamedTuple):
    """What people are told. requests: of the canary; minutes and bad: until a doubling is caught."""

    requests: float
    minutes: float
    bad: float
    sentences: tuple[str, ...]


def promise(
    plan: RolloutPlan, bad_rate: float, per_minute: float, *, phi: float = ASSUMED_PHI
) -> Promise:
    """bad_rate, per_minute: of what is live now; 0 where nobody knows yet.

    The family of metrics shares alpha, so each alone needs more evidence: by its weight.
    """
    if plan.strategy in (Strategy.DIRECT, Strategy.BLUE_GREEN, Strategy.ROLLING):
        return Promise(math.nan, math.nan, math.nan, (unproven(plan),))
    metrics = 3 + len(plan.metrics)
    alone = forecast(
        _with_alpha(plan, 0.9 * plan.alpha / metrics),
        0,
        bad_rate or 0.01,
        per_minute=per_minute or 1,
        phi=phi,
    )
    known = bool(bad_rate and per_minute)
    minutes = f", {alone.minutes:.0f} minutes" if per_minute else ""
    basis = (
        f"at {per_minute:.0f} requests a minute and {bad_rate:.2%} bad answers, as now"
        if known
        else "assuming 1 % bad answers: nothing was counted lately"
    )
    caught = (
        f"a doubling of bad answers is caught on the first step after about "
        f"{alone.requests_canary:.0f} canary requests{minutes}, {alone.bad_canary:.0f} bad "
        f"answers ({basis})"
    )
    stays = (
        f"a release that is no worse is rolled back with probability {plan.alpha:g} at most, "
        "over the whole rollout"
    )
    passes = (
        f"one whose odds ratio reaches {plan.margin:g} is promoted with probability "
        f"{plan.beta:g} at most"
    )
    return Promise(
        alone.requests_canary,
        alone.minutes if per_minute else math.nan,
        alone.bad_canary,
        (caught, stays, passes),
    )


def unproven(plan: RolloutPlan) -> str:
    return (
        f"{plan.strategy} compares nothing at random: it goes back when the release breaks its "
        f"limits (slo, incident = {plan.incident:g}), and promises no alpha and no beta"
    )


def _with_alpha(plan: RolloutPlan, alpha: float) -> RolloutPlan:
    return replace(plan, alpha=alpha)
