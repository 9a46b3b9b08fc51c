"""What was live, which release answered a request, how changes went: read, never written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TypeVar

from falaj.base.errors import FalajError, NotFound
from falaj.base.fenc import Unsealable
from falaj.changes import metrics
from falaj.changes import timeline as lines
from falaj.facts.changes import Approval, Change, Review
from falaj.facts.ledger import Answered, ChangeMetrics, Timeline
from falaj.facts.monitoring import Alert
from falaj.facts.releases import Release
from falaj.facts.rollouts import LiveMove, Rollout, RolloutDecision
from falaj.facts.runs import Run
from falaj.facts.serving import Boot
from falaj.facts.wire import Fact
from falaj.ports.ground import Ground
from falaj.serving import requests, spool

__all__ = ["change_metrics", "timeline", "which_release"]

F = TypeVar("F", bound=Fact)
PAGE = 1000


def everything(ground: Ground, kind: type[F], **where: str) -> Iterator[F]:
    """All facts of a family, newest first, page by page."""
    after = ""
    while page := ground.store.find(kind, limit=PAGE, after=after, **where):
        yield from page
        after = str(getattr(page[-1], "id", ""))


def which_release(ground: Ground, request: str, *, log: bool = False) -> Answered:
    """The release that answered a request: its own name says so, whatever became of the log.

    log: look into the inference log as well, for when and how. Raises NotFound when no server of this
    project gave that name, FalajError when it is no name of a request.
    """
    try:
        said = requests.parts(request)
    except ValueError as error:
        raise FalajError(
            "serving.bad-request-id",
            str(error),
            why="each answer carries its name in the header falaj-request",
            fix="falaj which-release 32_HEX_DIGITS",
        ) from None
    for environment, table in ground.project.environments.items():
        folder = ground.targets[table.target].spool(environment)
        for boot in spool.boots(folder):
            if boot.boot == said.boot:
                return answered(ground, environment, boot, said, request, log=log)
    raise NotFound(
        "serving.unknown-request",
        f"no server of this project gave the name {request}",
        why="the first 16 digits name the process that answered; its record lies with its spool",
        fix="look whether it is of another project, or of an environment that falaj.toml lost",
    )


def answered(
    ground: Ground,
    environment: str,
    boot: Boot,
    said: requests.Parts,
    request: str,
    *,
    log: bool,
) -> Answered:
    release = boot.slots.get(str(said.slot), "")
    if not release:
        raise NotFound(
            "serving.nobody-answered",
            f"request {request} was refused: no release answered it",
            why="slot 0 of a process is that of requests that it could not answer",
            fix=f"the log of {environment} tells why, if it was kept",
        )
    version, model, change, rollout = "", "", "", ""
    with contextlib.suppress(NotFound):
        known = ground.store.get(Release, release).fact
        version, model = known.version, known.model
    rows = logged(ground, environment, request) if log else []
    at = rows[0].at if rows else None
    for move in everything(ground, LiveMove, environment=environment):
        if release in (move.stable, move.canary) and (at is None or move.at <= at):
            rollout = move.cause
            break
    if rollout:
        with contextlib.suppress(NotFound):
            change = ground.store.get(Rollout, rollout).fact.change
    return Answered(
        request=request,
        environment=environment,
        model=rows[0].model if rows else model,
        release=release,
        version=version,
        boot=said.boot,
        process_since=boot.at,
        by="log" if rows else "request",
        at=at,
        arm=rows[0].arm if rows else "",
        outcome=rows[0].outcome if rows else "",
        rollout=rollout,
        change=change,
        rows=len(rows),
    )


def logged(ground: Ground, environment: str, request: str) -> list[spool.LogRow]:
    """Rows of one request; segments of other processes are not read."""
    table = ground.project.environments[environment]
    folder = ground.targets[table.target].spool(environment)
    prefix = f"log-{request[:16]}-"
    scopes = ground.scopes

    def key(labels: Mapping[str, str]) -> bytes:
        version = labels.get("scope_version", "")
        if scopes is None or not version.isdecimal():
            raise Unsealable("it is sealed, and its key is not here")
        return scopes.reading(labels["scope"], int(version))

    past = {p.name.removesuffix(".part"): 1 << 62 for p in folder.glob("log-*")}
    past = {name: end for name, end in past.items() if not name.startswith(prefix)}
    unread: dict[str, str] = {}
    marks = spool.log(folder, past, key=key, refused=unread.__setitem__)
    return [mark.fact for mark in marks if mark.fact.request == request]


def timeline(ground: Ground, model: str) -> Timeline:
    """Everything that happened to a model. Raises NotFound when there is nothing of it."""
    releases = list(everything(ground, Release, model=model))
    changes = list(everything(ground, Change, model=model))
    if not releases and not changes:
        known = sorted({release.model for release in everything(ground, Release)})
        raise NotFound(
            "releases.unknown",
            f"there is no release of {model!r}",
            why="known: " + (", ".join(known) or "none"),
            fix="falaj release list",
        )
    return lines.timeline(
        model,
        releases=releases,
        changes=changes,
        approvals=[a for c in changes for a in ground.store.find(Approval, change=c.id)],
        rollouts=list(everything(ground, Rollout, model=model)),
        moves=list(everything(ground, LiveMove, model=model)),
        alerts=list(everything(ground, Alert, model=model)),
        reviews=list(everything(ground, Review, model=model)),
        now=ground.now(),
    )


def change_metrics(
    ground: Ground,
    *,
    model: str = "",
    environment: str = "",
    since: datetime | None = None,
    by_month: bool = False,
) -> ChangeMetrics:
    """Counts of how changes went, from the ledger itself."""
    from falaj.stats.intervals import wilson

    where = {"model": model} if model else {}
    changes = list(everything(ground, Change, **where))
    rollouts = list(everything(ground, Rollout, **where))
    begun = {}
    for rollout in rollouts:
        with contextlib.suppress(NotFound):
            release = ground.store.get(Release, rollout.release).fact
            begun[rollout.id] = ground.store.get(Run, release.run).fact.started
    story = metrics.Story(
        changes=changes,
        approvals=[a for c in changes for a in ground.store.find(Approval, change=c.id)],
        rollouts=rollouts,
        decisions=[d for r in rollouts for d in everything(ground, RolloutDecision, rollout=r.id)],
        moves=list(everything(ground, LiveMove, **where)),
        begun=begun,
    )

    def bounds(x: int, n: int) -> tuple[float, float]:
        found = wilson(x, n)
        return found.low, found.high

    return metrics.measure(
        story,
        bounds,
        now=ground.now(),
        environment=environment,
        model=model,
        since=since,
        by_month=by_month,
    )
