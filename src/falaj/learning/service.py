"""Writes proposals down and follows them. Each call is one transaction."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from falaj.base import ids
from falaj.base.errors import Conflict
from falaj.facts.events import Event
from falaj.facts.monitoring import Alert, Proposal
from falaj.ports.ground import Ground

__all__ = ["advance", "propose"]

WORKER: Final = "worker:learning"
ONCE: Final = ("run", "release", "change")


def propose(ground: Ground, alert: Alert, *, reason: str = "", actor: str = WORKER) -> Proposal:
    """Propose a retraining because of `alert`; asked again, it returns the proposal there is."""
    with ground.store.begin() as unit:
        known = unit.find(Proposal, alert=alert.id, limit=1)
        if known:
            return known[0]
        proposal = Proposal(
            id=ids.new(),
            alert=alert.id,
            model=alert.model,
            run="",
            verdict="",
            reason=reason or f"{alert.kind}: {alert.title}",
            at=ground.now(),
        )
        unit.add(proposal)
        unit.append(_event(ground, actor, proposal, "retraining.proposed"))
    return proposal


def advance(ground: Ground, proposal: Proposal, *, actor: str = WORKER, **fields: str) -> Proposal:
    """Write down how far the proposal is: run, release, change (each once), verdict, reason.

    Saying the same again writes nothing. Raises Conflict when a run, release or change that is
    known would become another one: the proposal's evidence would no longer be its own.
    """
    unknown = set(fields) - {*ONCE, "verdict", "reason"}
    if unknown:
        raise TypeError(f"a proposal has no field {min(unknown)!r} that moves")
    with ground.store.begin() as unit:
        kept = unit.get(Proposal, proposal.id)
        for name in ONCE:
            was, wanted = getattr(kept.fact, name), fields.get(name, "")
            if was and wanted and was != wanted:
                raise Conflict(
                    "learning.set-once",
                    f"the {name} of proposal {proposal.id} is {was}, got {wanted}",
                    why="a proposal stands on one run, one release and one change",
                    fix="wait for the next alert, or retrain by hand",
                )
        after = replace(kept.fact, **{name: value for name, value in fields.items() if value})
        if after != kept.fact:
            unit.replace(kept, after)
            unit.append(_event(ground, actor, after, "retraining.advanced"))
    return after


def _event(ground: Ground, actor: str, proposal: Proposal, type: str) -> Event:
    return ground.event(
        type,
        actor,
        f"proposal/{proposal.id}",
        {
            "alert": proposal.alert,
            "model": proposal.model,
            "run": proposal.run,
            "release": proposal.release,
            "change": proposal.change,
            "verdict": proposal.verdict,
        },
    )
