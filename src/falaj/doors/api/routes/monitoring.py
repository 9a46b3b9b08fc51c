"""Windows, alerts, proposals."""

from __future__ import annotations

from typing import Final

from falaj.app import Works
from falaj.doors.api.route import get
from falaj.facts.access import Action, ResourceKind
from falaj.facts.monitoring import Alert, Proposal, Window

__all__ = ["ROUTES"]


@get("/models/{model:str}/windows", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def list_windows(works: Works, model: str, limit: int = 50) -> list[Window]:
    """Closed windows of the model's monitors, newest first."""
    return works.ground.store.find(Window, model=model, limit=min(limit, 1000))


@get("/alerts", needs=Action.READ, on=ResourceKind.PROJECT)
def list_alerts(works: Works, state: str = "", limit: int = 50) -> list[Alert]:
    where = {"state": state} if state else {}
    return works.ground.store.find(Alert, limit=min(limit, 1000), **where)


@get("/proposals", needs=Action.READ, on=ResourceKind.PROJECT)
def list_proposals(works: Works, limit: int = 50) -> list[Proposal]:
    return works.ground.store.find(Proposal, limit=min(limit, 1000))


ROUTES: Final = (list_windows, list_alerts, list_proposals)
