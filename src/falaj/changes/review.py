"""A post-implementation review, filled from what the rollout has counted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from falaj.facts.changes import Approval, Change, Decision, Review
from falaj.facts.monitoring import Alert
from falaj.facts.rollouts import LiveMove, Rollout, RolloutDecision

__all__ = ["filled", "in_words"]

ACTIONS: Final = frozenset({"advance", "promote", "rollback", "pause", "resume", "abort"})


class Point(NamedTuple):
    at: datetime
    words: str


def filled(
    change: Change,
    rollout: Rollout | None,
    decisions: Sequence[RolloutDecision],
    approvals: Sequence[Approval],
    moves: Sequence[LiveMove],
    alerts: Sequence[Alert],
    *,
    opened: datetime,
    due: datetime,
) -> Review:
    """Everything that was measured and done, in the order of time; people add the conclusion.

    moves: of the ledger, by this rollout. alerts: of the model since the change was opened.
    """
    points = sorted(_points(change, rollout, decisions, approvals, moves, alerts))
    return Review(
        id=change.id,
        model=change.model,
        environment=change.environment,
        outcome=str(change.state),
        opened=opened,
        due=due,
        numbers=_numbers(change, rollout, decisions, moves),
        timeline=tuple(f"{at:%Y-%m-%d %H:%M:%S}Z {words}" for at, words in points),
    )


def _points(
    change: Change,
    rollout: Rollout | None,
    decisions: Sequence[RolloutDecision],
    approvals: Sequence[Approval],
    moves: Sequence[LiveMove],
    alerts: Sequence[Alert],
) -> Iterator[Point]:
    yield Point(change.opened, f"asked: {change.title} ({change.kind}, risk {change.risk})")
    for approval in approvals:
        verb = {Decision.APPROVE: "approved", Decision.REJECT: "rejected"}.get(
            approval.decision, "approval taken back"
        )
        yield Point(approval.at, f"{verb} by {approval.principal}")
    if change.gates_done is not None:
        yield Point(change.gates_done, f"deferred gates made up for: {', '.join(change.deferred)}")
    if rollout is None:
        return
    yield Point(max(rollout.started, change.opened), f"{rollout.id} began")
    for decision in decisions:
        if decision.action in ACTIONS:
            why = f": {decision.reasons[0]}" if decision.reasons else ""
            yield Point(decision.at, f"{decision.action}{why}")
    for move in moves:
        yield Point(move.at, f"live: {_share(move)}")
    for alert in alerts:
        if alert.environment == change.environment and alert.at >= rollout.started:
            yield Point(alert.at, f"alert: {alert.title}")
    if rollout.phase in ("promoted", "rolled-back", "aborted"):
        yield Point(rollout.since, f"{rollout.id} {rollout.phase}")


def _share(move: LiveMove) -> str:
    if not move.canary or not move.weight_bp:
        return f"{move.stable_version} alone"
    share = move.weight_bp / 100
    return f"{move.stable_version} {100 - share:g} %, {move.canary_version} {share:g} %"


def _numbers(
    change: Change,
    rollout: Rollout | None,
    decisions: Sequence[RolloutDecision],
    moves: Sequence[LiveMove],
) -> dict[str, Any]:
    """Counts and times; those that do not exist are left out."""
    approved = change.since if rollout is None else rollout.started
    found: dict[str, Any] = {
        "asked_to_started_s": max(_seconds(change.opened, approved), 0.0),
        "risk_score": change.risk_score,
    }
    if rollout is None:
        return found
    requests = list(rollout.analysis.get("requests") or [])
    if len(requests) > 1:
        found |= {"requests_canary": int(requests[0]), "requests_stable": int(requests[1])}
    found["rollout"] = rollout.id
    found["phase"] = str(rollout.phase)
    found["took_s"] = _seconds(rollout.started, rollout.since)
    found["decisions"] = len(decisions)
    newest = max(decisions, key=lambda one: one.at, default=None)
    if newest is not None:
        totals = newest.numbers.get("totals") or {}
        for metric, (n_c, x_c, n_s, x_s) in sorted(totals.items()):
            found[f"{metric}.canary"] = [int(x_c), int(n_c)]
            found[f"{metric}.stable"] = [int(x_s), int(n_s)]
        found["word"] = str(newest.numbers.get("word", ""))
    back = [one for one in decisions if one.action in ("rollback", "abort")]
    alone = [m for m in moves if not m.weight_bp]
    if back and alone:
        decided = min(one.at for one in back)
        restored = [m.at for m in alone if m.at >= decided]
        if restored:
            found["restored_after_s"] = _seconds(decided, min(restored))
    if change.rehearsal is not None and change.rehearsal.release:
        found["way_back_servers"] = change.rehearsal.servers
    return found


def _seconds(since: datetime, until: datetime) -> float:
    return round((until - since).total_seconds(), 3)


def in_words(numbers: dict[str, Any]) -> list[str]:
    """The numbers as lines for people."""
    lines = []
    for name, value in numbers.items():
        if name.endswith("_s") and isinstance(value, int | float):
            lines.append(f"{name.removesuffix('_s').replace('_', ' ')}: {value:,.1f} s")
        elif isinstance(value, list) and len(value) == 2:
            x, n = value
            share = f" ({x / n:.2%})" if n else ""
            metric, _, arm = name.partition(".")
            lines.append(f"{metric}, {arm}: {x:,} of {n:,}{share}")
        elif value not in ("", None):
            lines.append(f"{name.replace('_', ' ')}: {value}")
    return lines
