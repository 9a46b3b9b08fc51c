"""The reconciler: each turn looks at what is stored and at what the target shows, and does one step.

A worker that is killed anywhere leaves nothing half-done, and the next one goes on from there.
Effects are exactly once: what is stored is fenced by the lease and by revisions, and a target may be
told the same thing again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from falaj.base import ids
from falaj.changes import service as changes
from falaj.facts.changes import Change, ChangeState
from falaj.facts.models import AliasMove
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.rollouts import (
    Deployment,
    LiveMove,
    Mode,
    Outcome,
    Phase,
    Rollout,
    RolloutDecision,
    Stratum,
)
from falaj.facts.wire import plain
from falaj.ports.ground import Ground
from falaj.ports.store import Kept, Lease, Unit
from falaj.rollouts import declare, rules, traffic
from falaj.rollouts.declare import Seen
from falaj.rollouts.drifting import drifted
from falaj.rollouts.service import event_of, newest_live, open_alert, target_of, unfinished

__all__ = ["Labels", "reconcile"]

LEASE_S: Final = 5.0  # renewed each turn; a killed worker holds nobody up for longer
GIVE_UP_S: Final = 30.0  # a target that cannot start a release for so long sends it back
CHAMPION: Final = "champion"
SHOWN: Final = rules.Confirmed(done=True)

Labels = Callable[[Rollout], Sequence[Stratum]]
"""Counts of one rollout that the servers do not keep: labelled answers, scores, metrics of users."""


def reconcile(ground: Ground, owner: str, labels: Labels, *, lease_s: float = LEASE_S) -> list[str]:
    """One pass over everything that waits: each item under its own lease, one step each.

    Returns what was done, in words. An item whose lease is held elsewhere is left alone.
    """
    done: list[str] = []
    busy: set[str] = set()
    for rollout in unfinished(ground):
        busy.add(rollout.environment)
        lease = ground.store.take(f"environment/{rollout.environment}", owner, lease_s)
        if lease is not None:
            with renewed(ground, lease, lease_s):
                done += step(ground, rollout.id, lease, labels)
    for deployment in ground.store.find(Deployment):
        if deployment.id in busy:
            continue
        lease = ground.store.take(f"environment/{deployment.id}", owner, lease_s)
        if lease is not None:
            with renewed(ground, lease, lease_s):
                done += keep(ground, deployment, lease)
    return done


@contextmanager
def renewed(ground: Ground, lease: Lease, lease_s: float) -> Iterator[None]:
    """Renew the lease while a long step goes on: a copy of a large release takes its time.

    One that was lost stays lost: what this worker still wants to write is refused.
    """
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(lease_s / 3):
            if ground.store.take(lease.name, lease.owner, lease_s) is None:
                return

    thread = threading.Thread(target=renew, name=f"falaj-{lease.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def keep(ground: Ground, deployment: Deployment, lease: Lease) -> list[str]:
    """Hold an environment without a rollout at what its plan says."""
    target = target_of(ground, deployment.id)
    live = ground.store.find(LiveMove, limit=1, environment=deployment.id)
    if deployment.down or not live:  # taken down; or its first release was aborted
        target.stop(deployment.id)
        return []
    current = declare.with_log_key(ground, deployment, lease)
    target.apply(declare.desired(ground, current))
    observed = target.observe(deployment.id)
    done = compared(ground, deployment.id, Seen.of(current, observed), lease)
    if declare.confirmed(observed, current.seq).done:
        target.prune(deployment.id, frozenset(declare.folders_of(current.plan)))
    return done


def compared(ground: Ground, environment: str, seen: Seen, lease: Lease) -> list[str]:
    """Declared against observed: what somebody killed or changed by hand is said, once."""
    after, said = drifted(seen.deployment, seen.observed, now=ground.now())
    if after == seen.deployment:
        return []
    with ground.store.begin() as unit:
        unit.hold(lease)
        kept = unit.get(Deployment, environment)
        if kept.fact.seq != after.seq:
            return []
        unit.replace(
            kept, replace(kept.fact, servers=after.servers, amiss=after.amiss, told=after.told)
        )
        actor, subject = f"worker:{lease.owner}", f"environment/{environment}"
        for kind, data in said:
            if kind == "drifted":
                unit.append(ground.event("server.drifted", actor, subject, data))
            elif kind == "tampered":
                unit.append(ground.event("release.tampered", actor, subject, data))
            else:
                unit.append(ground.event("server.repaired", actor, subject, data))
        if not said:
            servers = {"servers": dict(after.servers)}
            unit.append(ground.event("server.seen", actor, subject, servers))
    return [
        f"{environment} {data.get('server') or data['release']} {kind}: {data['what']}"
        for kind, data in said
    ]


def step(ground: Ground, rollout_id: str, lease: Lease, labels: Labels) -> list[str]:
    """Bring one rollout one step further."""
    kept = ground.store.get(Rollout, rollout_id)
    seen = move_target(ground, kept.fact, lease)
    record_live(ground, kept.fact, seen, lease)
    said = compared(ground, kept.fact.environment, seen, lease)
    if kept.fact.phase in (Phase.STARTING, Phase.PROMOTING, Phase.ROLLING_BACK):
        done = wait_for_target(ground, kept, seen, lease)
    elif kept.fact.phase is Phase.MEASURING:
        done = measure(ground, kept, lease)
    else:
        done = look(ground, kept, seen, lease, labels)
    if done:
        # What some servers may have shown already is remembered, too: they have answered by it.
        if kept.fact.phase is not Phase.STARTING:
            record_live(ground, kept.fact, seen._replace(confirmed=SHOWN), lease)
        # The next plan follows at once, not a turn later: a bad release answers meanwhile.
        after = ground.store.get(Rollout, rollout_id).fact
        if after.phase is not Phase.ABORTED:
            move_target(ground, after, lease)
    return said + done


def move_target(ground: Ground, rollout: Rollout, lease: Lease) -> Seen:
    """Make the plan that the rollout's phase asks for, hand it to the target, look at it."""
    deployment = declare.planned(ground, rollout, lease)
    target = target_of(ground, rollout.environment)
    target.apply(declare.desired(ground, deployment))
    return Seen.of(deployment, target.observe(rollout.environment))


