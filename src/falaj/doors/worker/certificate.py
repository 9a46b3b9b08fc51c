"""A certificate for 127.0.0.1 that lives as long as this process; its key is in no file."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from falaj.base.time import now

__all__ = ["Certificate"]

LIFE: Final = dt.timedelta(days=30)  # of a run, at the most


@dataclass(frozen=True)
class Certificate:
    """context: of the server. path: of the certificate alone, for who has to trust it."""

    context: ssl.SSLContext
    path: str

    @classmethod
    def made(cls) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "falaj step")])
        begin = now()
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        public = key.public_key()
        itself = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - dt.timedelta(minutes=5))
            .not_valid_after(begin + LIFE)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        pem = itself.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        both, whole = _kept(pem + secret)
        context.load_cert_chain(whole)
        os.close(both)
        if not whole.startswith("/proc"):
            Path(whole).unlink()
        return cls(context, _kept(pem)[1])


def _kept(data: bytes) -> tuple[int, str]:
    """A file without a name, and where this process and its children read it.

    A worker may be ended at any moment: nothing is to be left behind.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("falaj-step")
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
    else:  # a file that only this user reads
        descriptor, path = tempfile.mkstemp(prefix="falaj-step-")
    os.write(descriptor, data)
    return descriptor, path
