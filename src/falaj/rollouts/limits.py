"""Judgements without a random comparison: limits of their own, incidents of both arms, scores."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from falaj.facts.rollouts import Rollout, RolloutPlan
from falaj.rollouts.evidence import Rest, States
from falaj.rollouts.rules import last_step
from falaj.stats.analysis import NO_DIFFERENCE_YET, WORSE, Exposure, Outcome, e_text
from falaj.stats.eproc import mixture

__all__ = ["ALARM_E", "Scores", "incident", "judged", "scores"]

ALARM_E: Final = 1000.0  # an alarm is false once in so many strata at most
MOVED: Final = "moved"


def judged(rollout: Rollout, states: States, rest: Rest, said: Outcome, seen: Exposure) -> Outcome:
    """Blue-green and rolling: nobody chose the arms by chance, so only limits speak.

    1. The release breaks its SLO, or fails as in an incident while the one before does not: back.
    2. An arm that should have traffic is silent: pause.
    3. On the last step it is promoted after `min_requests` and `min_time` within its limits.
    4. Before that it goes on once the step has seen `min_requests`, or is to see nothing.
    """
    plan = rollout.plan
    numbers = dict(said.numbers)
    log_limit = -math.log(plan.alpha)
    guards = [one.log_e_guard for some in states.values() for one in some if one.log_e_guard]
    slo = mixture([guard[0] for guard in guards]) if guards else 0.0
    numbers["slo.canary.log_e"] = slo
    alarm = mixture(rest.alarm_c)
    reasons = [
        f"evidence that the release breaks its limits is {e_text(slo)}, limit {1 / plan.alpha:g}",
        exposure(plan, seen),
    ]
    if slo >= log_limit or (alarm >= math.log(ALARM_E) > mixture(rest.alarm_s)):
        why = "the release breaks its limits"
        return said._replace(
            outcome="rollback",
            advance=False,
            word=WORSE,
            reasons=(why, *reasons),
            numbers=numbers,
        )
    if seen.silent:
        why = f"no counts from {', '.join(seen.silent)}, which should have traffic"
        return said._replace(
            outcome="pause", advance=False, reasons=(why, *reasons), numbers=numbers
        )
    warm = plan.steps_pct[rollout.step] == 0
    enough = seen.n_c >= plan.min_requests and seen.minutes * 60 >= plan.min_time_s
    done = rollout.step >= last_step(plan) and enough
    return said._replace(
        outcome="promote" if done else "continue",
        advance=seen.step_reached or warm,
        reasons=tuple(reasons),
        numbers=numbers,
    )


def exposure(plan: RolloutPlan, seen: Exposure) -> str:
    least = plan.min_time_s / 60
    return (
        f"{seen.n_c} requests of at least {plan.min_requests}, {seen.minutes:.6g} minutes of at "
        f"least {least:g}"
    )


def incident(plan: RolloutPlan, rest: Rest, said: Outcome) -> Outcome:
    """Stable fails as in an incident: pause, whatever the canary does, unless it was judged worse."""
    stable, canary = mixture(rest.alarm_s), mixture(rest.alarm_c)
    numbers = dict(said.numbers) | {
        "incident.stable.log_e": stable,
        "incident.canary.log_e": canary,
    }
    if stable < math.log(ALARM_E) or said.outcome in ("invalid", "rollback"):
        return said._replace(numbers=numbers)
    both = canary >= math.log(ALARM_E)
    who = "both arms fail" if both else "stable fails"
    why = (
        f"{who}: more than {plan.incident:.0%} of the answers are errors, evidence "
        f"{e_text(stable)}, limit {ALARM_E:g}: an incident, not the release"
    )
    return said._replace(
        outcome="pause", advance=False, reasons=(why, *said.reasons), numbers=numbers
    )


class Scores(NamedTuple):
    """Whether the two arms score differently. It alerts; a new model should differ somewhere."""

    seen: bool
    log_e: float
    word: str
    reasons: tuple[str, ...]


def scores(rest: Rest, alpha: float) -> Scores:
    """Mean over the thresholds of their two-sided e-processes, against 1 / alpha."""
    if not rest.scores:
        return Scores(False, 0.0, "", ())
    log_e = mixture([mixture(sums) for _, sums in rest.scores])
    moved = log_e >= -math.log(alpha)
    sentence = (
        f"evidence that the arms score differently is {e_text(log_e)}, limit {1 / alpha:g}; "
        "it alerts and never goes back"
    )
    return Scores(True, log_e, MOVED if moved else NO_DIFFERENCE_YET, (sentence,))
