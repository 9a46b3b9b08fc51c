"""The trust root on disk, and who may sign what when.

`trust.json` is a DSSE envelope over canonical JSON, signed by one of its own keys in role `root`.
That signature shows that the file is whole; whom it belongs to is decided by how it came: by a
path that the reader chose, or by the fingerprint of the root key that he knows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from falaj.base import canonical, dsse
from falaj.facts.releases import Trust, TrustedKey
from falaj.facts.wire import plain

__all__ = ["KIND", "BadTrust", "identity_of", "keys_for", "open_trust", "seal_trust"]

KIND: Final = "application/vnd.falaj.trust+json"


class BadTrust(ValueError):
    """The trust root is malformed, unsigned, expired, or older than one seen before."""


def keys_for(trust: Trust, role: str, at: datetime) -> dict[str, bytes]:
    """Hint -> PEM of the keys that may sign in `role` at that time."""
    return {
        dsse.hint_of(key.public.encode()): key.public.encode()
        for key in trust.keys
        if role in key.roles and key.not_before <= at <= key.not_after
    }


def identity_of(trust: Trust, hint: str) -> str:
    """Whose key this is; empty when nobody's."""
    for key in trust.keys:
        if dsse.hint_of(key.public.encode()) == hint:
            return key.identity
    return ""


def seal_trust(trust: Trust, root: dsse.Signs) -> bytes:
    """The bytes of trust.json."""
    return canonical.dumps(dsse.seal(plain(trust), root, kind=KIND)) + b"\n"


def open_trust(
    data: bytes, *, now: datetime, root: str = "", at_least: int = 0, allow_expired: bool = False
) -> Trust:
    """Read trust.json.

    root: hint of the root key that the reader knows; empty trusts the way the file came.
    at_least: the highest version seen before. Raises BadTrust.
    """
    try:
        envelope = canonical.loads(data)
        trust = _unchecked(envelope)
        roots = {
            dsse.hint_of(key.public.encode()): key.public.encode()
            for key in trust.keys
            if "root" in key.roles
        }
        if root:
            roots = {hint: key for hint, key in roots.items() if hint == root}
        dsse.open_envelope(envelope, roots, kind=KIND)
    except (canonical.NotCanonical, dsse.BadEnvelope, UnicodeEncodeError) as error:
        raise BadTrust(f"trust root: {error}") from None
    if trust.version < at_least:
        raise BadTrust(
            f"trust root: got version {trust.version}, version {at_least} was seen before"
        )
    if not allow_expired and now > trust.expires:
        raise BadTrust(f"trust root: expired at {trust.expires.isoformat()}")
    return trust


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
    if len({(key.identity, key.public) for key in trust.keys}) != len(trust.keys):
        raise BadTrust("trust root: a key stands twice")
    return trust


def with_key(trust: Trust, key: TrustedKey, *, expires: datetime) -> Trust:
    """The next version, with one key more (or in the place of its older entry)."""
    others = tuple(known for known in trust.keys if known.public != key.public)
    return Trust(version=trust.version + 1, keys=(*others, key), expires=expires)
