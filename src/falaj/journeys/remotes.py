"""Releases leave for places of others and come back.

Verified before they leave, and verified again before anything of what came is kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from falaj.base import bundle, canonical, digests, dsse
from falaj.base.bundle import Finding
from falaj.base.errors import Conflict, FalajError, Unverified
from falaj.base.files import sync_folder
from falaj.compliance.rules import may_be_in
from falaj.evaluation import security
from falaj.facts.access import Permit
from falaj.facts.attestations import PUBLISHED, statement
from falaj.facts.checks import Verdict
from falaj.facts.formats import RUNTIMES
from falaj.facts.project import RemoteTable
from falaj.facts.releases import Manifest, Release, Trust
from falaj.facts.trust import identity_of, keys_for
from falaj.ports.ground import Ground
from falaj.ports.remotes import Parcel, Piece, Pushed, Remote, Shipment, Signing
from falaj.releases import verify

__all__ = ["Pulled", "listed", "pull", "push"]

RELEASE_SIGNER: Final = "release-signer"
SMALL: Final = ("release.json", "signature.json", "signatures/", "evidence/")
MOST_SMALL: Final = 64 << 20  # of all that is read before the signature holds
FREE: Final = 64 << 20  # bytes that stay free on the disk


class Pulled(NamedTuple):
    """signers: who signed the release. outer: who signed that it lies under this digest there."""

    address: str
    asked: str
    release: str
    manifest: Manifest
    signers: tuple[str, ...]
    outer: str
    files: int
    bytes: int


def push(
    ground: Ground, permit: Permit, known: Release, address: str, *, move: bool = False
) -> Pushed:
    """Bring a release to a place that falaj.toml lists, if it may be there.

    The log says that it leaves before the first byte does, and where it lies when all is there.
    """
    table = listed(ground.project.links.remotes, address)
    folder = ground.root / known.folder
    found = verify.verify_release(
        folder, ground.keys.trust(), release_id=known.id, now=ground.now()
    )
    if not found.holds or found.manifest is None:
        raise verify.refusal(found.findings, known.version)
    if ground.remote is None:
        raise AssertionError("the wiring gives no remotes")
    with closing(ground.remote(address, table)) as remote:
        why = may_be_in(found.manifest.label, table.region, plain_http=remote.plain)
        if why:
            raise FalajError(
                "remote.residency",
                f"{known.model} {known.version} may not be brought to {table.address}",
                why=why,
                fix="choose a place in a country that its data may be in",
            )
        told = {"release": known.id, "remote": address, "region": table.region}
        subject = f"release/{known.id}"
        with ground.store.begin() as unit:
            unit.append(ground.event("release.leaving", permit.person, subject, told))
        done = remote.push(parcel_of(folder, known), signing(ground, known), move=move)
    with ground.store.begin() as unit:
        lies = {**told, "digest": done.digest, "tag": done.tag}
        unit.append(ground.event("release.pushed", permit.person, subject, lies))
    return done


def listed(tables: Sequence[RemoteTable], address: str) -> RemoteTable:
    """The entry of falaj.toml that names this place; the longest one. Raises FalajError."""
    matching = [
        table
        for table in tables
        if address == table.address
        or address.startswith(tuple(table.address.rstrip("/") + sign for sign in "/:@"))
    ]
    if not matching:
        place = address.partition("://")[0] + "://" + address.partition("://")[2].partition("/")[0]
        raise FalajError(
            "remote.not-listed",
            f"falaj.toml lists no place that {address} lies in",
            why="a release leaves only for places whose jurisdiction is known",
            fix=f'add [[links.remotes]] with address = "{place}" and its region',
        )
    return max(matching, key=lambda table: len(table.address))


def parcel_of(folder: Path, known: Release) -> Parcel:
    files = verify.scan(folder).files
    return Parcel(
        id=known.id,
        model=known.model,
        version=known.version,
        created=known.created,
        files=files,
        digests={path: digests.of_file(file) for path, file in files.items()},
    )


def signing(ground: Ground, known: Release) -> Signing:
    """Says which release lies under a digest there; nothing new when that is said already."""
    ground.keys.create(RELEASE_SIGNER, ("release",))

    def sign(digest: str, there: Sequence[bytes]) -> bytes | None:
        if attested(there, digest, known.id, ground.keys.trust(), ground.now())[0]:
            return None
        claim = {"release": known.id, "model": known.model, "version": known.version}
        said = statement(PUBLISHED, f"{known.model} {known.version}", digest, claim)
        return canonical.dumps(dsse.seal(said, ground.keys.signer(RELEASE_SIGNER)))

    return sign


def attested(
    envelopes: Sequence[bytes],
    digest: str,
    release: str,
    trust: Trust,
    at: datetime,
    *,
    said: datetime | None = None,
) -> tuple[str, str]:
    """Who of role `release` says that this release lies under the digest; else why nobody does."""
    why = ""
    for data in envelopes:
        try:
            told, hint = bundle.statement_of(
                canonical.loads(data), keys_for(trust, "release", at, said=said, release=release)
            )
        except (canonical.NotCanonical, dsse.BadEnvelope) as error:
            why = str(error)
            continue
        if (
            told["predicateType"] == PUBLISHED
            and bundle.subject_of(told) == digest
            and told["predicate"].get("release") == release
        ):
            return identity_of(trust, hint), ""
        why = "it speaks of something else"
    return "", why


def pull(
    remote: Remote,
    folder: Path,
    trust: Trust,
    *,
    now: datetime,
    tell: Callable[[str], None] = lambda _: None,
) -> Pulled:
    """Bring a release into the new folder `folder`, which appears verified or not at all.

    Small files first: names, digests, signature and evidence are judged before a large file is
    asked for. Then all is judged again, from the bytes that came.
    """
    if folder.exists() or folder.is_symlink():
        raise Conflict(
            "remote.folder-exists",
            f"{folder} exists already",
            why="a release appears whole in a new folder; nothing is mixed or overwritten",
            fix="name a new folder",
        )
    found = remote.find()
    tell(f"{found.asked + ' is ' if found.asked else ''}{found.address}")
    release = expected(found)
    total = sum(piece.size for piece in found.files.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    part.mkdir(mode=0o700)
    try:
        if total + FREE > shutil.disk_usage(part).free:
            raise FalajError(
                "remote.too-large",
                f"the release says that it has {total:,} bytes; this disk has no room for them",
                fix="name a folder on a larger disk",
            )
        outer = before(remote, found, part, release, trust, now)
        tell(f"signature holds; {len(found.files)} files, {total:,} bytes")
        for path, piece in found.files.items():
            if not is_small(path):
                remote.bring(piece, made(part, path))
        judged = verify.verify_release(part, trust, release_id=release, now=now)
        if not judged.holds or judged.manifest is None:
            raise refused(judged.findings, found.address)
        strange = of_formats(part, judged.manifest)
        if strange:
            raise refused(strange, found.address)
        for below in sorted({path.parent for path in part.rglob("*")} | {part}):
            sync_folder(below)
        part.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Pulled(
        address=found.address,
        asked=found.asked,
        release=release,
        manifest=judged.manifest,
        signers=judged.signers,
        outer=outer,
        files=len(found.files),
        bytes=total,
    )


def expected(found: Shipment) -> str:
    """The release's id, which the digest that was asked for fixes."""
    piece = found.files.get(bundle.RELEASE)
    if piece is None:
        raise refused(
            [Finding("releases.tampered", bundle.RELEASE, "release.json is missing")], found.address
        )
    return piece.digest


