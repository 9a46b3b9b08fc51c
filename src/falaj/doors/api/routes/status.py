"""What is live where, is it healthy, what waits for somebody; and one turn of the worker."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from falaj.app import Works
from falaj.doors.api.route import get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.changes import Change, ChangeState
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.rollouts import Deployment, LiveMove, Rollout
from falaj.facts.serving import Observed, ObservedServer

__all__ = ["ROUTES", "EnvironmentStatus", "LinkStatus", "Status"]


class EnvironmentStatus(msgspec.Struct):
    environment: str
    region: str
    live: list[LiveMove]
    servers: list[ObservedServer]


class LinkStatus(msgspec.Struct):
    """A server of others. waiting: items that it has not been shown. trouble: why, and since when."""

    link: str
    url: str
    region: str
    waiting: int
    refused: int
    refusal: str
    trouble: str
    since: datetime | None


class Status(msgspec.Struct):
    project: str
    environments: list[EnvironmentStatus]
    waiting: list[Change]
    rollouts: list[Rollout]
    alerts: list[Alert]
    links: list[LinkStatus] = []
    reviews: list[Change] = []  # ended changes that owe one


@get("/status", needs=Action.READ, on=ResourceKind.PROJECT)
def show_status(works: Works, permit: Permit) -> Status:
    """What is live where, what waits for me, is anything on fire."""
    from falaj.pipelines import interrupted
    from falaj.rollouts.service import unfinished

    ground = works.ground
    interrupted.mark(ground, permit.person)
    waiting = [
        change
        for state in (ChangeState.PROPOSED, ChangeState.AWAITING_APPROVAL, ChangeState.APPROVED)
        for change in ground.store.find(Change, state=state)
    ]
    return Status(
        project=ground.name,
        environments=[
            EnvironmentStatus(
                environment=name,
                region=table.region or ground.project.project.region,
                live=newest(ground.store.find(LiveMove, environment=name)),
                servers=list(observed(works, name).servers),
            )
            for name, table in ground.project.environments.items()
        ],
        waiting=waiting,
        rollouts=unfinished(ground),
        alerts=ground.store.find(Alert, state=AlertState.OPEN, limit=50),
        links=links(works),
        reviews=[
            change
            for state in (ChangeState.IMPLEMENTED, ChangeState.ROLLED_BACK, ChangeState.FAILED)
            for change in ground.store.find(Change, state=state)
            if change.review_due is not None
        ],
    )


def links(works: Works) -> list[LinkStatus]:
    """What is told from the store alone; nobody is asked over a network."""
    table = works.ground.project.links.mlflow
    if table is None:
        return []
    from falaj.journeys import mirror

    works.ground.store.integrate()  # what has no place in the log yet waits as well
    state = mirror.state_of(works.ground, table)
    return [
        LinkStatus(
            link=state.id,
            url=table.url,
            region=table.region,
            waiting=mirror.waiting(works.ground, table),
            refused=state.refused,
            refusal=state.refusal,
            trouble=state.trouble,
            since=state.since,
        )
    ]


def newest(moves: list[LiveMove]) -> list[LiveMove]:
    found: dict[str, LiveMove] = {}
    for move in moves:
        found.setdefault(move.model, move)
    return list(found.values())


def observed(works: Works, environment: str) -> Observed:
    from falaj.rollouts.service import target_of

    if not any(kept.id == environment for kept in works.ground.store.find(Deployment)):
        return Observed(environment=environment)
    return target_of(works.ground, environment).observe(environment)


@get(
    "/environments/{environment:str}/servers",
    needs=Action.READ,
    on=ResourceKind.ENVIRONMENT,
    by="environment",
)
def servers(works: Works, environment: str) -> Observed:
    """Where the environment's servers listen, and how they are."""
    return observed(works, environment)


@post("/reconcile", needs=Action.RECONCILE, on=ResourceKind.PROJECT)
def reconcile(works: Works) -> list[str]:
    """One turn of the worker: everything that is due, one step each."""
    return works.turn()


ROUTES: Final = (show_status, servers, reconcile)
