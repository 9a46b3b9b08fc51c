"""Walk (b): an approved release goes into production step by step, or goes back by itself.

Every function looks at stored state, does one step and stores what it did; a worker that is killed
anywhere leaves nothing half-done, and the next one goes on from what is stored and what the target
shows. Plans carry a growing `seq`, so a worker that lost its lease cannot turn back the clock.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from falaj.base import digests, dsse, ids
from falaj.base.errors import Conflict, NotFound
from falaj.changes import rules as change_rules
from falaj.changes import service as changes
from falaj.changes.promotion import promotion
from falaj.changes.record import on_record
from falaj.facts.access import Permit
from falaj.facts.changes import Approval, Change, ChangeKind, ChangeState, Rehearsal
from falaj.facts.models import AliasMove
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.releases import Manifest, Release
from falaj.facts.rollouts import (
    Deployment,
    LiveMove,
    Phase,
    Rollout,
    RolloutDecision,
    Strategy,
    Stratum,
)
from falaj.facts.runs import Run
from falaj.facts.serving import Desired, LogKey, ModelPlan, Observed, TrafficPlan
from falaj.facts.wire import plain
from falaj.ports.ground import Ground
from falaj.ports.store import Kept, Lease, Unit
from falaj.ports.target import Target
from falaj.releases import verify
from falaj.rollouts import rules

__all__ = ["Labels", "live", "reconcile", "roll_back", "start", "steer"]

PLAN_TYPE: Final = "application/vnd.falaj.plan+json"
PLAN_SIGNER: Final = "plan-signer"
POLICY_SIGNER: Final = "policy-signer"
LEASE_S: Final = 5.0  # renewed each turn; a killed worker holds nobody up for longer
GIVE_UP_S: Final = 30.0  # a target that cannot start a release for so long sends it back
CHAMPION: Final = "champion"

Labels = Callable[[Rollout], Sequence[Stratum]]
"""Counts of labelled answers of one rollout, joined by `learning`."""


class Seen(NamedTuple):
    deployment: Deployment
    observed: Observed
    confirmed: rules.Confirmed


def start(ground: Ground, permit: Permit, change_id: str) -> Rollout:
    """Begin the rollout of an approved change. Refused: not approved, not verified, not now, one running.

    That policy allowed it, and on what grounds, is signed and kept with the rollout; a refusal is
    written down with its rules.
    """
    with on_record(ground, permit, f"change/{change_id}", "start"):
        return started(ground, permit, change_id)


def started(ground: Ground, permit: Permit, change_id: str) -> Rollout:
    change = ground.store.get(Change, change_id).fact
    approvals = ground.store.find(Approval, change=change.id)
    change_rules.must_be_approved(change, approvals, now=ground.now())
    release = ground.store.get(Release, change.release).fact
    manifest = verify_here(ground, release, change.environment, change.deferred)
    table = ground.project.environments[change.environment]
    rehearsal = allowed_now(ground, permit, change, release, manifest)
    ground.keys.create(POLICY_SIGNER, ("policy",))
    signer = ground.keys.signer(POLICY_SIGNER)
    with ground.store.begin() as unit:
        running = active(unit, change.environment, change.model)
        if running is not None:
            raise Conflict(
                "rollouts.one-at-a-time",
                f"rollout {running.id} of {running.version} is {running.phase}",
                fix="wait for it (`falaj rollout watch`), or end it: `falaj rollout abort`",
            )
        now_live = newest_live(unit, change.environment, change.model)
        if now_live is not None and now_live.stable == release.id:
            raise Conflict(
                "rollouts.already-live", f"{release.version} is live in {change.environment}"
            )
        strategy = Strategy.DIRECT if now_live is None else table.rollout.strategy
        rollout = Rollout(
            id=f"RO-{unit.number('rollout'):04d}",
            change=change.id,
            environment=change.environment,
            model=change.model,
            release=release.id,
            version=release.version,
            previous=now_live.stable if now_live else "",
            previous_version=now_live.stable_version if now_live else "",
            plan=table.rollout.plan(strategy),
            phase=Phase.STARTING,
            salt=base64.b64encode(secrets.token_bytes(32)).decode(),
            latency_us=frozen_latency(ground, now_live.stable if now_live else release.id),
            started=ground.now(),
            since=ground.now(),
        )
        said = promotion(
            rollout,
            change,
            permit,
            change_rules.live_approvals(change, approvals, now=rollout.started),
            project=ground.name,
            files=manifest.files,
            requires=[gate for gate in table.requires if gate not in change.deferred],
            trained_here=ground.store.get(Run, release.run).fact.origin is None,
            version=installed("falaj"),
        )
        envelope = json.dumps(dsse.seal(said, signer), sort_keys=True)
        rollout = replace(rollout, promotion=envelope)
        unit.add(rollout)
        unit.append(event_of(ground, permit.person, rollout, "rollout.started"))
        changes.begin(ground, unit, permit, change.id, rehearsal)
    return rollout


def allowed_now(
    ground: Ground, permit: Permit, change: Change, release: Release, manifest: Manifest
) -> Rehearsal:
    """Region, order, windows, freezes, what is owed; the release before is verified and warm."""
    table = ground.project.environments[change.environment]
    region = table.region or ground.project.project.region
    now_live = live(ground, change.environment, change.model)
    before = ground.store.get(Release, now_live.stable).fact if now_live else None
    verified: tuple[int, tuple[str, ...]] = (0, ())
    if before is not None:
        found = verify.verify_release(
            ground.root / before.folder,
            ground.keys.trust(),
            release_id=before.id,
            now=ground.now(),
            environment=change.environment,
            running=True,
        )
        files = len(found.manifest.files) if found.manifest else 0
        verified = (files, tuple(finding.message for finding in found.findings))
    from falaj.changes.beginning import may_begin  # not needed to ask what is live
    from falaj.compliance.rules import may_be_in

    trouble = may_be_in(manifest.label, region)
    return may_begin(ground, permit, change, release, manifest, trouble, before, verified)


def verify_here(
    ground: Ground, release: Release, environment: str, deferred: Sequence[str] = ()
) -> Manifest:
    """What the release says of itself; its folder holds as it was signed.

    deferred: gates that an emergency makes up for later. Raises Unverified, naming the file.
    """
    table = ground.project.environments[environment]
    found = verify.verify_release(
        ground.root / release.folder,
        ground.keys.trust(),
        release_id=release.id,
        requires=tuple(gate for gate in table.requires if gate not in deferred),
        now=ground.now(),
        environment=environment,
    )
    if not found.holds or found.manifest is None:
        raise verify.refusal(found.findings, f"{release.model} {release.version}")
    return found.manifest


def frozen_latency(ground: Ground, release_id: str) -> tuple[int, ...]:
    """Thresholds p50, p90, p95, p99 in microseconds, measured when the release was gated."""
    folder = ground.root / ground.store.get(Release, release_id).fact.folder
    try:
        frozen = json.loads((folder / "reference" / "latency.json").read_bytes())
    except FileNotFoundError:
        return ()
    return tuple(int(value) for value in frozen["thresholds_us"])


def steer(ground: Ground, permit: Permit, environment: str, verb: rules.Verb, why: str) -> Rollout:
    """Write down what a person asks of the running rollout; the worker carries it out."""
    with ground.store.begin() as unit:
        running = active(unit, environment, "")
        if running is None:
            raise NotFound(
                "rollouts.none-running",
                f"no rollout is running in {environment}",
                fix="falaj status",
            )
        kept = unit.get(Rollout, running.id)
        asked = rules.ask(kept.fact, verb, by=permit.person, why=why)
        unit.replace(kept, asked)
        unit.append(event_of(ground, permit.person, asked, f"rollout.asked-to-{verb}"))
    return asked


def roll_back(ground: Ground, permit: Permit, environment: str, model: str, why: str) -> Rollout:
    """Go back in one step: end the running rollout, or leave the live release for the one before.

    Pre-approved as an emergency change that opens and fills its own record; its review stays open.
    """
    with ground.store.begin() as unit:
        running = active(unit, environment, model)
    if running is not None:
        return steer(ground, permit, environment, rules.Verb.ROLLBACK, why)
    leaving, to = way_back(ground, environment, model)
    verify_here(ground, to, environment)
    now = ground.now()
    with ground.store.begin() as unit:
        change = changes.open_emergency_rollback(
            ground, unit, permit.person, to, environment, reason=why, leaving=leaving
        )
        rollout = Rollout(
            id=f"RO-{unit.number('rollout'):04d}",
            change=change.id,
            environment=environment,
            model=to.model,
            release=leaving.stable,
            version=leaving.stable_version,
            previous=to.id,
            previous_version=to.version,
            plan=ground.project.environments[environment].rollout.plan(Strategy.DIRECT),
            phase=Phase.ROLLING_BACK,
            salt=base64.b64encode(secrets.token_bytes(32)).decode(),
            latency_us=frozen_latency(ground, to.id),
            started=now,
            since=now,
            why=f"asked by a person: {why}",
        )
        unit.add(rollout)
        unit.append(event_of(ground, permit.person, rollout, "rollback.started"))
    return rollout


def way_back(ground: Ground, environment: str, model: str) -> tuple[LiveMove, Release]:
    moves = [
        move
        for move in ground.store.find(LiveMove, environment=environment)
        if model in ("", move.model)
    ]
    if not moves:
        raise NotFound("rollouts.nothing-live", f"nothing is live in {environment}")
    now_live = moves[0]
    back = {
        rollout.id
        for phase in rules.GOING_BACK
        for rollout in ground.store.find(Rollout, environment=environment, phase=phase)
    }
    ours = [move for move in reversed(moves) if move.model == now_live.model]
    before = rules.release_before(ours, back)
    if not before:
        raise Conflict(
            "rollouts.no-way-back",
            f"nothing was live before {now_live.stable_version} of {now_live.model} in {environment}",
            why="a release that was left by going back is no way back",
            fix="a new rollout brings another release: `falaj change open`",
        )
    return now_live, ground.store.get(Release, before).fact


def live(ground: Ground, environment: str, model: str, at: Any = None) -> LiveMove | None:
    """The ledger's memory: what answered at that time (now, when not said)."""
    after = ""
    while True:
        page = ground.store.find(LiveMove, after=after, environment=environment, model=model)
        for move in page:
            if at is None or move.at <= at:
                return move
        if not page:
            return None
        after = page[-1].id


