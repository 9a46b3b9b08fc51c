"""DSSE envelopes: what was signed, by which key, read strictly.

ECDSA P-256 signs everything; Ed25519 is accepted where the caller says so: attestations, checkpoints.

PAE, envelope: https://github.com/secure-systems-lab/dsse, protocol v1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from falaj.base import canonical

__all__ = [
    "STATEMENT",
    "BadEnvelope",
    "Opened",
    "Signs",
    "hint_of",
    "open_envelope",
    "open_several",
    "pae",
    "public_pem",
    "seal",
    "seal_several",
    "spelled_key",
]

STATEMENT: Final = "application/vnd.in-toto+json"
MAX_BYTES: Final = 16 * 1024 * 1024
MOST: Final = 64  # signatures on one envelope


class Signs(Protocol):
    """A key that signs and never shows itself."""

    @property
    def public(self) -> bytes:
        """The public key, PEM (SubjectPublicKeyInfo)."""

    def sign(self, message: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 over `message`, DER; 64 bytes when it is an Ed25519 key."""


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
    return seal_several(payload, [signer], kind=kind)


def seal_several(payload: object, signers: Sequence[Signs], *, kind: str) -> dict[str, Any]:
    """One payload, signed by each of `signers`."""
    body = canonical.dumps(payload)
    message = pae(kind, body)
    return {
        "payload": base64.b64encode(body).decode(),
        "payloadType": kind,
        "signatures": [
            {
                "keyid": hint_of(signer.public),
                "sig": base64.b64encode(signer.sign(message)).decode(),
            }
            for signer in signers
        ],
    }


def open_envelope(
    envelope: object, keys: Mapping[str, bytes], *, kind: str = STATEMENT, ed25519: bool = False
) -> Opened:
    """Verify, then parse. `keys`: hint -> public PEM of those who may sign this.

    ed25519: such a key counts as well. Raises BadEnvelope: unknown key, wrong type, not exactly one signature, bad base64, no match.
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
    if not verify(keys[hint], decode(sig), pae(kind, body), ed25519=ed25519):
        raise BadEnvelope(f"signature by key {hint[:16]} does not hold")
    try:
        return Opened(canonical.loads(body), hint)
    except canonical.NotCanonical as error:
        raise BadEnvelope(f"payload: {error}") from None


def open_several(
    envelope: object, keys: Mapping[str, bytes], *, kind: str
) -> tuple[Any, tuple[str, ...]]:
    """Verify an envelope that several may have signed, then parse: payload, hints that hold.

    Signatures by keys that are not in `keys` count for nothing and do no harm; one by a known key
    that does not hold, or that stands twice, is refused. Raises BadEnvelope.
    """
    match envelope:
        case {"payload": str(text), "payloadType": str(found), "signatures": list(given)}:
            pass
        case _:
            raise BadEnvelope("not an envelope with signatures")
    if found != kind:
        raise BadEnvelope(f"payload type: got {found}, expected {kind}")
    if not 1 <= len(given) <= MOST:
        raise BadEnvelope(f"got {len(given)} signatures, expected 1 to {MOST}")
    body = decode(text)
    message = pae(kind, body)
    held: list[str] = []
    for one in given:
        match one:
            case {"sig": str(sig), "keyid": str(hint)}:
                pass
            case _:
                raise BadEnvelope("a signature without its key's id")
        if hint in held:
            raise BadEnvelope(f"key {hint[:16]} signed twice")
        if hint not in keys:
            continue
        if not verify(keys[hint], decode(sig), message):
            raise BadEnvelope(f"signature by key {hint[:16]} does not hold")
        held.append(hint)
    if not held:
        raise BadEnvelope("no key that signed it is trusted for this")
    try:
        return canonical.loads(body), tuple(held)
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


def verify(public: bytes, signature: bytes, message: bytes, *, ed25519: bool = False) -> bool:
    """ECDSA P-256, and Ed25519 where it is asked for: the list is ours, never the file's."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        elif ed25519 and isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def spelled_key(public: bytes) -> str:
    """`p256` or `ed25519`, when it is such a key in its one spelling. Raises ValueError.

    One key in two spellings would have two hints, and count as two.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is not a public key in PEM form") from None
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        kind = "p256"
    elif isinstance(key, Ed25519PublicKey):
        kind = "ed25519"
    else:
        raise ValueError("it is neither ECDSA P-256 nor Ed25519")
    again = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if again != public:
        raise ValueError("it is not written in its one spelling")
    return kind


def public_pem(private: Any) -> bytes:
    """PEM of the public half of a `cryptography` private key."""
    from cryptography.hazmat.primitives import serialization

    pem: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem
