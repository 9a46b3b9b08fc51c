"""Changes and approvals."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar.params import Parameter

from falaj.app import Works
from falaj.base import time
from falaj.base.errors import FalajError
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, Principal, ResourceKind
from falaj.facts.changes import Approval, Change, Decision, Preapproval, Review
from falaj.facts.checks import GateReport
from falaj.facts.ledger import ChangeMetrics

__all__ = [
    "ROUTES",
    "ChangeView",
    "EnvironmentView",
    "Judge",
    "OpenChange",
    "Said",
    "SignTemplate",
    "TemplateView",
    "WriteReview",
]


class OpenChange(msgspec.Struct, forbid_unknown_fields=True):
    """template: of a standard change. incident: of an emergency. not_before, not_after: its own window."""

    release: str = ""
    reason: str = ""
    template: str = ""
    incident: str = ""
    not_before: str = ""
    not_after: str = ""


class Judge(msgspec.Struct, forbid_unknown_fields=True):
    """shown_*: the digests that the person saw; another one now is a conflict."""

    comment: str
    shown_release: str = ""
    shown_evidence: str = ""
    shown_report: str = ""


class Said(msgspec.Struct, forbid_unknown_fields=True):
    comment: str


class WriteReview(msgspec.Struct, forbid_unknown_fields=True):
    """cause: of a failure, in a word that repeats when it does."""

    conclusion: str
    cause: str = ""


class SignTemplate(msgspec.Struct, forbid_unknown_fields=True):
    """shown: digest of the template that was read."""

    comment: str
    shown: str = ""


class ChangeView(msgspec.Struct):
    """missing: what its approvals lack. counting: ids of those that count. names: of persons, where known."""

    change: Change
    approvals: list[Approval]
    report: GateReport | None
    missing: list[str] = []
    counting: list[str] = []
    names: dict[str, str] = {}
    review: Review | None = None


class TemplateView(msgspec.Struct):
    """problems: why it allows nothing now, as (code, words)."""

    name: str
    environment: str
    owner: str
    expires: str
    digest: str
    about: str
    bounds: dict[str, object]
    approvals: int
    signatures: list[Preapproval]
    used: int
    max_per_month: int
    problems: list[tuple[str, str]]


class EnvironmentView(msgspec.Struct):
    """opens: the next moment at which a rollout may begin; now, when it may."""

    name: str
    before: list[str]
    target: str
    region: str
    protected: bool
    requires: list[str]
    approvals: int
    groups: dict[str, int]
    soak: str
    timezone: str
    windows: str
    open: bool
    opens: datetime | None
    frozen: str = ""
    freezes: list[tuple[str, datetime, datetime]] = []


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

    return promote.open_change(
        works.ground,
        permit,
        data.release,
        environment,
        reason=data.reason,
        template=data.template,
        incident=data.incident,
        not_before=moment(data.not_before),
        not_after=moment(data.not_after),
    )


def moment(words: str) -> datetime | None:
    if not words:
        return None
    try:
        return time.parse_instant(words)
    except ValueError:
        raise FalajError(
            "api.bad-time", f"got {words!r}, expected a time such as 2026-11-24T10:00:00Z"
        ) from None


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
    from falaj.changes import closing, rules
    from falaj.journeys import promote

    store = works.ground.store
    found = store.get(Change, change).fact
    report = promote.report_of(works.ground, found.release)
    given = store.find(Approval, change=found.id)
    live = rules.live_approvals(found, given, now=works.ground.now())
    people = {found.author, found.implementer, *found.authors}
    names: dict[str, list[str]] = {}
    for known in store.find(Principal):
        if known.person in people:
            names.setdefault(known.person, []).append(known.name)
    owed = found.review_due is not None or found.state == "closed"
    return ChangeView(
        found,
        given,
        report,
        list(rules.missing(found, live)) if found.state in rules.WAITING else [],
        [one.id for one in live],
        {person: ", ".join(sorted(some)) for person, some in names.items()},
        closing.review_of(works.ground, found.id) if owed else None,
    )


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
    from falaj.changes import record, service

    shown = service.Shown(data.shown_release, data.shown_evidence, data.shown_report)
    with record.on_record(works.ground, permit, f"change/{change}", str(decision)):
        return service.judge(works.ground, permit, principal, change, decision, data.comment, shown)


@post("/changes/{change:str}/retract", needs=Action.RETRACT, on=ResourceKind.CHANGE, by="change")
def retract(works: Works, permit: Permit, principal: Principal, change: str, data: Said) -> Change:
    """Take back one's own approval."""
    from falaj.changes import record, service

    with record.on_record(works.ground, permit, f"change/{change}", "retract"):
        return service.retract(works.ground, permit, principal, change, data.comment)


@post("/changes/{change:str}/withdraw", needs=Action.WITHDRAW, on=ResourceKind.CHANGE, by="change")
def withdraw(works: Works, permit: Permit, change: str, data: Said) -> Change:
    """End a change that has not begun."""
    from falaj.changes import record, service

    with record.on_record(works.ground, permit, f"change/{change}", "withdraw"):
        return service.withdraw(works.ground, permit, change, data.comment)


