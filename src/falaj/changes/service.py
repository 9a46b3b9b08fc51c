"""Opens changes, takes signed decisions, moves states. Each move is one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from falaj.base import dsse, ids, time
from falaj.base.errors import Conflict, FalajError, NotAllowed
from falaj.changes import rules
from falaj.facts.access import Permit, Principal
from falaj.facts.attestations import APPROVAL, statement
from falaj.facts.changes import (
    Approval,
    Carried,
    Change,
    ChangeKind,
    ChangeState,
    Decision,
    Rehearsal,
    Risk,
    RiskFactor,
)
from falaj.facts.checks import GateReport
from falaj.facts.events import Event
from falaj.facts.releases import Release
from falaj.facts.rollouts import LiveMove, Mode, Strategy
from falaj.facts.wire import digest
from falaj.ports.ground import Ground
from falaj.ports.store import Unit

__all__ = [
    "Asked",
    "Shown",
    "begin",
    "judge",
    "move",
    "new_evidence",
    "open_change",
    "open_emergency_rollback",
    "retract",
    "withdraw",
]


class Asked(NamedTuple):
    """What a change is asked for, as its journey has found it.

    factors: what makes it risky. template, template_digest, preapproval: of a standard change.
    deferred: gates that an emergency owes.
    """

    release: Release
    report: GateReport
    environment: str
    reason: str
    previous: Release | None
    factors: tuple[RiskFactor, ...]
    kind: ChangeKind = ChangeKind.NORMAL
    proposed: bool = False
    differences: str = ""
    carried: tuple[Carried, ...] = ()
    template: str = ""
    template_digest: str = ""
    preapproval: tuple[str, ...] = ()
    incident: str = ""
    deferred: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None


class Shown(NamedTuple):
    """Digests that a person saw when deciding; nothing where they were not looked at."""

    release: str = ""
    evidence: str = ""
    report: str = ""


def open_change(ground: Ground, permit: Permit, asked: Asked) -> Change:
    """Ask to bring a release to an environment. Whether it may be asked was decided before."""
    release, previous = asked.release, asked.previous
    table = ground.project.environments[asked.environment]
    said = ground.project.changes
    found = rules.assess(
        asked.factors, floor=table.approvals, groups=table.groups, table=said, kind=asked.kind
    )
    now = ground.now()
    back_to = f"{previous.version}, kept warm on the target" if previous else "none: stop serving"
    state = ChangeState.PROPOSED if asked.proposed else ChangeState.AWAITING_APPROVAL
    if asked.kind is ChangeKind.STANDARD:
        state = ChangeState.APPROVED
    late = timedelta(seconds=said.emergency.gates_within_s)
    with ground.store.begin() as unit:
        change = Change(
            id=f"CHG-{unit.number('change'):04d}",
            kind=asked.kind,
            state=state,
            title=f"{release.model} {previous.version if previous else 'none'} to {release.version}",
            reason=asked.reason,
            model=release.model,
            release=release.id,
            version=release.version,
            environment=asked.environment,
            evidence=release.evidence,
            report=digest(asked.report),
            replaces=previous.id if previous else "",
            author=permit.person,
            authors=tuple(sorted({permit.person, *release.authors})),
            risk=found.risk,
            risk_reasons=found.reasons,
            risk_score=found.score,
            factors=asked.factors,
            approvals_needed=found.approvals,
            groups_needed=found.groups,
            validator=found.validator,
            plan=describe(ground, asked.environment, first=previous is None),
            back_out=back_to,
            opened=now,
            since=now,
            template=asked.template,
            template_digest=asked.template_digest,
            preapproval=asked.preapproval,
            incident=asked.incident,
            deferred=asked.deferred,
            gates_due=now + late if asked.deferred else None,
            not_before=asked.not_before,
            not_after=asked.not_after,
            expires=now + timedelta(seconds=said.approvals.decide_within_s),
            carried=asked.carried,
            differences=asked.differences,
        )
        unit.add(change)
        unit.append(event_of(ground, permit.person, change, "change.opened"))
    return change


def open_emergency_rollback(
    ground: Ground,
    unit: Unit,
    actor: str,
    to: Release,
    environment: str,
    *,
    reason: str,
    leaving: LiveMove,
    incident: str = "",
) -> Change:
    """The pre-approved change of a rollback: it opens and fills its own record.

    actor: a person's pseudonym, or `worker:<id>` when monitors go back by themselves. incident: the
    alert or ticket behind it. It is implementing at once; the caller moves it on with `move`, and its
    review is owed from the moment it ends.
    """
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
        author=actor,
        authors=(actor,),
        risk=Risk.LOW,
        risk_reasons=("back to a release that was live and still verifies",),
        approvals_needed=0,
        plan="direct",
        back_out=leaving.stable_version,
        opened=now,
        since=now,
        incident=incident,
        implementer=actor,
    )
    unit.add(change)
    unit.append(event_of(ground, actor, change, "change.opened"))
    return change


def describe(ground: Ground, environment: str, *, first: bool) -> str:
    table = ground.project.environments[environment].rollout
    if first:
        return "direct: the first release of a model has nothing to be compared with"
    if table.strategy is Strategy.DIRECT:
        return "direct: all callers at once, nothing is compared"
    gradual = table.strategy in (Strategy.CANARY, Strategy.ROLLING)
    steps = ", ".join(f"{pct} %" for pct in table.steps_pct) if gradual else "all at once"
    if table.mode is not Mode.ACT:
        return f"{table.strategy} {steps}; people decide (mode {table.mode})"
    return f"{table.strategy} {steps}; goes back by itself on proven harm (alpha {table.alpha})"


def judge(
    ground: Ground,
    permit: Permit,
    principal: Principal,
    change_id: str,
    decision: Decision,
    comment: str,
    shown: Shown,
) -> Change:
    """Sign a decision over the release's id and the evidence's digest, and count it.

    Raises Conflict when what the person saw is no longer what stands here.
    """
    now = ground.now()
    signer = ground.keys.signer(principal.name)
    with ground.store.begin() as unit:
        kept = unit.get(Change, change_id)
        change = kept.fact
        if change.state not in (ChangeState.AWAITING_APPROVAL, ChangeState.APPROVED):
            rules.may_move(change, ChangeState.APPROVED)
        refuse_stale(change, shown)
        before = unit.find(Approval, change=change.id)
        rules.may_judge(change, before, principal, decision, now=now)
        groups = groups_of(unit, principal.person)
        theirs = frozenset[str]().union(*(groups_of(unit, author) for author in change.authors))
        approval = signed(
            ground,
            change,
            principal,
            decision,
            comment,
            signer,
            groups=groups,
            validator=rules.independent(principal, groups, theirs),
        )
        unit.add(approval)
        happened = "approved" if decision is Decision.APPROVE else "rejected"
        unit.append(
            ground.event(
                f"change.{happened}",
                permit.person,
                f"change/{change.id}",
                told_of(approval, permit),
                remark=comment,
            )
        )
        return counted(unit, ground, change, now=now)


def refuse_stale(change: Change, shown: Shown) -> None:
    stands = Shown(change.release, change.evidence, change.report)
    if any(seen and seen != now for seen, now in zip(shown, stands, strict=True)):
        raise Conflict(
            "changes.evidence-changed",
            f"{change.id} changed after you looked at it",
            why=f"its gate report is now {change.report} (rule same-evidence)",
            fix=f"read it again: `falaj change show {change.id}`",
        )


def groups_of(unit: Unit, person: str) -> frozenset[str]:
    """Groups of all accounts of a person: whoever has two names is in the groups of both."""
    return frozenset(g for known in unit.find(Principal, person=person) for g in known.groups)


def counted(unit: Unit, ground: Ground, change: Change, *, now: datetime) -> Change:
    """The change in the state that its decisions bring it to."""
    state = rules.state_after(change, unit.find(Approval, change=change.id), now=now)
    if state is change.state:
        return change
    rules.may_move(change, state)
    after = msgspec.structs.replace(change, state=state, since=now)
    unit.replace(unit.get(Change, change.id), after)
    if state is ChangeState.AWAITING_APPROVAL:
        unit.append(event_of(ground, change.author, after, "change.awaiting-approval"))
    return after


def signed(
    ground: Ground,
    change: Change,
    principal: Principal,
    decision: Decision,
    comment: str,
    signer: dsse.Signs,
    *,
    groups: frozenset[str] = frozenset(),
    validator: bool = False,
) -> Approval:
    now = ground.now()
    expires = now + timedelta(seconds=ground.project.changes.approvals.life_s)
    claim = {
        "change": change.id,
        "environment": change.environment,
        "decision": str(decision),
        "evidence": change.evidence,
        "report": change.report,
        "person": principal.person,
        "at": time.text(now),
        "expires": time.text(expires),
        "kind": str(change.kind),
        "risk": str(change.risk),
        "groups": sorted(groups),
        "validator": validator,
        "replaces": change.replaces,
        "carried": digest(list(change.carried)),
    }
    said = statement(APPROVAL, f"{change.model} {change.version}", change.release, claim)
    return Approval(
        id=ids.new(),
        change=change.id,
        release=change.release,
        evidence=change.evidence,
        report=change.report,
        person=principal.person,
        principal=principal.name,
        decision=decision,
        comment=comment,
        at=now,
        expires=expires,
        envelope=json.dumps(dsse.seal(said, signer), sort_keys=True),
        groups=tuple(sorted(groups)),
        validator=validator,
    )


def told_of(approval: Approval, permit: Permit) -> dict[str, str]:
    """What the log keeps of a decision."""
    return {
        "approval": approval.id,
        "release": approval.release,
        "evidence": approval.evidence,
        "report": approval.report,
        "decision": str(approval.decision),
        "policy": permit.policy,
    }


def retract(
    ground: Ground, permit: Permit, principal: Principal, change_id: str, comment: str
) -> Change:
    """Take back one's own approval, signed like it. A rollout that runs is ended by `abort`, not by this."""
    now = ground.now()
    signer = ground.keys.signer(principal.name)
    with ground.store.begin() as unit:
        change = unit.get(Change, change_id).fact
        if change.state not in (ChangeState.AWAITING_APPROVAL, ChangeState.APPROVED):
            rules.may_move(change, ChangeState.AWAITING_APPROVAL)
        given = unit.find(Approval, change=change.id)
        live = rules.live_approvals(change, given, now=now)
        own = [one for one in live if one.person == principal.person]
        if not own:
            raise NotAllowed(
                "changes.nothing-to-retract",
                f"{principal.name} has no approval of {change.id} that counts",
                why="one takes back what one has given oneself (rule own-approval)",
                fix=f"falaj change show {change.id}",
            )
        back = signed(ground, change, principal, Decision.RETRACT, comment, signer)
        unit.add(back)
        for approval in own:
            void(unit, approval, f"taken back by {principal.name}")
        unit.append(
            ground.event(
                "change.approval-retracted",
                permit.person,
                f"change/{change.id}",
                told_of(back, permit),
                remark=comment,
            )
        )
        return counted(unit, ground, change, now=now)


