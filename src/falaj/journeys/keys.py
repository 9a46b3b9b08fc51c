"""Walks around keys: whom this workspace trusts for what, further signatures on a release."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from falaj.base import dsse, note, time
from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.facts.access import Permit
from falaj.facts.releases import Release, RevocationKind, Trust
from falaj.facts.trust import identities_of, keys_for, threshold_of
from falaj.ports.blobs import SealedBlobs
from falaj.ports.ground import Ground
from falaj.ports.kms import Scopes
from falaj.releases import sign, witnessed

__all__ = [
    "ERASURE",
    "Erased",
    "admit",
    "adopt",
    "create",
    "erase",
    "listed",
    "require",
    "revoke",
    "rewrap",
    "rotate",
    "scopes",
    "sign_again",
]

ERASURE: Final = "application/vnd.falaj.erasure+json"
LOG_SIGNER: Final = "log-signer"
MEMORY: Final = timedelta(minutes=10)  # how long running processes may still know a key


def listed(ground: Ground) -> dict[str, Any]:
    """The trust root for people: keys with their state, roles with who may sign in them."""
    trust, now = ground.keys.trust(), ground.now()
    here = set(ground.keys.names())
    revoked = {one.subject: one for one in trust.revocations}
    keys = [
        {
            "identity": key.identity,
            "hint": (hint := dsse.hint_of(key.public.encode())),
            "roles": key.roles,
            "not_after": key.not_after,
            "state": str(revoked[hint].kind)
            if hint in revoked
            else ("expired" if now > key.not_after else "trusted"),
            "here": key.identity in here,
        }
        for key in trust.keys
    ]
    names = {role for key in trust.keys for role in key.roles}
    names |= {role for authority in trust.authorities for role in authority.roles}
    roles = [
        {
            "role": role,
            "identities": identities_of(trust, role, now),
            "threshold": threshold_of(trust, role),
            "environments": trust.rules[role].environments if role in trust.rules else {},
            "witnessed": trust.rules[role].witnessed if role in trust.rules else (),
        }
        for role in sorted(names)
    ]
    return {
        "version": trust.version,
        "expires": trust.expires,
        "next_update": trust.next_update,
        "keys": keys,
        "authorities": [
            {"identity": a.identity, "name": a.name, "roles": a.roles, "not_after": a.not_after}
            for a in trust.authorities
        ],
        "roles": roles,
        "revocations": trust.revocations,
    }


def create(ground: Ground, permit: Permit, identity: str, roles: tuple[str, ...]) -> str:
    hint = ground.keys.create(identity, roles)
    _event(ground, permit, "key.created", identity, {"hint": hint, "roles": list(roles)})
    return hint


def admit(
    ground: Ground, permit: Permit, identity: str, roles: tuple[str, ...], pem: str, name: str
) -> str:
    hint = ground.keys.admit(identity, roles, pem_of(identity, pem), name=name)
    _event(ground, permit, "key.admitted", identity, {"hint": hint, "roles": list(roles)})
    return hint


def pem_of(identity: str, given: str) -> str:
    """A PEM as it is; the one-line key of a witness as one. Raises FalajError for another's name."""
    if given.lstrip().startswith("-----"):
        return given
    try:
        key = note.read_key(given.strip())
    except note.BadNote:
        return given  # the ring says what it expects
    if key.name != identity:
        raise FalajError(
            "keys.other-name",
            f"the key is that of {key.name!r}, not of {identity!r}",
            why="a witness signs under the name that stands in its key",
            fix=f"falaj keys add {key.name} FILE --role witness",
        )
    return note.write_pem(key)


def rotate(ground: Ground, permit: Permit, identity: str) -> str:
    hint = ground.keys.rotate(identity)
    _event(ground, permit, "key.rotated", identity, {"hint": hint})
    return hint


def revoke(
    ground: Ground,
    permit: Permit,
    subject: str,
    kind: RevocationKind,
    *,
    since: datetime | None,
    reason: str,
    releases: tuple[str, ...],
) -> tuple[str, ...]:
    """Take trust back. releases: ids of those that stay good."""
    gone = ground.keys.revoke(subject, kind, since=since, reason=reason, releases=releases)
    _event(
        ground,
        permit,
        "key.revoked",
        subject,
        {"kind": str(kind), "subjects": list(gone)},
        remark=reason,
    )
    return gone


def require(
    ground: Ground,
    permit: Permit,
    role: str,
    threshold: int,
    *,
    environment: str,
    witnessed: bool,
) -> None:
    ground.keys.require(role, threshold, environment=environment, witnessed=witnessed)
    said = {"threshold": threshold, "environment": environment, "witnessed": witnessed}
    _event(ground, permit, "trust.changed", role, said)


