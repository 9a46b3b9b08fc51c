"""One engine for every decision: Cedar with a schema, the policies shipped beside this file.

Only `Allow` without an error is yes. Without the schema a condition on a missing attribute would be
skipped and the answer would be yes; with it there is no decision, which is no.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import cedarpy

from falaj.base import digests
from falaj.base.errors import NotAllowed
from falaj.facts.access import Action, Permit, Principal, Resource, ResourceKind

__all__ = ["Bundle", "bundle", "decide"]

WITH_AUTHORS = (ResourceKind.CHANGE, ResourceKind.RELEASE)


class Bundle(NamedTuple):
    """Parsed once a process. ids: Cedar's own policy names -> the `@id` that people read."""

    policies: Any
    schema: Any
    ids: dict[str, str]
    digest: str


@cache
def bundle() -> Bundle:
    """Load and validate the shipped policies. A policy that does not fit the schema stops us."""
    folder = files("falaj.access").joinpath("policy")
    policies = folder.joinpath("base.cedar").read_text()
    schema = folder.joinpath("falaj.cedarschema").read_text()
    return compiled(policies, schema)


def compiled(policies: str, schema: str) -> Bundle:
    found = cedarpy.validate_policies(policies, schema)
    if not found.validation_passed:
        raise ValueError(f"policies do not fit the schema: {found.errors}")
    names = re.findall(r'@id\("([^"]+)"\)', policies)
    return Bundle(
        policies=cedarpy.PolicySet.from_str(policies),
        schema=cedarpy.Schema.from_str(schema),
        ids={f"policy{index}": name for index, name in enumerate(names)},
        digest=digests.of_bytes((policies + "\0" + schema).encode()),
    )


def decide(
    principal: Principal, action: Action, resource: Resource, *, now: datetime, rules: Bundle
) -> Permit:
    """Answer with a permit. Raises NotAllowed, naming the rule that forbids or what is missing."""
    answer = cedarpy.is_authorized(
        {
            "principal": {"type": "Falaj::User", "id": principal.name},
            "action": {"type": "Falaj::Action", "id": str(action)},
            "resource": {"type": f"Falaj::{resource.kind}", "id": resource.id},
            "context": {},
        },
        rules.policies,
        entities(principal, resource),
        rules.schema,
    )
    if answer.decision == cedarpy.Decision.Allow and not answer.diagnostics.errors:
        return Permit(
            principal=principal.name,
            person=principal.person,
            action=action,
            resource=f"{resource.kind}/{resource.id}",
            policy=rules.digest,
            at=now,
        )
    by = [rules.ids.get(reason, reason) for reason in answer.diagnostics.reasons]
    if "four-eyes" in by:
        raise NotAllowed(
            "access.four-eyes",
            f"{principal.name} is an author of {resource.id} and may not approve it",
            why="the person who made a change never approves it, under any account (rule four-eyes)",
            fix=f"ask somebody else: `falaj --as NAME approve {resource.id} -m ...`; a further local "
            "identity: `falaj access add NAME --role approver`",
        )
    if "independent-review" in by:
        raise NotAllowed(
            "access.independent-review",
            f"{principal.name} is an author of {resource.id} and may not review it",
            why="who made a change does not judge how it went (rule independent-review)",
            fix=f"ask somebody else: `falaj --as NAME change review {resource.id} -m ...`",
        )
    roles = ", ".join(principal.roles) or "no role"
    raise NotAllowed(
        "access.denied",
        f"{principal.name} may not {str(action).replace('-', ' ')} on {resource.kind} {resource.id}",
        why=f"no rule permits it to {roles}",
        fix="ask the owner of the project for the role, or use another identity with `--as NAME`",
    )


def entities(principal: Principal, resource: Resource) -> list[dict[str, Any]]:
    roles = [{"type": "Falaj::Role", "id": str(role)} for role in principal.roles]
    attrs: dict[str, Any] = {}
    if resource.kind in WITH_AUTHORS:
        attrs["authors"] = [
            {"__entity": {"type": "Falaj::Person", "id": person}} for person in resource.authors
        ]
    return [
        {
            "uid": {"type": "Falaj::User", "id": principal.name},
            "attrs": {"person": {"__entity": {"type": "Falaj::Person", "id": principal.person}}},
            "parents": roles,
        },
        {
            "uid": {"type": f"Falaj::{resource.kind}", "id": resource.id},
            "attrs": attrs,
            "parents": [],
        },
    ]
