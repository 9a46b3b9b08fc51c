"""Private keys on a token (PKCS#11): they are made there, sign there, and never come out."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import FalajError, NotAllowed, NotFound

__all__ = ["TokenKeys", "read_pin"]

# A process signs in to a token once; all that use it share that session, one at a time.
LOCK: Final = threading.RLock()
OPEN: Final[dict[tuple[str, str], tuple[str, Any]]] = {}


def read_pin(path: Path) -> str:
    """The PIN from a file that only this user may read. Raises NotAllowed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise NotAllowed(
                    "keys.too-open",
                    f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, expected 0600",
                    why="who knows the PIN can sign with every key of the token",
                    fix=f"run `chmod 600 {path}`; if others had access, change the PIN",
                )
            return file.read(1024).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotAllowed(
            "keys.token",
            f"the PIN cannot be read from {path}: {error}",
            why="the project file holds the address of the PIN, never the PIN",
            fix="put the PIN into that file, mode 600",
        ) from None


class TokenSigner:
    """ECDSA P-256 by a key on the token."""

    def __init__(self, keys: TokenKeys, name: str, public: bytes) -> None:
        self._keys, self._name, self._public = keys, name, public

    @property
    def public(self) -> bytes:
        return self._public

    def sign(self, message: bytes) -> bytes:
        return self._keys.sign(self._name, message)


class TokenKeys:
    """Adapter of ports.signer.PrivateKeys over one token.

    label: of the token. prefix: before the labels of all keys, so that several workspaces share one.
    """

    def __init__(self, module: str, label: str, pin: str, *, prefix: str) -> None:
        self._module, self._label, self._pin, self._prefix = module, label, pin, prefix

    def names(self) -> tuple[str, ...]:
        from pkcs11 import Attribute, ObjectClass

        with self._session() as session:
            found = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
            labels = {str(key[Attribute.LABEL]) for key in found}
        names = (
            label.removeprefix(self._prefix) for label in labels if label.startswith(self._prefix)
        )
        return tuple(sorted(names))

    def make(self, name: str) -> TokenSigner:
        from pkcs11 import Attribute, KeyType
        from pkcs11.util.ec import encode_named_curve_parameters

        with self._session() as session:
            self._remove(session, name)
            curve = encode_named_curve_parameters("secp256r1")
            session.create_domain_parameters(
                KeyType.EC, {Attribute.EC_PARAMS: curve}, local=True
            ).generate_keypair(
                store=True,
                label=f"{self._prefix}{name}",
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
        return self.read(name)

    def read(self, name: str) -> TokenSigner:
        from pkcs11 import Attribute, KeyType
        from pkcs11.util.ec import encode_ec_public_key

        with self._session() as session:
            private, public = self._pair(session, name)
            if private[Attribute.KEY_TYPE] is not KeyType.EC:
                raise damaged(name, "it is not an elliptic curve key")
            if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
                raise damaged(name, "the token would hand it out")
            return TokenSigner(self, name, _pem(name, encode_ec_public_key(public)))

    def move(self, name: str, to: str) -> None:
        from pkcs11 import Attribute

        with self._session() as session:
            private, public = self._pair(session, name)
            self._remove(session, to)
            for one in (private, public):
                one[Attribute.LABEL] = f"{self._prefix}{to}"

    def sign(self, name: str, message: bytes) -> bytes:
        from pkcs11 import Mechanism
        from pkcs11.util.ec import encode_ecdsa_signature

        with self._session() as session:
            private, _ = self._pair(session, name)
            # Few tokens hash by themselves; the digest is all that a signature is over.
            raw = private.sign(hashlib.sha256(message).digest(), mechanism=Mechanism.ECDSA)
        signature: bytes = encode_ecdsa_signature(raw)
        return signature

    def _pair(self, session: Any, name: str) -> tuple[Any, Any]:
        from pkcs11 import Attribute, ObjectClass

        found = []
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            wanted = {Attribute.CLASS: kind, Attribute.LABEL: f"{self._prefix}{name}"}
            keys = list(session.get_objects(wanted))
            if not keys:
                raise NotFound(
                    "keys.missing",
                    f"no key for {name!r} on token {self._label!r}",
                    why="a signature needs the private key, and it never leaves the token it was made on",
                    fix="sign in as an identity of this workspace, or make a key for it",
                )
            if len(keys) > 1:
                raise damaged(name, "the token has several keys of this name")
            found.append(keys[0])
        return found[0], found[1]

    def _remove(self, session: Any, name: str) -> None:
        from pkcs11 import Attribute

        for key in list(session.get_objects({Attribute.LABEL: f"{self._prefix}{name}"})):
            key.destroy()

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """The session of this process, opened on first use; what the token refuses is said."""
        try:
            import pkcs11
        except ImportError:
            raise FalajError(
                "keys.extra-missing",
                "keys on a token need a package that is not installed",
                why="it is an extra: most workspaces keep their keys in files",
                fix="pip install 'falaj[pkcs11]'",
            ) from None
        with LOCK:
            key = (self._module, self._label)
            try:
                pin, session = OPEN.get(key, ("", None))
                if session is None:
                    token = pkcs11.lib(self._module).get_token(token_label=self._label)
                    session = token.open(rw=True, user_pin=self._pin)
                    OPEN[key] = self._pin, session
                elif not hmac.compare_digest(pin, self._pin):
                    raise RuntimeError("another PIN than the one it was opened with")
                yield session
            except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
                raise NotAllowed(
                    "keys.token",
                    f"token {self._label!r}: {type(error).__name__} {error}".rstrip(),
                    why="the module, the token or its PIN is not what the project file says",
                    fix="look at [keys] in falaj.toml, and whether the token is there",
                ) from None


def damaged(name: str, why: str) -> NotAllowed:
    return NotAllowed(
        "keys.damaged",
        f"the key of {name!r} cannot be used: {why}",
        why="a key is made on the token, of the kind that everybody verifies, and stays there",
        fix="make a new key under another name",
    )


def _pem(name: str, der: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        public = serialization.load_der_public_key(der)
    except ValueError:
        raise damaged(name, "its public half is malformed") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise damaged(name, "it is not ECDSA P-256")
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
