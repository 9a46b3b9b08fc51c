"""What time alone brings: changes expire, gates that an emergency put off are overdue."""

from __future__ import annotations

from falaj.base import ids
from falaj.changes import rules, service
from falaj.changes.closing import OWED
from falaj.changes.starting import owes_gates
from falaj.facts.changes import Change
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.rollouts import LiveMove
from falaj.ports.ground import Ground

__all__ = ["look"]


def look(ground: Ground) -> list[str]:
    """One turn of the worker; what was done, in words. Done twice it does nothing more."""
    now = ground.now()
    waiting = [c for state in rules.WAITING for c in ground.store.find(Change, state=state)]
    done = [
        f"{change.id} expired: nobody decided in time"
        for change in service.expired(waiting, now=now)
        if service.expire(ground, change)
    ]
    for state in (*rules.ENDED, "implementing"):
        for change in ground.store.find(Change, state=state):
            live = ground.store.find(
                LiveMove, environment=change.environment, model=change.model, limit=1
            )
            owed = owes_gates(change, live[0].stable if live else "")
            if owed and change.gates_due is not None and change.gates_due <= now:
                done += raise_alert(ground, change)
    return done


def raise_alert(ground: Ground, change: Change) -> list[str]:
    """Once a change: its model is frozen until the gates have passed, and people must know."""
    title = f"emergency {change.id} owes {', '.join(change.deferred)}"
    with ground.store.begin() as unit:
        if any(known.title == title for known in unit.find(Alert, model=change.model)):
            return []
        alert = Alert(
            id=ids.new(),
            kind=OWED,
            environment=change.environment,
            model=change.model,
            release=change.release,
            state=AlertState.OPEN,
            title=title,
            reasons=("deferred gates are overdue; the model is frozen until they have passed",),
            at=ground.now(),
        )
        unit.add(alert)
        unit.append(
            ground.event(
                "alert.opened",
                change.author,
                f"alert/{alert.id}",
                {"kind": alert.kind, "of": change.id},
            )
        )
    return [f"alert: {title}"]
