"""The part of the traffic plan that a rollout asks for: a pure function of where it stands."""

from __future__ import annotations

from typing import Final

from falaj.facts.rollouts import Phase, Rollout, RolloutPlan, Strategy
from falaj.facts.serving import ArmPlan, ModelPlan, SplitPlan
from falaj.rollouts.rules import GOING_BACK

__all__ = ["AA", "aa_name", "model_plan", "weight_bp"]

AA: Final = ".aa"
HALF_BP: Final = 5000


def aa_name(rollout: str) -> str:
    """Under which the counts of the A/A phase stand: never among those of the rollout itself."""
    return rollout + AA


def weight_bp(plan: RolloutPlan, step: int) -> int:
    """Traffic share of the canary on a step, in 1/10,000."""
    if plan.strategy is Strategy.SHADOW:
        return 0
    return plan.steps_pct[step] * 100


def model_plan(rollout: Rollout, folders: dict[str, str]) -> ModelPlan:
    """What the servers should do in this phase.

    folders: release id -> folder relative to the target's root. Promoted and rolled back differ
    only in who is stable; the other one stays warm as standby where it was promoted.
    """
    plan = rollout.plan

    def arm(release: str, weight: int = 0) -> ArmPlan:
        return ArmPlan(release=release, folder=folders[release], weight_bp=weight)

    split = SplitPlan(
        salt=rollout.salt,
        key=plan.key,
        sticky=plan.sticky,
        stratum_ms=round(plan.stratum_s * 1000),
        testers=plan.testers,
    )

    def alone(release: str, standby: str = "") -> ModelPlan:
        return ModelPlan(
            stable=arm(release),
            standby=arm(standby) if standby else None,
            rollout=rollout.id,
            step=rollout.step,
            split=split,
            latency_us=rollout.latency_us,
            latency_margin_us=plan.latency_margin_us,
        )

    if rollout.phase in (Phase.PROMOTING, Phase.PROMOTED):
        return alone(rollout.release, rollout.previous)
    if rollout.phase in GOING_BACK:
        return alone(rollout.previous)
    if rollout.phase is Phase.STARTING and plan.strategy is Strategy.DIRECT:
        return alone(rollout.release, rollout.previous)
    if rollout.phase is Phase.STARTING:
        # Loaded beside stable. Nothing is split yet, so nothing may count against the split.
        return ModelPlan(stable=arm(rollout.previous), standby=arm(rollout.release), split=split)
    if rollout.phase is Phase.MEASURING:
        return ModelPlan(
            stable=arm(rollout.previous),
            canary=arm(rollout.previous, HALF_BP),
            standby=arm(rollout.release),
            rollout=aa_name(rollout.id),
            split=split,
            latency_us=rollout.latency_us,
        )
    shadow = plan.strategy is Strategy.SHADOW
    rolling = plan.strategy is Strategy.ROLLING
    return ModelPlan(
        stable=arm(rollout.previous),
        canary=None if shadow else arm(rollout.release, weight_bp(plan, rollout.step)),
        rollout=rollout.id,
        step=rollout.step,
        split=split,
        latency_us=rollout.latency_us,
        latency_margin_us=plan.latency_margin_us,
        shadow=arm(rollout.release) if shadow else None,
        shadow_bp=plan.shadow_pct * 100 if shadow else 0,
        rolled=rollout.step + 1 if rolling else 0,
    )