def record_live(ground: Ground, rollout: Rollout, seen: Seen, lease: Lease) -> None:
    """Once the target shows a plan, the ledger remembers it."""
    if not seen.confirmed.done:
        return
    part = seen.deployment.plan.models[rollout.model]
    with ground.store.begin() as unit:
        unit.hold(lease)
        last = newest_live(unit, rollout.environment, rollout.model)
        if last is not None and last.seq >= seen.deployment.seq:
            return
        version = {
            rollout.release: rollout.version,
            rollout.previous: rollout.previous_version,
        }
        move = LiveMove(
            id=ids.new(),
            environment=rollout.environment,
            model=rollout.model,
            stable=part.stable.release,
            stable_version=version[part.stable.release],
            canary=part.canary.release if part.canary else "",
            canary_version=version[part.canary.release] if part.canary else "",
            weight_bp=part.canary.weight_bp if part.canary else 0,
            at=ground.now(),
            cause=rollout.id,
            seq=seen.deployment.seq,
        )
        unit.add(move)
        unit.append(
            ground.event(
                "live.moved",
                f"worker:{lease.owner}",
                f"environment/{rollout.environment}",
                {
                    "model": move.model,
                    "stable": move.stable,
                    "canary": move.canary,
                    "weight_bp": move.weight_bp,
                    "seq": move.seq,
                    "cause": move.cause,
                },
            )
        )


def wait_for_target(ground: Ground, kept: Kept[Rollout], seen: Seen, lease: Lease) -> list[str]:
    rollout = kept.fact
    now = ground.now()
    after = rules.give_up(rollout, seen.confirmed, now=now, patience_s=GIVE_UP_S) or rules.confirm(
        rollout, seen.confirmed, now=now
    )
    if after.phase is rollout.phase:
        return []
    with ground.store.begin() as unit:
        unit.hold(lease)
        unit.replace(kept, after)
        unit.append(event_of(ground, f"worker:{lease.owner}", after, f"rollout.{after.phase}"))
        finish(ground, unit, after, lease)
        if after.phase is Phase.ABORTED:
            declare.withdraw(ground, unit, after, lease)
    return [f"{after.id} {after.phase}"]


def finish(ground: Ground, unit: Unit, rollout: Rollout, lease: Lease) -> None:
    """What the end of a rollout means for its change, the alias and the people who must know."""
    actor = f"worker:{lease.owner}"
    if rollout.phase is Phase.ABORTED:
        changes.move(ground, unit, actor, rollout.change, ChangeState.FAILED, rollout.why)
    elif rollout.phase is Phase.PROMOTED:
        change = changes.move(
            ground, unit, actor, rollout.change, ChangeState.IMPLEMENTED, rollout.why
        )
        champion(ground, unit, rollout.model, rollout.release, change, actor)
    elif rollout.phase is Phase.ROLLED_BACK:
        kept = unit.get(Change, rollout.change)
        was_asked = kept.fact.release == rollout.previous  # a rollback has done what it should
        state = ChangeState.IMPLEMENTED if was_asked else ChangeState.ROLLED_BACK
        change = changes.move(ground, unit, actor, rollout.change, state, rollout.why)
        champion(ground, unit, rollout.model, rollout.previous, change, actor)
        title = f"{rollout.version} went back to {rollout.previous_version}"
        open_alert(ground, unit, rollout, "rollback", title, (rollout.why,), actor)


