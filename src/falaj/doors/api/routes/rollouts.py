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
from falaj.facts.rollouts import LiveMove, Rollout, RolloutDecision

__all__ = ["ROUTES", "RolloutView", "Why"]


class Why(msgspec.Struct, forbid_unknown_fields=True):
    why: str = ""
    model: str = ""


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
    """Ask the running rollout to pause, resume or abort."""
    from falaj.journeys import roll_out
    from falaj.rollouts.rules import Verb

    if verb not in (Verb.PAUSE, Verb.RESUME, Verb.ABORT):
        raise NotFound("rollouts.no-such-verb", f"got {verb!r}, expected pause, resume or abort")
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


@get("/models/{model:str}/live", needs=Action.READ, on=ResourceKind.MODEL, by="model")
def who_was_live(works: Works, model: str, environment: str, at: str = "") -> LiveMove:
    """What answered at that time; the ledger always knows."""
    from falaj.journeys import roll_out

    moment: datetime | None = None
    if at:
        try:
            moment = time.parse_instant(at)
        except ValueError:
            raise FalajError(
                "api.bad-time",
                f"got {at!r}, expected a time such as 2026-11-24T10:00:00Z",
            ) from None
    found = roll_out.live(works.ground, environment, model, moment)
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
    who_was_live,
    live_moves,
    which_release,
    timeline,
    timeline_picture,
)