def reconcile(ground: Ground, owner: str, labels: Labels) -> list[str]:
    """One pass over everything that waits: each item under its own lease, one step each.

    Returns what was done, in words. An item whose lease is held elsewhere is left alone.
    """
    done: list[str] = []
    busy: set[str] = set()
    for rollout in unfinished(ground):
        busy.add(rollout.environment)
        lease = ground.store.take(f"environment/{rollout.environment}", owner, LEASE_S)
        if lease is not None:
            done += step(ground, rollout.id, lease, labels)
    for deployment in ground.store.find(Deployment):
        if deployment.id in busy:
            continue
        lease = ground.store.take(f"environment/{deployment.id}", owner, LEASE_S)
        if lease is None:
            continue
        if ground.store.find(LiveMove, limit=1, environment=deployment.id):
            current = with_log_key(ground, deployment, lease)
            target_of(ground, deployment.id).apply(desired(ground, current))
        else:
            target_of(ground, deployment.id).stop(deployment.id)  # its first release was aborted
    return done


def log_key(ground: Ground, environment: str) -> LogKey | None:
    """What servers of this environment seal their log under now: a key a month.

    One log of an environment holds all its models, so it is what is erased at once.
    """
    if ground.scopes is None:
        return None
    scope = f"inference/{environment}/{ground.now():%Y-%m}"
    version, public = ground.scopes.writing(scope)
    table = ground.project.environments[environment]
    return LogKey(
        scope=scope,
        version=version,
        public=base64.b64encode(public).decode(),
        classification=str(ground.project.classification),
        residency=table.region or ground.project.project.region,
    )


