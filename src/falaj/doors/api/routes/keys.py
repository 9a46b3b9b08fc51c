"""Keys: whom this workspace trusts for what, and the next version of its trust root."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from falaj.app import Works
from falaj.base import time
from falaj.base.errors import FalajError
from falaj.doors.api.route import get, post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.releases import RevocationKind

__all__ = [
    "ROUTES",
    "AddKey",
    "AdoptTrust",
    "CreateKey",
    "Erase",
    "Require",
    "RevokeKey",
    "RotateKey",
]


class CreateKey(msgspec.Struct, forbid_unknown_fields=True):
    identity: str
    roles: tuple[str, ...]


class AddKey(msgspec.Struct, forbid_unknown_fields=True):
    """pem: a public key, or an authority's certificate; name: whom that authority vouches for."""

    identity: str
    roles: tuple[str, ...]
    pem: str
    name: str = ""


class RotateKey(msgspec.Struct, forbid_unknown_fields=True):
    identity: str


class RevokeKey(msgspec.Struct, forbid_unknown_fields=True):
    """releases: by version or id, good although the key was compromised."""

    subject: str
    kind: RevocationKind = RevocationKind.COMPROMISED
    since: str = ""
    reason: str = ""
    releases: tuple[str, ...] = ()


class Require(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    threshold: int
    environment: str = ""
    witnessed: bool = False


class AdoptTrust(msgspec.Struct, forbid_unknown_fields=True):
    """text: a trust.json."""

    text: str


class Hint(msgspec.Struct):
    hint: str


@get("/keys", needs=Action.READ, on=ResourceKind.PROJECT)
def list_keys(works: Works) -> dict[str, Any]:
    """The trust root for people: keys, authorities, roles with thresholds, revocations."""
    from falaj.journeys import keys

    return keys.listed(works.ground)


@post("/keys", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def create_key(works: Works, permit: Permit, data: CreateKey) -> Hint:
    """Make a key in this workspace, or give the one that there is more roles."""
    from falaj.journeys import keys

    return Hint(keys.create(works.ground, permit, data.identity, data.roles))


@post("/trusted-keys", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def add_key(works: Works, permit: Permit, data: AddKey) -> Hint:
    """Trust a public key from elsewhere, or one name of a certificate authority."""
    from falaj.journeys import keys

    return Hint(keys.admit(works.ground, permit, data.identity, data.roles, data.pem, data.name))


@post("/key-rotations", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def rotate_key(works: Works, permit: Permit, data: RotateKey) -> Hint:
    """A new key in the same roles; the old one is retired."""
    from falaj.journeys import keys

    return Hint(keys.rotate(works.ground, permit, data.identity))


@post("/revocations", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def revoke_key(works: Works, permit: Permit, data: RevokeKey) -> list[str]:
    """Take trust back from an identity, a key, a certificate or a release."""
    from falaj.journeys import keys, promote

    named = data.kind is RevocationKind.WITHDRAWN
    subject = promote.release_named(works.ground, data.subject).id if named else data.subject
    return list(
        keys.revoke(
            works.ground,
            permit,
            subject,
            data.kind,
            since=instant(data.since),
            reason=data.reason,
            releases=tuple(promote.release_named(works.ground, r).id for r in data.releases),
        )
    )


@post("/key-rules", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def require_signers(works: Works, permit: Permit, data: Require) -> dict[str, Any]:
    """So many distinct identities must sign in a role, everywhere or for one environment."""
    from falaj.journeys import keys

    if data.environment:
        works.resource(ResourceKind.ENVIRONMENT, data.environment)
    keys.require(
        works.ground,
        permit,
        data.role,
        data.threshold,
        environment=data.environment,
        witnessed=data.witnessed,
    )
    return keys.listed(works.ground)


@post("/trust-versions", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT)
def adopt_trust(works: Works, permit: Permit, data: AdoptTrust) -> dict[str, Any]:
    """Go on to the next trust root, which enough root keys of this one and of that one signed."""
    from falaj.journeys import keys

    keys.adopt(works.ground, permit, data.text)
    return keys.listed(works.ground)


@post("/trust-signatures", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT)
def sign_trust(works: Works, data: AdoptTrust) -> AdoptTrust:
    """Sign a proposed trust root, of another workspace too, with the root key of this one."""
    return AdoptTrust(works.ground.keys.countersign(data.text))


class Erase(msgspec.Struct, forbid_unknown_fields=True):
    scope: str
    reason: str


class ErasedView(msgspec.Struct):
    scope: str
    versions: tuple[int, ...]
    erased: datetime
    complete: datetime
    certificate: str


@get("/scopes", needs=Action.READ, on=ResourceKind.PROJECT)
def list_scopes(works: Works) -> list[dict[str, Any]]:
    """What is sealed at rest, by the keys that it is erased with."""
    from falaj.journeys import keys

    return keys.scopes(works.ground)


@post("/scope-rewraps", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT)
def rewrap_scopes(works: Works, permit: Permit) -> dict[str, Any]:
    """Wrap all scope keys under a new key-encryption key; seal what lies in the clear."""
    from falaj.journeys import keys

    return keys.rewrap(works.ground, permit)


@post("/erasures", needs=Action.MANAGE_ACCESS, on=ResourceKind.PROJECT, status=201)
def erase_scope(works: Works, permit: Permit, data: Erase) -> ErasedView:
    """Erase the key of a scope for ever; answers with the certificate."""
    from falaj.journeys import keys

    return ErasedView(*keys.erase(works.ground, permit, data.scope, data.reason))


def instant(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return time.parse_instant(text)
    except ValueError as error:
        raise FalajError("api.bad-time", f"since: {error}") from None


ROUTES: Final = (
    list_keys,
    create_key,
    add_key,
    rotate_key,
    revoke_key,
    require_signers,
    adopt_trust,
    sign_trust,
    list_scopes,
    rewrap_scopes,
    erase_scope,
)
