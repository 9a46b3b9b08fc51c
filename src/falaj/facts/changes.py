"""ITIL changes and their approvals."""

from __future__ import annotations

import enum
from typing import Any

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = [
    "Approval",
    "Carried",
    "Change",
    "ChangeKind",
    "ChangeState",
    "Decision",
    "Preapproval",
    "Rehearsal",
    "Review",
    "Risk",
    "RiskFactor",
]


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
    RETRACT = "retract"  # takes an own approval back


class RiskFactor(Fact, frozen=True, kw_only=True):
    """One thing that makes a change risky. what: code, data, features, ...; points add to the score."""

    what: str
    risk: Risk
    points: int
    reason: str


class Carried(Fact, frozen=True, kw_only=True):
    """What a release has shown in an environment before this one: evidence that it brings along.

    promotion: digest of what policy allowed there. requests: answers of the release that were judged.
    """

    environment: str
    change: str
    rollout: str
    since: Instant  # it has answered there alone
    promotion: str = ""
    requests: int = 0
    why: str = ""  # the rollout's own last words


class Rehearsal(Fact, frozen=True, kw_only=True):
    """The way back, tried before the way forward: the release before was verified and is warm.

    servers: that answered as this release just now. trouble: why it could not be shown; an emergency
    alone goes on with one.
    """

    release: str = ""  # nothing: a first release has no way back but to stop serving
    version: str = ""
    at: Instant
    files: int = 0  # of its folder, verified
    servers: int = 0
    trouble: str = ""


class Change(Fact, frozen=True, kw_only=True):
    """One release on its way to one environment.

    evidence: digest over the evidence at the time of asking; approvals bind to it and to `release`.
    approvals_needed: distinct persons, none of them an author. groups_needed: of these groups so many
    persons each, among them. validator: one of them is a validator from a group without an author.
    deferred: gates that an emergency owes until `gates_due`; `gates_done` when they were made up for.
    not_before, not_after: the change's own window, beside those of its environment.
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
    factors: tuple[RiskFactor, ...] = ()
    risk_score: int = 0  # points of all factors
    groups_needed: dict[str, int] = {}
    validator: bool = False
    template: str = ""  # of a standard change
    template_digest: str = ""
    preapproval: tuple[str, ...] = ()  # DSSE, JSON text: who signed that template
    incident: str = ""  # of an emergency
    deferred: tuple[str, ...] = ()
    gates_due: Instant | None = None
    gates_done: Instant | None = None
    review_due: Instant | None = None  # a review is owed until then
    implementer: str = ""  # who started it; reviews are written by others
    not_before: Instant | None = None
    not_after: Instant | None = None
    expires: Instant | None = None  # when nobody has decided by then
    carried: tuple[Carried, ...] = ()
    rehearsal: Rehearsal | None = None
    differences: str = ""  # from the release that is live, in one sentence


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
    groups: tuple[str, ...] = ()  # of that person when signing
    validator: bool = False  # signed as one


class Preapproval(Fact, frozen=True, kw_only=True):
    """A person's signature over a template: standard changes inside its bounds need no other.

    digest: of the template as it stood; another text is another template. owner: the person that
    answers for it, who cannot sign it.
    """

    id: str
    template: str
    digest: str
    owner: str
    person: str
    principal: str
    comment: str
    at: Instant
    expires: Instant
    envelope: str  # DSSE, JSON text
    void: str = ""  # why it no longer counts


class Review(Fact, frozen=True, kw_only=True):
    """A post-implementation review. id: of its change.

    numbers: counts of the rollout and its times, filled by itself. timeline: what happened when.
    conclusion: a person's words; a review without them is open. cause: of a failure, as people sort it.
    """

    id: str
    model: str
    environment: str
    outcome: str  # state that the change ended in
    opened: Instant
    due: Instant
    numbers: dict[str, Any] = {}
    timeline: tuple[str, ...] = ()
    conclusion: str = ""
    cause: str = ""
    person: str = ""
    principal: str = ""
    at: Instant | None = None
    envelope: str = ""  # DSSE, JSON text
