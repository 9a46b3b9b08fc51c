"""Gates: would this model pass, and why."""

from __future__ import annotations

from typing import Final

import msgspec

from falaj.app import Works
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.checks import GateReport

__all__ = ["ROUTES", "CheckGate"]


class CheckGate(msgspec.Struct, forbid_unknown_fields=True):
    run: str = ""
    environment: str = "production"


@post("/gates", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT, status=201)
def check_gate(works: Works, permit: Permit, data: CheckGate) -> GateReport:
    """Measure every check that the environment requires of the run's model."""
    from falaj.journeys import gate

    return gate.check(works.ground, permit, data.run, data.environment)


@get("/gates/{report:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_gate(works: Works, report: str) -> GateReport:
    return works.ground.store.get(GateReport, report).fact


@get("/gates", needs=Action.READ, on=ResourceKind.PROJECT)
def list_gates(works: Works, run: str = "", limit: Limit = 50) -> list[GateReport]:
    where = {"run": run} if run else {}
    return works.ground.store.find(GateReport, limit=min(limit, 1000), **where)


ROUTES: Final = (check_gate, show_gate, list_gates)
