"""The trust root on disk, and who may sign what when.

`trust.json` is a DSSE envelope over canonical JSON, signed by its own keys in role `root`, as many of
them as its rules ask for. Those signatures show that the file is whole; whom it belongs to is decided
by how it came: by a path that the reader chose, by the fingerprint of a root key that he knows, or by
the version before it, whose root keys have signed the next one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from falaj.base import canonical, certificates, dsse
from falaj.facts.releases import (
    Revocation,
    RevocationKind,
    RoleRule,
    Trust,
    TrustedKey,
)
from falaj.facts.wire import plain

__all__ = [
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
    "with_key",
]

KIND: Final = "application/vnd.falaj.trust+json"
ROOT: Final = "root"
# Attestations and checkpoints may be signed with Ed25519 as well; everything else is ECDSA P-256.
ED25519_ROLES: Final = frozenset({"approval", "build", "gate", "log", "vulndb", "witness"})


class BadTrust(ValueError):
    """The trust root is malformed, not signed enough, expired, or older than one seen before."""


def keys_for(
    trust: Trust,
    role: str,
    at: datetime,
    *,
    said: datetime | None = None,
    release: str = "",
) -> dict[str, bytes]:
    """Hint -> PEM of the keys that may sign in `role`.

    1. The key has the role, and `at` lies within its time.
    2. A compromised key counts for what is known to be older, and for releases that the root vouches
       for; `at` is a time that somebody else witnessed, or now.
    3. A retired key counts for what is older by its own word (`said`; when not given, by `at`): it was
       never in other hands.
    """
    found = {}
    for key in trust.keys:
        if role not in key.roles or not key.not_before <= at <= key.not_after:
            continue
        hint = dsse.hint_of(key.public.encode())
        if _counts(trust, (hint,), at, said or at, release):
            found[hint] = key.public.encode()
    return found


def certified(
    trust: Trust,
    role: str,
    chain: Sequence[bytes],
    at: datetime,
    *,
    said: datetime | None = None,
    release: str = "",
) -> tuple[str, str, bytes]:
    """Identity, hint and public key of a certificate chain (DER, the leaf first).

    Its validity is judged at `at`, or at the time that the signer himself says. Raises
    certificates.BadChain with the reason of the authority that came nearest.
    """
    why = "no certificate authority is trusted for this"
    for authority in trust.authorities:
        if role not in authority.roles:
            continue
        for time in dict.fromkeys((at, said or at)):
            if not authority.not_before <= time <= authority.not_after:
                why = "its certificate authority is not trusted at this time"
                continue
            try:
                public = certificates.judge(
                    chain, authority.certificate.encode(), name=authority.name, at=time
                )
            except certificates.BadChain as error:
                why = str(error)
                continue
            hint = dsse.hint_of(public)
            names = (hint, *(certificates.fingerprint(der) for der in chain))
            if _counts(trust, names, at, time, release):
                return authority.identity, hint, public
            raise certificates.BadChain("the certificate or its key was revoked")
    raise certificates.BadChain(why)


def _counts(
    trust: Trust, names: tuple[str, ...], at: datetime, said: datetime, release: str
) -> bool:
    for one in trust.revocations:
        if one.subject not in names:
            continue
        if one.kind is RevocationKind.COMPROMISED:
            if release and release in one.releases:
                continue
            if one.since is None or at >= one.since:
                return False
        elif one.kind is RevocationKind.RETIRED and (one.since is None or said >= one.since):
            return False
    return True


def identity_of(trust: Trust, hint: str) -> str:
    """Whose key this is; empty when nobody's."""
    for key in trust.keys:
        if dsse.hint_of(key.public.encode()) == hint:
            return key.identity
    return ""


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


def threshold_of(trust: Trust, role: str, environment: str = "") -> int:
    """How many distinct identities must sign in `role` for this environment."""
    rule = trust.rules.get(role, RoleRule())
    return max(rule.threshold, rule.environments.get(environment, 1))


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
    trust, held = proposed(data)
    if root and root not in held:
        raise BadTrust(f"trust root: key {root[:16]} has not signed it")
    if not signed_enough(trust, held):
        raise BadTrust(
            f"trust root: signed by {len(_who(trust, held))} root identities, "
            f"needed are {threshold_of(trust, ROOT)}"
        )
    if trust.version < at_least:
        raise BadTrust(
            f"trust root: got version {trust.version}, version {at_least} was seen before"
        )
    if not allow_expired and now > trust.expires:
        raise BadTrust(f"trust root: expired at {trust.expires.isoformat()}")
    return trust


