"""What a change may become, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from falaj.base.errors import Conflict, GateFailed, GateInconclusive, NotAllowed, Waits
from falaj.base.time import text
from falaj.changes.risk import risk_of, score_of
from falaj.facts.access import Principal, Role
from falaj.facts.changes import (
    Approval,
    Change,
    ChangeKind,
    ChangeState,
    Decision,
    Risk,
    RiskFactor,
)
from falaj.facts.checks import GateReport, Verdict
from falaj.facts.governance import ChangesTable

__all__ = [
    "ENDED",
    "MOVES",
    "WAITING",
    "Assessment",
    "assess",
    "deferrable",
    "hold_gates",
    "independent",
    "live_approvals",
    "may_judge",
    "may_move",
    "missing",
    "must_be_approved",
    "owes_review",
    "state_after",
    "undecided",
]

S: Final = ChangeState
WAITING: Final = frozenset({S.PROPOSED, S.ASSESSING, S.AWAITING_APPROVAL, S.APPROVED})
ENDED: Final = frozenset({S.IMPLEMENTED, S.ROLLED_BACK, S.FAILED})

# The whole table: every pair that does not stand here is refused (COMPLIANCE, 6).
MOVES: Final[dict[ChangeState, frozenset[ChangeState]]] = {
    S.PROPOSED: frozenset({S.ASSESSING, S.WITHDRAWN, S.EXPIRED}),
    S.ASSESSING: frozenset({S.AWAITING_APPROVAL, S.REJECTED, S.WITHDRAWN}),
    S.AWAITING_APPROVAL: frozenset({S.APPROVED, S.ASSESSING, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
    S.APPROVED: frozenset(
        {
            S.IMPLEMENTING,
            S.AWAITING_APPROVAL,
            S.ASSESSING,
            S.REJECTED,
            S.WITHDRAWN,
            S.EXPIRED,
        }
    ),
    S.IMPLEMENTING: frozenset({S.IMPLEMENTED, S.ROLLED_BACK, S.FAILED}),
    S.IMPLEMENTED: frozenset({S.CLOSED, S.ROLLED_BACK, S.FAILED}),
    S.ROLLED_BACK: frozenset({S.CLOSED}),
    S.FAILED: frozenset({S.CLOSED}),
    S.REJECTED: frozenset(),
    S.WITHDRAWN: frozenset(),
    S.EXPIRED: frozenset(),
    S.CLOSED: frozenset(),
}


class Assessment(NamedTuple):
    """Computed risk with its reasons, and who must approve: how many, of which groups."""

    risk: Risk
    reasons: tuple[str, ...]
    score: int
    approvals: int
    groups: dict[str, int]
    validator: bool


def may_move(change: Change, to: ChangeState) -> None:
    """Raise Conflict unless the table allows the move."""
    if to not in MOVES[change.state]:
        raise Conflict(
            "changes.wrong-state",
            f"{change.id} is {change.state} and cannot become {to}",
            why="allowed from here: " + (", ".join(sorted(MOVES[change.state])) or "nothing"),
        )


def hold_gates(
    report: GateReport | None, required: Sequence[str], *, release: str, now: datetime
) -> None:
    """Raise unless every required gate of the release has passed or is waived.

    A required check that is inconclusive does not pass; only a waiver that has not expired lets it
    through. Nothing lets a failed check through.
    """
    if report is None:
        raise GateInconclusive(
            "changes.no-evidence",
            f"release {release} has no gate report",
            fix="run `falaj gate`",
        )
    waived = {waiver.check for waiver in report.waivers if waiver.expires > now}
    open_results = [
        result
        for result in report.results
        if result.gate in required
        and result.verdict is not Verdict.PASS
        and not (result.verdict is Verdict.INCONCLUSIVE and result.check in waived)
    ]
    silent = [gate for gate in required if all(result.gate != gate for result in report.results)]
    if silent:
        raise GateInconclusive(
            "releases.evidence-missing",
            f"release {release} has no verdict for gate {silent[0]!r}",
            why=f"gate {silent[0]!r} is required by the environment",
            fix="run `falaj gate`",
        )
    failed = [r for r in open_results if r.verdict in (Verdict.FAIL, Verdict.ERROR)]
    if failed:
        raise GateFailed(
            "changes.gate-failed",
            f"{failed[0].check}: {failed[0].verdict}: {failed[0].reason}",
            why=f"{len(failed)} required check(s) did not pass",
            fix="see `falaj gate --explain`",
        )
    if open_results:
        raise GateInconclusive(
            "changes.gate-inconclusive",
            f"{open_results[0].check}: {open_results[0].verdict}: {open_results[0].reason}",
            why="a required check that is inconclusive does not pass",
            fix="bring more data, or ask the risk role for a waiver",
        )


def deferrable(
    report: GateReport | None, required: Sequence[str], *, release: str, now: datetime
) -> tuple[str, ...]:
    """Gates that an emergency may make up for later: undecided or silent ones.

    Raises GateFailed for a gate that failed: it is known to be bad, and no hurry changes that.
    """
    owed: list[str] = []
    for gate in required:
        try:
            hold_gates(report, (gate,), release=release, now=now)
        except GateInconclusive:
            owed.append(gate)
    return tuple(owed)


def undecided(
    report: GateReport, gates: Sequence[str], *, release: str, now: datetime
) -> tuple[str, ...]:
    """Of these gates those that do not hold by this report."""
    left = []
    for gate in gates:
        try:
            hold_gates(report, (gate,), release=release, now=now)
        except (GateInconclusive, GateFailed):
            left.append(gate)
    return tuple(left)


def assess(
    found: Sequence[RiskFactor],
    *,
    floor: int,
    groups: Mapping[str, int],
    table: ChangesTable,
    kind: ChangeKind = ChangeKind.NORMAL,
) -> Assessment:
    """Risk is the highest of its factors; approvals follow it; `floor` is never a ceiling.

    An emergency asks for fewer persons and for no group; what it saves is looked at afterwards.
    """
    risk = risk_of(found)
    reasons = tuple(one.reason for one in found if one.risk is risk) or ("nothing differs",)
    score = score_of(found)
    if kind is ChangeKind.STANDARD:
        return Assessment(risk, reasons, score, 0, {}, validator=False)
    if kind is ChangeKind.EMERGENCY:
        return Assessment(risk, reasons, score, table.emergency.approvals, {}, validator=False)
    approvals = table.approvals
    return Assessment(
        risk,
        reasons,
        score,
        max(floor, approvals.of(risk)),
        dict(groups),
        approvals.needs_validator(risk),
    )


def independent(
    principal: Principal, groups: frozenset[str], author_groups: frozenset[str]
) -> bool:
    """Whether a signature counts as a validator's: has the role, and shares no group with an author.

    groups: of the person, over all accounts (rule R15).
    """
    return Role.VALIDATOR in principal.roles and not groups & author_groups


def may_judge(
    change: Change,
    approvals: Sequence[Approval],
    principal: Principal,
    decision: Decision,
    *,
    now: datetime,
) -> None:
    """Raise when this person has approved already, under this account or another one."""
    if decision is not Decision.APPROVE:
        return
    for approval in live_approvals(change, approvals, now=now):
        if approval.person == principal.person:
            under = approval.principal
            raise NotAllowed(
                "changes.same-person",
                f"{principal.name} approved {change.id} already"
                + ("" if under == principal.name else f", under the name {under}"),
                why="one person counts once, whatever accounts and groups it has "
                "(rule one-person-one-approval)",
                fix="ask somebody else; to take it back: "
                f"`falaj --as {under} change retract {change.id} -m ...`",
            )


def live_approvals(
    change: Change, approvals: Sequence[Approval], *, now: datetime
) -> tuple[Approval, ...]:
    """The approvals that count.

    Not void, not expired, over this release and this evidence, by distinct persons none of whom is
    an author.
    """
    counted: dict[str, Approval] = {}
    for approval in approvals:
        if (
            approval.decision is Decision.APPROVE
            and not approval.void
            and approval.expires > now
            and approval.release == change.release
            and approval.evidence == change.evidence
            and approval.report == change.report
            and approval.person not in change.authors
        ):
            counted.setdefault(approval.person, approval)
    return tuple(counted.values())


def missing(change: Change, live: Sequence[Approval]) -> tuple[str, ...]:
    """What these approvals lack, in words; nothing when they are enough."""
    found = []
    short = change.approvals_needed - len(live)
    if short > 0:
        found.append(f"{short} approval(s)")
    for group, number in sorted(change.groups_needed.items()):
        lacking = number - sum(group in approval.groups for approval in live)
        if lacking > 0:
            found.append(f"{lacking} approval(s) of group {group}")
    if change.validator and not any(approval.validator for approval in live):
        found.append("the approval of a validator")
    return tuple(found)


def state_after(change: Change, approvals: Sequence[Approval], *, now: datetime) -> ChangeState:
    """Where a change that waits for approval stands with these approvals."""
    if any(a.decision is Decision.REJECT and not a.void for a in approvals):
        return ChangeState.REJECTED
    lacking = missing(change, live_approvals(change, approvals, now=now))
    return ChangeState.AWAITING_APPROVAL if lacking else ChangeState.APPROVED


def must_be_approved(change: Change, approvals: Sequence[Approval], *, now: datetime) -> None:
    """Raise unless the change may be implemented now: approved, and its approvals still live."""
    live = live_approvals(change, approvals, now=now)
    lacking = missing(change, live)
    others = gone(change, approvals, now=now)
    if change.state is ChangeState.AWAITING_APPROVAL:
        raise Waits(
            "changes.waits-for-approval",
            f"{change.id} waits for {', '.join(lacking) or 'a decision'}",
            why="; ".join(others)
            or "an author cannot approve; new evidence voids earlier approvals",
            fix=f"falaj --as NAME approve {change.id} -m ...",
        )
    if change.state is not ChangeState.APPROVED:
        raise NotAllowed(
            "changes.not-approved",
            f"{change.id} is {change.state}",
            why="only an approved change is implemented",
        )
    if lacking:
        raise Waits(
            "changes.approvals-void",
            f"{change.id} has {len(live)} of {change.approvals_needed} approvals that still count",
            why=("; ".join(others) or "others were given for other evidence")
            + " (rule live-approvals)",
            fix=f"falaj --as NAME approve {change.id} -m ...",
        )


def gone(change: Change, approvals: Sequence[Approval], *, now: datetime) -> tuple[str, ...]:
    """Why approvals that were given do not count any more."""
    found = []
    for approval in approvals:
        if approval.decision is not Decision.APPROVE:
            continue
        if approval.void:
            found.append(f"that of {approval.principal} is void: {approval.void}")
        elif approval.expires <= now:
            found.append(f"that of {approval.principal} expired {text(approval.expires)[:19]}Z")
        elif approval.report != change.report or approval.evidence != change.evidence:
            found.append(f"that of {approval.principal} is for other evidence")
    return tuple(found)


def owes_review(change: Change, ended: ChangeState) -> bool:
    """After an emergency, a failure, a rollback and a high risk people look back (PIR)."""
    return (
        ended in (ChangeState.ROLLED_BACK, ChangeState.FAILED)
        or change.kind is ChangeKind.EMERGENCY
        or change.risk is Risk.HIGH
    )
