"""Rollouts: start, watch, steer, go back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from litestar import Response

from falaj.app import Works
from falaj.base import time
from falaj.base.errors import FalajError, NotFound
from falaj.doors.api.route import Limit, get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.ledger import Answered, Timeline
from falaj.facts.project import EnvironmentTable
from falaj.facts.rollouts import KpiReport, LiveMove, Rollout, RolloutDecision
from falaj.facts.serving import Observed

__all__ = ["ROUTES", "RolloutView", "Why"]


class Why(msgspec.Struct, forbid_unknown_fields=True):
    why: str = ""
    model: str = ""


class Arm(msgspec.Struct, forbid_unknown_fields=True):
    """Counts of one arm, or single values that the metric's limits judge."""

    n: int = 0
    bad: int = 0
    values: list[float] | None = None


class Kpi(msgspec.Struct, forbid_unknown_fields=True):
    metric: str
    id: str = ""
    model: str = ""
    stable: Arm = msgspec.field(default_factory=Arm)
    canary: Arm = msgspec.field(default_factory=Arm)


class Down(msgspec.Struct, forbid_unknown_fields=True):
    why: str = ""
    undo: bool = False


class Expected(msgspec.Struct):
    """What a rollout of this plan will take. requests, minutes, bad: none where nobody knows."""

    environment: str
    strategy: str
    alpha: float
    bad_rate: float
    per_minute: float
    requests: float | None
    minutes: float | None
    bad: float | None
    sentences: tuple[str, ...]


class Step(msgspec.Struct):
    decision: str
    action: str
    outcome: str
    differs: tuple[str, ...]


class ReplayView(msgspec.Struct):
    rollout: str
    same: bool
    decisions: list[Step]


class RolloutView(msgspec.Struct):
    rollout: Rollout
    decisions: list[RolloutDecision]


@post(
    "/changes/{change:str}/rollout",
    needs=Action.START_ROLLOUT,
    on=ResourceKind.CHANGE,
    by="change",
    status=201,
)
def start_rollout(works: Works, permit: Permit, change: str) -> Rollout:
    """Begin the rollout of an approved change; a worker carries it on."""
    from falaj.journeys import roll_out

    return roll_out.start(works.ground, permit, change)


@get("/rollouts", needs=Action.READ, on=ResourceKind.PROJECT)
def list_rollouts(
    works: Works, environment: str = "", limit: Limit = 50, after: str = ""
) -> list[Rollout]:
    where = {"environment": environment} if environment else {}
    return works.ground.store.find(Rollout, limit=min(limit, 1000), after=after, **where)


