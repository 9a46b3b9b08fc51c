"""Whether a change may begin now: order of environments, region, windows, the way back. Pure.

Every refusal is one problem with its rule; all of them are told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final

from falaj.base import digests
from falaj.base.errors import Conflict, NotAllowed, Problem
from falaj.base.time import text
from falaj.changes import calendar
from falaj.facts.changes import Carried, Change, ChangeKind, ChangeState, Rehearsal
from falaj.facts.governance import Freeze
from falaj.facts.project import EnvironmentTable
from falaj.facts.releases import Release
from falaj.facts.rollouts import LiveMove, Phase, Rollout
from falaj.facts.runs import Code
from falaj.facts.serving import Observed

__all__ = [
    "carried_from",
    "cold",
    "from_elsewhere",
    "not_now",
    "out_of_order",
    "out_of_place",
    "overdue",
    "owes_gates",
    "refuse",
    "rehearsed",
    "unprotected",
]

SAID: Final = "%a %d %b %H:%M"


def refuse(problems: Sequence[Problem]) -> None:
    """Raise all of them as one refusal, if there is any."""
    if not problems:
        return
    conflict = all(one.code == "changes.base-moved" for one in problems)
    raise (Conflict if conflict else NotAllowed).of(tuple(problems))


def out_of_place(
    label_trouble: str, release: Release, environment: str, region: str
) -> list[Problem]:
    """Region. label_trouble: what the label of the release says against it, if anything."""
    if not label_trouble:
        return []
    return [
        Problem(
            code="changes.wrong-region",
            message=f"{release.version} may not go to {environment} in {region or 'no region'}",
            why=f"{label_trouble}: so says the label of its data (rule residency)",
            fix="choose an environment in an allowed region, or train on data that may be there",
        )
    ]


def carried_from(
    environment: str, release: str, rollouts: Sequence[Rollout], moves: Sequence[LiveMove]
) -> Carried | None:
    """What the release has shown in an environment; None when it was never promoted there, or left.

    rollouts, moves: of that environment and model, newest first.
    """
    last = next((one for one in rollouts if one.release == release), None)
    if last is None or last.phase is not Phase.PROMOTED:
        return None
    alone = [m for m in moves if m.cause == last.id and m.stable == release and not m.weight_bp]
    if not alone:
        return None
    answers = last.analysis.get("requests") or [0]
    return Carried(
        environment=environment,
        change=last.change,
        rollout=last.id,
        since=alone[-1].at,
        promotion=digests.of_bytes(last.promotion.encode()) if last.promotion else "",
        requests=int(answers[0]),
        why=last.why,
    )


def out_of_order(
    table: EnvironmentTable,
    environment: str,
    release: Release,
    shown: Mapping[str, Carried | None],
    *,
    now: datetime,
) -> list[Problem]:
    """Order of promotion. shown: of each environment that comes before, what the release has shown."""
    found = []
    for name, carried in shown.items():
        if carried is None:
            found.append(
                Problem(
                    code="changes.skipped-environment",
                    message=f"{release.version} has not been promoted in {name}, which comes before "
                    f"{environment}",
                    why="a release walks from one environment to the next; one that went back there "
                    "does not go on (rule promotion-order)",
                    fix=f"falaj change open {release.version} -e {name}",
                )
            )
        elif now - carried.since < timedelta(seconds=table.soak_s):
            ready = carried.since + timedelta(seconds=table.soak_s)
            found.append(
                Problem(
                    code="changes.soaking",
                    message=f"{release.version} answers in {name} since {text(carried.since)[:19]}Z "
                    f"only",
                    why=f"{environment} asks for {table.soak} there (rule soak-time)",
                    fix=f"wait until {text(ready)[:19]}Z",
                )
            )
    return found


def unprotected(
    table: EnvironmentTable, environment: str, release: Release, code: Code
) -> list[Problem]:
    """A protected environment knows committed code alone."""
    if not table.protected or (code.commit and not code.dirty):
        return []
    what = "code that is in no commit" if not code.commit else "changes that were not committed"
    return [
        Problem(
            code="changes.uncommitted-code",
            message=f"{release.version} was made from {what}",
            why=f"{environment} is protected: what runs there can be read later "
            "(rule committed-code)",
            fix="commit, run the pipeline again and release that",
        )
    ]


def from_elsewhere(change: Change, live: LiveMove | None) -> list[Problem]:
    """The change was judged against the release that is live; another one is now."""
    stands = live.stable if live is not None else ""
    if change.kind is ChangeKind.EMERGENCY or stands == change.replaces:
        return []
    return [
        Problem(
            code="changes.base-moved",
            message=f"{change.id} would replace another release than answers in "
            f"{change.environment} now" + (f" ({live.stable_version})" if live is not None else ""),
            why="risk and approvals were given for the difference from the release that was live "
            "then (rule same-base)",
            fix=f"open it again: `falaj change open {change.version} -e {change.environment}`",
        )
    ]


def not_now(
    change: Change,
    table: EnvironmentTable,
    freezes: Sequence[Freeze],
    zone: tzinfo,
    *,
    person: str,
    now: datetime,
) -> list[Problem]:
    """Windows, freezes, the change's own window; and who may not start it. Emergencies go through."""
    found: list[Problem] = []
    if table.protected and person in change.authors:
        found.append(
            Problem(
                code="changes.own-rollout",
                message=f"an author of {change.id} may not start its rollout",
                why=f"{change.environment} is protected (rule author-does-not-deploy)",
                fix="ask somebody with the role operator: "
                f"`falaj --as NAME rollout start {change.id}`",
            )
        )
    if change.kind is ChangeKind.EMERGENCY:
        return found
    opens = calendar.next_opening(table.windows, freezes, zone, now)
    when = _local(opens, zone, table.timezone) if opens else "not within a year"
    freeze = calendar.frozen_by(freezes, now)
    if freeze is not None:
        found.append(
            Problem(
                code="changes.frozen",
                message=f"{change.environment} is frozen: {freeze.name}, until "
                f"{_local(freeze.ends, zone, table.timezone)}",
                why="nothing is rolled out during a freeze (rule freeze)",
                fix=f"next opening: {when}; what cannot wait is an emergency: "
                "`falaj change open --emergency INCIDENT`",
            )
        )
    if not calendar.in_window(table.windows, zone, now):
        found.append(
            Problem(
                code="changes.outside-window",
                message=f"it is {_local(now, zone, table.timezone)}, outside the windows of "
                f"{change.environment}",
                why=f"rollouts begin {calendar.said(table.windows, table.timezone)} (rule window)",
                fix=f"next opening: {when}; what cannot wait is an emergency: "
                "`falaj change open --emergency INCIDENT`",
            )
        )
    early = change.not_before is not None and now < change.not_before
    late = change.not_after is not None and now >= change.not_after
    if early or late:
        span = " to ".join(
            _local(at, zone, table.timezone) if at else "any time"
            for at in (change.not_before, change.not_after)
        )
        found.append(
            Problem(
                code="changes.outside-own-window",
                message=f"{change.id} is planned for {span}",
                why="approvers allowed it for that time (rule planned-window)",
                fix="wait for it" if early else "open it again with another time",
            )
        )
    return found


