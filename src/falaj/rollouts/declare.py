"""What an environment should run: its next signed plan, and what the target needs to obey it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from falaj.base import digests, dsse
from falaj.base.errors import NotFound
from falaj.facts.releases import Release
from falaj.facts.rollouts import Deployment, Rollout
from falaj.facts.serving import Desired, LogKey, ModelPlan, Observed, TrafficPlan
from falaj.facts.wire import plain
from falaj.ports.ground import Ground
from falaj.ports.store import Kept, Lease, Unit
from falaj.rollouts import rules, traffic

__all__ = [
    "PLAN_TYPE",
    "Seen",
    "confirmed",
    "desired",
    "folders_of",
    "named",
    "planned",
    "with_log_key",
    "withdraw",
]

PLAN_TYPE: Final = "application/vnd.falaj.plan+json"
PLAN_SIGNER: Final = "plan-signer"


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


def planned(ground: Ground, rollout: Rollout, lease: Lease) -> Deployment:
    """The environment's deployment, with a new signed plan when this model's part changes."""
    wanted = traffic.model_plan(rollout, folders(rollout))
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
        fresh = replace(fresh, servers=kept.fact.servers, amiss=kept.fact.amiss)
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


def named(plan: TrafficPlan) -> set[str]:
    """Releases that the plan needs on the target."""
    return {
        arm.release
        for model in plan.models.values()
        for arm in (model.stable, model.canary, model.standby, model.shadow)
        if arm is not None
    }


def folders_of(plan: TrafficPlan) -> set[str]:
    """The same as folders below the target's root."""
    return {
        arm.folder
        for model in plan.models.values()
        for arm in (model.stable, model.canary, model.standby, model.shadow)
        if arm is not None
    }


def desired(ground: Ground, deployment: Deployment) -> Desired:
    return Desired(
        environment=deployment.id,
        plan=deployment.plan,
        envelope=deployment.envelope,
        trust=ground.keys.trust_text(),
        folders={
            release: str(Path(ground.root / ground.store.get(Release, release).fact.folder))
            for release in named(deployment.plan)
        },
        replicas=ground.project.environments[deployment.id].replicas,
    )


def confirmed(observed: Observed, seq: int) -> rules.Confirmed:
    problems = [server.problem for server in observed.servers if server.problem]
    if problems:
        return rules.Confirmed(done=False, problem=problems[0])
    ready = bool(observed.servers) and all(
        server.ready and server.plan_seq >= seq for server in observed.servers
    )
    return rules.Confirmed(done=ready)


class Seen(NamedTuple):
    """What is declared, what the target shows, and whether that is the same."""

    deployment: Deployment
    observed: Observed
    confirmed: rules.Confirmed

    @classmethod
    def of(cls, deployment: Deployment, observed: Observed) -> Seen:
        return cls(deployment, observed, confirmed(observed, deployment.seq))