def champion(
    ground: Ground, unit: Unit, model: str, release: str, change: Change, actor: str
) -> None:
    moves = unit.find(AliasMove, model=model, alias=CHAMPION, limit=1)
    previous = moves[0].release if moves else ""
    if previous == release:
        return
    move = AliasMove(
        id=ids.new(),
        model=model,
        alias=CHAMPION,
        release=release,
        previous=previous,
        by=actor,
        at=ground.now(),
        change=change.id,
    )
    unit.add(move)
    unit.append(
        ground.event(
            "alias.moved", actor, f"model/{model}", {"alias": CHAMPION, "release": release}
        )
    )


def measure(ground: Ground, kept: Kept[Rollout], lease: Lease) -> list[str]:
    """Once the A/A phase has lasted, keep what it says and begin."""
    from falaj.rollouts import analysis, measuring

    rollout, now = kept.fact, ground.now()
    ended = rollout.asked in (rules.Verb.ABORT, rules.Verb.ROLLBACK)
    if ended:
        why = f"asked by a person: {rollout.asked_why}"
        after = rules.unasked(rollout, phase=Phase.ROLLING_BACK, since=now, why=why)
        move = rules.Move(rollout.asked, (why,))
        finding = rules.Finding(Outcome.CONTINUE, False, (why,))
        numbers: dict[str, Any] = {"strata": []}
    elif measuring.over(rollout, now):
        name = traffic.aa_name(rollout.id)
        counts = target_of(ground, rollout.environment).counts(rollout.environment, name)
        after, finding, move, numbers = measuring.measured(rollout, analysis.merge(counts), now=now)
    else:
        return []
    decide(ground, kept, after, finding, move, numbers, lease, now)
    return [f"{rollout.id} {move.action}"]


def look(
    ground: Ground, kept: Kept[Rollout], seen: Seen, lease: Lease, labels: Labels
) -> list[str]:
    """Take the strata that closed, judge them, decide, store: one transaction."""
    from falaj.rollouts import analysis  # numpy: not needed to ask what is live

    rollout = kept.fact
    now = ground.now()
    counts = target_of(ground, rollout.environment).counts(rollout.environment, rollout.id)
    read = analysis.read(rollout, counts, labels(rollout), now=now, shown=seen.confirmed.done)
    after, finding, numbers = analysis.judge(rollout, read, now=now)
    decided, move = rules.decide(after, finding, now=now)
    if decided == rollout:
        return []
    decide(ground, kept, decided, finding, move, numbers, lease, now)
    return [] if move.action == "hold" else [f"{rollout.id} {move.action}"]


def decide(
    ground: Ground,
    kept: Kept[Rollout],
    after: Rollout,
    finding: rules.Finding,
    move: rules.Move,
    numbers: dict[str, Any],
    lease: Lease,
    now: datetime,
) -> None:
    """Store the move with every number behind it, so that it can be replayed from the log."""
    rollout = kept.fact
    actor = f"worker:{lease.owner}"
    with ground.store.begin() as unit:
        unit.hold(lease)
        unit.replace(kept, after)
        decision = RolloutDecision(
            id=ids.new(),
            rollout=rollout.id,
            at=now,
            step=rollout.step,
            outcome=finding.outcome,
            action=move.action,
            reasons=move.reasons or finding.reasons,
            numbers=numbers,
        )
        unit.add(decision)
        unit.append(
            ground.event(
                "rollout.decided",
                actor,
                f"rollout/{rollout.id}",
                {
                    "decision": decision.id,
                    "action": move.action,
                    "outcome": str(finding.outcome),
                    "step": rollout.step,
                    "at": plain(decision)["at"],
                    "reasons": list(decision.reasons),
                    "numbers": plain(numbers),
                },
            )
        )
        tell(ground, unit, rollout, after, move, numbers, actor)


def tell(
    ground: Ground,
    unit: Unit,
    before: Rollout,
    after: Rollout,
    move: rules.Move,
    numbers: dict[str, Any],
    actor: str,
) -> None:
    """Alerts that a decision opens: an incident of both arms, an advice, scores that moved."""
    kind, title = "", ""
    if move.action == "pause" and "an incident" in move.reasons[0]:
        kind, title = "incident", f"{after.environment}: {move.reasons[0].partition(':')[0]}"
    elif after.advised != before.advised and after.advised in ("rollback", "abort"):
        if after.plan.mode is Mode.OBSERVE:
            return
        verb = "rollback" if after.advised == "rollback" else "rollout abort -e"
        kind = "advice"
        title = f"{after.version} should go back: falaj {verb} {after.environment} -m ..."
    elif numbers.get("words", {}).get("scores") == "moved" and not told(unit, after, "scores"):
        kind, title = "scores", f"{after.version} scores differently from {after.previous_version}"
    if kind:
        open_alert(ground, unit, after, kind, title, move.reasons, actor)


def told(unit: Unit, rollout: Rollout, kind: str) -> bool:
    """Whether an alert of this kind stands open on this release."""
    found = unit.find(Alert, model=rollout.model, state=AlertState.OPEN)
    return any(alert.kind == kind and alert.release == rollout.release for alert in found)
