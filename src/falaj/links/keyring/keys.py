"""A key ring in a folder: one private key an identity, and the trust root signed by the root key.

Embedded mode: whoever is this user can read the keys, so provenance says `isolation: none`. What
the ring does promise: no other user can, or it refuses to start. With keys on a token (PKCS#11) only
the trust root lies in the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from falaj.base import certificates, dsse, time
from falaj.base.digests import is_digest
from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.base.files import write_atomic
from falaj.facts import trust as trusting
from falaj.facts.releases import (
    Authority,
    Revocation,
    RevocationKind,
    RoleRule,
    Trust,
    TrustedKey,
)
from falaj.ports.signer import PrivateKeys

__all__ = ["FileKeys", "KeyRing"]

IDENTITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")
HEX: Final = re.compile(r"[0-9a-f]{64}")
ROOT: Final = "root"
NEXT_ROOT: Final = "root+next"  # a root key on its way
OF_NOTES: Final = ("log/", "witness/")  # names that sign checkpoints: Ed25519, all others ECDSA
NOTE_ROLES: Final = frozenset({"log", "witness"})
KEY_LIFE: Final = timedelta(days=730)
TRUST_LIFE: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=30)
LIST_LIFE: Final = timedelta(days=30)
RENEW_LIST_BEFORE: Final = timedelta(days=15)


class LocalSigner:
    """A key held in memory: ECDSA P-256, or Ed25519 for checkpoints."""

    def __init__(self, private: Any) -> None:
        self._private = private
        self._public = dsse.public_pem(private)

    @property
    def public(self) -> bytes:
        return self._public

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        of_notes = not isinstance(self._private, ec.EllipticCurvePrivateKey)
        how = () if of_notes else (ec.ECDSA(hashes.SHA256()),)
        signature: bytes = self._private.sign(message, *how)
        return signature


class FileKeys:
    """Adapter of ports.signer.PrivateKeys: PEM files (0600) in a folder that the ring guards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(unquote(path.stem) for path in self._folder.glob("*.pem")))

    def make(self, name: str) -> LocalSigner:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        private = (
            ed25519.Ed25519PrivateKey.generate()
            if name.startswith(OF_NOTES)
            else ec.generate_private_key(ec.SECP256R1())
        )
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_atomic(self._file(name), pem, mode=0o600)
        return LocalSigner(private)

    def read(self, name: str) -> LocalSigner:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        path = self._file(name)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                refuse_open(path, os.fstat(handle))
                private = serialization.load_pem_private_key(file.read(), None)
        except FileNotFoundError:
            raise missing(name) from None
        except (OSError, ValueError) as error:
            raise NotAllowed(
                "keys.damaged",
                f"the key of {name!r} cannot be read: {error}",
                why="it is not a private key in PEM form that this user may read",
                fix="put the file back from a copy, or make a new key under another name",
            ) from None
        ours = (
            isinstance(private, ed25519.Ed25519PrivateKey)
            if name.startswith(OF_NOTES)
            else isinstance(private, ec.EllipticCurvePrivateKey)
            and private.curve.name == "secp256r1"
        )
        if not ours:
            raise NotAllowed(
                "keys.damaged",
                f"the key of {name!r} is not {'Ed25519' if name.startswith(OF_NOTES) else 'ECDSA P-256'}",
                why="the list of algorithms is ours, never the file's",
                fix="make a new key",
            )
        return LocalSigner(private)

    def move(self, name: str, to: str) -> None:
        os.replace(self._file(name), self._file(to))  # noqa: PTH105 whole, or not at all

    def _file(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.pem"


class Beside:
    """Keys in a token, and those that sign checkpoints in files: tokens sign with ECDSA here."""

    def __init__(self, token: PrivateKeys, files: FileKeys) -> None:
        self._token, self._files = token, files

    def names(self) -> tuple[str, ...]:
        own = (name for name in self._files.names() if name.startswith(OF_NOTES))
        return tuple(sorted({*self._token.names(), *own}))

    def make(self, name: str) -> dsse.Signs:
        return self._of(name).make(name)

    def read(self, name: str) -> dsse.Signs:
        return self._of(name).read(name)

    def move(self, name: str, to: str) -> None:
        self._of(name).move(name, to)

    def _of(self, name: str) -> PrivateKeys:
        return self._files if name.startswith(OF_NOTES) else self._token


class KeyRing:
    """Adapter of ports.signer.Keys over a folder (0700) with trust.json (0600).

    Several processes may use it at once: changes are made under a file lock and appear whole.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], datetime] = time.now,
        private: PrivateKeys | None = None,
    ) -> None:
        """Open or make the ring. Raises NotAllowed when others could read or change it.

        private: where the keys themselves lie; in the same folder when not said.
        """
        self._folder = folder
        self._clock = clock
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._guard()
        files = FileKeys(folder)
        self._private: PrivateKeys = Beside(private, files) if private else files

    @property
    def trust_file(self) -> Path:
        """trust.json: what a verifier elsewhere is given, apart from what it verifies."""
        return self._folder / "trust.json"

    @property
    def proposal(self) -> Path:
        """A next trust root that waits for the signatures of others."""
        return self._folder / "trust.next.json"

    def create(self, identity: str, roles: tuple[str, ...]) -> str:
        self._may_be_named(identity, roles)
        with self._locked():
            now = self._clock()
            trust = self._open(now)
            known = self._entry(trust, identity, now)
            if known is None or known.not_after - RENEW_BEFORE < now:
                signer = self._private.make(identity)
                known = TrustedKey(
                    identity=identity,
                    public=signer.public.decode(),
                    roles=tuple(sorted({*roles, *(known.roles if known else ())})),
                    not_before=now,
                    not_after=now + KEY_LIFE,
                )
                self._keep(trust, keys=(*trust.keys, known))
            elif not set(roles) <= set(known.roles):
                wider = TrustedKey(
                    identity=identity,
                    public=known.public,
                    roles=tuple(sorted({*known.roles, *roles})),
                    not_before=known.not_before,
                    not_after=known.not_after,
                )
                others = tuple(key for key in trust.keys if key != known)
                self._keep(trust, keys=(*others, wider))
            return dsse.hint_of(known.public.encode())

    def names(self) -> tuple[str, ...]:
        self._guard()
        return tuple(name for name in self._private.names() if name != NEXT_ROOT)

    def admit(self, identity: str, roles: tuple[str, ...], pem: str, *, name: str = "") -> str:
        root = roles == (ROOT,) and not name
        self._may_be_named(identity, () if root else roles)
        try:
            entry, hint = self._entry_of(identity, roles, pem, name)
        except ValueError as error:
            raise FalajError(
                "keys.not-admitted",
                f"{identity!r}: {error}",
                why="the trust root names public keys (ECDSA P-256; Ed25519 for attestations) and "
                "certificate authorities with the one name that may sign",
                fix="give a public key as PEM, or an authority's certificate and --name",
            ) from None
        with self._locked():
            trust = self._open(self._clock())
            if isinstance(entry, Authority):
                others = tuple(a for a in trust.authorities if a.identity != identity)
                self._keep(trust, authorities=(*others, entry))
            elif all(key.public != entry.public for key in trust.keys):
                self._keep(trust, keys=(*trust.keys, entry))
        return hint

    def rotate(self, identity: str) -> str:
        with self._locked():
            now = self._clock()
            trust = self._open(now)
            if identity == ROOT:
                return self._rotate_root(trust, now)
            known = self._entry(trust, identity, now)
            if known is None:
                raise missing(identity)
            signer = self._private.make(identity)
            fresh = TrustedKey(
                identity=identity,
                public=signer.public.decode(),
                roles=known.roles,
                not_before=now,
                not_after=now + KEY_LIFE,
            )
            retired = Revocation(
                kind=RevocationKind.RETIRED,
                subject=dsse.hint_of(known.public.encode()),
                since=now,
                reason="rotated",
            )
            self._keep(trust, keys=(*trust.keys, fresh), revocations=(*trust.revocations, retired))
            return dsse.hint_of(signer.public)

    def revoke(
        self,
        subject: str,
        kind: RevocationKind,
        *,
        since: datetime | None = None,
        reason: str = "",
        releases: tuple[str, ...] = (),
    ) -> tuple[str, ...]:
        with self._locked():
            now = self._clock()
            trust = self._open(now)
            subjects = self._subjects(trust, subject, kind)
            if kind is not RevocationKind.COMPROMISED and since is None:
                since = now
            fresh = tuple(
                Revocation(kind=kind, subject=one, since=since, reason=reason, releases=releases)
                for one in subjects
            )
            others = tuple(
                r for r in trust.revocations if r.kind is not kind or r.subject not in subjects
            )
            self._keep(trust, revocations=(*others, *fresh))
            return subjects

    def require(
        self, role: str, threshold: int, *, environment: str = "", witnessed: bool = False
    ) -> None:
        with self._locked():
            now = self._clock()
            trust = self._open(now)
            able = {known.identity for known in trust.keys if role in known.roles}
            able |= {known.identity for known in trust.authorities if role in known.roles}
            if not 1 <= threshold <= max(len(able), 1):
                raise FalajError(
                    "keys.threshold",
                    f"{role}: {threshold} identities can never sign, there are {len(able)}",
                    why="a threshold that nobody can reach would stop every release",
                    fix=f"first `falaj keys create NAME --role {role}`, or a threshold up to {len(able)}",
                )
            rule = trust.rules.get(role, RoleRule())
            refused = set(rule.witnessed) - {environment}
            if witnessed and environment:
                refused.add(environment)
            rule = RoleRule(
                threshold=rule.threshold if environment else threshold,
                environments={**rule.environments, environment: threshold}
                if environment
                else rule.environments,
                witnessed=tuple(sorted(refused)),
            )
            self._keep(trust, rules={**trust.rules, role: rule})

    def adopt(self, text: str) -> Trust:
        with self._locked():
            now = self._clock()
            before = self._open(now)
            try:
                trust = trusting.succeed(before, text.encode(), now=now)
            except (trusting.BadTrust, UnicodeEncodeError) as error:
                raise NotAllowed(
                    "keys.not-adopted",
                    str(error),
                    why="the next trust root must be signed by enough root keys of this one and of itself",
                    fix="let the other holders of root keys sign it: falaj keys trust --sign FILE",
                ) from None
            pending = NEXT_ROOT in self._private.names()
            mine = {
                dsse.hint_of(self._private.read(name).public)
                for name in (ROOT, *((NEXT_ROOT,) if pending else ()))
            }
            if not mine & set(trusting.roots_of(trust)):
                raise NotAllowed(
                    "keys.not-adopted",
                    "the next trust root does not name the root key of this ring",
                    why="this workspace could then no longer open its own trust root",
                    fix="keep this ring's key among the root keys",
                )
            self._write(trust, text.encode())
            self.proposal.unlink(missing_ok=True)
            return self._open(now)

    def countersign(self, text: str) -> str:
        with self._locked():
            self._open(self._clock())
            try:
                return trusting.countersigned(text.encode(), self._private.read(ROOT)).decode()
            except (trusting.BadTrust, UnicodeEncodeError) as error:
                raise NotAllowed(
                    "keys.not-signed",
                    str(error),
                    why="a root key signs only a trust root that names it",
                    fix="have it named first: falaj keys add NAME FILE --role root",
                ) from None

    def signer(self, identity: str) -> dsse.Signs:
        self._guard()
        return self._private.read(identity)

    def trust(self) -> Trust:
        with self._locked():
            return self._open(self._clock())

    def trust_text(self) -> str:
        """trust.json as it stands, signed, current."""
        with self._locked():
            self._open(self._clock())
            return self.trust_file.read_text(encoding="utf-8")

    # --- what the verbs stand on

    @staticmethod
    def _may_be_named(identity: str, roles: tuple[str, ...]) -> None:
        other = identity.startswith(OF_NOTES) and not set(roles) <= NOTE_ROLES
        named = IDENTITY.fullmatch(identity) and identity not in (ROOT, NEXT_ROOT)
        if not named or ROOT in roles or other:
            raise FalajError(
                "keys.identity",
                f"identity {identity!r} with roles {', '.join(roles)} cannot be made here",
                why="a name is 1 to 128 of A-Z a-z 0-9 . _ : @ / + -; the root key is the ring's own, "
                "and log/ and witness/ names sign checkpoints alone",
                fix="choose another name, and roles other than root",
            )

    def _entry_of(
        self, identity: str, roles: tuple[str, ...], pem: str, name: str
    ) -> tuple[TrustedKey | Authority, str]:
        from cryptography.hazmat.primitives import serialization

        now = self._clock()
        shared: dict[str, Any] = {
            "identity": identity,
            "roles": tuple(sorted(set(roles))),
            "not_before": now,
            "not_after": now + KEY_LIFE,
        }
        if "BEGIN CERTIFICATE" in pem:
            from cryptography import x509

            certificates.check_authority(pem.encode())
            if not name:
                raise ValueError("an authority is trusted for one name only")
            der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(
                serialization.Encoding.DER
            )
            return Authority(certificate=pem, name=name, **shared), certificates.fingerprint(der)
        if name:
            raise ValueError("a name belongs to a certificate authority, this is none")
        kind = dsse.spelled_key(pem.encode())
        if kind == "ed25519" and not set(roles) <= trusting.ED25519_ROLES:
            raise ValueError("an Ed25519 key signs attestations and checkpoints only")
        return TrustedKey(public=pem, **shared), dsse.hint_of(pem.encode())

    def _subjects(self, trust: Trust, subject: str, kind: RevocationKind) -> tuple[str, ...]:
        """Hints and fingerprints behind a name. The root key is rotated, never revoked."""
        if kind is RevocationKind.WITHDRAWN:
            if is_digest(subject):
                return (subject,)
            raise FalajError(
                "keys.nothing-to-revoke",
                f"{subject!r} is not the id of a release",
                fix="falaj release list",
            )
        roots = trusting.roots_of(trust)
        hints = {dsse.hint_of(key.public.encode()): key.identity for key in trust.keys}
        found = tuple(h for h, name in hints.items() if subject in (h, name))
        if not found and HEX.fullmatch(subject):
            found = (subject,)  # a certificate, known by its fingerprint
        if set(found) & set(roots):
            raise NotAllowed(
                "keys.root",
                "a root key is not revoked but replaced",
                why="without it nobody could sign the next trust root",
                fix="falaj keys rotate root",
            )
        if not found:
            raise FalajError(
                "keys.nothing-to-revoke",
                f"the trust root knows no key or identity {subject!r}",
                why="known: " + ", ".join(sorted(set(hints.values()))),
                fix="falaj keys list",
            )
        return found

    def _rotate_root(self, trust: Trust, now: datetime) -> str:
        old = self._private.read(ROOT)
        fresh = self._private.make(NEXT_ROOT)
        entry = TrustedKey(
            identity=ROOT,
            public=fresh.public.decode(),
            roles=(ROOT,),
            not_before=now,
            not_after=now + 5 * KEY_LIFE,
        )
        others = tuple(key for key in trust.keys if key.public.encode() != old.public)
        self._keep(trust, signers=(old, fresh), keys=(entry, *others))
        # A crash before this line is mended when the ring is opened again.
        self._private.move(NEXT_ROOT, ROOT)
        return dsse.hint_of(fresh.public)

    def _entry(self, trust: Trust, identity: str, now: datetime) -> TrustedKey | None:
        """The entry of the key that lies here, unless it was revoked.

        An older key of this identity stays trusted for what it signed.
        """
        if identity not in self._private.names():
            return None
        public = self._private.read(identity).public.decode()
        entry = next((key for key in trust.keys if key.public == public), None)
        if entry is None:
            return None
        hint = dsse.hint_of(public.encode())
        gone = any(
            r.subject == hint and (r.since is None or r.since <= now) for r in trust.revocations
        )
        return None if gone else entry

    def _open(self, now: datetime) -> Trust:
        """Read the trust root, made on first use and renewed before it or its list runs out."""
        if not self.trust_file.exists():
            names = self._private.names()
            if set(names) - {ROOT}:
                raise NotAllowed(
                    "keys.trust-missing",
                    "the key ring has keys but no trust.json",
                    why="a trust root that vanished is not made again in silence",
                    fix="put trust.json back from a copy, or start a new key ring",
                )
            # A root key alone is a first use that was interrupted.
            root = self._private.read(ROOT) if names else self._private.make(ROOT)
            first = TrustedKey(
                identity=ROOT,
                public=root.public.decode(),
                roles=(ROOT,),
                not_before=now,
                not_after=now + 5 * KEY_LIFE,
            )
            made = Trust(
                version=self._seen() + 1,
                keys=(first,),
                expires=now + TRUST_LIFE,
                next_update=now + LIST_LIFE,
            )
            self._write(made, trusting.seal_trust(made, root))
        trust = self._whole(now)
        ageing = trust.expires - RENEW_BEFORE < now or (
            trust.next_update is not None and trust.next_update - RENEW_LIST_BEFORE < now
        )
        # Alone it cannot renew what others must sign as well: then people see it run out.
        if ageing and trusting.threshold_of(trust, ROOT) == 1:
            trust = self._keep(trust)
        return trust

    def _whole(self, now: datetime) -> Trust:
        try:
            data = self.trust_file.read_bytes()
            root = dsse.hint_of(self._private.read(ROOT).public)
            trust, held = trusting.proposed(data)
            if root not in held and NEXT_ROOT in self._private.names():
                fresh = dsse.hint_of(self._private.read(NEXT_ROOT).public)
                if fresh in held:  # a rotation that was interrupted after trust.json was written
                    self._private.move(NEXT_ROOT, ROOT)
                    root = fresh
            trust = trusting.open_trust(
                data,
                now=now,
                root=root,
                allow_expired=True,  # renewed at once by the root key that lies beside it
            )
        except trusting.BadTrust as error:
            raise NotAllowed(
                "keys.trust-damaged",
                str(error),
                why="trust.json must be signed by the root key of this ring",
                fix="put trust.json back from a copy",
            ) from None
        seen = self._seen()
        if trust.version < seen:
            raise NotAllowed(
                "keys.trust-old",
                f"trust.json has version {trust.version}, version {seen} was seen before",
                why="an older trust root does not know what was revoked since",
                fix="put the newest trust.json back from a copy",
            )
        if trust.version > seen:
            self._remember(trust.version)
        return trust

    def _seen(self) -> int:
        try:
            return int((self._folder / "seen").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError:
            raise NotAllowed(
                "keys.trust-damaged",
                "the file `seen` in the key ring holds no number",
                why="it says which trust root was the newest that was ever seen here",
                fix="write the number of the newest trust.json into it",
            ) from None

    def _remember(self, version: int) -> None:
        write_atomic(self._folder / "seen", str(version).encode(), mode=0o600)

    def _keep(self, before: Trust, signers: tuple[dsse.Signs, ...] = (), **fields: Any) -> Trust:
        """Sign and write the next version, or leave it as a proposal that others must sign."""
        now = self._clock()
        trust = trusting.changed(
            before, expires=now + TRUST_LIFE, next_update=now + LIST_LIFE, **fields
        )
        data = trusting.seal_trust(trust, *(signers or (self._private.read(ROOT),)))
        try:
            trusting.succeed(before, data, now=now)
        except trusting.BadTrust as error:
            write_atomic(self.proposal, data, mode=0o600)
            raise NotAllowed(
                "keys.root-short",
                str(error),
                why="the trust root asks for more than the one root key of this ring; what it would "
                f"say next lies in {self.proposal}",
                fix="let the other holders sign it (`falaj keys trust --sign FILE`), then "
                "`falaj keys trust --adopt FILE`",
            ) from None
        self._write(trust, data)
        return trust

    def _write(self, trust: Trust, data: bytes) -> None:
        write_atomic(self.trust_file, data, mode=0o600)
        self._remember(trust.version)

    def _guard(self) -> None:
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotAllowed(
                "keys.too-open",
                f"the key ring {self._folder} is not a folder",
                why="a link could lead to keys that somebody else prepared",
                fix="give the key ring a folder of its own",
            )
        refuse_open(self._folder, found)
        for path in sorted(self._folder.iterdir()):
            try:
                refuse_open(path, path.lstat())
            except FileNotFoundError:  # the neighbour of a write that has just been renamed
                continue

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._guard()
        handle = os.open(
            self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def missing(identity: str) -> NotFound:
    return NotFound(
        "keys.missing",
        f"no key for {identity!r} on this machine",
        why="a signature needs the private key, and it never leaves the ring it was made in",
        fix="sign in as an identity of this workspace, or make a key for it",
    )


def refuse_open(path: Path, found: os.stat_result) -> None:
    """Refuse what others own, may read, or could lead elsewhere."""
    if found.st_uid != os.geteuid():
        raise NotAllowed(
            "keys.too-open",
            f"{path} belongs to another user",
            why="whoever owns a key file can change it",
            fix=f"run `chown {os.geteuid()} {path}`, after asking who made it",
        )
    if found.st_mode & 0o077 and not stat.S_ISLNK(found.st_mode):
        mode = stat.S_IMODE(found.st_mode)
        wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise NotAllowed(
            "keys.too-open",
            f"{path} has mode {mode:04o}, expected 0{wanted}",
            why="other users of this machine could read or change the keys",
            fix=f"run `chmod {wanted} {path}`; if others had access, make new keys",
        )
    if stat.S_ISLNK(found.st_mode):
        raise NotAllowed(
            "keys.too-open",
            f"{path} is a link",
            why="a key must lie in the ring itself",
            fix="remove the link and put the file there",
        )
