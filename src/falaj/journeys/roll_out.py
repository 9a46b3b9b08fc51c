"""Walk (b): an approved release goes into production step by step, or goes back by itself.

What people ask for is written down here; `reconcile` carries it out. Plans carry a growing `seq`,
so a worker that lost its lease cannot turn back the clock.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed
from typing import Final

from msgspec.structs import replace

from falaj.base import dsse
from falaj.base.errors import Conflict, NotFound
from falaj.changes import rules as change_rules
from falaj.changes import service as changes
from falaj.changes.promotion import promotion
from falaj.changes.record import on_record
from falaj.facts.access import Permit
from falaj.facts.changes import Approval, Change, Rehearsal
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.releases import Manifest, Release
from falaj.facts.rollouts import Deployment, LiveMove, Phase, Rollout, RolloutPlan, Strategy
from falaj.facts.runs import Run
from falaj.ports.ground import Ground
from falaj.ports.store import Unit
from falaj.releases import verify
from falaj.rollouts import rules
from falaj.rollouts.service import active, event_of, live, newest_live, target_of, unfinished

__all__ = ["down", "go_back_where_harmed", "promised", "roll_back", "start", "steer"]

POLICY_SIGNER: Final = "policy-signer"


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
            plan=table.rollout.plan(strategy, replicas=table.replicas),
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
        stands_up(ground, unit, permit.person, change.environment)
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


def roll_back(
    ground: Ground,
    permit: Permit,
    environment: str,
    model: str,
    why: str,
    *,
    cause: str = "asked by a person",
    incident: str = "",
) -> Rollout:
    """Go back in one step: end the running rollout, or leave the live release for the one before.

    Nothing is run or analysed again; the release was verified, is verified here once more, and is
    warm where it was live before. Pre-approved as an emergency change that opens and fills its own
    record; its review stays open.
    """
    with ground.store.begin() as unit:
        running = active(unit, environment, model)
    if running is not None:
        return steer(ground, permit, environment, rules.Verb.ROLLBACK, why)
    with on_record(ground, permit, f"environment/{environment}", "go back"):
        leaving, to = way_back(ground, environment, model)
        manifest = verify_here(ground, to, environment)
        may_be_here(ground, to, manifest, environment)
    now = ground.now()
    with ground.store.begin() as unit:
        change = changes.open_emergency_rollback(
            ground,
            unit,
            permit.person,
            to,
            environment,
            reason=why,
            leaving=leaving,
            incident=incident,
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
            why=f"{cause}: {why}",
        )
        unit.add(rollout)
        stands_up(ground, unit, permit.person, environment)
        unit.append(event_of(ground, permit.person, rollout, "rollback.started"))
    return rollout


def may_be_here(ground: Ground, release: Release, manifest: Manifest, environment: str) -> None:
    """The region may have changed since that release was live: it is asked again."""
    from falaj.changes.starting import out_of_place, refuse
    from falaj.compliance.rules import may_be_in

    region = ground.project.environments[environment].region or ground.project.project.region
    refuse(out_of_place(may_be_in(manifest.label, region), release, environment, region))


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


def go_back_where_harmed(ground: Ground, permit_of: Callable[[str], Permit]) -> list[str]:
    """Guards on the live release, also long after its rollout: an alert takes it back.

    1. Only alerts of the kinds that the environment names in `go_back_on`.
    2. Only on the release that is live, opened since it is: an old alert says nothing of a new try.
    3. Not while a rollout is running: its own analysis decides.
    4. Without a release to go back to, the alert stays what it is.
    """
    done = []
    for environment, table in ground.project.environments.items():
        kinds = table.rollout.go_back_on
        if not kinds:
            continue
        for alert in ground.store.find(Alert, state=AlertState.OPEN):
            if alert.kind not in kinds or alert.environment != environment:
                continue
            live = ground.store.find(LiveMove, environment=environment, model=alert.model, limit=1)
            busy = any(
                one.environment == environment and one.model == alert.model
                for one in unfinished(ground)
            )
            if busy or not live or live[0].stable != alert.release or alert.at < live[0].at:
                continue
            try:
                rollout = roll_back(
                    ground,
                    permit_of(environment),
                    environment,
                    alert.model,
                    alert.title,
                    cause=f"by the guard on {alert.kind}",
                    incident=alert.id,
                )
            except Conflict:
                continue  # nothing was live before
            done.append(f"{rollout.id} goes back: {alert.title}")
    return done


def stands_up(ground: Ground, unit: Unit, actor: str, environment: str) -> None:
    """What was taken down stands again from here on."""
    try:
        kept = unit.get(Deployment, environment)
    except NotFound:
        return
    if kept.fact.down:
        unit.replace(kept, replace(kept.fact, down=False))
        unit.append(ground.event("environment.up", actor, f"environment/{environment}", {}))


def down(ground: Ground, permit: Permit, environment: str, why: str, *, undo: bool = False) -> None:
    """Stop all servers of an environment until a person undoes it, or something is rolled out.

    Raises Conflict while a rollout is running: it would wait for servers that nobody may start.
    """
    with ground.store.begin() as unit:
        running = active(unit, environment, "")
        if running is not None and not undo:
            raise Conflict(
                "rollouts.one-at-a-time",
                f"rollout {running.id} of {running.version} is {running.phase}",
                fix=f"end it first: falaj rollout abort -e {environment} -m ...",
            )
        try:
            kept = unit.get(Deployment, environment)
        except NotFound:
            raise NotFound(
                "rollouts.nothing-live", f"nothing is live in {environment}", fix="falaj status"
            ) from None
        if kept.fact.down is undo:
            unit.replace(kept, replace(kept.fact, down=not undo, servers={}, amiss={}))
            subject = f"environment/{environment}"
            if undo:
                unit.append(ground.event("environment.up", permit.person, subject, {}, remark=why))
            else:
                event = ground.event("environment.down", permit.person, subject, {}, remark=why)
                unit.append(event)
    if not undo:
        target_of(ground, environment).stop(environment)


def promised(
    ground: Ground, environment: str, plan: RolloutPlan, model: str
) -> tuple[float, float]:
    """Rate of bad answers and requests a minute of what is live now, from its own counts.

    Of the last hour that was counted; 0 and 0 where nothing was.
    """
    moves = ground.store.find(LiveMove, environment=environment, model=model, limit=1)
    if not moves:
        return 0.0, 0.0
    counts = target_of(ground, environment).counts(environment, moves[0].cause)
    newest = max((row.stratum for row in counts), default=0)
    lately = [row for row in counts if row.stratum > newest - 3600 / plan.stratum_s]
    asked = [row for row in lately if row.metric == "requests"]
    n = sum(row.n_c + row.n_s for row in asked)
    if not n:
        return 0.0, 0.0
    bad = sum(row.x_c + row.x_s for row in lately if row.metric == "errors")
    span = (newest + 1 - min(row.stratum for row in asked)) * plan.stratum_s / 60
    return bad / n, n / span
