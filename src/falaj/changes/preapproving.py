"""Signs templates of standard changes, and tells whether one allows a change now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from falaj.base import dsse, ids, time
from falaj.base.errors import NotAllowed, NotFound, Problem
from falaj.changes import templates
from falaj.changes.calendar import zone_of
from falaj.facts.access import Permit, Principal
from falaj.facts.attestations import PREAPPROVAL, statement
from falaj.facts.changes import Change, ChangeKind, Preapproval
from falaj.facts.governance import TemplateTable
from falaj.facts.wire import plain
from falaj.ports.ground import Ground
from falaj.ports.store import Store, Unit

__all__ = ["TemplateState", "allows", "preapprove", "state_of", "table_of"]


class TemplateState(NamedTuple):
    """A template as it stands in falaj.toml. problems: why it allows nothing now."""

    name: str
    table: TemplateTable
    digest: str
    signatures: tuple[Preapproval, ...]
    used: int
    problems: tuple[Problem, ...]


def table_of(ground: Ground, name: str) -> TemplateTable:
    known = ground.project.changes.templates
    if name not in known:
        raise NotFound(
            "changes.no-template",
            f"there is no template {name!r} in falaj.toml",
            why="known: " + (", ".join(known) or "none"),
            fix=f"add [changes.templates.{name}] and have it signed",
        )
    return known[name]


def owner_of(unit: Store | Unit, name: str, table: TemplateTable) -> str:
    """The person that answers for a template."""
    try:
        return unit.get(Principal, table.owner).fact.person
    except NotFound:
        raise NotFound(
            "changes.no-owner",
            f"template {name!r} is owned by {table.owner!r}, and there is no such identity",
            why="somebody answers for what is approved beforehand (rule template-owner)",
            fix=f"set `owner` in [changes.templates.{name}] to one of `falaj access list`",
        ) from None


def preapprove(
    ground: Ground, permit: Permit, principal: Principal, name: str, comment: str, shown: str = ""
) -> Preapproval:
    """Sign a template as it stands. Refused: its owner, one that is over, words that were not read."""
    table = table_of(ground, name)
    now = ground.now()
    digest = templates.digest_of(name, table)
    if shown and shown != digest:
        raise NotAllowed(
            "changes.template-changed",
            f"template {name!r} changed after you looked at it",
            why="a signature is over the words that were read (rule same-template)",
            fix="falaj change templates",
        )
    over = templates.last_moment(table, zone_of(_zone(ground, table)))
    if now >= over:
        raise NotAllowed(
            "changes.template-expired",
            f"template {name!r} expired: its last day was {table.expires}",
            why="nothing is approved that is over (rule template-expired)",
            fix=f"set a new `expires` in [changes.templates.{name}]",
        )
    signer = ground.keys.signer(principal.name)
    with ground.store.begin() as unit:
        owner = owner_of(unit, name, table)
        if owner == principal.person:
            raise NotAllowed(
                "changes.own-template",
                f"{principal.name} owns template {name!r} and may not sign it",
                why="who answers for a template does not approve it (rule four-eyes)",
                fix=f"ask somebody else: `falaj --as NAME change preapprove {name} -m ...`",
            )
        given = unit.find(Preapproval, template=name)
        live = templates.live_signatures(name, table, given, owner, now=now)
        if any(one.person == principal.person for one in live):
            raise NotAllowed(
                "changes.same-person",
                f"{principal.name} signed template {name!r} already",
                why="one person counts once, whatever accounts it has "
                "(rule one-person-one-approval)",
                fix="ask somebody else",
            )
        expires = min(over, now + templates.LONGEST)
        claim = {
            "template": name,
            "words": plain(table),
            "person": principal.person,
            "owner": owner,
            "at": time.text(now),
            "expires": time.text(expires),
        }
        said = statement(PREAPPROVAL, f"template {name}", digest, claim)
        made = Preapproval(
            id=ids.new(),
            template=name,
            digest=digest,
            owner=owner,
            person=principal.person,
            principal=principal.name,
            comment=comment,
            at=now,
            expires=expires,
            envelope=json.dumps(dsse.seal(said, signer), sort_keys=True),
        )
        unit.add(made)
        unit.append(
            ground.event(
                "template.signed",
                permit.person,
                f"template/{name}",
                {
                    "preapproval": made.id,
                    "template": digest,
                    "expires": expires,
                    "policy": permit.policy,
                },
                remark=comment,
            )
        )
    return made


def state_of(ground: Ground, name: str, environment: str = "") -> TemplateState:
    """Whether a template allows changes of an environment (its own, when not said) now."""
    table = table_of(ground, name)
    now = ground.now()
    owner = owner_of(ground.store, name, table)
    given = ground.store.find(Preapproval, template=name)
    changes = ground.store.find(Change, environment=table.environment)
    used = used_this_month(changes, name, now)
    signatures = templates.live_signatures(name, table, given, owner, now=now)
    problems = templates.unusable(
        name,
        table,
        signatures,
        given,
        environment=environment or table.environment,
        used=used,
        zone=zone_of(_zone(ground, table)),
        now=now,
    )
    return TemplateState(
        name, table, templates.digest_of(name, table), signatures, used, tuple(problems)
    )


def used_this_month(changes: Sequence[Change], name: str, now: datetime) -> int:
    """Standard changes by this template that were opened in the month of `now`, withdrawn ones apart."""
    return sum(
        1
        for change in changes
        if change.template == name
        and change.kind is ChangeKind.STANDARD
        and change.state not in ("withdrawn", "expired")
        and change.opened > now - timedelta(days=31)
        and change.opened.strftime("%Y-%m") == now.strftime("%Y-%m")
    )


def allows(ground: Ground, change: Change) -> list[Problem]:
    """Of a standard change that is about to begin: what its template no longer allows."""
    if change.kind is not ChangeKind.STANDARD:
        return []
    state = state_of(ground, change.template, change.environment)
    found = [one for one in state.problems if one.code != "changes.template-month"]
    if not found and state.digest != change.template_digest:
        found.append(
            Problem(
                code="changes.template-changed",
                message=f"template {change.template!r} changed after {change.id} was opened",
                why="a standard change stands on the words that were signed (rule same-template)",
                fix=f"falaj change open {change.version} --template {change.template}",
            )
        )
    return found


def _zone(ground: Ground, table: TemplateTable) -> str:
    return ground.project.environments[table.environment].timezone