def withdraw(ground: Ground, permit: Permit, change_id: str, reason: str) -> Change:
    """End a change that has not begun."""
    with ground.store.begin() as unit:
        return move(ground, unit, permit.person, change_id, ChangeState.WITHDRAWN, reason)


def new_evidence(
    ground: Ground, actor: str, release_id: str, report: str, fresh: GateReport | None = None
) -> tuple[str, ...]:
    """Void the approvals of open changes of this release: its newest gate report is another now.

    A standard change becomes a normal one: nobody signed a template for this evidence. An emergency
    whose deferred gates have passed now owes them no more. Returns the ids of the changes that went
    back to waiting.
    """
    from falaj.changes import closing  # not needed to ask what is live

    touched: list[str] = []
    with ground.store.begin() as unit:
        for change in unit.find(Change, release=release_id):
            closing.made_up_for(ground, unit, actor, change, fresh)
            open_now = change.state in (ChangeState.AWAITING_APPROVAL, ChangeState.APPROVED)
            if not open_now or change.report == report:
                continue
            void_all(unit, change, "new evidence")
            renewed = msgspec.structs.replace(
                as_normal(ground, change),
                state=ChangeState.AWAITING_APPROVAL,
                report=report,
                since=ground.now(),
            )
            unit.replace(unit.get(Change, change.id), renewed)
            unit.append(event_of(ground, actor, renewed, "change.approvals-voided"))
            touched.append(change.id)
    return tuple(touched)