def with_log_key(ground: Ground, deployment: Deployment, lease: Lease) -> Deployment:
    """The same models under a new plan when the month is over or the key was erased."""
    sealing = log_key(ground, deployment.id)
    if deployment.plan.log_key == sealing:
        return deployment
    with ground.store.begin() as unit:
        unit.hold(lease)
        kept = unit.get(Deployment, deployment.id)
        return issue(ground, unit, deployment.id, kept, kept.fact.plan.models, sealing, lease)


def unfinished(ground: Ground) -> list[Rollout]:
    return [
        rollout
        for phase in Phase
        if phase not in rules.FINAL
        for rollout in ground.store.find(Rollout, phase=phase)
    ]


def step(ground: Ground, rollout_id: str, lease: Lease, labels: Labels) -> list[str]:
    """Bring one rollout one step further."""
    kept = ground.store.get(Rollout, rollout_id)
    seen = move_target(ground, kept.fact, lease)
    record_live(ground, kept.fact, seen, lease)
    if kept.fact.phase in (Phase.STARTING, Phase.PROMOTING, Phase.ROLLING_BACK):
        return wait_for_target(ground, kept, seen, lease)
    return look(ground, kept, lease, labels)


def move_target(ground: Ground, rollout: Rollout, lease: Lease) -> Seen:
    """Make the plan that the rollout's phase asks for, hand it to the target, look at it."""
    deployment = planned(ground, rollout, lease)
    target = target_of(ground, rollout.environment)
    target.apply(desired(ground, deployment))
    observed = target.observe(rollout.environment)
    return Seen(deployment, observed, confirmed(observed, deployment.seq))


