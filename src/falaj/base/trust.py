"""The trust root as a signed file, read with nothing but what lies here: who may sign what when.

`trust.json` is a DSSE envelope over canonical JSON, signed by its own keys in role `root`, as many of
them as its rules ask for. Those signatures show that the file is whole; whom it belongs to is decided
by how it came: by a path that the reader chose, by the fingerprint of a root key that he knows, or by
the version before it, whose root keys have signed the next one too.

Which class holds it is the caller's: a fact, or the plain one here for who has no library for facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from falaj.base import canonical, certificates, dsse

if TYPE_CHECKING:
    from falaj.base import note

__all__ = [
    "ED25519_ROLES",
    "KIND",
    "ROOT",
    "BadTrust",
    "Root",
    "RootKey",
    "certified",
    "identity_of",
    "keys_for",
    "note_keys",
    "open_root",
    "open_with",
    "proposed_with",
    "roots_of",
    "signed_enough",
    "signers_of",
    "succeed_with",
    "threshold_of",
    "unchecked",
]

KIND: Final = "application/vnd.falaj.trust+json"
ROOT: Final = "root"
# Attestations and checkpoints may be signed with Ed25519 as well; everything else is ECDSA P-256.
ED25519_ROLES: Final = frozenset({"approval", "build", "gate", "log", "vulndb", "witness"})


class BadTrust(ValueError):
    """The trust root is malformed, not signed enough, expired, or older than one seen before."""


class RootKey(Protocol):
    """A public key and the roles it may sign in. public: PEM."""

    @property
    def identity(self) -> str: ...
    @property
    def public(self) -> str: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def not_before(self) -> datetime: ...
    @property
    def not_after(self) -> datetime: ...


class RootAuthority(Protocol):
    """A certificate authority that is trusted for one name. certificate: PEM."""

    @property
    def identity(self) -> str: ...
    @property
    def certificate(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def not_before(self) -> datetime: ...
    @property
    def not_after(self) -> datetime: ...


class RootRule(Protocol):
    """How many distinct identities must sign in a role: everywhere, and where it must be more."""

    @property
    def threshold(self) -> int: ...
    @property
    def environments(self) -> Mapping[str, int]: ...


class RootRevocation(Protocol):
    """kind: compromised | retired | withdrawn. subject: hint of a key, fingerprint, release id."""

    @property
    def kind(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def since(self) -> datetime | None: ...
    @property
    def releases(self) -> tuple[str, ...]: ...


class Root(Protocol):
    """What a verifier wants of a trust root, whichever reader made it."""

    @property
    def version(self) -> int: ...
    @property
    def keys(self) -> Sequence[RootKey]: ...
    @property
    def expires(self) -> datetime: ...
    @property
    def authorities(self) -> Sequence[RootAuthority]: ...
    @property
    def rules(self) -> Mapping[str, RootRule]: ...
    @property
    def revocations(self) -> Sequence[RootRevocation]: ...


R = TypeVar("R", bound=Root)
Read = Callable[[Any], R]


# --- who may sign ------------------------------------------------------------------------------


def keys_for(
    trust: Root,
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
    trust: Root,
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
    trust: Root, names: tuple[str, ...], at: datetime, said: datetime, release: str
) -> bool:
    for one in trust.revocations:
        if one.subject not in names:
            continue
        if one.kind == "compromised":
            if release and release in one.releases:
                continue
            if one.since is None or at >= one.since:
                return False
        elif one.kind == "retired" and (one.since is None or said >= one.since):
            return False
    return True


def identity_of(trust: Root, hint: str) -> str:
    """Whose key this is; empty when nobody's."""
    for key in trust.keys:
        if dsse.hint_of(key.public.encode()) == hint:
            return key.identity
    return ""


def threshold_of(trust: Root, role: str, environment: str = "") -> int:
    """How many distinct identities must sign in `role` for this environment."""
    rule = trust.rules.get(role)
    return 1 if rule is None else max(rule.threshold, rule.environments.get(environment, 1))


def note_keys(trust: Root, role: str, at: datetime, kind: int) -> tuple[note.Key, ...]:
    """The Ed25519 keys of a role at that time, by the name that stands in signed notes."""
    from falaj.base import note

    found = (
        note.key_of_pem(identity_of(trust, hint), kind, pem)
        for hint, pem in keys_for(trust, role, at).items()
    )
    return tuple(key for key in found if key is not None)


# --- the file ----------------------------------------------------------------------------------


def open_with(
    read: Callable[[Any], R],
    data: bytes,
    *,
    now: datetime,
    root: str = "",
    at_least: int = 0,
    allow_expired: bool = False,
) -> R:
    """Read trust.json; `read` makes the caller's class of its body, and raises ValueError.

    root: hint of the root key that the reader knows; empty trusts the way the file came.
    at_least: the highest version seen before. Raises BadTrust.
    """
    trust, held = proposed_with(read, data)
    if root and root not in held:
        raise BadTrust(f"trust root: key {root[:16]} has not signed it")
    if not signed_enough(trust, held):
        raise BadTrust(
            f"trust root: signed by {len(signers_of(trust, held))} root identities, "
            f"needed are {threshold_of(trust, ROOT)}"
        )
    if trust.version < at_least:
        raise BadTrust(
            f"trust root: got version {trust.version}, version {at_least} was seen before"
        )
    if not allow_expired and now > trust.expires:
        raise BadTrust(f"trust root: expired at {trust.expires.isoformat()}")
    return trust


