"""The life of a model in production as one list and as stretches of what answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from falaj.facts.changes import Approval, Change, ChangeKind, Decision, Review
from falaj.facts.ledger import Happening, Stretch, Timeline
from falaj.facts.monitoring import Alert
from falaj.facts.releases import Release
from falaj.facts.rollouts import LiveMove, Phase, Rollout

__all__ = ["stretches", "timeline"]


def timeline(
    model: str,
    *,
    releases: Sequence[Release],
    changes: Sequence[Change],
    approvals: Sequence[Approval],
    rollouts: Sequence[Rollout],
    moves: Sequence[LiveMove],
    alerts: Sequence[Alert],
    reviews: Sequence[Review],
    now: datetime,
) -> Timeline:
    """Oldest first; of one moment in the order in which a change walks."""
    found = [
        *_releases(releases),
        *_changes(changes, approvals, reviews),
        *_rollouts(rollouts, {change.id: change for change in changes}),
        *_moves(moves),
        *_alerts(alerts),
    ]
    return Timeline(
        model=model,
        at=now,
        stretches=tuple(stretches(moves)),
        happenings=tuple(sorted(found, key=lambda one: one.at)),
    )


def stretches(moves: Sequence[LiveMove]) -> Iterator[Stretch]:
    """Which release answered which share from when to when, environment by environment."""
    by_place: dict[str, list[LiveMove]] = {}
    for move in sorted(moves, key=lambda one: (one.at, one.seq, one.id)):
        by_place.setdefault(move.environment, []).append(move)
    for place, ordered in by_place.items():
        open_: dict[str, Stretch] = {}
        for move in ordered:
            now = shares(move)
            for release, known in list(open_.items()):
                if now.get(release, (0.0, ""))[0] != known.share:
                    yield closed(open_.pop(release), move.at)
            for release, (share, version) in now.items():
                if share and release not in open_:
                    open_[release] = Stretch(
                        environment=place,
                        release=release,
                        version=version,
                        share=share,
                        since=move.at,
                        cause=move.cause,
                    )
        yield from open_.values()


def shares(move: LiveMove) -> Mapping[str, tuple[float, str]]:
    """Release -> (share of the requests from 0 to 1, version)."""
    canary = move.weight_bp / 10_000 if move.canary else 0.0
    found = {move.stable: (round(1 - canary, 4), move.stable_version)}
    if move.canary and canary:
        found[move.canary] = (canary, move.canary_version)
    return found


def closed(stretch: Stretch, at: datetime) -> Stretch:
    return Stretch(
        environment=stretch.environment,
        release=stretch.release,
        version=stretch.version,
        share=stretch.share,
        since=stretch.since,
        until=at,
        cause=stretch.cause,
    )


def _releases(releases: Sequence[Release]) -> Iterator[Happening]:
    for release in releases:
        yield Happening(
            at=release.created,
            kind="release",
            subject=release.version,
            words=f"release {release.version} was made and signed",
        )


def _changes(
    changes: Sequence[Change], approvals: Sequence[Approval], reviews: Sequence[Review]
) -> Iterator[Happening]:
    known = {change.id: change for change in changes}
    for change in changes:
        yield Happening(
            at=change.opened,
            kind="change",
            environment=change.environment,
            subject=change.id,
            words=f"{change.id} asks for {change.title} ({change.kind}, risk {change.risk})",
        )
    verbs = {
        Decision.APPROVE: "approves",
        Decision.REJECT: "rejects",
        Decision.RETRACT: "takes the approval back of",
    }
    for approval in approvals:
        place = known[approval.change].environment if approval.change in known else ""
        yield Happening(
            at=approval.at,
            kind="approval",
            environment=place,
            subject=approval.change,
            words=f"{approval.principal} {verbs[approval.decision]} {approval.change}",
        )
    for review in reviews:
        if review.at is not None:
            yield Happening(
                at=review.at,
                kind="review",
                environment=review.environment,
                subject=review.id,
                words=f"{review.principal} reviews {review.id}: {review.outcome}",
            )


def _rollouts(rollouts: Sequence[Rollout], changes: Mapping[str, Change]) -> Iterator[Happening]:
    for rollout in rollouts:
        change = changes.get(rollout.change)
        emergency = change is not None and change.kind is ChangeKind.EMERGENCY
        back = emergency and change is not None and change.release == rollout.previous
        words = (
            f"{rollout.id} goes back from {rollout.version} to {rollout.previous_version}"
            if back
            else f"{rollout.id} of {rollout.version} begins ({rollout.plan.strategy})"
        )
        yield Happening(
            at=max(rollout.started, change.opened) if change else rollout.started,
            kind="rollback" if back else "rollout",
            environment=rollout.environment,
            subject=rollout.id,
            words=words,
        )
        if rollout.phase in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED) and not back:
            gone = rollout.phase is not Phase.PROMOTED
            why = f": {rollout.why}" if rollout.why else ""
            yield Happening(
                at=rollout.since,
                kind="rollback" if gone else "rollout",
                environment=rollout.environment,
                subject=rollout.id,
                words=f"{rollout.id} of {rollout.version} {rollout.phase}{why}",
            )


def _moves(moves: Sequence[LiveMove]) -> Iterator[Happening]:
    for move in moves:
        said = ", ".join(
            f"{version} {share:.4g} %"
            for share, version in ((100 * s, v) for s, v in shares(move).values())
            if share
        )
        yield Happening(
            at=move.at,
            kind="live",
            environment=move.environment,
            subject=move.cause,
            words=f"answers: {said}",
        )


def _alerts(alerts: Sequence[Alert]) -> Iterator[Happening]:
    for alert in alerts:
        yield Happening(
            at=alert.at,
            kind="alert",
            environment=alert.environment,
            subject=alert.id,
            words=f"alert: {alert.title}",
        )