def confirmed(observed: Observed, seq: int) -> rules.Confirmed:
    problems = [server.problem for server in observed.servers if server.problem]
    if problems:
        return rules.Confirmed(done=False, problem=problems[0])
    ready = bool(observed.servers) and all(
        server.ready and server.plan_seq >= seq for server in observed.servers
    )
    return rules.Confirmed(done=ready)


def planned(ground: Ground, rollout: Rollout, lease: Lease) -> Deployment:
    """The environment's deployment, with a new signed plan when this model's part changes."""
    wanted = rules.model_plan(rollout, folders(rollout))
    sealing = log_key(ground, rollout.environment)  # before the transaction: it may make the key
    with ground.store.begin() as unit:
        unit.hold(lease)
        try:
            kept: Kept[Deployment] | None = unit.get(Deployment, rollout.environment)
        except NotFound:
            kept = None
        models = dict(kept.fact.plan.models) if kept else {}
        same_key = kept is not None and kept.fact.plan.log_key == sealing
        if kept is not None and same_key and models.get(rollout.model) == wanted:
            return kept.fact
        models[rollout.model] = wanted
        return issue(ground, unit, rollout.environment, kept, models, sealing, lease)


def issue(
    ground: Ground,
    unit: Unit,
    environment: str,
    kept: Kept[Deployment] | None,
    models: dict[str, ModelPlan],
    sealing: LogKey | None,
    lease: Lease,
) -> Deployment:
    """The next plan of the environment."""
    seq = (kept.fact.seq if kept else 0) + 1
    fresh = signed_plan(ground, environment, seq, models, sealing)
    if kept is None:
        unit.add(fresh)
    else:
        unit.replace(kept, fresh)
    unit.append(
        ground.event(
            "plan.issued",
            f"worker:{lease.owner}",
            f"environment/{environment}",
            {"seq": fresh.seq, "digest": digests.of_bytes(fresh.envelope.encode())},
        )
    )
    return fresh


def withdraw(ground: Ground, unit: Unit, rollout: Rollout, lease: Lease) -> None:
    """Take a model that was never live out of the plan. An empty plan is none: see `reconcile`."""
    kept = unit.get(Deployment, rollout.environment)
    models = {name: m for name, m in kept.fact.plan.models.items() if name != rollout.model}
    if models:
        issue(ground, unit, rollout.environment, kept, models, kept.fact.plan.log_key, lease)