def before(
    remote: Remote, found: Shipment, part: Path, release: str, trust: Trust, now: datetime
) -> str:
    """Judge all that can be judged without the large files; who signed for the place."""
    small = {path: piece for path, piece in found.files.items() if is_small(path)}
    if sum(piece.size for piece in small.values()) > MOST_SMALL:
        raise Unverified(
            "remote.too-large",
            "what has to be read before the signature holds is too large",
            why=f"more than {MOST_SMALL >> 20} MiB of evidence and signatures",
        )
    for path, piece in small.items():
        remote.bring(piece, made(part, path))
    outer, why = attested(found.envelopes, found.digest, release, trust, now, said=said_of(part))
    if found.envelopes and not outer:
        raise Unverified(
            "remote.signature",
            f"of the signatures that lie beside {found.address} none holds",
            why=why,
            fix="look at who may write there, and pull by a digest that you were told otherwise",
        )
    findings = verify.judge_listing(
        hashes(found.files),
        lambda path: (part / path).read_bytes(),
        trust,
        release_id=release,
        now=now,
    )
    if findings:
        raise refused(findings, found.address)
    return outer


def said_of(part: Path) -> datetime | None:
    """When release.json says that it was made."""
    try:
        return verify.read_manifest((part / bundle.RELEASE).read_bytes()).created
    except ValueError:
        return None


def of_formats(folder: Path, manifest: Manifest) -> list[Finding]:
    """What lies in model/ and is no format that the release's runtime loads."""
    found = security.check_model_files(
        {name: folder / name for name in manifest.files if name.startswith(bundle.MODEL)},
        allow=RUNTIMES.get(manifest.runtime, frozenset()),
    )
    return [
        Finding(
            "releases.format",
            result.check.removeprefix("security.format."),
            f"{result.check.removeprefix('security.format.')}: {result.reason}",
        )
        for result in found
        if result.verdict is not Verdict.PASS
    ]


def hashes(files: Mapping[str, Piece]) -> dict[str, str]:
    return {path: piece.digest for path, piece in files.items()}


def is_small(path: str) -> bool:
    return any(path == name or (name.endswith("/") and path.startswith(name)) for name in SMALL)


def made(part: Path, path: str) -> Path:
    """The place of a file, with the folders above it, readable by us alone."""
    to = part / path
    for above in reversed(to.relative_to(part).parents[:-1]):
        (part / above).mkdir(exist_ok=True, mode=0o700)
    return to


def refused(findings: Sequence[Finding], address: str) -> Unverified:
    return verify.refusal(findings, address)
