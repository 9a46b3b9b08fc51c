"""Windows, violations, alerts; and the retraining that they propose."""

from __future__ import annotations

import enum
from typing import Any

from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["Alert", "AlertState", "FeatureDrift", "MonitorState", "Proposal", "Window"]


class FeatureDrift(Fact, frozen=True, kw_only=True):
    """One feature in one window. Violated = statistically real and practically large.

    psi_null: 99 % quantile without drift. psi_limit: practical limit, at least 0.10.
    p: adjusted over the features of the window; 1 where it was not asked (inconclusive).
    """

    feature: str
    psi: float
    psi_null: float
    psi_limit: float
    p: float
    ks: float
    violated: bool
    inconclusive: bool = False


class Window(Fact, frozen=True, kw_only=True):
    """One closed window of one monitor on the live release of a model."""

    id: str
    monitor: str
    environment: str
    model: str
    release: str
    opens: Instant
    closes: Instant
    rows: int
    labelled: int = 0
    wrong: int = 0
    features: tuple[FeatureDrift, ...] = ()
    at: Instant


class AlertState(enum.StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class Alert(Fact, frozen=True, kw_only=True):
    """A violation that somebody has to see. `evidence`: windows and numbers behind it."""

    id: str
    kind: str  # drift | labels | rollback | verification | vulnerabilities | change
    environment: str
    model: str
    release: str
    state: AlertState
    title: str
    reasons: tuple[str, ...]
    windows: tuple[str, ...] = ()
    at: Instant
    closed: Instant | None = None


class Proposal(Fact, frozen=True, kw_only=True):
    """A retraining that a trigger proposes: a run, its evidence, and the change that asks."""

    id: str
    alert: str
    model: str
    run: str
    release: str = ""
    change: str = ""
    verdict: str  # of the gates
    reason: str
    at: Instant


class MonitorState(Fact, frozen=True, kw_only=True):
    """How far a monitor has read, and the open windows that it is filling. One a monitor and model.

    offsets: spool file -> bytes taken. open: window start -> counts so far (summaries as JSON).
    Written in the same transaction as the windows that it closes, so no row counts twice.
    latest: newest event time seen. late: rows of windows that were closed before. skipped: rows
    that could not be counted. guard: state of the e-process on wrong answers.
    """

    id: str  # `<environment>/<model>/<monitor>`
    release: str
    offsets: dict[str, int] = {}
    open: dict[str, Any] = {}
    closed_until: Instant | None = None
    latest: Instant | None = None
    late: int = 0
    skipped: int = 0
    guard: dict[str, Any] = {}