def _local(at: datetime, zone: tzinfo, name: str) -> str:
    return f"{at.astimezone(zone):{SAID}} ({name})"


def owes_gates(change: Change, live: str) -> bool:
    """Whether gates are still owed: never made up for, and the release answers (live: its id)."""
    return bool(change.deferred) and change.gates_done is None and change.release == live


def overdue(change: Change, others: Sequence[Change], live: str, *, now: datetime) -> list[Problem]:
    """What earlier changes of the model still owe holds up all but emergencies.

    others: all changes of the same model in this environment. live: id of the release that answers.
    """
    if change.kind is ChangeKind.EMERGENCY:
        return []
    found = []
    for other in others:
        if owes_gates(other, live) and other.gates_due is not None and other.gates_due <= now:
            found.append(
                Problem(
                    code="changes.gates-overdue",
                    message=f"emergency {other.id} owes {', '.join(other.deferred)} since "
                    f"{text(other.gates_due)[:19]}Z",
                    why="gates of an emergency are deferred, never skipped; until they have passed "
                    "its model is frozen (rule deferred-gates)",
                    fix=f"run `falaj gate` on the model of {other.version}, or roll it back",
                )
            )
        closed = other.state is ChangeState.CLOSED
        if other.review_due and not closed and other.review_due <= now:
            found.append(
                Problem(
                    code="changes.review-overdue",
                    message=f"{other.id} was due for review by {text(other.review_due)[:19]}Z",
                    why="what went wrong is understood before the next change goes out "
                    "(rule review)",
                    fix=f"falaj --as NAME change review {other.id} -m ...",
                )
            )
    return found


def rehearsed(
    previous: Release | None,
    model: str,
    verified: tuple[int, Sequence[str]],
    observed: Observed | None,
    trouble: str,
    *,
    now: datetime,
    asleep: bool = False,
) -> Rehearsal:
    """How the way back was tried just now.

    verified: files of the previous release's folder, and findings. observed: what the target shows;
    trouble: why it shows nothing. asleep: a person has taken the environment down.
    """
    if previous is None:
        return Rehearsal(at=now)
    files, findings = verified
    warm = [
        server
        for server in (observed.servers if observed else ())
        if server.ready and not server.problem and server.live.get(model) == previous.id
    ]
    why = findings[0] if findings else trouble
    if not why and not warm and not asleep:
        said = next((s.problem for s in (observed.servers if observed else ()) if s.problem), "")
        why = f"no server answers with {previous.version}" + (f": {said}" if said else "")
    return Rehearsal(
        release=previous.id,
        version=previous.version,
        at=now,
        files=files,
        servers=len(warm),
        trouble=why,
    )


def cold(change: Change, rehearsal: Rehearsal) -> list[Problem]:
    """A way back that cannot be shown now is none. Only an emergency goes without."""
    if not rehearsal.trouble or change.kind is ChangeKind.EMERGENCY:
        return []
    return [
        Problem(
            code="changes.not-rehearsed",
            message=f"the way back to {rehearsal.version} cannot be shown in {change.environment}: "
            f"{rehearsal.trouble}",
            why="the release before is verified and warm before another one starts "
            "(rule back-out-rehearsed)",
            fix="`falaj status` shows the servers; bring them back (`falaj worker`), then start again",
        )
    ]