def as_normal(ground: Ground, change: Change) -> Change:
    if change.kind is not ChangeKind.STANDARD:
        return change
    table = ground.project.environments[change.environment]
    found = rules.assess(
        change.factors,
        floor=table.approvals,
        groups=table.groups,
        table=ground.project.changes,
    )
    return msgspec.structs.replace(
        change,
        kind=ChangeKind.NORMAL,
        approvals_needed=found.approvals,
        groups_needed=found.groups,
        validator=found.validator,
    )


def void_all(unit: Unit, change: Change, why: str) -> None:
    for approval in unit.find(Approval, change=change.id):
        if not approval.void:
            void(unit, approval, why)


def void(unit: Unit, approval: Approval, why: str) -> None:
    unit.replace(unit.get(Approval, approval.id), msgspec.structs.replace(approval, void=why))


def begin(
    ground: Ground, unit: Unit, permit: Permit, change_id: str, rehearsal: Rehearsal
) -> Change:
    """Move an approved change to implementing; who started it and how the way back was tried stay with it."""
    kept = unit.get(Change, change_id)
    rules.may_move(kept.fact, ChangeState.IMPLEMENTING)
    unit.replace(
        kept,
        msgspec.structs.replace(kept.fact, implementer=permit.person, rehearsal=rehearsal),
    )
    return move(ground, unit, permit.person, change_id, ChangeState.IMPLEMENTING)


