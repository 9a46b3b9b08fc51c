"""The decision to go on, to hold or to go back. Pure: no clock, no store, no dice."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final, NamedTuple

from msgspec.structs import replace

from falaj.base.errors import Conflict
from falaj.facts.rollouts import LiveMove, Mode, Outcome, Phase, Rollout, RolloutPlan, Strategy

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
    "last_step",
    "release_before",
]

FINAL: Final = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})
GOING_BACK: Final = frozenset({Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ABORTED})


class Verb(enum.StrEnum):
    """What a person may ask of a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    ABORT = "abort"
    ROLLBACK = "rollback"


class Finding(NamedTuple):
    """What the analysis says now. advance: the planned exposure of this step is reached."""

    outcome: Outcome
    advance: bool
    reasons: tuple[str, ...]


class Move(NamedTuple):
    """What was decided, in one word and in sentences. `hold` changes nothing."""

    action: str  # hold | advance | promote | rollback | pause | resume | abort, or would-...
    reasons: tuple[str, ...]


class Confirmed(NamedTuple):
    """What the target shows: does everything run as the plan asks, and if not, why."""

    done: bool
    problem: str = ""


def decide(rollout: Rollout, finding: Finding, *, now: datetime) -> tuple[Rollout, Move]:
    """Next move of a rollout that carries traffic.

    1. Only a progressing or paused rollout moves here.
    2. Proven harm goes back at once, also inside the hold time and while paused.
    3. A person's wish to end it holds in every mode.
    4. An invalid comparison goes back too, without a judgement on the release.
    5. Paused stays paused until a person resumes.
    6. A person who lets it rise is obeyed where people move it; never against proven harm.
    7. An incident of both arms pauses: it is not the release's.
    8. Before the hold time nothing rises.
    9. The planned exposure raises the weight, and so does the proof when it comes early.
    10. On the last step the proof promotes; without it, it waits there.
    11. Where the plan names a share, a person is asked before it.

    Where people move it (modes observe and advise) the moves of 2, 4, 7, 9 and 10 are said, not made.
    """
    if rollout.phase not in (Phase.PROGRESSING, Phase.PAUSED):
        return rollout, Move("hold", ())
    acts = rollout.plan.mode is Mode.ACT
    if finding.outcome is Outcome.ROLLBACK and acts:
        return back(rollout, now, "rollback", finding.reasons)
    if rollout.asked in (Verb.ABORT, Verb.ROLLBACK):
        return back(rollout, now, rollout.asked, (f"asked by a person: {rollout.asked_why}",))
    if finding.outcome is Outcome.INVALID and acts:
        return back(rollout, now, "abort", finding.reasons)
    if rollout.asked == Verb.RESUME and rollout.phase is Phase.PAUSED:
        resumed = unasked(rollout, phase=Phase.PROGRESSING, since=now, why="resumed by a person")
        return (
            replace(resumed, let_through=rollout.step + 1),
            Move("resume", (f"asked by a person: {rollout.asked_why}",)),
        )
    if rollout.phase is Phase.PAUSED:
        return rollout, Move("hold", ())
    if rollout.asked == Verb.PAUSE:
        why = f"paused by a person: {rollout.asked_why}"
        return unasked(rollout, phase=Phase.PAUSED, since=now, why=why), Move("pause", (why,))
    if rollout.asked == Verb.ADVANCE:
        return let_rise(rollout, finding, now)
    moved, move = by_itself(rollout, finding, now)
    if acts or move.action == "hold":
        return moved, move
    return replace(rollout, advised=move.action), Move(f"would-{move.action}", move.reasons)


def by_itself(rollout: Rollout, finding: Finding, now: datetime) -> tuple[Rollout, Move]:
    """What the analysis alone would do with a progressing rollout."""
    if finding.outcome is Outcome.ROLLBACK:
        return back(rollout, now, "rollback", finding.reasons)
    if finding.outcome is Outcome.INVALID:
        return back(rollout, now, "abort", finding.reasons)
    if finding.outcome is Outcome.PAUSE:
        paused = replace(rollout, phase=Phase.PAUSED, since=now, why=finding.reasons[0])
        return paused, Move("pause", finding.reasons)
    if (now - rollout.since).total_seconds() < rollout.plan.hold_s:
        return rollout, Move("hold", ())
    proven = finding.outcome is Outcome.PROMOTE
    last = rollout.step >= last_step(rollout.plan)
    if not proven and (last or not finding.advance):
        return rollout, Move("hold", finding.reasons)
    shares = rollout.plan.steps_pct[rollout.step + 1 :]
    share = shares[0] if shares else 0
    if share in rollout.plan.pause_pct and rollout.let_through <= rollout.step:
        why = f"waits for a person before {share} %"
        paused = replace(rollout, phase=Phase.PAUSED, since=now, why=why)
        return paused, Move("pause", (why, *finding.reasons))
    if last:
        return promoted(rollout, now, proof(rollout.plan), finding.reasons)
    return risen(
        rollout, now, "proven early" if proven else "planned exposure reached", finding.reasons
    )


