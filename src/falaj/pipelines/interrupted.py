"""Runs whose process is gone: nobody else would ever say how they ended."""

from __future__ import annotations

from msgspec.structs import replace

from falaj.base import process
from falaj.facts.runs import Run, RunStatus
from falaj.ports.ground import Ground

__all__ = ["mark"]

WHY = "its process ended in the middle; finished steps are kept"


def mark(ground: Ground, actor: str) -> None:
    """Say of every such run that it was interrupted."""
    for known in ground.store.find(Run, status=RunStatus.RUNNING):
        if not process.is_gone(known.process):
            continue
        with ground.store.begin() as unit:
            kept = unit.get(Run, known.id)
            if kept.fact.status is not RunStatus.RUNNING:
                continue  # it ended after all, or somebody else has said it
            after = replace(kept.fact, status=RunStatus.INTERRUPTED, ended=ground.now(), error=WHY)
            unit.replace(kept, after)
            unit.append(ground.event("run.interrupted", actor, f"run/{known.id}", {}))
