"""What rooms and journeys ask about rollouts, and the events that they leave."""

from __future__ import annotations

from typing import Any

from falaj.base import digests
from falaj.facts.events import Event
from falaj.facts.rollouts import LiveMove, Phase, Rollout
from falaj.ports.ground import Ground
from falaj.ports.store import Unit
from falaj.ports.target import Target
from falaj.rollouts import rules

__all__ = ["active", "event_of", "live", "newest_live", "target_of", "unfinished"]


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
