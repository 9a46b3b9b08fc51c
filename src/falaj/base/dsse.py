"""DSSE envelopes with ECDSA P-256: what was signed, by which key, read strictly.

PAE, envelope: https://github.com/secure-systems-lab/dsse, protocol v1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from falaj.base import canonical

__all__ = [
    "STATEMENT",
    "BadEnvelope",
    "Opened",
    "Signs",
    "hint_of",
    "open_envelope",
    "pae",
    "public_pem",
    "seal",
]

STATEMENT: Final = "application/vnd.in-toto+json"
MAX_BYTES: Final = 16 * 1024 * 1024


class Signs(Protocol):
    """A key that signs and never shows itself."""

    @property
    def public(self) -> bytes:
        """The public key, PEM (SubjectPublicKeyInfo)."""

    def sign(self, message: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 over `message`, DER."""


class BadEnvelope(ValueError):
    """The envelope is malformed or its signature does not hold."""


class Opened(NamedTuple):
    """A payload whose signature held, and the hint of the key that made it."""

    payload: Any
    hint: str


def pae(kind: str, body: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)


def hint_of(public: bytes) -> str:
    """SHA-256 of the PEM key, hex: how bundles name a key."""
    return hashlib.sha256(public).hexdigest()


def seal(payload: object, signer: Signs, *, kind: str = STATEMENT) -> dict[str, Any]:
    """Sign the canonical JSON of `payload`."""
    body = canonical.dumps(payload)
    signature = signer.sign(pae(kind, body))
    return {
        "payload": base64.b64encode(body).decode(),
        "payloadType": kind,
        "signatures": [
            {"keyid": hint_of(signer.public), "sig": base64.b64encode(signature).decode()}
        ],
    }


def open_envelope(envelope: object, keys: Mapping[str, bytes], *, kind: str = STATEMENT) -> Opened:
    """Verify, then parse. `keys`: hint -> public PEM of those who may sign this.

    Raises BadEnvelope: unknown key, wrong type, not exactly one signature, bad base64, no match.
    """
    match envelope:
        case {
            "payload": str(text),
            "payloadType": str(found),
            "signatures": [{"sig": str(sig), "keyid": str(hint)}],
        }:
            pass
        case _:
            raise BadEnvelope("not an envelope with exactly one signature")
    if found != kind:
        raise BadEnvelope(f"payload type: got {found}, expected {kind}")
    if hint not in keys:
        raise BadEnvelope(f"key {hint[:16]} is not trusted for this")
    body = decode(text)
    if not verify(keys[hint], decode(sig), pae(kind, body)):
        raise BadEnvelope(f"signature by key {hint[:16]} does not hold")
    try:
        return Opened(canonical.loads(body), hint)
    except canonical.NotCanonical as error:
        raise BadEnvelope(f"payload: {error}") from None


def decode(text: str) -> bytes:
    """Base64 in its one spelling: unused bits of the last sign must be zero."""
    if len(text) > MAX_BYTES:
        raise BadEnvelope("larger than 16 MiB")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadEnvelope("base64 is damaged") from None
    if base64.b64encode(raw).decode() != text:
        raise BadEnvelope("base64 is not in its one spelling")
    return raw


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """ECDSA P-256 only: the list of algorithms is ours, never the file's."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(public)
    except ValueError:
        return False
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        return False
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def public_pem(private: Any) -> bytes:
    """PEM of the public half of a `cryptography` private key."""
    from cryptography.hazmat.primitives import serialization

    pem: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem
