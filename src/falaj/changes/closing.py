"""What is owed when a change has ended: reviews, and gates that an emergency has put off."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Final

import msgspec

from falaj.base import dsse, time
from falaj.base.errors import Conflict, NotAllowed, NotFound
from falaj.changes import rules
from falaj.changes.review import filled
from falaj.changes.starting import owes_gates
from falaj.facts.access import Permit, Principal
from falaj.facts.attestations import REVIEW, statement
from falaj.facts.changes import Approval, Change, ChangeState, Review
from falaj.facts.checks import GateReport
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.rollouts import LiveMove, Rollout, RolloutDecision
from falaj.facts.wire import digest
from falaj.ports.ground import Ground
from falaj.ports.store import Store, Unit

__all__ = ["OWED", "close", "made_up_for", "owe", "review_of", "write_review"]

OWED: Final = "change"  # kind of the alert on gates that an emergency owes


def owe(ground: Ground, unit: Unit, actor: str, change: Change) -> Change:
    """Open the review of a change that ends now."""
    due = ground.now() + timedelta(seconds=ground.project.changes.emergency.review_within_s)
    change = msgspec.structs.replace(change, review_due=due)
    found = gathered(ground, unit, change)
    if known_of(unit, change.id):
        return change
    unit.add(found)
    unit.append(
        ground.event(
            "review.opened",
            actor,
            f"change/{change.id}",
            {"outcome": found.outcome, "due": due, "numbers": digest(found.numbers)},
        )
    )
    return change


def gathered(ground: Ground, unit: Store | Unit, change: Change) -> Review:
    """The review as the numbers of the rollout fill it, now."""
    rollouts = unit.find(Rollout, change=change.id, limit=1)
    rollout = rollouts[0] if rollouts else None
    now = ground.now()
    return filled(
        change,
        rollout,
        unit.find(RolloutDecision, rollout=rollout.id) if rollout else [],
        unit.find(Approval, change=change.id),
        [m for m in unit.find(LiveMove, environment=change.environment) if rollout and m.cause == rollout.id],
        [a for a in unit.find(Alert, model=change.model) if a.at >= change.opened],
        opened=now,
        due=change.review_due or now,
    )  # fmt: skip


def known_of(unit: Store | Unit, change_id: str) -> list[Review]:
    try:
        return [unit.get(Review, change_id).fact]
    except NotFound:
        return []


def review_of(ground: Ground, change_id: str) -> Review:
    """The review as it was written, or filled from what stands there now."""
    change = ground.store.get(Change, change_id).fact
    kept = known_of(ground.store, change.id)
    if kept and kept[0].conclusion:
        return kept[0]
    found = gathered(ground, ground.store, change)
    return msgspec.structs.replace(found, opened=kept[0].opened) if kept else found


def write_review(
    ground: Ground,
    permit: Permit,
    principal: Principal,
    change_id: str,
    conclusion: str,
    cause: str = "",
) -> Review:
    """Sign the review of a change that has ended; it is closed with it.

    Refused: whoever carried it out, a change that has not ended, gates that are still owed.
    """
    now = ground.now()
    signer = ground.keys.signer(principal.name)
    with ground.store.begin() as unit:
        kept = unit.get(Change, change_id)
        change = kept.fact
        rules.may_move(change, ChangeState.CLOSED)
        if permit.person == change.implementer:
            raise NotAllowed(
                "changes.own-review",
                f"{principal.name} carried {change.id} out and may not review it",
                why="a review is written by somebody who did not implement the change "
                "(rule independent-review)",
                fix=f"ask somebody else: `falaj --as NAME change review {change.id} -m ...`",
            )
        nothing_owed(unit, change)
        found = gathered(ground, unit, change)
        known = known_of(unit, change.id)
        claim = {
            "change": change.id,
            "outcome": found.outcome,
            "numbers": digest(found.numbers),
            "timeline": list(found.timeline),
            "conclusion": digest(conclusion),
            "cause": cause,
            "person": principal.person,
            "at": time.text(now),
        }
        said = statement(REVIEW, f"{change.model} {change.version}", change.release, claim)
        review = msgspec.structs.replace(
            found,
            opened=known[0].opened if known else now,
            due=known[0].due if known else now,
            conclusion=conclusion,
            cause=cause,
            person=principal.person,
            principal=principal.name,
            at=now,
            envelope=json.dumps(dsse.seal(said, signer), sort_keys=True),
        )
        if known:
            unit.replace(unit.get(Review, change.id), review)
        else:
            unit.add(review)
        unit.replace(kept, msgspec.structs.replace(change, state=ChangeState.CLOSED, since=now))
        unit.append(
            ground.event(
                "change.closed",
                permit.person,
                f"change/{change.id}",
                {
                    "state": str(ChangeState.CLOSED),
                    "release": change.release,
                    "review": digest(review),
                    "cause": cause,
                },
                remark=conclusion,
            )
        )
    return review


def close(ground: Ground, permit: Permit, change_id: str) -> Change:
    """Close a change that owes nothing."""
    with ground.store.begin() as unit:
        kept = unit.get(Change, change_id)
        change = kept.fact
        rules.may_move(change, ChangeState.CLOSED)
        nothing_owed(unit, change)
        if change.review_due is not None:
            raise Conflict(
                "changes.review-owed",
                f"{change.id} is closed by its review",
                why="after an emergency, a failure, a rollback or a high risk people look back "
                "(rule review)",
                fix=f"falaj --as NAME change review {change.id} -m ...",
            )
        closed = msgspec.structs.replace(change, state=ChangeState.CLOSED, since=ground.now())
        unit.replace(kept, closed)
        unit.append(
            ground.event(
                "change.closed",
                permit.person,
                f"change/{change.id}",
                {"state": str(closed.state), "release": change.release},
            )
        )
    return closed


def nothing_owed(unit: Unit, change: Change) -> None:
    moves = unit.find(LiveMove, environment=change.environment, model=change.model, limit=1)
    if owes_gates(change, moves[0].stable if moves else ""):
        raise Conflict(
            "changes.gates-owed",
            f"{change.id} still owes {', '.join(change.deferred)}",
            why="gates of an emergency are deferred, never skipped (rule deferred-gates)",
            fix=f"run `falaj gate` on the model of {change.version}, then close it",
        )


def made_up_for(
    ground: Ground, unit: Unit, actor: str, change: Change, report: GateReport | None
) -> None:
    """Note that the deferred gates of an emergency have passed by now."""
    if report is None or not change.deferred or change.gates_done is not None:
        return
    if change.state in rules.WAITING:
        return
    still = rules.undecided(report, change.deferred, release=change.version, now=ground.now())
    if still:
        return
    unit.replace(
        unit.get(Change, change.id), msgspec.structs.replace(change, gates_done=ground.now())
    )
    unit.append(
        ground.event(
            "change.gates-made-up",
            actor,
            f"change/{change.id}",
            {"gates": list(change.deferred), "report": digest(report)},
        )
    )
    for alert in unit.find(Alert, model=change.model, state=AlertState.OPEN):
        if alert.kind != OWED or not alert.title.startswith(f"emergency {change.id} "):
            continue
        over = msgspec.structs.replace(alert, state=AlertState.CLOSED, closed=ground.now())
        unit.replace(unit.get(Alert, alert.id), over)
        unit.append(
            ground.event(
                "alert.closed",
                actor,
                f"alert/{alert.id}",
                {"kind": alert.kind, "live": change.release},
            )
        )
