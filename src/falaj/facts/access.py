"""Who may do what: principals, actions, permits."""

from __future__ import annotations

import enum

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["Action", "Permit", "Principal", "Resource", "ResourceKind", "Role"]


class Role(enum.StrEnum):
    OWNER = "owner"  # may do everything but approve an own change
    AUTHOR = "author"  # runs pipelines, makes releases, opens changes
    APPROVER = "approver"  # approves and rejects changes
    OPERATOR = "operator"  # starts and stops rollouts, rolls back
    RISK = "risk"  # signs waivers
    VALIDATOR = "validator"  # approves as the independent one that a high risk asks for
    VIEWER = "viewer"  # reads
    WORKER = "worker"  # reconciles
    LOG = "log"  # another workspace's log: shows its checkpoints here, and sees nothing


class Action(enum.StrEnum):
    """Every verb that a route may need. A name is never reused."""

    READ = "read"
    RUN_PIPELINE = "run-pipeline"
    CHECK_GATE = "check-gate"
    WAIVE = "waive"
    CREATE_RELEASE = "create-release"
    OPEN_CHANGE = "open-change"
    TAKE_UP = "take-up"
    APPROVE = "approve"
    REJECT = "reject"
    START_ROLLOUT = "start-rollout"
    STEER_ROLLOUT = "steer-rollout"
    ROLL_BACK = "roll-back"
    RECONCILE = "reconcile"
    MONITOR = "monitor"
    RETRAIN = "retrain"
    EXPORT_EVIDENCE = "export-evidence"
    MANAGE_ACCESS = "manage-access"
    SWEEP = "sweep"
    IMPORT_MODEL = "import-model"
    IMPORT_ADVISORIES = "import-advisories"
    PUSH_RELEASE = "push-release"
    SIGN_RELEASE = "sign-release"
    WITNESS_LOG = "witness-log"
    WITHDRAW = "withdraw"
    RETRACT = "retract"
    REVIEW = "review"
    PREAPPROVE = "preapprove"
    SCORE = "score"


class Principal(Fact, frozen=True, kw_only=True):
    """An account. Four eyes compare `person`, because one person may own several accounts.

    groups: teams that the account belongs to; environments may ask for approvals of some of them.
    """

    name: str
    person: str
    roles: tuple[Role, ...]
    key: str = ""  # hint of the public key that this identity signs approvals with
    created: Instant
    groups: tuple[str, ...] = ()


class ResourceKind(enum.StrEnum):
    PROJECT = "Project"
    MODEL = "Model"
    RELEASE = "Release"
    CHANGE = "Change"
    ENVIRONMENT = "Environment"


class Resource(Fact, frozen=True, kw_only=True):
    """What an action touches. authors: persons who may not judge it (four eyes)."""

    kind: ResourceKind
    id: str
    authors: tuple[str, ...] = ()


class Permit(Fact, frozen=True, kw_only=True):
    """The answer of the policy engine that a room receives: who, what, on what, by which rules."""

    principal: str
    person: str
    action: Action
    resource: str
    policy: str  # digest of the policy bundle that decided
    at: Instant