@get("/rollouts/{rollout:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def show_rollout(works: Works, rollout: str, decisions: Limit = 20) -> RolloutView:
    store = works.ground.store
    found = store.get(Rollout, rollout).fact
    return RolloutView(
        found, store.find(RolloutDecision, rollout=found.id, limit=min(decisions, 10_000))
    )


@post(
    "/environments/{environment:str}/rollout/{verb:str}",
    needs=Action.STEER_ROLLOUT,
    on=ResourceKind.ENVIRONMENT,
    by="environment",
)
def steer(works: Works, permit: Permit, environment: str, verb: str, data: Why) -> Rollout:
    """Ask the running rollout to pause, resume, take its next step, or abort."""
    from falaj.journeys import roll_out
    from falaj.rollouts.rules import Verb

    if verb not in (Verb.PAUSE, Verb.RESUME, Verb.ADVANCE, Verb.ABORT):
        words = f"got {verb!r}, expected pause, resume, advance or abort"
        raise NotFound("rollouts.no-such-verb", words)
    return roll_out.steer(works.ground, permit, environment, Verb(verb), data.why)


@post(
    "/environments/{environment:str}/rollback",
    needs=Action.ROLL_BACK,
    on=ResourceKind.ENVIRONMENT,
    by="environment",
)
def roll_back(works: Works, permit: Permit, environment: str, data: Why) -> Rollout:
    """Go back in one step to the release before."""
    from falaj.journeys import roll_out

    return roll_out.roll_back(works.ground, permit, environment, data.model, data.why)


@post(
    "/environments/{environment:str}/down",
    needs=Action.STEER_ROLLOUT,
    on=ResourceKind.ENVIRONMENT,
    by="environment",
)
def take_down(works: Works, permit: Permit, environment: str, data: Down) -> Observed:
    """Stop every server of the environment until it is undone, or something is rolled out."""
    from falaj.journeys import roll_out
    from falaj.rollouts.service import target_of

    known(works, environment)
    roll_out.down(works.ground, permit, environment, data.why, undo=data.undo)
    return target_of(works.ground, environment).observe(environment)


@post(
    "/environments/{environment:str}/kpi", needs=Action.MONITOR, on=ResourceKind.PROJECT, status=202
)
def report_kpi(works: Works, permit: Permit, environment: str, data: Kpi) -> KpiReport:
    """Report what the user's own system counted of a metric; the same id counts once."""
    from falaj.journeys import measures

    known(works, environment)
    return measures.report(
        works.ground,
        permit,
        environment,
        data.model or works.ground.project.model.name,
        data.metric,
        id=data.id,
        canary=(data.canary.n, data.canary.bad, data.canary.values),
        stable=(data.stable.n, data.stable.bad, data.stable.values),
    )


@get("/environments/{environment:str}/forecast", needs=Action.READ, on=ResourceKind.PROJECT)
def expect(works: Works, environment: str, model: str = "") -> Expected:
    """Tell before the start how many requests and minutes it takes to catch a doubling of errors."""
    import math

    from falaj.journeys import roll_out
    from falaj.rollouts.planning import promise

    table = known(works, environment)
    plan = table.rollout.plan(replicas=table.replicas)
    name = model or works.ground.project.model.name
    bad_rate, per_minute = roll_out.promised(works.ground, environment, plan, name)
    found = promise(plan, bad_rate, per_minute)

    def told(one: float) -> float | None:
        return None if math.isnan(one) else round(one, 1)

    return Expected(
        environment=environment,
        strategy=str(plan.strategy),
        alpha=plan.alpha,
        bad_rate=bad_rate,
        per_minute=per_minute,
        requests=told(found.requests),
        minutes=told(found.minutes),
        bad=told(found.bad),
        sentences=found.sentences,
    )


def known(works: Works, environment: str) -> EnvironmentTable:
    table = works.ground.project.environments.get(environment)
    if table is None:
        raise NotFound(
            "rollouts.no-such-environment",
            f"falaj.toml has no environment {environment[:60]!r}",
            fix=f"one of {', '.join(works.ground.project.environments) or 'none'}",
        )
    return table


@get("/rollouts/{rollout:str}/replay", needs=Action.READ, on=ResourceKind.PROJECT)
def replay_rollout(works: Works, rollout: str) -> ReplayView:
    """Take every decision once more from what the log holds; each must be the same bit by bit."""
    from falaj.rollouts.replay import replay
    from falaj.rollouts.service import decided

    kept = works.ground.store.get(Rollout, rollout).fact
    works.ground.store.integrate()
    found = replay(kept, decided(works.ground, kept.id))
    steps = [Step(one.decision, one.action, one.outcome, one.differs) for one in found]
    return ReplayView(kept.id, not any(one.differs for one in found), steps)


@get("/models/{model:str}/live", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def who_was_live(works: Works, model: str, environment: str, at: str = "") -> LiveMove:
    """What answered at that time; the ledger always knows."""
    from falaj.rollouts.service import live

    moment: datetime | None = None
    if at:
        try:
            moment = time.parse_instant(at)
        except ValueError:
            raise FalajError(
                "api.bad-time",
                f"got {at!r}, expected a time such as 2026-11-24T10:00:00Z",
            ) from None
    found = live(works.ground, environment, model, moment)
    if found is None:
        when = f"no release of {model} was live at {at}" if at else f"no release of {model} is live"
        raise NotFound("rollouts.nothing-live", when, fix="falaj status")
    return found


@get("/models/{model:str}/moves", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def live_moves(works: Works, model: str, environment: str = "") -> list[LiveMove]:
    """Everything that ever answered, newest first."""
    found = works.ground.store.find(LiveMove, model=model)
    return [move for move in found if environment in ("", move.environment)]


@get("/requests/{request_id:str}", needs=Action.READ, on=ResourceKind.PROJECT)
def which_release(works: Works, request_id: str, log: bool = False) -> Answered:
    """Which release answered a request. log: look into the inference log as well."""
    from falaj.journeys import ledger

    return ledger.which_release(works.ground, request_id, log=log)


@get("/models/{model:str}/timeline", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def timeline(works: Works, model: str) -> Timeline:
    """Everything that happened to a model, oldest first."""
    from falaj.journeys import ledger

    return ledger.timeline(works.ground, model)


@get("/models/{model:str}/timeline.svg", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def timeline_picture(works: Works, model: str) -> Response[bytes]:
    """The same as a picture, for light and dark."""
    from falaj.changes.timelinepicture import timeline_svg
    from falaj.journeys import ledger

    found = timeline_svg(ledger.timeline(works.ground, model))
    return Response(found.encode(), media_type="image/svg+xml")


ROUTES: Final = (
    start_rollout,
    list_rollouts,
    show_rollout,
    steer,
    roll_back,
    take_down,
    report_kpi,
    expect,
    replay_rollout,
    who_was_live,
    live_moves,
    which_release,
    timeline,
    timeline_picture,
)
