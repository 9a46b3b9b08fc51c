"""A key ring in a folder: one private key an identity, and the trust root signed by the root key.

Embedded mode: whoever is this user can read the keys, so provenance says `isolation: none`. What
the ring does promise: no other user can, or it refuses to start.
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
from urllib.parse import quote

from falaj.base import dsse, time
from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.base.files import write_atomic
from falaj.facts import trust as trusting
from falaj.facts.releases import Trust, TrustedKey

__all__ = ["KeyRing"]

IDENTITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")
ROOT: Final = "root"
KEY_LIFE: Final = timedelta(days=730)
TRUST_LIFE: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=30)


class LocalSigner:
    """ECDSA P-256 with a key held in memory."""

    def __init__(self, private: Any) -> None:
        self._private = private
        self._public = dsse.public_pem(private)

    @property
    def public(self) -> bytes:
        return self._public

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        signature: bytes = self._private.sign(message, ec.ECDSA(hashes.SHA256()))
        return signature


class KeyRing:
    """Adapter of ports.signer.Keys over a folder (0700) of PEM files (0600).

    Several processes may use it at once: changes are made under a file lock and appear whole.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], datetime] = time.now) -> None:
        """Open or make the ring. Raises NotAllowed when others could read or change it."""
        self._folder = folder
        self._clock = clock
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700)
        self._guard()

    @property
    def trust_file(self) -> Path:
        """trust.json: what a verifier elsewhere is given, apart from what it verifies."""
        return self._folder / "trust.json"

    def create(self, identity: str, roles: tuple[str, ...]) -> str:
        if not IDENTITY.fullmatch(identity) or identity == ROOT or ROOT in roles:
            raise FalajError(
                "keys.identity",
                f"identity {identity!r} with roles {', '.join(roles)} cannot be made here",
                why="a name is 1 to 128 of A-Z a-z 0-9 . _ : @ / + - ; the root key is the ring's own",
                fix="choose another name, and roles other than root",
            )
        with self._locked():
            now = self._clock()
            trust = self._open(now)
            known = self._entry(trust, identity)
            if known is None or known.not_after - RENEW_BEFORE < now:
                signer = self._make(identity)
                known = TrustedKey(
                    identity=identity,
                    public=signer.public.decode(),
                    roles=tuple(sorted({*roles, *(known.roles if known else ())})),
                    not_before=now,
                    not_after=now + KEY_LIFE,
                )
                self._keep(trusting.with_key(trust, known, expires=now + TRUST_LIFE))
            elif not set(roles) <= set(known.roles):
                known = TrustedKey(
                    identity=identity,
                    public=known.public,
                    roles=tuple(sorted({*known.roles, *roles})),
                    not_before=known.not_before,
                    not_after=known.not_after,
                )
                self._keep(trusting.with_key(trust, known, expires=now + TRUST_LIFE))
            return dsse.hint_of(known.public.encode())

    def signer(self, identity: str) -> LocalSigner:
        self._guard()
        if not self._file(identity).exists():
            raise NotFound(
                "keys.missing",
                f"no key for {identity!r} on this machine",
                why="a signature needs the private key, and it never leaves the ring it was made in",
                fix="sign in as an identity of this workspace, or make a key for it",
            )
        return self._read(identity)

    def trust(self) -> Trust:
        with self._locked():
            return self._open(self._clock())

    def trust_text(self) -> str:
        """trust.json as it stands, signed, current."""
        with self._locked():
            self._open(self._clock())
            return self.trust_file.read_text(encoding="utf-8")

    def _file(self, identity: str) -> Path:
        return self._folder / f"{quote(identity, safe='')}.pem"

    def _entry(self, trust: Trust, identity: str) -> TrustedKey | None:
        """The entry of the key that lies here; an older key of this identity stays trusted too."""
        if not self._file(identity).exists():
            return None
        public = self._read(identity).public.decode()
        return next((key for key in trust.keys if key.public == public), None)

    def _open(self, now: datetime) -> Trust:
        """Read the trust root, made on first use and renewed before it expires."""
        if not self.trust_file.exists():
            others = [path for path in self._folder.glob("*.pem") if path != self._file(ROOT)]
            if others:
                raise NotAllowed(
                    "keys.trust-missing",
                    "the key ring has keys but no trust.json",
                    why="a trust root that vanished is not made again in silence",
                    fix="put trust.json back from a copy, or start a new key ring",
                )
            # A root key alone is a first use that was interrupted.
            root = self._read(ROOT) if self._file(ROOT).exists() else self._make(ROOT)
            first = TrustedKey(
                identity=ROOT,
                public=root.public.decode(),
                roles=(ROOT,),
                not_before=now,
                not_after=now + 5 * KEY_LIFE,
            )
            self._keep(Trust(version=1, keys=(first,), expires=now + TRUST_LIFE))
        try:
            trust = trusting.open_trust(
                self.trust_file.read_bytes(),
                now=now,
                root=dsse.hint_of(self._read(ROOT).public),
                allow_expired=True,  # renewed at once by the root key that lies beside it
            )
        except trusting.BadTrust as error:
            raise NotAllowed(
                "keys.trust-damaged",
                str(error),
                why="trust.json must be signed by the root key of this ring",
                fix="put trust.json back from a copy",
            ) from None
        if trust.expires - RENEW_BEFORE < now:
            trust = Trust(version=trust.version + 1, keys=trust.keys, expires=now + TRUST_LIFE)
            self._keep(trust)
        return trust

    def _keep(self, trust: Trust) -> None:
        write_atomic(self.trust_file, trusting.seal_trust(trust, self._read(ROOT)), mode=0o600)

    def _make(self, identity: str) -> LocalSigner:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_atomic(self._file(identity), pem, mode=0o600)
        return LocalSigner(private)

    def _read(self, identity: str) -> LocalSigner:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        path = self._file(identity)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                self._private(path, os.fstat(handle))
                private = serialization.load_pem_private_key(file.read(), None)
        except (OSError, ValueError) as error:
            raise NotAllowed(
                "keys.damaged",
                f"the key of {identity!r} cannot be read: {error}",
                why="it is not a private key in PEM form that this user may read",
                fix="put the file back from a copy, or make a new key under another name",
            ) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise NotAllowed(
                "keys.damaged",
                f"the key of {identity!r} is not ECDSA P-256",
                why="the list of algorithms is ours, never the file's",
                fix="make a new key",
            )
        return LocalSigner(private)

    def _guard(self) -> None:
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotAllowed(
                "keys.too-open",
                f"the key ring {self._folder} is not a folder",
                why="a link could lead to keys that somebody else prepared",
                fix="give the key ring a folder of its own",
            )
        self._private(self._folder, found)
        for path in sorted(self._folder.iterdir()):
            try:
                self._private(path, path.lstat())
            except FileNotFoundError:  # the neighbour of a write that has just been renamed
                continue

    @staticmethod
    def _private(path: Path, found: os.stat_result) -> None:
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
