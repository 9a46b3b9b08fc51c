"""Addresses of releases in a registry: `oci://host[:port]/repository[:tag][@sha256:...]`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from falaj.base.errors import FalajError

__all__ = ["LOOPBACK", "Address", "is_loopback", "read_address", "tag_trouble"]

# Grammar: OCI Distribution 1.1, "Pulling manifests".
HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
)
PART: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
SCHEME: Final = "oci://"
LONGEST: Final = 255


class Address(NamedTuple):
    host: str  # with its port
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def reference(self) -> str:
        return self.digest or self.tag

    def at(self, digest: str) -> str:
        """The address of exactly this."""
        return f"{SCHEME}{self.host}/{self.repository}@{digest}"


def is_loopback(host: str) -> bool:
    return host.rpartition(":")[0] in LOOPBACK or host in LOOPBACK


def tag_trouble(tag: str) -> str:
    return "" if TAG.fullmatch(tag) else f"{tag!r} cannot be a tag"


def read_address(text: str) -> Address:
    """Raises FalajError: a wrong scheme, credentials, a name that no registry can have."""
    if not text.startswith(SCHEME):
        raise bad(text, f"it does not begin with {SCHEME}")
    host, slash, path = text.removeprefix(SCHEME).partition("/")
    if "@" in host:
        raise FalajError(
            "remote.bad-address",
            "the address holds a name or a password",
            why="command lines are seen by everybody on the machine and stay in histories",
            fix="docker login HOST, or an auth file that REGISTRY_AUTH_FILE names",
        )
    if not slash or not HOST.fullmatch(host):
        raise bad(text, "there is no host, or it cannot be one")
    path, at, digest = path.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise bad(text, "behind @ stands no sha256: digest of 64 small hex digits")
    repository, colon, tag = path.partition(":")
    if colon and tag_trouble(tag):
        raise bad(text, tag_trouble(tag))
    parts = repository.split("/")
    if len(repository) > LONGEST or not all(PART.fullmatch(part) for part in parts):
        raise bad(
            text, f"{repository!r} cannot be a repository: small letters, digits, . _ - and /"
        )
    return Address(host, repository, tag, digest)


def bad(text: str, why: str) -> FalajError:
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)[:200]
    return FalajError(
        "remote.bad-address",
        f"{shown} is not an address of a release in a registry",
        why=why,
        fix="write it like oci://registry.example/team/model:1.0.0 or oci://.../model@sha256:...",
    )
