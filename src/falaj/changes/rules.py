"""What a change may become, and when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from falaj.base.errors import Conflict, GateFailed, GateInconclusive, NotAllowed, Waits
from falaj.facts.changes import Approval, Change, ChangeState, Decision, Risk
from falaj.facts.checks import GateReport, Verdict
from falaj.facts.releases import Release

__all__ = [
    "MOVES",
    "Assessment",
    "assess",
    "hold_gates",
    "live_approvals",
    "may_move",
    "must_be_approved",
    "state_after",
]

S: Final = ChangeState
APPROVAL_LIFE: Final = timedelta(days=30)

# The whole table: every pair that does not stand here is refused (COMPLIANCE, 6).
MOVES: Final[dict[ChangeState, frozenset[ChangeState]]] = {
    S.PROPOSED: frozenset({S.ASSESSING, S.WITHDRAWN, S.EXPIRED}),
    S.ASSESSING: frozenset({S.AWAITING_APPROVAL, S.REJECTED, S.WITHDRAWN}),
    S.AWAITING_APPROVAL: frozenset({S.APPROVED, S.ASSESSING, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
    S.APPROVED: frozenset({S.IMPLEMENTING, S.ASSESSING, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
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
    """Computed risk with its reasons, and how many distinct persons must approve."""

    risk: Risk
    reasons: tuple[str, ...]
    approvals: int


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


def assess(
    release: Release, previous: Release | None, report: GateReport, *, floor: int
) -> Assessment:
    """Risk is the highest of its reasons; approvals follow it; `floor` is never a ceiling."""
    reasons: list[tuple[Risk, str]] = [(Risk.LOW, "passes all required gates")]
    if previous is None:
        reasons.append((Risk.MEDIUM, "first release of this model here: nothing to go back to"))
    elif previous.tree == release.tree:
        reasons.append((Risk.LOW, "same model file as the live release"))
    else:
        reasons.append((Risk.MEDIUM, "new model file, canary with automatic rollback"))
    if report.waivers:
        reasons.append((Risk.HIGH, f"{len(report.waivers)} check(s) waived"))
    order = list(Risk)
    risk = max((level for level, _ in reasons), key=order.index)
    needed = {Risk.LOW: 1, Risk.MEDIUM: 1, Risk.HIGH: 2}[risk]
    return Assessment(
        risk, tuple(text for level, text in reasons if level is risk), max(floor, needed)
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


def state_after(change: Change, approvals: Sequence[Approval], *, now: datetime) -> ChangeState:
    """Where a change that waits for approval stands with these approvals."""
    if any(a.decision is Decision.REJECT and not a.void for a in approvals):
        return ChangeState.REJECTED
    enough = len(live_approvals(change, approvals, now=now)) >= change.approvals_needed
    return ChangeState.APPROVED if enough else ChangeState.AWAITING_APPROVAL


def must_be_approved(change: Change, approvals: Sequence[Approval], *, now: datetime) -> None:
    """Raise unless the change may be implemented now: approved, and its approvals still live."""
    live = live_approvals(change, approvals, now=now)
    if change.state is ChangeState.AWAITING_APPROVAL:
        raise Waits(
            "changes.waits-for-approval",
            f"{change.id} waits for {change.approvals_needed - len(live)} approval(s)",
            why="an author cannot approve; new evidence voids earlier approvals",
            fix=f"falaj --as NAME approve {change.id} -m ...",
        )
    if change.state is not ChangeState.APPROVED:
        raise NotAllowed(
            "changes.not-approved",
            f"{change.id} is {change.state}",
            why="only an approved change is implemented",
        )
    if len(live) < change.approvals_needed:
        raise Waits(
            "changes.approvals-void",
            f"{change.id} has {len(live)} of {change.approvals_needed} approvals that still count",
            why="others are expired, or were given for other evidence",
            fix=f"falaj --as NAME approve {change.id} -m ...",
        )
