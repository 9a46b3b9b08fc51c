"""Sign a release folder: the OpenSSF Model Signing bundle over every file but the bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from falaj.base import bundle, dsse
from falaj.base.errors import Unverified
from falaj.base.files import write_atomic
from falaj.releases.verify import hashed, refusal, scan

__all__ = ["sign_release"]


def sign_release(
    folder: Path,
    signer: dsse.Signs,
    *,
    expect: str | None = None,
    chain: Sequence[bytes] = (),
) -> str:
    """Hash the files anew, sign them, write the bundle; return the release id.

    expect: the id that the builder gave; the signer believes only what it hashes itself.
    chain: certificates (DER) of the signer's key, the leaf first, where an authority vouches for it.
    A folder that is signed already by this key and whole stays untouched. The first signer writes
    signature.json, each further one signatures/<first 16 hex of its hint>.json.
    Raises Unverified when the folder may not be a release or is not the one expected.
    """
    listing = scan(folder)
    findings = [*listing.findings, *bundle.wanted_paths(listing.files)]
    if findings:
        raise refusal(findings, folder.name)
    work = [
        (name, path, None) for name, path in listing.files.items() if not bundle.is_bundle(name)
    ]
    files: dict[str, str] = {}
    for (name, _, _), digest in zip(work, hashed(work), strict=True):
        if isinstance(digest, OSError):
            raise digest
        files[name] = digest
    id_ = files.get(bundle.RELEASE, "")
    if not id_ or (expect is not None and id_ != expect):
        raise Unverified(
            "releases.wrong-id",
            f"release {folder.name}: release.json is {id_ or 'missing'}, expected {expect}",
            why="a signer signs only the release it was asked to sign",
            fix="build the release again",
        )
    hint = dsse.hint_of(signer.public)
    place = folder / bundle.SIGNATURE
    if place.exists():
        if _holds(place, files, signer):
            return id_
        if not _is_own(place, hint):
            place = folder / bundle.SIGNATURES / f"{hint[:16]}.json"
    write_atomic(place, bundle.seal_bundle(folder.name, files, signer, chain))
    return id_


def _holds(place: Path, files: dict[str, str], signer: dsse.Signs) -> bool:
    hint = dsse.hint_of(signer.public)
    try:
        signed = bundle.open_bundle(
            place.read_bytes(),
            {hint: signer.public},
            certified=lambda _chain: ("", hint, signer.public),
        )
    except dsse.BadEnvelope:
        return False
    return signed.files == files


def _is_own(place: Path, hint: str) -> bool:
    """Whether the bundle names this key, or nobody's: then it may be written anew."""
    data = place.read_bytes()
    others = b'"hint":"' in data or b'"x509CertificateChain"' in data
    return hint.encode() in data or not others
