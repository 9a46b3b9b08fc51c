"""Releases in an OCI registry: what is brought there, and what comes back."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from falaj.base import digests
from falaj.base.errors import FalajError, NotFound, Unverified
from falaj.base.strangers import hostile, patiently
from falaj.links.oci import layout
from falaj.links.oci.address import Address, is_loopback, read_address, tag_trouble
from falaj.links.oci.credentials import Login, login_for
from falaj.links.oci.layout import INDEX, MANIFEST, Descriptor
from falaj.links.oci.wire import Answer, Wire
from falaj.ports.remotes import Parcel, Piece, Pushed, Shipment, Signing, must_be_free

__all__ = ["OciRemote"]

# An image of another kind is asked for too, so that it is refused by name and not as missing.
IMAGE: Final = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT: Final = {"Accept": f"{MANIFEST}, {INDEX}, {IMAGE}"}
MOST_ENVELOPES: Final = 16
REREADS: Final = 3
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OciRemote:
    """One address. plain_http: None means on this machine alone."""

    def __init__(
        self,
        address: str,
        *,
        plain_http: bool | None = None,
        credentials: Callable[[str], Login | None] = login_for,
        pause: Callable[[float], None] = time.sleep,
        silence_s: float = 30.0,
    ) -> None:
        self._at: Address = read_address(address)
        here = is_loopback(self._at.host)
        self._plain = here if plain_http is None else plain_http
        self._wire = Wire(
            self._at,
            plain=self._plain,
            credentials=credentials,
            pause=pause,
            silence_s=silence_s,
        )

    @property
    def plain(self) -> bool:
        return self._plain

    def close(self) -> None:
        self._wire.close()

    # --- there ---

    def push(self, parcel: Parcel, sign: Signing, *, move: bool = False) -> Pushed:
        """Files, then the manifest by its digest, then the signature over it, the tag at the end."""
        tag = self._tag(parcel.version)
        sizes = {path: file.stat().st_size for path, file in parcel.files.items()}
        manifest = layout.release_manifest(parcel, sizes)
        subject = Descriptor(MANIFEST, digests.of_bytes(manifest), len(manifest))
        if self._at.digest and self._at.digest != subject.digest:
            raise FalajError(
                "remote.bad-address",
                f"the address names {self._at.digest}, this release is {subject.digest} there",
                fix="push to the repository alone, or to a tag of it",
            )
        tagged = self._tagged(tag)
        if not move:
            must_be_free(tag, subject.digest, tagged)
        sent = sent_bytes = 0
        brought: set[str] = set()
        for path, digest in sorted(parcel.digests.items()):
            if digest in brought:
                continue
            brought.add(digest)
            if self._wire.upload(digest, sizes[path], partial(opened, parcel.files[path])):
                sent, sent_bytes = sent + 1, sent_bytes + sizes[path]
        self._bring(layout.EMPTY)
        kept = self._put_manifest(manifest, subject.digest)
        envelope = sign(subject.digest, self._envelopes(subject.digest))
        if envelope is not None:
            self._attach(subject, envelope, listed="oci-subject" in kept.headers)
        if tagged != subject.digest:
            self._put_manifest(manifest, tag)
        return Pushed(
            address=self._at.at(subject.digest),
            digest=subject.digest,
            tag=tag,
            sent=sent,
            sent_bytes=sent_bytes,
            there=len(brought) - sent,
        )

    def _tag(self, version: str) -> str:
        tag = self._at.tag or version
        why = tag_trouble(tag)
        if why:
            raise FalajError(
                "remote.bad-address",
                f"the version {why}",
                why="a tag has at most 128 letters, digits, . _ and -",
                fix="say the tag: oci://HOST/REPOSITORY:TAG",
            )
        return tag

    def _tagged(self, tag: str) -> str:
        """What a tag names now; nothing when it is free."""
        try:
            return self._manifest(tag)[1]
        except NotFound:
            return ""

    def _bring(self, data: bytes) -> None:
        self._wire.upload(digests.of_bytes(data), len(data), lambda: io.BytesIO(data))

    def _put_manifest(self, data: bytes, reference: str, kind: str = MANIFEST) -> Answer:
        """Put it, and read it again: what lies there then is what was put, byte for byte."""
        answer = self._wire.ask(
            "PUT",
            f"manifests/{reference}",
            good=(201,),
            headers={"Content-Type": kind},
            content=data,
        )
        digest = digests.of_bytes(data)
        told = answer.headers.get("docker-content-digest", digest)
        if told != digest or self._document(digest) != data:
            raise hostile(self._wire.root, f"it took the manifest {digest} and gives back another")
        return answer

    def _attach(self, subject: Descriptor, envelope: bytes, *, listed: bool) -> None:
        """Let the signature be found. listed: the registry itself keeps the list of referrers."""
        self._bring(envelope)
        data = layout.signature_manifest(subject, envelope)
        own = Descriptor(MANIFEST, digests.of_bytes(data), len(data))
        answer = self._put_manifest(data, own.digest)
        if listed or "oci-subject" in answer.headers:
            return
        tag = referrers_tag(subject.digest)
        for _ in range(REREADS):
            index = layout.index_with(self._document(tag), own)
            if index is None:
                return
            # A registry has no compare-and-swap: two writers may lose one entry, so look again.
            self._put_manifest(index, tag, INDEX)
        raise hostile(self._wire.root, "what is put under a tag does not stay there")

    # --- back ---

    def find(self) -> Shipment:
        if not self._at.reference:
            raise FalajError(
                "remote.bad-address",
                "the address names no release",
                why="there is no `latest`: what is pulled is said",
                fix="add :TAG, or better @sha256:DIGEST",
            )
        data, digest = self._manifest(self._at.reference)
        return Shipment(
            address=self._at.at(digest),
            digest=digest,
            files=layout.read_release(data),
            asked="" if self._at.digest else self._at.tag,
            envelopes=self._envelopes(digest),
        )

    def _manifest(self, reference: str) -> tuple[bytes, str]:
        """Bytes and digest. The digest is counted here, never believed."""
        answer = self._wire.ask("GET", f"manifests/{reference}", headers=ACCEPT)
        digest = digests.of_bytes(answer.body)
        asked = reference if digests.is_digest(reference) else digest
        told = answer.headers.get("docker-content-digest", digest)
        if digest != asked or (told != digest and told.startswith("sha256:")):
            raise wrong_bytes(self._wire.root, asked if digest != asked else told, digest)
        return answer.body, digest

    def _document(self, reference: str) -> bytes | None:
        """None when it is not there."""
        try:
            return self._manifest(reference)[0]
        except NotFound:
            return None

    def _envelopes(self, digest: str) -> list[bytes]:
        """Statements over a manifest, by the referrers API, where there is none by the tag."""
        try:
            index = self._wire.ask("GET", f"referrers/{digest}", headers={"Accept": INDEX}).body
        except FalajError as error:
            if error.code not in ("remote.not-found", "remote.refused"):
                raise
            index = self._document(referrers_tag(digest)) or b""
        found: list[bytes] = []
        for one in layout.read_index(index):
            data = self._document(one.digest)
            piece = layout.read_signature(data, digest) if data is not None else None
            if piece is not None and len(found) < MOST_ENVELOPES:
                answer = self._wire.ask("GET", f"blobs/{piece.digest}", most=piece.size)
                if digests.of_bytes(answer.body) == piece.digest:
                    found.append(answer.body)
        return found

    def bring(self, piece: Piece, to: Path) -> None:
        """Write a blob; where the line breaks, go on from there."""
        handle = os.open(to, NEW, 0o600)
        try:
            with os.fdopen(handle, "wb") as sink:
                hasher, at = hashlib.sha256(), 0

                def some() -> None:
                    nonlocal hasher, at
                    if at == piece.size and at:
                        return  # the line broke behind the last byte
                    for begin, block in self._wire.download(piece.digest, piece.size, at):
                        if begin != at:  # it cannot give parts: from the beginning
                            sink.seek(0)
                            sink.truncate()
                            hasher, at = hashlib.sha256(), 0
                        sink.write(block)
                        hasher.update(block)
                        at += len(block)

                patiently(some, self._wire.pause)
                sink.flush()
                os.fsync(handle)
            got = f"sha256:{hasher.hexdigest()}"
            if at != piece.size or got != piece.digest:
                raise wrong_bytes(
                    self._wire.root, f"{piece.digest} of {piece.size} bytes", f"{got} of {at}"
                )
        except BaseException:
            to.unlink(missing_ok=True)
            raise


def opened(path: Path) -> BinaryIO:
    return path.open("rb")


def referrers_tag(digest: str) -> str:
    """OCI Distribution 1.1, "Referrers Tag Schema"."""
    return digest.replace(":", "-")


def wrong_bytes(root: str, asked: str, got: str) -> Unverified:
    return Unverified(
        "remote.wrong-bytes",
        f"{root} gives other bytes than were asked for",
        why=f"asked for {asked}, got {got}",
        fix="nothing was kept; push the release there again, or pull it from another place",
    )
