"""What rooms and journeys ask about rollouts, and the events that they leave."""

from __future__ import annotations

from typing import Any

from falaj.base import digests, ids
from falaj.base.time import parse_instant
from falaj.facts.events import Event
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.rollouts import LiveMove, Outcome, Phase, Rollout, RolloutDecision
from falaj.ports.ground import Ground
from falaj.ports.store import Unit
from falaj.ports.target import Target
from falaj.rollouts import rules

__all__ = [
    "active",
    "decided",
    "event_of",
    "live",
    "newest_live",
    "open_alert",
    "target_of",
    "unfinished",
]


def active(unit: Unit, environment: str, model: str) -> Rollout | None:
    for rollout in unit.find(Rollout, environment=environment):
        if model in ("", rollout.model) and rollout.phase not in rules.FINAL:
            return rollout
    return None


def newest_live(unit: Unit, environment: str, model: str) -> LiveMove | None:
    return next(iter(unit.find(LiveMove, environment=environment, model=model, limit=1)), None)


def unfinished(ground: Ground) -> list[Rollout]:
    return [
        rollout
        for phase in Phase
        if phase not in rules.FINAL
        for rollout in ground.store.find(Rollout, phase=phase)
    ]


def event_of(ground: Ground, actor: str, rollout: Rollout, type: str) -> Event:
    return ground.event(
        type,
        actor,
        f"rollout/{rollout.id}",
        {
            "phase": str(rollout.phase),
            "step": rollout.step,
            "release": rollout.release,
            "previous": rollout.previous,
            "change": rollout.change,
        }
        | (
            {"promotion": digests.of_bytes(rollout.promotion.encode())}
            if type == "rollout.started"
            else {}
        ),
    )


def decided(ground: Ground, rollout: str) -> list[RolloutDecision]:
    """Decisions as the log of events holds them, in its order."""
    found: list[RolloutDecision] = []
    after = -1
    while page := ground.store.events(after=after):
        after = page[-1][0]
        for _, event in page:
            ours = event.type == "rollout.decided" and event.subject == f"rollout/{rollout}"
            if ours and "reasons" in event.data:
                found.append(
                    RolloutDecision(
                        id=event.data["decision"],
                        rollout=rollout,
                        at=parse_instant(event.data["at"]),
                        step=event.data["step"],
                        outcome=Outcome(event.data["outcome"]),
                        action=event.data["action"],
                        reasons=tuple(event.data["reasons"]),
                        numbers=event.data["numbers"],
                    )
                )
    return found


def open_alert(
    ground: Ground,
    unit: Unit,
    rollout: Rollout,
    kind: str,
    title: str,
    reasons: tuple[str, ...],
    actor: str,
) -> None:
    alert = Alert(
        id=ids.new(),
        kind=kind,
        environment=rollout.environment,
        model=rollout.model,
        release=rollout.release,
        state=AlertState.OPEN,
        title=title,
        reasons=reasons,
        at=ground.now(),
    )
    unit.add(alert)
    unit.append(
        ground.event(
            "alert.opened", actor, f"alert/{alert.id}", {"kind": alert.kind, "of": rollout.id}
        )
    )


def target_of(ground: Ground, environment: str) -> Target:
    return ground.targets[ground.project.environments[environment].target]


def live(ground: Ground, environment: str, model: str, at: Any = None) -> LiveMove | None:
    """The ledger's memory: what answered at that time (now, when not said)."""
    after = ""
    while True:
        page = ground.store.find(LiveMove, after=after, environment=environment, model=model)
        for move in page:
            if at is None or move.at <= at:
                return move
        if not page:
            return None
        after = page[-1].id