def proposed(data: bytes, more: Mapping[str, bytes] | None = None) -> tuple[Trust, tuple[str, ...]]:
    """A trust root and the hints of its own root keys (or of `more`) that signed it, few or many.

    Nobody may act on it before `signed_enough`. Raises BadTrust.
    """
    try:
        envelope = canonical.loads(data)
        trust = _unchecked(envelope)
        _, held = dsse.open_several(envelope, roots_of(trust) | dict(more or {}), kind=KIND)
    except (canonical.NotCanonical, dsse.BadEnvelope, UnicodeEncodeError) as error:
        raise BadTrust(f"trust root: {error}") from None
    return trust, held


def signed_enough(trust: Trust, held: Iterable[str]) -> bool:
    """Whether these keys are of as many distinct root identities of `trust` as its rules ask for."""
    return len(_who(trust, held)) >= threshold_of(trust, ROOT)


def succeed(before: Trust, data: bytes, *, now: datetime) -> Trust:
    """Go on to a later version, which the roots of both must have signed. Raises BadTrust.

    1. Its number is higher; the same one is taken when it says the same.
    2. It is whole: signed by as many of its own root identities as it asks for.
    3. As many root identities as the version before asks for have signed it, too.
    4. It has not expired.
    """
    trust, held = proposed(data, roots_of(before))
    if trust == before:
        return before
    if trust.version <= before.version:
        raise BadTrust(
            f"trust root: got version {trust.version}, version {before.version} was seen before"
        )
    if not signed_enough(trust, held):
        raise BadTrust(
            f"trust root: version {trust.version} is signed by {len(_who(trust, held))} of its own "
            f"root identities, needed are {threshold_of(trust, ROOT)}"
        )
    if not signed_enough(before, held):
        raise BadTrust(
            f"trust root: version {trust.version} is signed by {len(_who(before, held))} root "
            f"identities of version {before.version}, needed are {threshold_of(before, ROOT)}"
        )
    if now > trust.expires:
        raise BadTrust(f"trust root: expired at {trust.expires.isoformat()}")
    return trust


def countersigned(data: bytes, root: dsse.Signs) -> bytes:
    """The same trust root with one more signature. Raises BadTrust when it does not name this key."""
    try:
        envelope = canonical.loads(data)
        trust = _unchecked(envelope)
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


def roots_of(trust: Trust) -> dict[str, bytes]:
    return {
        dsse.hint_of(key.public.encode()): key.public.encode()
        for key in trust.keys
        if ROOT in key.roles
    }


def _who(trust: Trust, held: Iterable[str]) -> set[str]:
    """Distinct identities: two keys of one root identity are one."""
    roots = roots_of(trust)
    return {identity_of(trust, hint) for hint in held if hint in roots}


def _unchecked(envelope: Any) -> Trust:
    """The payload before its signature holds: only to learn which root keys it names."""
    match envelope:
        case {"payload": str(text), "payloadType": str(kind)} if kind == KIND:
            body = canonical.loads(dsse.decode(text))
        case _:
            raise BadTrust("trust root: not a signed trust.json")
    try:
        trust = msgspec.convert(body, Trust)
    except msgspec.ValidationError as error:
        raise BadTrust(f"trust root: {error}") from None
    if len({key.public for key in trust.keys}) != len(trust.keys):
        raise BadTrust("trust root: a key stands twice")
    for key in trust.keys:
        try:
            kind = dsse.spelled_key(key.public.encode())
        except (ValueError, UnicodeEncodeError) as error:
            raise BadTrust(f"trust root: the key of {key.identity!r}: {error}") from None
        if kind == "ed25519" and not set(key.roles) <= ED25519_ROLES:
            raise BadTrust(
                f"trust root: the key of {key.identity!r} is Ed25519, which signs attestations and "
                f"checkpoints, not as {', '.join(sorted(set(key.roles) - ED25519_ROLES))}"
            )
    return trust


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


def with_key(
    trust: Trust, key: TrustedKey, *, expires: datetime, next_update: datetime | None = None
) -> Trust:
    """The next version, with one key more (or in the place of its older entry)."""
    others = tuple(known for known in trust.keys if known.public != key.public)
    return changed(trust, expires=expires, next_update=next_update, keys=(*others, key))
