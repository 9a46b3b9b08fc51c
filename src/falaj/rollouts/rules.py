"""The decision to go on, to hold or to go back. Pure: no clock, no store, no dice."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final, NamedTuple

from msgspec.structs import replace

from falaj.base.errors import Conflict
from falaj.facts.rollouts import LiveMove, Outcome, Phase, Rollout, RolloutPlan, Strategy
from falaj.facts.serving import ArmPlan, ModelPlan, SplitPlan

__all__ = [
    "FINAL",
    "GOING_BACK",
    "Confirmed",
    "Finding",
    "Move",
    "Verb",
    "ask",
    "confirm",
    "decide",
    "give_up",
    "model_plan",
    "release_before",
    "weight_bp",
]

FINAL: Final = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})
GOING_BACK: Final = frozenset({Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ABORTED})


class Verb(enum.StrEnum):
    """What a person may ask of a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"


class Finding(NamedTuple):
    """What the analysis says now. advance: the planned exposure of this step is reached."""

    outcome: Outcome
    advance: bool
    reasons: tuple[str, ...]


class Move(NamedTuple):
    """What was decided, in one word and in sentences. `hold` changes nothing."""

    action: str  # hold | advance | promote | rollback | pause | resume | abort
    reasons: tuple[str, ...]


class Confirmed(NamedTuple):
    """What the target shows: does everything run as the plan asks, and if not, why."""

    done: bool
    problem: str = ""


def decide(rollout: Rollout, finding: Finding, *, now: datetime) -> tuple[Rollout, Move]:
    """Next move of a rollout that carries traffic.

    1. Only a progressing or paused rollout moves here.
    2. A person's wish comes first; it never overrules proven harm.
    3. Proven harm goes back at once, also inside the hold time and while paused.
    4. An invalid comparison goes back too, without a judgement on the release.
    5. An incident of both arms pauses: it is not the release's.
    6. Paused stays paused until a person resumes.
    7. Before the hold time nothing rises.
    8. The planned exposure raises the weight, and so does the proof when it comes early.
    9. From the last step below 100 % the proof promotes; without it, it waits there.
    """
    if rollout.phase not in (Phase.PROGRESSING, Phase.PAUSED):
        return rollout, Move("hold", ())
    if finding.outcome is Outcome.ROLLBACK:
        return back(rollout, now, "rollback", finding.reasons)
    if rollout.asked in (Verb.ABORT, Verb.ROLLBACK):
        return back(rollout, now, rollout.asked, (f"asked by a person: {rollout.asked_why}",))
    if finding.outcome is Outcome.INVALID:
        return back(rollout, now, "abort", finding.reasons)
    if rollout.asked == Verb.RESUME and rollout.phase is Phase.PAUSED:
        resumed = unasked(rollout, phase=Phase.PROGRESSING, since=now, why="resumed by a person")
        return resumed, Move("resume", (f"asked by a person: {rollout.asked_why}",))
    if rollout.phase is Phase.PAUSED:
        return rollout, Move("hold", ())
    if rollout.asked == Verb.PAUSE:
        why = f"paused by a person: {rollout.asked_why}"
        return unasked(rollout, phase=Phase.PAUSED, since=now, why=why), Move("pause", (why,))
    if finding.outcome is Outcome.PAUSE:
        paused = replace(rollout, phase=Phase.PAUSED, since=now, why=finding.reasons[0])
        return paused, Move("pause", finding.reasons)
    if (now - rollout.since).total_seconds() < rollout.plan.hold_s:
        return rollout, Move("hold", ())
    proven = finding.outcome is Outcome.PROMOTE
    if rollout.step + 2 < len(rollout.plan.steps_pct):
        if not (finding.advance or proven):
            return rollout, Move("hold", finding.reasons)
        why = "proven early" if proven else "planned exposure reached"
        risen = replace(rollout, step=rollout.step + 1, since=now, why=why)
        return risen, Move("advance", (why, *finding.reasons))
    if not proven:
        return rollout, Move("hold", finding.reasons)
    why = f"proven within the margin: {', '.join(rollout.plan.prove)}"
    promoting = replace(rollout, phase=Phase.PROMOTING, since=now, why=why)
    return promoting, Move("promote", (why, *finding.reasons))


def back(
    rollout: Rollout, now: datetime, action: str, reasons: tuple[str, ...]
) -> tuple[Rollout, Move]:
    going = unasked(rollout, phase=Phase.ROLLING_BACK, since=now, why=reasons[0])
    return going, Move(action, reasons)


def give_up(
    rollout: Rollout, seen: Confirmed, *, now: datetime, patience_s: float
) -> Rollout | None:
    """Where a rollout goes that waits for its target in vain; None while it may still come.

    1. What the target shows already is not given up here: a wish is heard in the next phase.
    2. A person's wish to end it holds while it starts and while it is being promoted.
    3. A release that the target cannot start within `patience_s` goes back by itself.
    4. Without a release to go back to it is aborted: then nothing of the model answers.
    """
    if seen.done or rollout.phase not in (Phase.STARTING, Phase.PROMOTING):
        return None
    if rollout.asked in (Verb.ABORT, Verb.ROLLBACK):
        why = f"asked by a person: {rollout.asked_why}"
    elif (
        rollout.phase is Phase.STARTING
        and seen.problem
        and (now - rollout.since).total_seconds() > patience_s
    ):
        why = f"the target cannot run it: {seen.problem}"
    else:
        return None
    phase = Phase.ROLLING_BACK if rollout.previous else Phase.ABORTED
    return unasked(rollout, phase=phase, since=now, why=why)


