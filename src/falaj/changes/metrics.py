"""How changes go: failure rate, lead time, time to restore, shares of kinds. Pure.

Shares carry their 95 % bounds (Wilson) and are not said at all below five changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from falaj.changes.starting import owes_gates
from falaj.facts.changes import Approval, Change, ChangeKind, ChangeState, Decision
from falaj.facts.ledger import ChangeCounts, ChangeMetrics, Share
from falaj.facts.rollouts import LiveMove, Phase, Rollout, RolloutDecision

__all__ = ["Story", "measure"]

FEWEST: Final = 5
WITHIN: Final = timedelta(days=7)  # a release that goes back so soon was a change that failed
Bounds = Callable[[int, int], tuple[float, float]]


class Story(NamedTuple):
    """Everything that is counted, any order. begun: rollout -> when the run of its release began."""

    changes: Sequence[Change]
    approvals: Sequence[Approval]
    rollouts: Sequence[Rollout]
    decisions: Sequence[RolloutDecision]
    moves: Sequence[LiveMove]
    begun: Mapping[str, datetime]


class Started(NamedTuple):
    change: Change
    rollout: Rollout
    failed: bool
    lead_s: float | None
    restore_s: float | None


def measure(
    story: Story,
    bounds: Bounds,
    *,
    now: datetime,
    environment: str = "",
    model: str = "",
    since: datetime | None = None,
    by_month: bool = False,
) -> ChangeMetrics:
    """One row a model, and one a month of each when asked. bounds: of x of n."""
    chosen = [
        one
        for one in started(story)
        if environment in ("", one.change.environment)
        and model in ("", one.change.model)
        and (since is None or one.rollout.started >= since)
    ]
    waiting = [
        change
        for change in story.changes
        if environment in ("", change.environment) and model in ("", change.model)
    ]
    rows: list[ChangeCounts] = []
    for name in sorted({one.change.model for one in chosen} | {c.model for c in waiting}):
        own = [one for one in chosen if one.change.model == name]
        rows.append(row_of(name, "", own, waiting, story, bounds, now=now))
        if by_month:
            months = defaultdict(list)
            for one in own:
                months[one.rollout.started.strftime("%Y-%m")].append(one)
            rows += [
                row_of(name, month, months[month], waiting, story, bounds, now=now)
                for month in sorted(months)
            ]
    known = {one.id for one in story.rollouts}
    unknown = [
        move
        for move in story.moves
        if move.cause not in known
        and environment in ("", move.environment)
        and model in ("", move.model)
    ]
    return ChangeMetrics(
        environment=environment, since=since, until=now, unauthorised=len(unknown), rows=tuple(rows)
    )


def started(story: Story) -> list[Started]:
    """Every change that began, but rollbacks: those are how a change before them failed."""
    changes = {change.id: change for change in story.changes}
    decided: dict[str, list[RolloutDecision]] = defaultdict(list)
    for decision in story.decisions:
        decided[decision.rollout].append(decision)
    backs = [r for r in story.rollouts if goes_back(r, changes.get(r.change))]
    found = []
    for rollout in story.rollouts:
        change = changes.get(rollout.change)
        if change is None or goes_back(rollout, change):
            continue
        later = [
            back
            for back in backs
            if back.release == rollout.release
            and back.environment == rollout.environment
            and rollout.started <= back.started <= rollout.since + WITHIN
        ]
        failed = rollout.phase in (Phase.ROLLED_BACK, Phase.ABORTED) or bool(later)
        promoted = rollout.phase is Phase.PROMOTED
        begun = story.begun.get(rollout.id)
        lead = (rollout.since - begun).total_seconds() if promoted and begun else None
        restore = restored(rollout, decided[rollout.id], later, story.moves) if failed else None
        found.append(Started(change, rollout, failed, lead, restore))
    return found


def goes_back(rollout: Rollout, change: Change | None) -> bool:
    """A rollback is a rollout of the release that it leaves."""
    return (
        change is not None
        and change.kind is ChangeKind.EMERGENCY
        and change.release == rollout.previous
    )


def restored(
    rollout: Rollout,
    decisions: Iterable[RolloutDecision],
    later: Sequence[Rollout],
    moves: Iterable[LiveMove],
) -> float | None:
    """Seconds from seeing the harm to the release before answering alone."""
    harm = min((one.at for one in decisions if one.action in ("rollback", "abort")), default=None)
    causes = {rollout.id}
    if later:
        first = min(later, key=lambda one: one.started)
        harm, causes = first.started, {first.id}
    if harm is None:
        return None
    well = min(
        (
            move.at
            for move in moves
            if move.cause in causes and move.at >= harm and not move.weight_bp
        ),
        default=None,
    )
    return (well - harm).total_seconds() if well is not None else None


def row_of(
    model: str,
    month: str,
    own: Sequence[Started],
    waiting: Sequence[Change],
    story: Story,
    bounds: Bounds,
    *,
    now: datetime,
) -> ChangeCounts:
    n = len(own)
    live = {
        (move.environment, move.model): move.stable
        for move in sorted(story.moves, key=lambda one: (one.at, one.seq))
    }
    theirs = [change for change in waiting if change.model == model]
    reviews = [c for c in theirs if c.review_due and c.state is not ChangeState.CLOSED]
    leads = sorted(one.lead_s for one in own if one.lead_s is not None)
    kinds = [one.change.kind for one in own]
    return ChangeCounts(
        model=model,
        month=month,
        started=n,
        failure_rate=share(sum(one.failed for one in own), n, bounds),
        standard=share(kinds.count(ChangeKind.STANDARD), n, bounds),
        emergency=share(kinds.count(ChangeKind.EMERGENCY), n, bounds),
        lead_time_s=quantile(leads, 0.5),
        lead_time_p90_s=quantile(leads, 0.9),
        restore_s=quantile(sorted(o.restore_s for o in own if o.restore_s is not None), 0.5),
        approval_wait_s=quantile(sorted(waits([one.change for one in own], story.approvals)), 0.5),
        reviews_open=len(reviews),
        reviews_overdue=sum(c.review_due <= now for c in reviews if c.review_due),
        gates_overdue=sum(
            owes_gates(c, live.get((c.environment, c.model), ""))
            and c.gates_due is not None
            and c.gates_due <= now
            for c in theirs
        ),
    )


def share(x: int, n: int, bounds: Bounds) -> Share:
    if n < FEWEST:
        return Share(x=x, n=n)
    low, high = bounds(x, n)
    return Share(x=x, n=n, value=x / n, low=low, high=high)


def waits(changes: Iterable[Change], approvals: Iterable[Approval]) -> list[float]:
    """Seconds from asking to the last approval that was needed."""
    given: dict[str, list[datetime]] = defaultdict(list)
    for approval in approvals:
        if approval.decision is Decision.APPROVE and not approval.void:
            given[approval.change].append(approval.at)
    return [
        (max(given[change.id]) - change.opened).total_seconds()
        for change in changes
        if given[change.id]
    ]


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """The value below which a share of q lies, of values that are there (no interpolation)."""
    if not ordered:
        return None
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]