def signed_plan(
    ground: Ground,
    environment: str,
    seq: int,
    models: dict[str, ModelPlan],
    sealing: LogKey | None,
) -> Deployment:
    table = ground.project.environments[environment]
    plan = TrafficPlan(
        seq=seq,
        environment=environment,
        zone=table.region or ground.project.project.region,
        issued=ground.now(),
        models=models,
        log_key=sealing,
    )
    ground.keys.create(PLAN_SIGNER, ("plan",))
    envelope = dsse.seal(plain(plan), ground.keys.signer(PLAN_SIGNER), kind=PLAN_TYPE)
    return Deployment(
        id=environment, seq=seq, plan=plan, envelope=json.dumps(envelope), since=ground.now()
    )


def folders(rollout: Rollout) -> dict[str, str]:
    """Release id -> folder below the target's root."""
    return {
        release: f"releases/{digests.short(release)}"
        for release in (rollout.release, rollout.previous)
        if release
    }


def desired(ground: Ground, deployment: Deployment) -> Desired:
    named = {
        arm.release
        for model in deployment.plan.models.values()
        for arm in (model.stable, model.canary, model.standby)
        if arm is not None
    }
    return Desired(
        environment=deployment.id,
        plan=deployment.plan,
        envelope=deployment.envelope,
        trust=ground.keys.trust_text(),
        folders={
            release: str(Path(ground.root / ground.store.get(Release, release).fact.folder))
            for release in named
        },
        replicas=ground.project.environments[deployment.id].replicas,
    )


def target_of(ground: Ground, environment: str) -> Target:
    return ground.targets[ground.project.environments[environment].target]


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
            withdraw(ground, unit, after, lease)
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
        emergency = kept.fact.kind is ChangeKind.EMERGENCY
        state = ChangeState.IMPLEMENTED if emergency else ChangeState.ROLLED_BACK
        change = changes.move(ground, unit, actor, rollout.change, state, rollout.why)
        champion(ground, unit, rollout.model, rollout.previous, change, actor)
        alert = Alert(
            id=ids.new(),
            kind="rollback",
            environment=rollout.environment,
            model=rollout.model,
            release=rollout.release,
            state=AlertState.OPEN,
            title=f"{rollout.version} went back to {rollout.previous_version}",
            reasons=(rollout.why,),
            at=ground.now(),
        )
        unit.add(alert)
        unit.append(
            ground.event(
                "alert.opened", actor, f"alert/{alert.id}", {"kind": alert.kind, "of": rollout.id}
            )
        )


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


def look(ground: Ground, kept: Kept[Rollout], lease: Lease, labels: Labels) -> list[str]:
    """Take the strata that closed, judge them, decide, store: one transaction."""
    from falaj.rollouts import analysis  # numpy: not needed to ask what is live

    rollout = kept.fact
    now = ground.now()
    counts = target_of(ground, rollout.environment).counts(rollout.environment, rollout.id)
    read = analysis.read(rollout, counts, labels(rollout), now=now)
    after, finding, numbers = analysis.judge(rollout, read, now=now)
    decided, move = rules.decide(after, finding, now=now)
    if decided == rollout:
        return []
    with ground.store.begin() as unit:
        unit.hold(lease)
        unit.replace(kept, decided)
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
                f"worker:{lease.owner}",
                f"rollout/{rollout.id}",
                {
                    "decision": decision.id,
                    "action": move.action,
                    "outcome": str(finding.outcome),
                    "step": rollout.step,
                    "numbers": plain(numbers),
                },
            )
        )
    return [] if move.action == "hold" else [f"{rollout.id} {move.action}"]


def active(unit: Unit, environment: str, model: str) -> Rollout | None:
    for rollout in unit.find(Rollout, environment=environment):
        if model in ("", rollout.model) and rollout.phase not in rules.FINAL:
            return rollout
    return None


def newest_live(unit: Unit, environment: str, model: str) -> LiveMove | None:
    return next(iter(unit.find(LiveMove, environment=environment, model=model, limit=1)), None)


def event_of(ground: Ground, actor: str, rollout: Rollout, type: str) -> Any:
    return ground.event(
        type,
        actor,
        f"rollout/{rollout.id}",
        {
            "phase": str(rollout.phase),
            "step": rollout.step,
            "release": rollout.release,
            "previous": rollout.previous,
            "change": rollout.change,
        }
        | (
            {"promotion": digests.of_bytes(rollout.promotion.encode())}
            if type == "rollout.started"
            else {}
        ),
    )
