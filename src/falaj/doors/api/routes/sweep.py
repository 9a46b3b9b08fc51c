"""Removing what nothing needs any more."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from falaj.app import Works
from falaj.doors.api.route import post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.journeys.sweep import Swept

__all__ = ["ROUTES", "Sweep"]


class Sweep(msgspec.Struct, forbid_unknown_fields=True):
    days: Annotated[float, msgspec.Meta(ge=0, le=36500)] = 30.0
    dry_run: bool = True


@post("/sweep", needs=Action.SWEEP, on=ResourceKind.PROJECT)
def sweep_workspace(works: Works, permit: Permit, data: Sweep) -> Swept:
    """Remove blobs and cache entries that nothing needs; only count them with `dry_run`."""
    from falaj.journeys.sweep import sweep

    return sweep(works.ground, permit, days=data.days, dry_run=data.dry_run)


ROUTES: Final = (sweep_workspace,)