def move(
    ground: Ground, unit: Unit, actor: str, change_id: str, to: ChangeState, note: str = ""
) -> Change:
    """Move a change inside the caller's transaction. Raises Conflict when the table forbids it.

    At its end a review is opened where one is owed, filled from the rollout as it stands.
    """
    kept = unit.get(Change, change_id)
    rules.may_move(kept.fact, to)
    change = msgspec.structs.replace(
        kept.fact, state=to, since=ground.now(), closing_note=note or kept.fact.closing_note
    )
    if to in rules.ENDED and rules.owes_review(change, to):
        from falaj.changes import closing

        change = closing.owe(ground, unit, actor, change)
    unit.replace(kept, change)
    unit.append(event_of(ground, actor, change, f"change.{to}"))
    return change


def expire(ground: Ground, change: Change) -> bool:
    """End a change that nobody has decided about in time. False when it moved on meanwhile."""
    try:
        with ground.store.begin() as unit:
            move(ground, unit, change.author, change.id, ChangeState.EXPIRED, "nobody decided")
    except FalajError:
        return False
    return True


def event_of(ground: Ground, actor: str, change: Change, type: str) -> Event:
    return ground.event(
        type,
        actor,
        f"change/{change.id}",
        {
            "state": str(change.state),
            "kind": str(change.kind),
            "release": change.release,
            "evidence": change.evidence,
            "report": change.report,
            "environment": change.environment,
            "risk": str(change.risk),
        }
        | ({"template": change.template_digest} if change.template else {})
        | ({"deferred": list(change.deferred)} if change.deferred else {}),
    )


def expired(changes: Sequence[Change], *, now: datetime) -> list[Change]:
    """Changes that wait longer than a decision may take."""
    return [
        change
        for change in changes
        if change.state in rules.WAITING and change.expires is not None and change.expires <= now
    ]