def adopt(ground: Ground, permit: Permit, text: str) -> Trust:
    trust = ground.keys.adopt(text)
    _event(ground, permit, "trust.changed", "root", {"version": trust.version})
    return trust


def sign_again(ground: Ground, permit: Permit, known: Release) -> str:
    """Add the signature of whoever asks, with the own key. Raises NotAllowed without the role."""
    name = permit.principal
    signer = ground.keys.signer(name)
    hint = dsse.hint_of(signer.public)
    if hint not in keys_for(ground.keys.trust(), "release", ground.now()):
        raise NotAllowed(
            "keys.no-role",
            f"the key of {name!r} is not trusted to sign releases",
            why="a signature that nobody accepts would only look like one",
            fix=f"falaj keys create {name} --role release",
        )
    sign.sign_release(ground.root / known.folder, signer, expect=known.id)
    said = {"key": hint, "signatures": witnessed.signatures_of(ground.root / known.folder)}
    with ground.store.begin() as unit:
        unit.append(ground.event("release.signed", permit.person, f"release/{known.id}", said))
    return hint


# --- what is sealed at rest --------------------------------------------------------------------


class Erased(NamedTuple):
    """What was erased, and the signed certificate of it."""

    scope: str
    versions: tuple[int, ...]
    erased: datetime
    complete: datetime
    certificate: str


def scopes(ground: Ground) -> list[dict[str, Any]]:
    """What can be erased by erasing its key, without the keys."""
    if ground.scopes is None:
        return []
    return [
        {
            "scope": one.scope,
            "version": one.version,
            "residency": one.residency,
            "kek": one.wrapped.kek,
            "created": one.created,
            "erased": one.erased,
        }
        for one in ground.scopes.listed()
    ]


def rewrap(ground: Ground, permit: Permit) -> dict[str, Any]:
    """All scope keys under a new key-encryption key; what lies in the clear is sealed."""
    held = _scopes(ground, "")
    sealed = ground.blobs.seal_rest() if isinstance(ground.blobs, SealedBlobs) else 0
    kek, count = held.rewrap()
    done = {"kek": kek, "rewrapped": count, "sealed": sealed}
    _event(ground, permit, "scope.rewrapped", "all", done)
    return done


def erase(ground: Ground, permit: Permit, scope: str, reason: str) -> Erased:
    """Erase the key of everything in `scope`: no copy of the objects can be read any more.

    The certificate says both times: when the key was erased here, and when the last copy of the
    table of keys is gone, which nobody can hasten.
    """
    held = _scopes(ground, scope)
    gone = held.erase(scope)
    if not gone:
        raise NotFound(
            "keys.no-scope",
            f"nothing is sealed under {scope!r}",
            why="known: " + (", ".join(sorted({o.scope for o in held.listed()})) or "nothing"),
            fix="falaj keys scopes",
        )
    now = ground.now()
    complete = now + timedelta(seconds=ground.project.encryption.key_backups_s)
    said = {
        "v": 1,
        "project": ground.name,
        "scope": scope,
        "versions": [one.version for one in gone],
        "erased": time.text(now),
        "memory": time.text(now + MEMORY),
        "complete": time.text(max(complete, now + MEMORY)),
        "by": permit.person,
        "reason": reason,
    }
    told = {key: value for key, value in said.items() if key != "reason"}
    _event(ground, permit, "scope.erased", scope, told, remark=reason)
    ground.keys.create(LOG_SIGNER, ("log",))
    envelope = dsse.seal(said, ground.keys.signer(LOG_SIGNER), kind=ERASURE)
    return Erased(
        scope,
        tuple(one.version for one in gone),
        now,
        max(complete, now + MEMORY),
        json.dumps(envelope, sort_keys=True) + "\n",
    )


def _scopes(ground: Ground, scope: str) -> Scopes:
    if ground.scopes is None:
        raise NotFound(
            "keys.no-scope",
            f"nothing is sealed{f' under {scope!r}' if scope else ''}: falaj.toml seals nothing",
            fix='write `at_rest = "all"` or "personal" below [encryption]',
        )
    return ground.scopes


def _event(
    ground: Ground,
    permit: Permit,
    type: str,
    name: str,
    data: dict[str, Any],
    *,
    remark: str = "",
) -> None:
    with ground.store.begin() as unit:
        unit.append(ground.event(type, permit.person, f"key/{name}", data, remark=remark))
