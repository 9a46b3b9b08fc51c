"""What a verifier wants of the facts in a pack: the fields that it judges, read with base alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from falaj.base.predicates import APPROVAL
from falaj.base.predicates import DECISION as PROMOTION

__all__ = ["APPROVAL", "PROMOTION", "Approved", "Changed", "Decided", "Moved", "Started"]


class Changed(NamedTuple):
    id: str
    kind: str
    state: str
    release: str
    evidence: str
    authors: tuple[str, ...]
    approvals_needed: int
    opened: datetime
    groups_needed: dict[str, int] = {}
    validator: bool = False
    template_digest: str = ""
    preapproval: tuple[str, ...] = ()


class Approved(NamedTuple):
    id: str
    change: str
    release: str
    evidence: str
    person: str
    principal: str
    decision: str
    at: datetime
    expires: datetime
    envelope: str
    void: str = ""
    report: str = ""
    groups: tuple[str, ...] = ()
    validator: bool = False


class Decided(NamedTuple):
    id: str
    rollout: str
    step: int
    outcome: str
    action: str
    numbers: dict[str, Any]


class Moved(NamedTuple):
    """The fields that the event of a live move repeats, and where it was."""

    environment: str
    model: str
    stable: str
    weight_bp: int
    seq: int
    cause: str
    canary: str = ""


class Started(NamedTuple):
    id: str
    change: str
    environment: str
    model: str
    version: str
    release: str
    started: datetime
    promotion: str = ""