def let_rise(rollout: Rollout, finding: Finding, now: datetime) -> tuple[Rollout, Move]:
    """A person moves it on, where people do."""
    free = unasked(rollout, phase=rollout.phase, since=rollout.since, why=rollout.why)
    if finding.outcome in (Outcome.ROLLBACK, Outcome.INVALID):
        why = "a person's wish never overrules proven harm"
        return free, Move("hold", (why, *finding.reasons))
    why = f"asked by a person: {rollout.asked_why}"
    if rollout.step >= last_step(rollout.plan):
        return promoted(free, now, why, finding.reasons)
    return risen(free, now, why, finding.reasons)


def risen(
    rollout: Rollout, now: datetime, why: str, reasons: tuple[str, ...]
) -> tuple[Rollout, Move]:
    up = replace(rollout, step=rollout.step + 1, since=now, why=why, advised="")
    return up, Move("advance", (why, *reasons))


def promoted(
    rollout: Rollout, now: datetime, why: str, reasons: tuple[str, ...]
) -> tuple[Rollout, Move]:
    done = replace(rollout, phase=Phase.PROMOTING, since=now, why=why, advised="")
    return done, Move("promote", (why, *reasons))


def proof(plan: RolloutPlan) -> str:
    """What the promotion of this strategy stands on."""
    if plan.strategy in (Strategy.BLUE_GREEN, Strategy.ROLLING):
        return "held its limits long enough with all of the traffic"
    if plan.strategy is Strategy.SHADOW:
        return "proven within the margin on the same requests"
    return f"proven within the margin: {', '.join(plan.prove)}"


def last_step(plan: RolloutPlan) -> int:
    """The step from which it is promoted. A comparison needs both arms, so it ends below 100 %."""
    whole = plan.strategy in (Strategy.BLUE_GREEN, Strategy.ROLLING)
    return max(len(plan.steps_pct) - (1 if whole else 2), 0)


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
    if seen.done or rollout.phase not in (Phase.STARTING, Phase.MEASURING, Phase.PROMOTING):
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

    STARTING becomes MEASURING where the plan has an A/A phase, PROMOTED where there is nothing to
    compare with, else PROGRESSING; PROMOTING becomes PROMOTED, ROLLING_BACK becomes ROLLED_BACK;
    only when the target shows it.
    """
    if not seen.done:
        return rollout
    if rollout.phase is Phase.STARTING and rollout.plan.strategy is Strategy.DIRECT:
        return replace(rollout, phase=Phase.PROMOTED, since=now, why="first release, now serving")
    if rollout.phase is Phase.STARTING:
        if rollout.plan.aa_s > 0 and rollout.plan.strategy is Strategy.CANARY:
            return replace(rollout, phase=Phase.MEASURING, since=now)
        return opened(rollout, now=now)
    next_phase = {
        Phase.PROMOTING: Phase.PROMOTED,
        Phase.ROLLING_BACK: Phase.ROLLED_BACK,
    }.get(rollout.phase)
    return replace(rollout, phase=next_phase, since=now) if next_phase else rollout


def opened(rollout: Rollout, *, now: datetime) -> Rollout:
    """It carries traffic from now on."""
    return replace(rollout, phase=Phase.PROGRESSING, since=now, opened=now)


def ask(rollout: Rollout, verb: Verb, *, by: str, why: str) -> Rollout:
    """Record a person's wish. Raises Conflict when the rollout is over or already going back."""
    if rollout.phase in FINAL:
        raise Conflict(
            "rollouts.over",
            f"rollout {rollout.id} is over ({rollout.phase})",
            fix=f"falaj rollback {rollout.environment} -m ... goes back to the release before",
        )
    if rollout.phase in GOING_BACK and verb in (Verb.PAUSE, Verb.RESUME, Verb.ADVANCE):
        raise Conflict("rollouts.going-back", f"rollout {rollout.id} is going back already")
    if verb is Verb.ADVANCE and rollout.phase is not Phase.PROGRESSING:
        raise Conflict(
            "rollouts.not-progressing",
            f"rollout {rollout.id} is {rollout.phase}, so there is no step to take",
            fix=f"falaj rollout resume -e {rollout.environment} -m ..., where it is paused",
        )
    if verb is Verb.ADVANCE and rollout.plan.mode is Mode.ACT:
        raise Conflict(
            "rollouts.acts-by-itself",
            f"rollout {rollout.id} moves by itself (mode act)",
            why="a step without its exposure would take the promise of alpha and beta away",
            fix='wait, or plan it with mode = "observe" or "advise"',
        )
    return replace(rollout, asked=str(verb), asked_by=by, asked_why=why)


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
