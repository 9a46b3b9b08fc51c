"""Windows, alerts, proposals."""

from __future__ import annotations

from typing import Annotated, Final

from litestar.params import Parameter

from falaj.app import Works
from falaj.doors.api.route import Limit, get
from falaj.facts.access import Action, ResourceKind
from falaj.facts.monitoring import Alert, Proposal, Window

__all__ = ["ROUTES"]


@get("/models/{model:str}/windows", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def list_windows(works: Works, model: str, limit: Limit = 50) -> list[Window]:
    """Closed windows of the model's monitors, newest first."""
    return works.ground.store.find(Window, model=model, limit=min(limit, 1000))


@get("/alerts", needs=Action.READ, on=ResourceKind.PROJECT)
def list_alerts(
    works: Works, wanted: Annotated[str, Parameter(query="state")] = "", limit: Limit = 50
) -> list[Alert]:
    store, most = works.ground.store, min(limit, 1000)
    return store.find(Alert, limit=most, state=wanted) if wanted else store.find(Alert, limit=most)


@get("/proposals", needs=Action.READ, on=ResourceKind.PROJECT)
def list_proposals(works: Works, limit: Limit = 50) -> list[Proposal]:
    return works.ground.store.find(Proposal, limit=min(limit, 1000))


ROUTES: Final = (list_windows, list_alerts, list_proposals)