def unasked(rollout: Rollout, *, phase: Phase, since: datetime, why: str) -> Rollout:
    return replace(rollout, phase=phase, since=since, why=why, asked="", asked_by="", asked_why="")


def confirm(rollout: Rollout, seen: Confirmed, *, now: datetime) -> Rollout:
    """Close the phases that wait for the target. Anything else stays as it is.

    STARTING becomes PROGRESSING (or PROMOTED, when there is nothing to compare with), PROMOTING
    becomes PROMOTED, ROLLING_BACK becomes ROLLED_BACK; only when the target shows it.
    """
    if not seen.done:
        return rollout
    if rollout.phase is Phase.STARTING and rollout.plan.strategy is Strategy.DIRECT:
        return replace(rollout, phase=Phase.PROMOTED, since=now, why="first release, now serving")
    next_phase = {
        Phase.STARTING: Phase.PROGRESSING,
        Phase.PROMOTING: Phase.PROMOTED,
        Phase.ROLLING_BACK: Phase.ROLLED_BACK,
    }.get(rollout.phase)
    return replace(rollout, phase=next_phase, since=now) if next_phase else rollout


def ask(rollout: Rollout, verb: Verb, *, by: str, why: str) -> Rollout:
    """Record a person's wish. Raises Conflict when the rollout is over or already going back."""
    if rollout.phase in FINAL:
        raise Conflict(
            "rollouts.over",
            f"rollout {rollout.id} is over ({rollout.phase})",
            fix=f"falaj rollback {rollout.environment} -m ... goes back to the release before",
        )
    if rollout.phase in GOING_BACK and verb in (Verb.PAUSE, Verb.RESUME):
        raise Conflict("rollouts.going-back", f"rollout {rollout.id} is going back already")
    return replace(rollout, asked=str(verb), asked_by=by, asked_why=why)


def weight_bp(plan: RolloutPlan, step: int) -> int:
    """Traffic share of the canary on a step, in 1/10,000."""
    return plan.steps_pct[step] * 100


def model_plan(rollout: Rollout, folders: dict[str, str]) -> ModelPlan:
    """What the servers should do in this phase: a pure function of the rollout.

    folders: release id -> folder relative to the target's root. Promoted and rolled back differ
    only in who is stable; the other one stays warm as standby where it was promoted.
    """

    def arm(release: str, weight: int = 0) -> ArmPlan:
        return ArmPlan(release=release, folder=folders[release], weight_bp=weight)

    split = SplitPlan(salt=rollout.salt, stratum_ms=round(rollout.plan.stratum_s * 1000))
    forward = rollout.phase in (Phase.PROMOTING, Phase.PROMOTED)
    if forward or (rollout.phase is Phase.STARTING and rollout.plan.strategy is Strategy.DIRECT):
        return ModelPlan(
            stable=arm(rollout.release),
            standby=arm(rollout.previous) if rollout.previous else None,
            rollout=rollout.id,
            step=rollout.step,
            split=split,
            latency_us=rollout.latency_us,
            latency_margin_us=rollout.plan.latency_margin_us,
        )
    if rollout.phase in GOING_BACK:
        return ModelPlan(
            stable=arm(rollout.previous),
            rollout=rollout.id,
            step=rollout.step,
            split=split,
            latency_us=rollout.latency_us,
            latency_margin_us=rollout.plan.latency_margin_us,
        )
    if rollout.phase is Phase.STARTING:
        # Loaded beside stable. Nothing is split yet, so nothing may count against the split.
        return ModelPlan(stable=arm(rollout.previous), standby=arm(rollout.release), split=split)
    return ModelPlan(
        stable=arm(rollout.previous),
        canary=arm(rollout.release, weight_bp(rollout.plan, rollout.step)),
        rollout=rollout.id,
        step=rollout.step,
        split=split,
        latency_us=rollout.latency_us,
        latency_margin_us=rollout.plan.latency_margin_us,
    )


def release_before(moves: Iterable[LiveMove], back: Collection[str]) -> str:
    """The release to go back to from the one that is live; empty when there is none.

    moves: of one model in one environment, oldest first. back: rollouts that went back. A release
    that was left by going back is no way back: from 1, 2 and back to 1 nothing leads to 2 but a new
    rollout of it.
    """
    way: list[str] = []
    for move in moves:
        if way and way[-1] == move.stable:
            continue
        if move.cause in back and move.stable in way:
            while way[-1] != move.stable:
                way.pop()
        else:
            way.append(move.stable)
    return way[-2] if len(way) > 1 else ""
