"""Places of others that keep whole releases: OCI registries, buckets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from falaj.base.errors import Conflict

__all__ = ["Parcel", "Piece", "Pushed", "Remote", "Shipment", "Signing", "must_be_free"]

Signing = Callable[[str, Sequence[bytes]], bytes | None]
"""(digest that names the release there, envelopes over it that lie there) -> one more, if needed."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A verified release folder on its way out. files, digests: by relative path, the same keys."""

    id: str
    model: str
    version: str
    created: datetime
    files: Mapping[str, Path]
    digests: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """address: with the digest that names the release there. there: files that lay there before."""

    address: str
    digest: str
    tag: str
    sent: int
    sent_bytes: int
    there: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What lies under one address. Nothing of it is believed until it is verified.

    asked: the tag that led here; empty when the digest was asked for. envelopes: statements about
    `digest`, whoever put them there.
    """

    address: str
    digest: str
    files: Mapping[str, Piece]
    asked: str = ""
    envelopes: Sequence[bytes] = field(default=())


def must_be_free(tag: str, release: str, names: str) -> None:
    """Raises Conflict when the tag names another release. names: which one; empty when none."""
    if names not in ("", release):
        raise Conflict(
            "remote.tag-taken",
            f"{tag} names another release there: {names}",
            why="whoever pulls by that name would silently get another model",
            fix="push to another tag, or say --move-tag",
        )


class Remote(Protocol):
    """One address in such a place. tests/contracts/test_remote.py.

    The place is not trusted: other bytes than asked for, lists without an end, paths that lead
    elsewhere and redirections to another scheme raise Unverified or Refused. What may go better
    later raises Away. Everything may be done again, also after a kill in the middle of it.
    """

    @property
    def plain(self) -> bool:
        """Whether bytes travel in the clear."""

    def push(self, parcel: Parcel, sign: Signing, *, move: bool = False) -> Pushed:
        """Bring what is not there yet; the release appears whole or not at all.

        The tag of the address, or the version. Raises Conflict when the tag names another release
        and `move` is not said.
        """

    def find(self) -> Shipment:
        """What the address names. Raises NotFound."""

    def bring(self, piece: Piece, to: Path) -> None:
        """Write exactly these bytes to a new file, or raise and leave none."""

    def close(self) -> None: ...
