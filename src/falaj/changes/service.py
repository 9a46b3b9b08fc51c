"""Opens changes, takes signed decisions, moves states. Each move is one transaction."""

from __future__ import annotations

import json
from datetime import datetime

import msgspec

from falaj.base import dsse, ids, time
from falaj.base.errors import Conflict
from falaj.changes import rules
from falaj.facts.access import Permit, Principal
from falaj.facts.attestations import APPROVAL, statement
from falaj.facts.changes import Approval, Change, ChangeKind, ChangeState, Decision, Risk
from falaj.facts.checks import GateReport
from falaj.facts.events import Event
from falaj.facts.releases import Release
from falaj.facts.rollouts import LiveMove
from falaj.facts.wire import digest
from falaj.ports.ground import Ground
from falaj.ports.store import Unit

__all__ = ["emergency", "judge", "move", "new_evidence", "open_change"]


def open_change(
    ground: Ground,
    permit: Permit,
    release: Release,
    report: GateReport,
    environment: str,
    *,
    reason: str,
    previous: Release | None,
    kind: ChangeKind = ChangeKind.NORMAL,
    proposed: bool = False,
) -> Change:
    """Ask to bring `release` to `environment`. Its required gates must hold."""
    table = ground.project.environments[environment]
    if not proposed:
        rules.hold_gates(report, table.requires, release=release.version, now=ground.now())
    found = rules.assess(release, previous, report, floor=table.approvals)
    now = ground.now()
    back_to = f"{previous.version}, kept warm on the target" if previous else "none: stop serving"
    with ground.store.begin() as unit:
        change = Change(
            id=f"CHG-{unit.number('change'):04d}",
            kind=kind,
            state=ChangeState.PROPOSED if proposed else ChangeState.AWAITING_APPROVAL,
            title=f"{release.model} {previous.version if previous else 'none'} to {release.version}",
            reason=reason,
            model=release.model,
            release=release.id,
            version=release.version,
            environment=environment,
            evidence=release.evidence,
            report=digest(report),
            replaces=previous.id if previous else "",
            author=permit.person,
            authors=tuple(sorted({permit.person, *release.authors})),
            risk=found.risk,
            risk_reasons=found.reasons,
            approvals_needed=found.approvals,
            plan=describe(ground, environment, first=previous is None),
            back_out=back_to,
            opened=now,
            since=now,
        )
        unit.add(change)
        unit.append(event_of(ground, permit.person, change, "change.opened"))
    return change


def emergency(
    ground: Ground,
    unit: Unit,
    permit: Permit,
    to: Release,
    environment: str,
    *,
    reason: str,
    leaving: LiveMove,
) -> Change:
    """The pre-approved change of a rollback: it opens and fills its own record."""
    now = ground.now()
    change = Change(
        id=f"CHG-{unit.number('change'):04d}",
        kind=ChangeKind.EMERGENCY,
        state=ChangeState.IMPLEMENTING,
        title=f"{to.model} back from {leaving.stable_version} to {to.version}",
        reason=reason,
        model=to.model,
        release=to.id,
        version=to.version,
        environment=environment,
        evidence=to.evidence,
        replaces=leaving.stable,
        author=permit.person,
        authors=(permit.person,),
        risk=Risk.LOW,
        risk_reasons=("back to a release that was live and still verifies",),
        approvals_needed=0,
        plan="direct",
        back_out=leaving.stable_version,
        opened=now,
        since=now,
    )
    unit.add(change)
    unit.append(event_of(ground, permit.person, change, "change.opened"))
    return change


def describe(ground: Ground, environment: str, *, first: bool) -> str:
    table = ground.project.environments[environment].rollout
    if first:
        return "direct: the first release of a model has nothing to be compared with"
    steps = ", ".join(f"{pct} %" for pct in table.steps_pct)
    return f"{table.strategy} {steps}; goes back by itself on proven harm (alpha {table.alpha})"


