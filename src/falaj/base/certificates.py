"""Certificate chains of signers: one authority, one name, for signing code, at one time.

What is not understood is refused: extensions that are critical and unknown here, algorithms that are
not on the list. RFC 5280, section 6, without policies and name constraints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["BadChain", "check_authority", "fingerprint", "judge"]

LONGEST: Final = 6  # certificates in a chain
LARGEST: Final = 1 << 16  # bytes of one
UNDERSTOOD: Final = frozenset(
    {"2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37"}  # key usage, SAN, constraints, EKU
)
HASHES: Final = frozenset({"sha256", "sha384", "sha512"})


E = TypeVar("E", bound="x509.ExtensionType")


class BadChain(ValueError):
    """The chain does not lead to the authority, or the leaf may not sign this. Says why."""


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, hex: how a revocation names it."""
    return hashlib.sha256(der).hexdigest()


def judge(chain: Sequence[bytes], authority: bytes, *, name: str, at: datetime) -> bytes:
    """The public key (PEM) of the leaf, when everything holds at that time. Raises BadChain.

    1. Each certificate was issued by the next one, the last by the authority (PEM), which may also
       stand at the end itself.
    2. Issuers are authorities: basic constraints, key usage, and no more below them than they allow.
    3. All are valid at `at`; all extensions that are critical are understood.
    4. The leaf is none: its extended key usage has code signing, its key usage signing, and its
       subject alternative name has `name`.
    5. Its key is ECDSA P-256.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    anchor = _authority(authority)
    links = _read(chain)
    if len(links) > 1 and links[-1] == anchor:
        links.pop()
    leaf, *above = links
    if leaf == anchor:
        raise BadChain("the authority's own certificate signs nothing but certificates")
    issuers = [*above, anchor]
    for depth, (cert, issuer) in enumerate(zip(links, issuers, strict=True)):
        _issued(cert, issuer)
        _is_authority(issuer, below=depth)
    for cert in (*links, anchor):
        _valid(cert, at)
        _understood(cert)
    _is_signer(leaf, name)
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise BadChain("the certificate's key is not ECDSA P-256")
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def check_authority(pem: bytes) -> None:
    """Refuse a certificate that is no authority. Raises BadChain."""
    cert = _authority(pem)
    _is_authority(cert, below=0)
    _understood(cert)


def _authority(pem: bytes) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise BadChain("the authority is not a certificate in PEM form") from None


def _read(chain: Sequence[bytes]) -> list[x509.Certificate]:
    from cryptography import x509

    if not 1 <= len(chain) <= LONGEST:
        raise BadChain(f"got {len(chain)} certificates, expected 1 to {LONGEST}")
    if any(len(der) > LARGEST for der in chain):
        raise BadChain("a certificate is larger than 64 KiB")
    try:
        return [x509.load_der_x509_certificate(der) for der in chain]
    except ValueError:
        raise BadChain("a certificate is damaged") from None


def _issued(cert: x509.Certificate, issuer: x509.Certificate) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        algorithm = cert.signature_hash_algorithm
        if algorithm is not None and algorithm.name not in HASHES:
            raise BadChain(f"a certificate is signed with {algorithm.name}")
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        if isinstance(error, BadChain):
            raise
        raise BadChain("a certificate was not issued by the authority above it") from None


def _is_authority(cert: x509.Certificate, *, below: int) -> None:
    """below: intermediate authorities between this one and the leaf."""
    from cryptography import x509

    constraints = _extension(cert, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise BadChain("a certificate above the leaf is not that of an authority")
    if constraints.path_length is not None and below > constraints.path_length:
        raise BadChain(
            f"{below} authorities below one that allows {constraints.path_length} (path length)"
        )
    usage = _extension(cert, x509.KeyUsage)
    if usage is None or not usage.key_cert_sign:
        raise BadChain("an authority's key may not sign certificates (key usage)")


def _valid(cert: x509.Certificate, at: datetime) -> None:
    if at < cert.not_valid_before_utc:
        raise BadChain(f"a certificate is valid from {cert.not_valid_before_utc.isoformat()} on")
    if at > cert.not_valid_after_utc:
        raise BadChain(f"a certificate expired at {cert.not_valid_after_utc.isoformat()}")


def _understood(cert: x509.Certificate) -> None:
    try:
        unknown = [
            one.oid.dotted_string
            for one in cert.extensions
            if one.critical and one.oid.dotted_string not in UNDERSTOOD
        ]
    except ValueError:
        raise BadChain("a certificate's extensions are damaged") from None
    if unknown:
        raise BadChain(f"a critical extension is not understood: {', '.join(unknown)}")


def _is_signer(leaf: x509.Certificate, name: str) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise BadChain("an authority's certificate signs certificates, not releases")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise BadChain("the certificate is not for signing code (extended key usage)")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise BadChain("the certificate's key may not sign (key usage)")
    found = _extension(leaf, x509.SubjectAlternativeName)
    kinds = (x509.UniformResourceIdentifier, x509.DNSName, x509.RFC822Name)
    names = [str(one.value) for one in found or () if isinstance(one, kinds)]
    if name not in names:
        raise BadChain(f"the certificate is for {', '.join(names) or 'nobody'}, not for {name}")


def _extension(cert: x509.Certificate, kind: type[E]) -> E | None:
    from cryptography import x509

    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension):
        raise BadChain("a certificate's extensions are damaged") from None