@post("/changes/{change:str}/take", needs=Action.TAKE_UP, on=ResourceKind.CHANGE, by="change")
def take_up(works: Works, permit: Permit, change: str) -> Change:
    """Take up a proposed change: from here on it waits for approval like any other."""
    from falaj.journeys import promote

    return promote.take_up(works.ground, permit, change)


@get("/changes/{change:str}/review", needs=Action.READ, on=ResourceKind.CHANGE, by="change")
def show_review(works: Works, change: str) -> Review:
    """The review, as it was written or as the rollout's numbers fill it now."""
    from falaj.changes import closing

    return closing.review_of(works.ground, change)


@post("/changes/{change:str}/review", needs=Action.REVIEW, on=ResourceKind.CHANGE, by="change")
def write_review(
    works: Works, permit: Permit, principal: Principal, change: str, data: WriteReview
) -> Review:
    """Sign the review of a change that has ended; the change is closed with it."""
    from falaj.changes import closing, record

    with record.on_record(works.ground, permit, f"change/{change}", "review"):
        return closing.write_review(
            works.ground, permit, principal, change, data.conclusion, data.cause
        )


@post("/changes/{change:str}/close", needs=Action.WITHDRAW, on=ResourceKind.CHANGE, by="change")
def close(works: Works, permit: Permit, change: str) -> Change:
    """Close a change that ended well and owes nothing."""
    from falaj.changes import closing, record

    with record.on_record(works.ground, permit, f"change/{change}", "close"):
        return closing.close(works.ground, permit, change)


@get("/change-metrics", needs=Action.READ, on=ResourceKind.PROJECT)
def change_metrics(
    works: Works, model: str = "", environment: str = "", since: str = "", by: str = ""
) -> ChangeMetrics:
    """Failure rate, lead time, time to restore, shares of kinds. by: `month`, for each month."""
    from falaj.journeys import ledger

    return ledger.change_metrics(
        works.ground,
        model=model,
        environment=environment,
        since=moment(since),
        by_month=by == "month",
    )


@get("/templates", needs=Action.READ, on=ResourceKind.PROJECT)
def list_templates(works: Works) -> list[TemplateView]:
    """Templates of standard changes, and whether each allows one now."""
    from falaj.changes import preapproving

    found = []
    for name in works.ground.project.changes.templates:
        state = preapproving.state_of(works.ground, name)
        table = state.table
        found.append(
            TemplateView(
                name=name,
                environment=table.environment,
                owner=table.owner,
                expires=table.expires,
                digest=state.digest,
                about=table.about,
                bounds=msgspec.to_builtins(table.bounds),
                approvals=table.approvals,
                signatures=list(state.signatures),
                used=state.used,
                max_per_month=table.max_per_month,
                problems=[(one.code, one.message) for one in state.problems],
            )
        )
    return found


@post(
    "/templates/{template:str}/preapprove",
    needs=Action.PREAPPROVE,
    on=ResourceKind.PROJECT,
    status=201,
)
def preapprove(
    works: Works, permit: Permit, principal: Principal, template: str, data: SignTemplate
) -> Preapproval:
    """Sign a template as it stands; its owner is refused."""
    from falaj.changes import preapproving, record

    with record.on_record(works.ground, permit, f"template/{template}", "preapprove"):
        return preapproving.preapprove(
            works.ground, permit, principal, template, data.comment, data.shown
        )


@get("/environments", needs=Action.READ, on=ResourceKind.PROJECT)
def list_environments(works: Works) -> list[EnvironmentView]:
    """Environments in the order of promotion: what each asks for, and whether it is open now."""
    from falaj.changes import beginning, calendar

    ground, now = works.ground, works.ground.now()
    found = []
    for name, table in ground.project.environments.items():
        zone = calendar.zone_of(table.timezone)
        freezes = beginning.freezes_of(ground, name)
        frozen = calendar.frozen_by(freezes, now)
        found.append(
            EnvironmentView(
                name=name,
                before=list(ground.project.before(name)),
                target=table.target,
                region=table.region or ground.project.project.region,
                protected=table.protected,
                requires=list(table.requires),
                approvals=table.approvals,
                groups=dict(table.groups),
                soak=table.soak,
                timezone=table.timezone,
                windows=calendar.said(table.windows, table.timezone),
                open=frozen is None and calendar.in_window(table.windows, zone, now),
                opens=calendar.next_opening(table.windows, freezes, zone, now),
                frozen=frozen.name if frozen else "",
                freezes=[(f.name, f.starts, f.ends) for f in freezes if f.ends > now],
            )
        )
    return found


ROUTES: Final = (
    open_change,
    list_changes,
    show_change,
    approve,
    reject,
    retract,
    withdraw,
    take_up,
    show_review,
    write_review,
    close,
    change_metrics,
    list_templates,
    preapprove,
    list_environments,
)
