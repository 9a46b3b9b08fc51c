"""A release as an OCI artifact: what the manifest says, written in one way and read strictly.

OCI Image Manifest 1.1 with `artifactType` and the empty config; one layer a file, its path as the
title, sorted: the same release gives the same manifest, byte for byte. A signature over the
manifest is an artifact of its own with `subject`, found by the referrers API or by the tag schema.
https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from falaj.base import canonical, digests, paths, time
from falaj.base.errors import Unverified
from falaj.ports.remotes import Parcel, Piece

__all__ = [
    "INDEX",
    "MANIFEST",
    "Descriptor",
    "index_with",
    "read_index",
    "read_release",
    "read_signature",
    "release_manifest",
    "signature_manifest",
]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
RELEASE: Final = "application/vnd.falaj.release.v1"
FILE: Final = "application/vnd.falaj.release.file.v1"
SIGNATURE: Final = "application/vnd.falaj.release.signature.v1"
ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
TITLE: Final = "org.opencontainers.image.title"
EMPTY: Final = b"{}"
EMPTY_CONFIG: Final = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2,
}
MOST_FILES: Final = 10_000
MOST_BYTES: Final = 1 << 40  # of all files of a release
MOST_REFERRERS: Final = 64
MOST_ENVELOPE: Final = 1 << 20


class Descriptor(NamedTuple):
    kind: str
    digest: str
    size: int


def release_manifest(parcel: Parcel, sizes: dict[str, int]) -> bytes:
    return canonical.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": RELEASE,
            "config": EMPTY_CONFIG,
            "layers": [
                {
                    "mediaType": FILE,
                    "digest": parcel.digests[path],
                    "size": sizes[path],
                    "annotations": {TITLE: path},
                }
                for path in sorted(parcel.files)
            ],
            "annotations": {
                "org.opencontainers.image.created": time.text(parcel.created),
                "org.opencontainers.image.title": parcel.model,
                "org.opencontainers.image.version": parcel.version,
                "dev.falaj.release": parcel.id,
            },
        }
    )


def read_release(data: bytes) -> dict[str, Piece]:
    """Path -> piece. Raises Unverified: whatever we would not have written is refused."""
    manifest = read_json(data)
    match manifest:
        case {
            "schemaVersion": 2,
            "mediaType": str(kind),
            "artifactType": str(artifact),
            "config": dict(config),
            "layers": list(layers),
        } if kind == MANIFEST and artifact == RELEASE:
            pass
        case {"artifactType": str(other)} if other != RELEASE:
            raise not_ours(f"its artifactType is {other[:100]!r}, expected {RELEASE}")
        case _:
            raise not_ours("it is not an image manifest of OCI 1.1 with artifactType")
    if config != EMPTY_CONFIG:
        raise not_ours("it has a config, and a release has none")
    if manifest.keys() - {
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "annotations")
    }:
        raise not_ours("the manifest holds fields that no release has")
    if len(layers) > MOST_FILES:
        raise not_ours(f"it lists {len(layers)} files, at most {MOST_FILES} are read")
    found: dict[str, Piece] = {}
    for layer in layers:
        match layer:
            case {
                "mediaType": str(media),
                "digest": str(digest),
                "size": int(size),
                "annotations": {"org.opencontainers.image.title": str(path), **others},
                **rest,
            } if not rest and not others and media == FILE and 0 <= size <= canonical.LARGEST:
                pass
            case _:
                raise not_ours(f"layer {len(found) + 1} is not a file of a release")
        why = paths.trouble(path)
        if why:
            raise unsafe(path, why)
        if path in found:
            raise unsafe(path, "stands twice")
        if not digests.is_digest(digest):
            raise not_ours(f"{path} has no SHA-256 digest")
        found[path] = Piece(digest=digest, size=size)
    for path, other in paths.collisions(found):
        raise unsafe(path, f"and {other!r} are one file elsewhere")
    if sum(piece.size for piece in found.values()) > MOST_BYTES:
        raise not_ours(f"its files are larger than {MOST_BYTES >> 30} GiB")
    return found


def signature_manifest(subject: Descriptor, envelope: bytes) -> bytes:
    return canonical.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SIGNATURE,
            "config": EMPTY_CONFIG,
            "layers": [
                {
                    "mediaType": ENVELOPE,
                    "digest": digests.of_bytes(envelope),
                    "size": len(envelope),
                    "annotations": {TITLE: "release.dsse.json"},
                }
            ],
            "subject": {
                "mediaType": subject.kind,
                "digest": subject.digest,
                "size": subject.size,
            },
        }
    )


def read_signature(data: bytes, subject: str) -> Piece | None:
    """The envelope that a signature artifact holds; None: it is none, or of something else."""
    try:
        manifest = canonical.loads(data)
    except canonical.NotCanonical:
        return None
    match manifest:
        case {
            "artifactType": str(artifact),
            "subject": {"digest": str(about)},
            "layers": [{"mediaType": str(media), "digest": str(digest), "size": int(size)}],
        } if artifact == SIGNATURE and about == subject and media == ENVELOPE:
            if digests.is_digest(digest) and 0 < size <= MOST_ENVELOPE:
                return Piece(digest=digest, size=size)
    return None


def read_index(data: bytes) -> list[Descriptor]:
    """Signature artifacts that an index of referrers lists; what is malformed lists nothing."""
    try:
        index = canonical.loads(data)
    except canonical.NotCanonical:
        return []
    listed = index.get("manifests") if isinstance(index, dict) else None
    found: list[Descriptor] = []
    for one in listed if isinstance(listed, list) else []:
        match one:
            case {"digest": str(digest), "size": int(size), "artifactType": str(artifact)} if (
                artifact == SIGNATURE and digests.is_digest(digest)
            ):
                found.append(Descriptor(MANIFEST, digest, size))
    return found[:MOST_REFERRERS]


def index_with(data: bytes | None, added: Descriptor) -> bytes | None:
    """The index with one signature more; None when it is listed. Others' entries are kept."""
    index: Any = None
    if data is not None:
        try:
            index = canonical.loads(data)
        except canonical.NotCanonical:
            index = None
    listed: Sequence[Any] = index.get("manifests", []) if isinstance(index, dict) else []
    kept = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if any(one.get("digest") == added.digest for one in kept):
        return None
    entry = {
        "mediaType": added.kind,
        "digest": added.digest,
        "size": added.size,
        "artifactType": SIGNATURE,
    }
    whole = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*kept, entry]}
    return json.dumps(whole, separators=(",", ":")).encode()


def read_json(data: bytes) -> Any:
    try:
        return canonical.loads(data)
    except canonical.NotCanonical as error:
        raise not_ours(str(error)) from None


def not_ours(why: str) -> Unverified:
    return Unverified(
        "remote.not-a-release",
        "what lies there is not a release",
        why=why,
        fix="look at the address; releases are brought there by `falaj release push`",
    )


def unsafe(path: str, why: str) -> Unverified:
    return Unverified(
        "remote.hostile",
        f"the manifest names the file {path!r}, which {why}",
        why="a name that leads out of the folder, or that two machines read as two files, is refused",
        fix="do not pull from there before somebody has looked at it",
    )
