"""Certificates of gRPC from files, read again when they change: new connections get the new ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from falaj.base.errors import FalajError

__all__ = ["Certificates"]


class Certificates:
    """`settings` has `certificate`, `key`, `clients`: PEM files. Raises FalajError at the start.

    What cannot be read later is reported once, and the certificates that were good stay.
    """

    def __init__(self, grpc: Any, settings: Any) -> None:
        self.grpc = grpc
        self.paths = [
            Path(name) for name in (settings.certificate, settings.key, settings.clients) if name
        ]
        self.wants_clients = bool(settings.clients)
        self.mark = self._look()
        self.problem = ""
        try:
            self.first = self._read()
        except (OSError, ValueError) as error:
            raise FalajError(
                "serving.tls-files",
                f"certificate of gRPC: {error}",
                fix="give a PEM certificate and the key that belongs to it",
            ) from None

    def credentials(self) -> Any:
        """Return what grpcio asks before each handshake."""
        return self.grpc.dynamic_ssl_server_credentials(
            self.first, self.fetch, require_client_authentication=self.wants_clients
        )

    def fetch(self) -> Any:
        """Return the newest configuration, or None when nothing changed."""
        mark = self._look()
        if mark == self.mark:
            return None
        self.mark = mark
        try:
            return self._read()
        except (OSError, ValueError) as error:
            self.problem = f"certificate of gRPC: not taken up: {error}"
            print(f"falaj: {self.problem}", file=sys.stderr, flush=True)
            return None

    def _look(self) -> tuple[Any, ...]:
        found = []
        for path in self.paths:
            try:
                told = path.stat()
                found.append((told.st_mtime_ns, told.st_size, told.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _read(self) -> Any:
        """Read all files; a key that does not belong to its certificate is a ValueError."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        chain, key = self.paths[0].read_bytes(), self.paths[1].read_bytes()
        clients = self.paths[2].read_bytes() if self.wants_clients else None
        certificate = x509.load_pem_x509_certificates(chain)[0]
        private = load_pem_private_key(key, None)
        if private.public_key() != certificate.public_key():
            raise ValueError(f"{self.paths[1].name} is not the key of {self.paths[0].name}")
        if clients is not None:
            x509.load_pem_x509_certificates(clients)
        return self.grpc.ssl_server_certificate_configuration([(key, chain)], clients)
