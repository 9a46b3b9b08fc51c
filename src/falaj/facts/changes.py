"""ITIL changes and their approvals."""

from __future__ import annotations

import enum

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["Approval", "Change", "ChangeKind", "ChangeState", "Decision", "Risk"]


class ChangeKind(enum.StrEnum):
    STANDARD = "standard"
    NORMAL = "normal"
    EMERGENCY = "emergency"


class ChangeState(enum.StrEnum):
    PROPOSED = "proposed"  # opened by a trigger; a person has to take it up
    ASSESSING = "assessing"
    AWAITING_APPROVAL = "awaiting-approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    IMPLEMENTING = "implementing"
    IMPLEMENTED = "implemented"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    CLOSED = "closed"


class Risk(enum.StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Decision(enum.StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class Change(Fact, frozen=True, kw_only=True):
    """One release on its way to one environment.

    evidence: digest over the evidence at the time of asking; approvals bind to it and to `release`.
    approvals_needed: distinct persons, none of them an author.
    """

    id: str  # CHG-0001
    kind: ChangeKind
    state: ChangeState
    title: str
    reason: str
    model: str
    release: str
    version: str
    environment: str
    evidence: str
    replaces: str = ""  # release that is live now: the back-out
    author: str
    authors: tuple[str, ...]
    risk: Risk
    risk_reasons: tuple[str, ...] = ()
    approvals_needed: int
    plan: str = ""
    back_out: str = ""
    opened: Instant
    since: Instant
    closing_note: str = ""
    report: str = ""  # digest of the newest gate report: approvals bind to it as well


class Approval(Fact, frozen=True, kw_only=True):
    """A person's signed decision. `envelope` is the DSSE over release id and evidence digest."""

    id: str
    change: str
    release: str
    evidence: str
    person: str
    principal: str
    decision: Decision
    comment: str
    at: Instant
    expires: Instant
    envelope: str  # JSON text
    void: str = ""  # why it no longer counts
    report: str = ""  # digest of the gate report that was read
