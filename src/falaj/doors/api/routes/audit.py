"""The river of events, and the evidence pack."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.doors.api.route import Limit, get
from falaj.facts.access import Action, Permit, ResourceKind

__all__ = ["ROUTES"]


class LogView(msgspec.Struct):
    size: int
    root: str
    events: list[dict[str, Any]]


@get("/events", needs=Action.READ, on=ResourceKind.PROJECT)
def list_events(works: Works, after: int = -1, limit: Limit = 100) -> LogView:
    """Events in the log's order behind a place, with the size and root of the whole log."""
    store = works.ground.store
    store.integrate()
    size, root = store.root()
    found = store.events(after=after, limit=min(limit, 1000))
    return LogView(size, root.hex(), [{"place": i, **event.cloud()} for i, event in found])


@get(
    "/models/{model:str}/evidence", needs=Action.EXPORT_EVIDENCE, on=ResourceKind.MODEL, by="model"
)
def evidence(works: Works, permit: Permit, model: str) -> Response[bytes]:
    """One zip with releases, approvals, decisions, events: verifiable without us."""
    from falaj.journeys import verify

    return Response(
        verify.export(works.ground, permit, model),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{model}-evidence.zip"'},
    )


ROUTES: Final = (list_events, evidence)
