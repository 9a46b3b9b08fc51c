"""Whether an approved change may begin now: asks the store and the target, decides by pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from falaj.base.errors import FalajError, NotFound, Problem
from falaj.changes import calendar, starting
from falaj.changes.preapproving import allows
from falaj.facts.access import Permit
from falaj.facts.changes import Carried, Change, ChangeKind, Rehearsal
from falaj.facts.releases import Manifest, Release
from falaj.facts.rollouts import Deployment, LiveMove, Rollout
from falaj.ports.ground import Ground

if TYPE_CHECKING:
    from falaj.facts.governance import Freeze

__all__ = ["freezes_of", "may_begin", "may_go_there", "shown_before"]


def shown_before(ground: Ground, release: Release, environment: str) -> dict[str, Carried | None]:
    """What the release has shown in each environment that comes before this one."""
    return {
        name: starting.carried_from(
            name,
            release.id,
            ground.store.find(Rollout, environment=name, model=release.model),
            ground.store.find(LiveMove, environment=name, model=release.model),
        )
        for name in ground.project.before(environment)
    }


def may_go_there(
    ground: Ground,
    release: Release,
    environment: str,
    manifest: Manifest,
    label_trouble: str,
    shown: dict[str, Carried | None],
    *,
    kind: ChangeKind,
) -> list[Problem]:
    """Region, order of environments, protection: what holds whenever it is asked.

    label_trouble: what the label of the release says against the region, if anything.
    """
    table = ground.project.environments[environment]
    region = table.region or ground.project.project.region
    order = starting.out_of_order(table, environment, release, shown, now=ground.now())
    if kind is ChangeKind.EMERGENCY:
        order = [one for one in order if one.code != "changes.soaking"]
    return [
        *starting.out_of_place(label_trouble, release, environment, region),
        *order,
        *starting.unprotected(table, environment, release, manifest.code),
    ]


def freezes_of(ground: Ground, environment: str) -> tuple[Freeze, ...]:
    """Freezes of falaj.toml, and those of the environment's calendar file."""
    table = ground.project.environments[environment]
    said = ground.project.changes.freezes
    found = calendar.of_tables(said, environment, calendar.zone_of(table.timezone)) if said else ()
    if table.calendar and ground.calendars is not None:
        found += tuple(ground.calendars(table.calendar, table.timezone))
    return found


def may_begin(
    ground: Ground,
    permit: Permit,
    change: Change,
    release: Release,
    manifest: Manifest,
    label_trouble: str,
    previous: Release | None,
    verified: tuple[int, Sequence[str]],
) -> Rehearsal:
    """Raise everything that forbids the start; return how the way back was tried.

    previous: the release that is live. verified: files of its folder, and what does not hold of them.
    """
    now = ground.now()
    table = ground.project.environments[change.environment]
    zone = calendar.zone_of(table.timezone)
    moves = ground.store.find(LiveMove, environment=change.environment, model=change.model, limit=1)
    live = moves[0] if moves else None
    others = [
        other
        for other in ground.store.find(Change, model=change.model, environment=change.environment)
        if other.id != change.id
    ]
    rehearsal = rehearse(ground, change, previous, verified)
    starting.refuse(
        [
            *starting.from_elsewhere(change, live),
            *may_go_there(
                ground,
                release,
                change.environment,
                manifest,
                label_trouble,
                shown_before(ground, release, change.environment),
                kind=change.kind,
            ),
            *allows(ground, change),
            *starting.not_now(
                change,
                table,
                freezes_of(ground, change.environment),
                zone,
                person=permit.person,
                now=now,
            ),
            *starting.overdue(change, others, live.stable if live else "", now=now),
            *starting.cold(change, rehearsal),
        ]
    )
    return rehearsal


def rehearse(
    ground: Ground, change: Change, previous: Release | None, verified: tuple[int, Sequence[str]]
) -> Rehearsal:
    """Ask the target whether the release before is warm now."""
    observed, trouble = None, ""
    asleep = taken_down(ground, change.environment)
    if previous is not None and not asleep:
        target = ground.targets[ground.project.environments[change.environment].target]
        try:
            observed = target.observe(change.environment)
        except FalajError as error:
            trouble = f"the target cannot say what runs there: {error}"
    return starting.rehearsed(
        previous, change.model, verified, observed, trouble, now=ground.now(), asleep=asleep
    )


def taken_down(ground: Ground, environment: str) -> bool:
    """A person stopped its servers: what starts next brings them up again."""
    try:
        return ground.store.get(Deployment, environment).fact.down
    except NotFound:
        return False
