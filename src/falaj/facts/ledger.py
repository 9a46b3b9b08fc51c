"""What was live, and what happened to a model: read from facts that are only ever added."""

from __future__ import annotations

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["Answered", "ChangeCounts", "ChangeMetrics", "Happening", "Share", "Stretch", "Timeline"]


class Answered(Fact, frozen=True, kw_only=True):
    """Which release answered one request, and how that is known.

    by: `request` when the name of the request itself says it, `log` when a row of the inference log
    does as well. rows: of the log. moves: id of the ledger's entry at that time.
    """

    request: str
    environment: str
    model: str = ""
    release: str
    version: str
    boot: str
    process_since: Instant
    by: str
    at: Instant | None = None
    arm: str = ""
    outcome: str = ""
    rollout: str = ""
    change: str = ""
    rows: int = 0


class Stretch(Fact, frozen=True, kw_only=True):
    """One release answers a share of an environment's requests. until: nothing while it does."""

    environment: str
    release: str
    version: str
    share: float
    since: Instant
    until: Instant | None = None
    cause: str = ""


class Happening(Fact, frozen=True, kw_only=True):
    """kind: release | change | approval | rollout | live | rollback | alert | review."""

    at: Instant
    kind: str
    environment: str = ""
    subject: str
    words: str


class Timeline(Fact, frozen=True, kw_only=True):
    """Of one model, oldest first. at: when it was read."""

    model: str
    at: Instant
    stretches: tuple[Stretch, ...] = ()
    happenings: tuple[Happening, ...] = ()


class Share(Fact, frozen=True, kw_only=True):
    """x of n; bounds of 95 % (Wilson). value: nothing where n is too small to say."""

    x: int
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


class ChangeCounts(Fact, frozen=True, kw_only=True):
    """Of one model in one month, or over all. Times in seconds; nothing where there is no case."""

    model: str
    month: str = ""  # 2026-11; nothing: the whole time
    started: int = 0
    failure_rate: Share
    standard: Share
    emergency: Share
    lead_time_s: float | None = None  # median: release made -> it answers alone
    lead_time_p90_s: float | None = None
    restore_s: float | None = None  # median: harm seen -> the release before answers alone
    approval_wait_s: float | None = None  # median: asked -> approved
    reviews_open: int = 0
    reviews_overdue: int = 0
    gates_overdue: int = 0  # must be 0


class ChangeMetrics(Fact, frozen=True, kw_only=True):
    """unauthorised: live moves that no change allowed; must be 0."""

    environment: str = ""
    since: Instant | None = None
    until: Instant
    unauthorised: int = 0
    rows: tuple[ChangeCounts, ...] = ()
