"""Releases in a bucket: the folder as it is, below `PREFIX/sha256-<id>/`; tags below `PREFIX/tags/`.

Any tool that copies objects gets the same folder, and `falaj verify` checks it. release.json is
written last: without it there is no release. What a store promises is found out, not believed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import urlsplit

from falaj.base import bundle, canonical, digests, ids, paths
from falaj.base.errors import Conflict, FalajError, NotFound, Unverified
from falaj.base.strangers import Away, hostile
from falaj.links.s3.client import Credentials
from falaj.links.s3.credentials import store_login
from falaj.links.s3.objects import Objects
from falaj.ports.remotes import Parcel, Piece, Pushed, Shipment, Signing, must_be_free

__all__ = ["S3Remote", "read_place"]

PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
HERE: Final = ("127.0.0.1", "localhost", "::1")
LARGEST: Final = 5 << 30  # of one object in one request
MOST_SMALL: Final = 16 << 20
UNKNOWN: Final = "sha256:" + "0" * 64  # of an object that release.json does not list
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TRIES: Final = 4


class Place(NamedTuple):
    bucket: str
    prefix: str
    tag: str = ""
    digest: str = ""


def read_place(text: str) -> Place:
    """`s3://BUCKET/PREFIX[:TAG][@sha256:...]`. Raises FalajError."""
    rest, at, digest = text.removeprefix("s3://").partition("@")
    bucket, _, path = rest.partition("/")
    prefix, colon, tag = path.partition(":")
    prefix = prefix.rstrip("/")
    wrong = (
        not text.startswith("s3://")
        or not BUCKET.fullmatch(bucket)
        or not all(PART.fullmatch(part) for part in prefix.split("/"))
        or len(prefix) > 255
        or (at and not digests.is_digest(digest))
        or (colon and not PART.fullmatch(tag))
    )
    if wrong:
        shown = "".join(sign if sign.isprintable() else "?" for sign in text)[:200]
        raise FalajError(
            "remote.bad-address",
            f"{shown} is not an address of a release in a bucket",
            why="a bucket, a prefix of letters, digits, . _ - and /, a tag or a digest",
            fix="write it like s3://bucket/team/delay:1.0.0 or s3://bucket/team/delay@sha256:...",
        )
    return Place(bucket, prefix, tag, digest)


class S3Remote:
    """One address. endpoint: of the store; nothing: AWS_ENDPOINT_URL says it."""

    def __init__(
        self,
        address: str,
        endpoint: str = "",
        *,
        region: str = "us-east-1",
        plain_http: bool | None = None,
        login: Callable[[], tuple[Credentials, str]] = store_login,
        pause: Callable[[float], None] = time.sleep,
        silence_s: float = 30.0,
    ) -> None:
        self._at = read_place(address)
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
        parts = urlsplit(endpoint)
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
            raise FalajError(
                "remote.bad-address",
                "the address of the store is not said",
                why="a bucket's name alone does not say where it lies",
                fix="--endpoint https://HOST, AWS_ENDPOINT_URL, or endpoint in [[links.remotes]]",
            )
        self._plain = parts.scheme == "http"
        if self._plain and not plain_http and parts.hostname not in HERE:
            raise FalajError(
                "remote.plain-http",
                f"{endpoint} is plain HTTP to another machine",
                why="bytes would travel in the clear, and could be exchanged on the way",
                fix="use https, or say --plain-http or plain_http = true",
            )
        self._pause = pause
        self._objects = Objects(
            endpoint, self._at.bucket, login, region=region, pause=pause, silence_s=silence_s
        )
        self._keys: dict[Piece, str] = {}

    @property
    def plain(self) -> bool:
        return self._plain

    def close(self) -> None:
        self._objects.close()

    def _key(self, release: str, path: str = "") -> str:
        return f"{self._at.prefix}/{release.replace(':', '-')}/{path}"

    def _tag_key(self, tag: str) -> str:
        return f"{self._at.prefix}/tags/{tag}"

    # --- there ---

    def push(self, parcel: Parcel, _sign: Signing, *, move: bool = False) -> Pushed:
        """All files, release.json after them, the tag at the end. The release signs itself."""
        tag = self._at.tag or parcel.version
        if not PART.fullmatch(tag):
            raise FalajError(
                "remote.bad-address",
                f"the version {tag!r} cannot be a tag",
                fix="say the tag: s3://BUCKET/PREFIX:TAG",
            )
        tagged = self._tagged(tag)
        if not move:
            must_be_free(tag, parcel.id, tagged)
        checks = self._objects.probe_content(f"{self._at.prefix}/falaj-probe/{ids.new()}")
        sent = sent_bytes = there = 0
        for path in [*sorted(parcel.files.keys() - {bundle.RELEASE}), bundle.RELEASE]:
            size = parcel.files[path].stat().st_size
            if self._bring(self._key(parcel.id, path), size, parcel, path, reread=not checks):
                sent, sent_bytes = sent + 1, sent_bytes + size
            else:
                there += 1
        if tagged != parcel.id:
            self._write_tag(tag, parcel.id, tagged)
        address = f"s3://{self._at.bucket}/{self._at.prefix}@{parcel.id}"
        return Pushed(
            address=address,
            digest=parcel.id,
            tag=tag,
            sent=sent,
            sent_bytes=sent_bytes,
            there=there,
        )

    def _bring(self, key: str, size: int, parcel: Parcel, path: str, *, reread: bool) -> bool:
        """Whether it was sent. What lies there already has to be these bytes."""
        if size > LARGEST:
            raise FalajError(
                "remote.too-large",
                f"{path} is larger than the {LARGEST >> 30} GiB that a store takes in one piece",
                fix="keep this release in a registry",
            )
        digest = parcel.digests[path]
        known = self._objects.size_of(key)
        if known is None:
            file = parcel.files[path]
            if self._objects.send(key, size, digest, partial(opened, file), only_new=True):
                if reread:
                    self._same(key, size, digest)
                return True
        elif known != size:
            raise wrong_bytes(self._objects.root, f"{size} bytes of {path}", f"{known}")
        self._same(key, size, digest)
        return False

    def _same(self, key: str, size: int, digest: str) -> None:
        """Read what lies there: some stores take other bytes than were signed."""
        self._hashed(lambda: self._objects.read(key, size), digest, size)

    def _hashed(self, blocks: Callable[[], Iterable[bytes]], digest: str, size: int) -> None:
        for turn in range(TRIES):
            hasher, got = hashlib.sha256(), 0
            try:
                for block in blocks():
                    hasher.update(block)
                    got += len(block)
            except Away:
                if turn + 1 == TRIES:
                    raise
                self._pause(0.5 * 2**turn)
                continue
            found = f"sha256:{hasher.hexdigest()}"
            if found != digest or got != size:
                raise wrong_bytes(
                    self._objects.root, f"{digest} of {size} bytes", f"{found} of {got}"
                )
            return

    def _tagged(self, tag: str) -> str:
        """The release that a tag names; nothing when it is free."""
        try:
            told = self._objects.whole(self._tag_key(tag), 200).decode("ascii", "replace").strip()
        except NotFound:
            return ""
        if not digests.is_digest(told):
            raise hostile(self._objects.root, f"what lies under the tag {tag} names no release")
        return told

    def _write_tag(self, tag: str, release: str, before: str) -> None:
        data = f"{release}\n".encode()
        key, digest = self._tag_key(tag), digests.of_bytes(data)
        self._objects.send(key, len(data), digest, lambda: io.BytesIO(data), only_new=not before)
        if self._tagged(tag) != release:
            raise Conflict(
                "remote.tag-taken",
                f"somebody else wrote the tag {tag} at this moment",
                why="the files of the release are there; the tag names another one",
                fix="look who pushes there, then push again",
            )

    # --- back ---

    def find(self) -> Shipment:
        release = self._at.digest or (self._tagged(self._at.tag) if self._at.tag else "")
        if not self._at.digest and not self._at.tag:
            raise FalajError(
                "remote.bad-address",
                "the address names no release",
                why="there is no `latest`: what is pulled is said",
                fix="add :TAG, or better @sha256:DIGEST",
            )
        if not release:
            raise NotFound(
                "remote.not-found",
                f"there is no tag {self._at.tag} in s3://{self._at.bucket}/{self._at.prefix}",
                fix="look at the address; `falaj release push` says what to pull",
            )
        body = self._objects.whole(self._key(release, bundle.RELEASE), MOST_SMALL)
        if digests.of_bytes(body) != release:
            raise wrong_bytes(self._objects.root, release, digests.of_bytes(body))
        files = self._pieces(release, body)
        self._keys = {piece: self._key(release, path) for path, piece in files.items()}
        return Shipment(
            address=f"s3://{self._at.bucket}/{self._at.prefix}@{release}",
            digest=release,
            files=files,
            asked="" if self._at.digest else self._at.tag,
        )

    def _pieces(self, release: str, body: bytes) -> dict[str, Piece]:
        """Digests as release.json lists them; of signatures, which it cannot, as they are now."""
        try:
            listed = bundle.spelled(body)["files"]
            known = {bundle.RELEASE: release, **listed}
        except (canonical.NotCanonical, KeyError, TypeError):
            raise Unverified(
                "remote.not-a-release",
                "what lies there is not a release",
                why="release.json is not the manifest of one",
                fix="look at the address; releases are brought there by `falaj release push`",
            ) from None
        folder = self._key(release)
        found: dict[str, Piece] = {}
        for key, size in sorted(self._objects.listed(folder).items()):
            path = key.removeprefix(folder)
            why = paths.trouble(path)
            if why:
                raise hostile(self._objects.root, f"an object is called {path!r}, which {why}")
            digest = known.get(path, UNKNOWN)
            if bundle.is_bundle(path):
                digest = digests.of_bytes(self._objects.whole(key, min(size, MOST_SMALL)))
            if not isinstance(digest, str) or not digests.is_digest(digest):
                digest = UNKNOWN
            found[path] = Piece(digest=digest, size=size)
        return found

    def bring(self, piece: Piece, to: Path) -> None:
        key = self._keys.get(piece)
        if key is None:
            raise AssertionError("only what was found is brought")
        handle = os.open(to, NEW, 0o600)
        try:
            with os.fdopen(handle, "wb") as sink:

                def blocks() -> Iterator[bytes]:
                    sink.seek(0)
                    sink.truncate()
                    for block in self._objects.read(key, piece.size):
                        sink.write(block)
                        yield block

                self._hashed(blocks, piece.digest, piece.size)
                sink.flush()
                os.fsync(handle)
        except BaseException:
            to.unlink(missing_ok=True)
            raise


def opened(path: Path) -> BinaryIO:
    return path.open("rb")


def wrong_bytes(root: str, asked: str, got: str) -> Unverified:
    return Unverified(
        "remote.wrong-bytes",
        f"{root} gives other bytes than were asked for",
        why=f"asked for {asked}, got {got}",
        fix="nothing was kept; push the release there again, or pull it from another place",
    )
