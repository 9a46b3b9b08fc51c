"""Changes and approvals."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar.params import Parameter

from falaj.app import Works
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, Principal, ResourceKind
from falaj.facts.changes import Approval, Change, Decision
from falaj.facts.checks import GateReport

__all__ = ["ROUTES", "ChangeView", "Judge", "OpenChange"]


class OpenChange(msgspec.Struct, forbid_unknown_fields=True):
    release: str = ""
    reason: str = ""


class Judge(msgspec.Struct, forbid_unknown_fields=True):
    """shown_*: the digests that the person saw; another one now is a conflict."""

    comment: str
    shown_release: str = ""
    shown_evidence: str = ""
    shown_report: str = ""


class ChangeView(msgspec.Struct):
    change: Change
    approvals: list[Approval]
    report: GateReport | None


@post(
    "/environments/{environment:str}/changes",
    needs=Action.OPEN_CHANGE,
    on=ResourceKind.ENVIRONMENT,
    by="environment",
    status=201,
)
def open_change(works: Works, permit: Permit, environment: str, data: OpenChange) -> Change:
    """Ask to bring a release to an environment."""
    from falaj.journeys import promote

    return promote.open_change(works.ground, permit, data.release, environment, reason=data.reason)


@get("/changes", needs=Action.READ, on=ResourceKind.PROJECT)
def list_changes(
    works: Works,
    wanted: Annotated[str, Parameter(query="state")] = "",
    limit: Limit = 50,
    after: str = "",
) -> list[Change]:
    store, most = works.ground.store, min(limit, 1000)
    if wanted:
        return store.find(Change, limit=most, after=after, state=wanted)
    return store.find(Change, limit=most, after=after)


@get("/changes/{change:str}", needs=Action.READ, on=ResourceKind.CHANGE, by="change")
def show_change(works: Works, change: str) -> ChangeView:
    from falaj.journeys import promote

    store = works.ground.store
    found = store.get(Change, change).fact
    report = promote.report_of(works.ground, found.release)
    return ChangeView(found, store.find(Approval, change=found.id), report)


@post("/changes/{change:str}/approve", needs=Action.APPROVE, on=ResourceKind.CHANGE, by="change")
def approve(works: Works, permit: Permit, principal: Principal, change: str, data: Judge) -> Change:
    """Sign an approval over the release and its evidence. Authors are refused."""
    return judge(works, permit, principal, change, Decision.APPROVE, data)


@post("/changes/{change:str}/reject", needs=Action.REJECT, on=ResourceKind.CHANGE, by="change")
def reject(works: Works, permit: Permit, principal: Principal, change: str, data: Judge) -> Change:
    return judge(works, permit, principal, change, Decision.REJECT, data)


def judge(
    works: Works,
    permit: Permit,
    principal: Principal,
    change: str,
    decision: Decision,
    data: Judge,
) -> Change:
    from falaj.changes import service

    return service.judge(
        works.ground,
        permit,
        principal,
        change,
        decision,
        data.comment,
        shown_release=data.shown_release,
        shown_evidence=data.shown_evidence,
        shown_report=data.shown_report,
    )


@post("/changes/{change:str}/take", needs=Action.TAKE_UP, on=ResourceKind.CHANGE, by="change")
def take_up(works: Works, permit: Permit, change: str) -> Change:
    """Take up a proposed change: from here on it waits for approval like any other."""
    from falaj.journeys import promote

    return promote.take_up(works.ground, permit, change)


ROUTES: Final = (open_change, list_changes, show_change, approve, reject, take_up)