def proposed_with(
    read: Callable[[Any], R], data: bytes, more: Mapping[str, bytes] | None = None
) -> tuple[R, tuple[str, ...]]:
    """A trust root and the hints of its own root keys (or of `more`) that signed it, few or many.

    Nobody may act on it before `signed_enough`. Raises BadTrust.
    """
    try:
        envelope = canonical.loads(data)
        trust = unchecked(read, envelope)
        _, held = dsse.open_several(envelope, roots_of(trust) | dict(more or {}), kind=KIND)
    except (canonical.NotCanonical, dsse.BadEnvelope, UnicodeEncodeError) as error:
        raise BadTrust(f"trust root: {error}") from None
    return trust, held


def signed_enough(trust: Root, held: Iterable[str]) -> bool:
    """Whether these keys are of as many distinct root identities of `trust` as its rules ask for."""
    return len(signers_of(trust, held)) >= threshold_of(trust, ROOT)


def succeed_with(read: Callable[[Any], R], before: R, data: bytes, *, now: datetime) -> R:
    """Go on to a later version, which the roots of both must have signed. Raises BadTrust.

    1. Its number is higher; the same one is taken when it says the same.
    2. It is whole: signed by as many of its own root identities as it asks for.
    3. As many root identities as the version before asks for have signed it, too.
    4. It has not expired.
    """
    trust, held = proposed_with(read, data, roots_of(before))
    if trust == before:
        return before
    if trust.version <= before.version:
        raise BadTrust(
            f"trust root: got version {trust.version}, version {before.version} was seen before"
        )
    if not signed_enough(trust, held):
        raise BadTrust(
            f"trust root: version {trust.version} is signed by {len(signers_of(trust, held))} of its own "
            f"root identities, needed are {threshold_of(trust, ROOT)}"
        )
    if not signed_enough(before, held):
        raise BadTrust(
            f"trust root: version {trust.version} is signed by {len(signers_of(before, held))} root "
            f"identities of version {before.version}, needed are {threshold_of(before, ROOT)}"
        )
    if now > trust.expires:
        raise BadTrust(f"trust root: expired at {trust.expires.isoformat()}")
    return trust


def roots_of(trust: Root) -> dict[str, bytes]:
    return {
        dsse.hint_of(key.public.encode()): key.public.encode()
        for key in trust.keys
        if ROOT in key.roles
    }


def signers_of(trust: Root, held: Iterable[str]) -> set[str]:
    """Distinct identities: two keys of one root identity are one."""
    roots = roots_of(trust)
    return {identity_of(trust, hint) for hint in held if hint in roots}


def unchecked(read: Callable[[Any], R], envelope: Any) -> R:
    """The payload before its signature holds: only to learn which root keys it names."""
    match envelope:
        case {"payload": str(text), "payloadType": str(kind)} if kind == KIND:
            body = canonical.loads(dsse.decode(text))
        case _:
            raise BadTrust("trust root: not a signed trust.json")
    try:
        trust = read(body)
    except ValueError as error:
        raise BadTrust(f"trust root: {error}") from None
    if any(rule.threshold < 1 for rule in trust.rules.values()):
        raise BadTrust("trust root: a threshold below 1")
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


# --- read with base alone ----------------------------------------------------------------------


class PlainKey(NamedTuple):
    identity: str
    public: str
    roles: tuple[str, ...]
    not_before: datetime
    not_after: datetime


class PlainAuthority(NamedTuple):
    identity: str
    certificate: str
    name: str
    roles: tuple[str, ...]
    not_before: datetime
    not_after: datetime


class PlainRule(NamedTuple):
    threshold: int = 1
    environments: dict[str, int] = {}
    witnessed: tuple[str, ...] = ()


class PlainRevocation(NamedTuple):
    kind: str
    subject: str
    since: datetime | None = None
    reason: str = ""
    releases: tuple[str, ...] = ()


class PlainRoot(NamedTuple):
    version: int
    keys: tuple[PlainKey, ...]
    expires: datetime
    authorities: tuple[PlainAuthority, ...] = ()
    rules: dict[str, PlainRule] = {}
    revocations: tuple[PlainRevocation, ...] = ()
    next_update: datetime | None = None


def open_root(data: bytes, *, now: datetime, root: str = "") -> PlainRoot:
    """Read trust.json with base alone. Raises BadTrust.

    What it says in words that are not known here may take trust back, so such a file is refused.
    """
    from falaj.base import records

    return open_with(
        lambda body: records.read(PlainRoot, body, only_known=True), data, now=now, root=root
    )
