"""The trust root as a fact: see base/trust.py for the rules, which a verifier without facts shares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from falaj.base import canonical, dsse
from falaj.base.trust import (
    ED25519_ROLES,
    KIND,
    ROOT,
    BadTrust,
    certified,
    identity_of,
    keys_for,
    open_with,
    proposed_with,
    roots_of,
    signed_enough,
    succeed_with,
    threshold_of,
    unchecked,
)
from falaj.facts.releases import Revocation, RevocationKind, RoleRule, Trust
from falaj.facts.wire import plain

__all__ = [
    "ED25519_ROLES",
    "KIND",
    "ROOT",
    "BadTrust",
    "certified",
    "changed",
    "countersigned",
    "identities_of",
    "identity_of",
    "is_stale",
    "is_withdrawn",
    "keys_for",
    "needs_witness",
    "open_trust",
    "proposed",
    "roots_of",
    "seal_trust",
    "signed_enough",
    "succeed",
    "threshold_of",
]


def identities_of(trust: Trust, role: str, at: datetime) -> tuple[str, ...]:
    """Who may sign in a role now, by keys or by certificates."""
    hints = keys_for(trust, role, at)
    names = {identity_of(trust, hint) for hint in hints}
    names |= {
        authority.identity
        for authority in trust.authorities
        if role in authority.roles and authority.not_before <= at <= authority.not_after
    }
    return tuple(sorted(names))


def needs_witness(trust: Trust, role: str, environment: str) -> bool:
    """Whether a time of signing that only the signer says is refused there."""
    return environment in trust.rules.get(role, RoleRule()).witnessed


def is_withdrawn(trust: Trust, release: str) -> Revocation | None:
    for one in trust.revocations:
        if one.kind is RevocationKind.WITHDRAWN and one.subject == release:
            return one
    return None


def is_stale(trust: Trust, now: datetime) -> bool:
    """Whether revocations may have been added that this list does not know yet."""
    return trust.next_update is not None and now > trust.next_update


# --- the file ----------------------------------------------------------------------------------


def seal_trust(trust: Trust, *roots: dsse.Signs) -> bytes:
    """The bytes of trust.json."""
    return canonical.dumps(dsse.seal_several(plain(trust), roots, kind=KIND)) + b"\n"


def open_trust(
    data: bytes, *, now: datetime, root: str = "", at_least: int = 0, allow_expired: bool = False
) -> Trust:
    """Read trust.json.

    root: hint of the root key that the reader knows; empty trusts the way the file came.
    at_least: the highest version seen before. Raises BadTrust.
    """
    return open_with(
        _read, data, now=now, root=root, at_least=at_least, allow_expired=allow_expired
    )


def proposed(data: bytes, more: Mapping[str, bytes] | None = None) -> tuple[Trust, tuple[str, ...]]:
    """A trust root and the hints of its own root keys (or of `more`) that signed it, few or many.

    Nobody may act on it before `signed_enough`. Raises BadTrust.
    """
    return proposed_with(_read, data, more)


def succeed(before: Trust, data: bytes, *, now: datetime) -> Trust:
    """Go on to a later version, which the roots of both must have signed. Raises BadTrust."""
    return succeed_with(_read, before, data, now=now)


def countersigned(data: bytes, root: dsse.Signs) -> bytes:
    """The same trust root with one more signature. Raises BadTrust when it does not name this key."""
    try:
        envelope = canonical.loads(data)
        trust = unchecked(_read, envelope)
    except (canonical.NotCanonical, dsse.BadEnvelope) as error:
        raise BadTrust(f"trust root: {error}") from None
    hint = dsse.hint_of(root.public)
    if hint not in roots_of(trust):
        raise BadTrust(f"trust root: it does not name key {hint[:16]} as a root key")
    own = dsse.seal_several(plain(trust), [root], kind=KIND)
    if own["payload"] != envelope["payload"]:
        raise BadTrust("trust root: it is not written in its one spelling")
    others = [s for s in envelope.get("signatures", []) if s.get("keyid") != hint]
    whole = {**envelope, "signatures": [*others, *own["signatures"]]}
    return canonical.dumps(whole) + b"\n"


def _read(body: Any) -> Trust:
    return msgspec.convert(body, Trust)


# --- the next version --------------------------------------------------------------------------


def changed(
    trust: Trust, *, expires: datetime, next_update: datetime | None = None, **fields: Any
) -> Trust:
    """The next version: everything as it was but `fields`."""
    return msgspec.structs.replace(
        trust,
        version=trust.version + 1,
        expires=expires,
        next_update=next_update or trust.next_update,
        **fields,
    )
