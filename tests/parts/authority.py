"""A certificate authority for tests: chains as they should be, and each way in which they should not."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from falaj.base import dsse

__all__ = ["NAME", "Holder", "authority", "leaf"]

NAME = "spiffe://example.org/ns/models/sa/releaser"
EKU = ExtendedKeyUsageOID


class Holder:
    """A certificate and its key; signs as base.dsse.Signs."""

    def __init__(self, cert, key, above=()):
        self.cert, self.key, self.above = cert, key, above

    @property
    def pem(self):
        return self.cert.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def chain(self):
        """DER, this one first, without the authority at the end."""
        return [c.public_bytes(serialization.Encoding.DER) for c in (self.cert, *self.above)]

    @property
    def public(self):
        return dsse.public_pem(self.key)

    def sign(self, message):
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


def usage(**more):
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: more.get(name, False) for name in names})


def subject(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def authority(
    at, name="An authority", *, above=None, path_length=None, ca=True, signs=True, key=None
):
    """Self-issued without `above`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(above.cert.subject if above else subject(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=10))
        .not_valid_after(at + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(usage(key_cert_sign=signs, digital_signature=not signs), critical=True)
    )
    cert = builder.sign(above.key if above else key, hashes.SHA256())
    return Holder(cert, key)


def leaf(
    above,
    at,
    *,
    name=NAME,
    kind=x509.UniformResourceIdentifier,
    purposes=(EKU.CODE_SIGNING,),
    signs=True,
    ca=False,
    begins=timedelta(hours=-1),
    lives=timedelta(days=1),
    key=None,
    digest=None,
    more=(),
    issuer=None,
):
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject("A signer"))
        .issuer_name(issuer or above.cert.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at + begins)
        .not_valid_after(at + begins + lives)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage(digital_signature=signs, key_agreement=not signs), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if name:
        builder = builder.add_extension(x509.SubjectAlternativeName([kind(name)]), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    between = () if above.cert.issuer == above.cert.subject else (above.cert,)
    return Holder(builder.sign(above.key, digest or hashes.SHA256()), key, between)