def judge(
    ground: Ground,
    permit: Permit,
    principal: Principal,
    change_id: str,
    decision: Decision,
    comment: str,
    *,
    shown_release: str = "",
    shown_evidence: str = "",
    shown_report: str = "",
) -> Change:
    """Sign a decision over the release's id and the evidence's digest, and count it.

    shown_*: what the person saw when deciding; Conflict when it is no longer what stands here.
    """
    now = ground.now()
    signer = ground.keys.signer(principal.name)
    with ground.store.begin() as unit:
        kept = unit.get(Change, change_id)
        change = kept.fact
        if change.state not in (ChangeState.AWAITING_APPROVAL, ChangeState.APPROVED):
            rules.may_move(change, ChangeState.APPROVED)
        shown = (
            (shown_release, change.release),
            (shown_evidence, change.evidence),
            (shown_report, change.report),
        )
        if any(seen and seen != stands for seen, stands in shown):
            raise Conflict(
                "changes.evidence-changed",
                f"{change.id} changed after you looked at it",
                why=f"its gate report is now {change.report}",
                fix=f"read it again: `falaj change show {change.id}`",
            )
        approval = signed(change, permit, principal, decision, comment, signer, now)
        unit.add(approval)
        unit.append(
            ground.event(
                f"change.{'approved' if decision is Decision.APPROVE else 'rejected'}",
                permit.person,
                f"change/{change.id}",
                {
                    "approval": approval.id,
                    "release": change.release,
                    "evidence": change.evidence,
                    "report": change.report,
                    "decision": str(decision),
                    "policy": permit.policy,
                },
                remark=comment,
            )
        )
        given = unit.find(Approval, change=change.id)
        state = rules.state_after(change, given, now=now)
        if state is not change.state:
            rules.may_move(change, state)
            change = msgspec.structs.replace(change, state=state, since=now)
            unit.replace(kept, change)
    return change


def signed(
    change: Change,
    permit: Permit,
    principal: Principal,
    decision: Decision,
    comment: str,
    signer: dsse.Signs,
    now: datetime,
) -> Approval:
    expires = now + rules.APPROVAL_LIFE
    claim = {
        "change": change.id,
        "environment": change.environment,
        "decision": str(decision),
        "evidence": change.evidence,
        "report": change.report,
        "person": permit.person,
        "at": time.text(now),
        "expires": time.text(expires),
    }
    said = statement(APPROVAL, f"{change.model} {change.version}", change.release, claim)
    return Approval(
        id=ids.new(),
        change=change.id,
        release=change.release,
        evidence=change.evidence,
        report=change.report,
        person=permit.person,
        principal=principal.name,
        decision=decision,
        comment=comment,
        at=now,
        expires=expires,
        envelope=json.dumps(dsse.seal(said, signer), sort_keys=True),
    )


def new_evidence(ground: Ground, actor: str, release_id: str, report: str) -> tuple[str, ...]:
    """Void the approvals of open changes of this release: its newest gate report is another now.

    Returns the ids of the changes that went back to waiting.
    """
    touched: list[str] = []
    with ground.store.begin() as unit:
        for change in unit.find(Change, release=release_id):
            open_now = change.state in (ChangeState.AWAITING_APPROVAL, ChangeState.APPROVED)
            if not open_now or change.report == report:
                continue
            void_all(unit, change, "new evidence")
            renewed = msgspec.structs.replace(
                change, state=ChangeState.AWAITING_APPROVAL, report=report, since=ground.now()
            )
            unit.replace(unit.get(Change, change.id), renewed)
            unit.append(event_of(ground, actor, renewed, "change.approvals-voided"))
            touched.append(change.id)
    return tuple(touched)


def void_all(unit: Unit, change: Change, why: str) -> None:
    for approval in unit.find(Approval, change=change.id):
        if not approval.void:
            kept = unit.get(Approval, approval.id)
            unit.replace(kept, msgspec.structs.replace(approval, void=why))


def move(
    ground: Ground, unit: Unit, actor: str, change_id: str, to: ChangeState, note: str = ""
) -> Change:
    """Move a change inside the caller's transaction. Raises Conflict when the table forbids it."""
    kept = unit.get(Change, change_id)
    rules.may_move(kept.fact, to)
    change = msgspec.structs.replace(
        kept.fact, state=to, since=ground.now(), closing_note=note or kept.fact.closing_note
    )
    unit.replace(kept, change)
    unit.append(event_of(ground, actor, change, f"change.{to}"))
    return change


def event_of(ground: Ground, actor: str, change: Change, type: str) -> Event:
    return ground.event(
        type,
        actor,
        f"change/{change.id}",
        {
            "state": str(change.state),
            "release": change.release,
            "evidence": change.evidence,
            "report": change.report,
            "environment": change.environment,
            "risk": str(change.risk),
        },
    )
