"""TLS contexts from files, replaced whole when the files change.

Loading a pair into the context in use can leave it without a usable certificate, and authorities can
only be added to it, never taken away. So a change makes a new context, and the next handshake gets it.
"""

from __future__ import annotations

import hashlib
import ssl
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["BadFiles", "Contexts", "Peer", "TlsFiles", "peer_of", "thumbprint_of"]

SPIFFE: Final = "spiffe://"


class BadFiles(ValueError):
    """The files make no server context; the text says which and why."""


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files. clients: authorities of client certificates; required: nobody comes without one."""

    certificate: Path
    key: Path
    clients: Path | None = None
    required: bool = False


class Peer(NamedTuple):
    """Who is at the other end of a connection. name: SPIFFE URI. thumbprint: x5t#S256 (RFC 8705)."""

    name: str
    thumbprint: str


class Contexts:
    """The context of the next handshake. Raises BadFiles at the start, and never after it."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.problem = ""
        self.loads = 1
        self._mark = self._look()
        self.current = self._made()

    def renew(self) -> bool:
        """Look at the files; True when a new context was taken up. Bad files leave the old one."""
        mark = self._look()
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            fresh = self._made()
        except BadFiles as error:
            self.problem = str(error)
            return False
        self.current = fresh
        self.problem = ""
        self.loads += 1
        return True

    def _made(self) -> ssl.SSLContext:
        files = self.files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            words = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise BadFiles(f"{files.certificate.name} and {files.key.name}: {words}") from None
        if files.clients is not None:
            try:
                context.load_verify_locations(files.clients)
            except (OSError, ValueError) as error:
                raise BadFiles(f"{files.clients.name}: no authorities: {error}") from None
            context.verify_mode = ssl.CERT_REQUIRED if files.required else ssl.CERT_OPTIONAL
        elif files.required:
            raise BadFiles("client certificates are required, but no authorities are named")
        return context

    def _look(self) -> tuple[Any, ...]:
        found: list[Any] = []
        for path in (self.files.certificate, self.files.key, self.files.clients):
            try:
                told = path.stat() if path is not None else None
            except OSError:
                told = None
            found.append(told and (told.st_mtime_ns, told.st_size, told.st_ino))
        return tuple(found)


def _no_password() -> str:
    """Without this OpenSSL asks at the terminal, and a server waits there for ever."""
    raise ValueError("the key is encrypted; give one without a password")


def peer_of(tls: Any) -> Peer | None:
    """Name and thumbprint of a verified client certificate; `tls`: the connection's SSL object.

    A certificate without exactly one SPIFFE URI names nobody, but its thumbprint still binds tokens.
    """
    der = tls.getpeercert(True) if tls is not None else None
    if not der:
        return None
    names = [
        value
        for kind, value in (tls.getpeercert() or {}).get("subjectAltName", ())
        if kind == "URI"
    ]
    only = names[0] if len(names) == 1 and names[0].startswith(SPIFFE) else ""
    return Peer(only, thumbprint_of(der))


def thumbprint_of(der: bytes) -> str:
    """x5t#S256 of a certificate: base64url without padding."""
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
