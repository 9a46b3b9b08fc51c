"""Gates: would this model pass, and why."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.base import time
from falaj.base.errors import FalajError, NotFound
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.checks import GateReport
from falaj.facts.project import Policy

__all__ = ["ROUTES", "CheckGate", "Waive"]


class CheckGate(msgspec.Struct, forbid_unknown_fields=True):
    run: str = ""
    environment: str = "production"


class Waive(msgspec.Struct, forbid_unknown_fields=True):
    check: str
    reason: str
    life: str = "30d"


@post("/gates", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT, status=201)
def check_gate(works: Works, permit: Permit, data: CheckGate) -> GateReport:
    """Measure every check that the environment requires of the run's model."""
    from falaj.journeys import gate

    works.resource(ResourceKind.ENVIRONMENT, data.environment)  # it has to be there
    return gate.check(works.ground, permit, data.run, data.environment)


@get("/gates/{report:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_gate(works: Works, report: str) -> GateReport:
    return works.ground.store.get(GateReport, report).fact


@get("/gates", needs=Action.READ, on=ResourceKind.PROJECT)
def list_gates(works: Works, run: str = "", limit: Limit = 50) -> list[GateReport]:
    where = {"run": run} if run else {}
    return works.ground.store.find(GateReport, limit=min(limit, 1000), **where)


@post("/gates/{report:str}/what-if", needs=Action.READ, on=ResourceKind.PROJECT)
def what_if(works: Works, report: str, data: Policy) -> GateReport:
    """Decide stored evidence under other rules; nothing is measured and nothing is kept."""
    from falaj.evaluation import replay, rules

    kept = works.ground.store.get(GateReport, report).fact
    required = data.requires or kept.required
    policy = rules.policy_digest(data.gates, required)
    return replay.replay(kept, data.gates, required, policy=policy)


@get("/gates/{report:str}/as/{form:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_as(works: Works, report: str, form: str) -> Response[bytes]:
    """The report for other tools: junit, markdown or html."""
    from falaj.evaluation import rules

    forms = {
        "junit": (rules.junit, "application/xml"),
        "markdown": (rules.markdown, "text/markdown"),
        "html": (rules.html, "text/html"),
    }
    if form not in forms:
        raise NotFound("api.no-such-form", f"got {form!r}, expected {', '.join(forms)}")
    write, media = forms[form]
    kept = works.ground.store.get(GateReport, report).fact
    return Response(write(kept).encode(), media_type=media)


@post("/gates/{report:str}/waivers", needs=Action.WAIVE, on=ResourceKind.PROJECT, status=201)
def waive(works: Works, permit: Permit, report: str, data: Waive) -> GateReport:
    """Let one inconclusive check through, with reason and expiry. Approvals start anew."""
    from falaj.journeys import gate

    try:
        life = time.parse_span(data.life)
    except ValueError as error:
        raise FalajError("api.bad-time", f"life: {error}") from None
    return gate.waive(works.ground, permit, report, data.check, data.reason, life)


ROUTES: Final = (check_gate, show_gate, list_gates, what_if, show_as, waive)
