"""Verify before load: judge a release folder, name every file that differs, load only a private copy.

Runs with facts and base alone, so that an outside auditor and a server without control plane can.
What the caller still owes: the country of the target and the approvals (journeys), the rules of
model formats (evaluation), and loading from the copy only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from falaj.base import bundle, canonical, dsse, paths
from falaj.base.bundle import Content, Finding
from falaj.base.errors import Problem, Unverified
from falaj.facts.releases import Manifest, Trust
from falaj.facts.trust import (
    certified,
    identity_of,
    is_stale,
    is_withdrawn,
    keys_for,
    needs_witness,
    threshold_of,
)
from falaj.facts.wire import canonical_bytes

__all__ = [
    "TheFolder",
    "Verified",
    "hashed",
    "judge_listing",
    "load_verified",
    "look_again",
    "read_manifest",
    "refusal",
    "scan",
    "verify_release",
]

CHUNK: Final = 1 << 20
MOST_THREADS: Final = 4
WORTH_THREADS: Final = 8 << 20  # bytes; below, starting threads costs more than they save


class Verified(NamedTuple):
    """The outcome. Nothing may be loaded unless `findings` is empty."""

    manifest: Manifest | None
    id: str
    findings: tuple[Finding, ...]
    signers: tuple[str, ...] = ()  # identities whose signature over all files held
    witnessed: bool = False  # whether somebody else says when it was signed

    @property
    def holds(self) -> bool:
        return not self.findings and self.manifest is not None


class TheFolder(NamedTuple):
    """Regular files by relative path, and what is not a regular file."""

    files: dict[str, Path]
    findings: tuple[Finding, ...]


def read_manifest(data: bytes) -> Manifest:
    """Read release.json. Decimals travel as text; the bytes must be the manifest's one spelling.

    Raises msgspec.ValidationError or canonical.NotCanonical (both ValueError).
    """
    manifest = msgspec.convert(bundle.spelled(data), Manifest, strict=False)
    if canonical_bytes(manifest) != data:
        raise canonical.NotCanonical("release.json is not the one spelling of a manifest")
    return manifest


def scan(folder: Path) -> TheFolder:
    """List a folder without following anything: links, devices, empty folders are findings."""
    files: dict[str, Path] = {}
    found: list[Finding] = []
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(here) as entries:
                inside = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            found.append(_unsafe(_relative(here, folder), f"cannot be read: {error.strerror}"))
            continue
        if not inside and here != folder:
            found.append(_unsafe(_relative(here, folder), "is an empty folder"))
        for entry in inside:
            path = here / entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                pending.append(path)
            elif stat.S_ISREG(mode):
                files[_relative(path, folder)] = path
            else:
                kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
                found.append(_unsafe(_relative(path, folder), f"is {kind}"))
    return TheFolder(dict(sorted(files.items())), tuple(found))


def verify_release(
    folder: Path,
    trust: Trust,
    *,
    release_id: str | None,
    requires: tuple[str, ...] = (),
    now: datetime,
    staging: Path | None = None,
    signed_at: datetime | None = None,
    policy: str | None = None,
    threshold: int | None = None,
    environment: str = "",
    running: bool = False,
) -> Verified:
    """Judge `folder`; all findings. With `staging` the bytes judged are a private copy made there.

    signed_at: when the signatures are known to have existed; without it the word of witnesses that
    lies beside the folder counts (releases/witnessed.py), and without that the keys must be valid now,
    and a certificate or a retired key is judged at the time that release.json says of itself. policy: digest that the verdicts must have been reached under.
    environment: where it is to run; the trust root says how many identities must have signed for it.
    running: it is loaded already; a list of revocations that has grown old stops new loads alone.
    staging: made new with mode 0700, removed again when anything does not hold.
    """
    if not folder.is_dir() or folder.is_symlink():
        found = [Finding("releases.tampered", "", f"{folder.name} is not a folder")]
        return Verified(None, "", (*_timely(trust, now, running=running), *found))
    listing = scan(folder)
    found = list(listing.findings)
    if staging is not None:
        _private(staging)
    try:
        hashes, files, more = _take(listing.files, staging)
        found += more
        signed_at = signed_at or _seen(folder, trust, hashes, now)
        found += _timely(trust, now, running=running, environment=environment, signed_at=signed_at)
        judged, more = _examined(
            hashes,
            lambda path: _bytes_of(files[path]),
            trust,
            release_id=release_id,
            requires=requires,
            policy=policy,
            threshold=threshold or threshold_of(trust, "release", environment),
            at=signed_at or now,
            signed_at=signed_at,
        )
        found += more
        manifest: Manifest | None = None
        if judged.manifest is not None:
            try:
                manifest = read_manifest(_bytes_of(files[bundle.RELEASE]))
            except ValueError as error:
                found.append(
                    Finding("releases.malformed", bundle.RELEASE, f"release.json: {error}")
                )
    except BaseException:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        raise
    if found and staging is not None:
        shutil.rmtree(staging, ignore_errors=True)
    return Verified(manifest, judged.id, tuple(found), judged.identities, signed_at is not None)


def _seen(folder: Path, trust: Trust, hashes: Mapping[str, str], now: datetime) -> datetime | None:
    """When witnesses have seen the signatures, where their word lies beside the folder."""
    from falaj.releases import witnessed

    if not witnessed.beside(folder).exists():
        return None
    return witnessed.seen_at(folder, trust, hashes, now=now)


def judge_listing(
    hashes: Mapping[str, str],
    read: Callable[[str], bytes],
    trust: Trust,
    *,
    release_id: str,
    now: datetime,
) -> tuple[Finding, ...]:
    """Judge a release by its digests and its small files, before the large ones are there.

    read: bytes of release.json, of the bundles and of the evidence. What holds here and whose bytes
    have these digests holds for `verify_release`.
    """
    _, found = _examined(
        hashes,
        read,
        trust,
        release_id=release_id,
        threshold=threshold_of(trust, "release", ""),
        at=now,
    )
    return (*_timely(trust, now), *found)


def _timely(
    trust: Trust,
    now: datetime,
    *,
    running: bool = False,
    environment: str = "",
    signed_at: datetime | None = None,
) -> list[Finding]:
    """What the trust root itself says against it, at this time and for this place."""
    found: list[Finding] = []
    if now > trust.expires:
        found.append(
            Finding("releases.trust-expired", "", f"the trust root expired {trust.expires}")
        )
    if is_stale(trust, now) and not running:
        found.append(
            Finding(
                "releases.revocations-stale",
                "",
                f"the list of revocations ended at {trust.next_update}; what was revoked since is not known",
            )
        )
    if needs_witness(trust, "release", environment) and signed_at is None:
        found.append(
            Finding(
                "releases.time-not-witnessed",
                "",
                f"nobody but the signer says when it was signed, and {environment} asks for a witness",
            )
        )
    return found


def _examined(
    hashes: Mapping[str, str],
    read: Callable[[str], bytes],
    trust: Trust,
    *,
    release_id: str | None,
    requires: tuple[str, ...] = (),
    policy: str | None = None,
    threshold: int,
    at: datetime,
    signed_at: datetime | None = None,
) -> tuple[bundle.Examined, list[Finding]]:
    """Names, digests, signatures, evidence, and whether it was withdrawn."""
    said = signed_at or _said(read, hashes) or at
    id_ = hashes.get(bundle.RELEASE, "")
    judged = bundle.examine(
        Content(hashes, read),
        lambda role: keys_for(trust, role, at, said=said, release=id_),
        release_id=release_id,
        requires=requires,
        policy=policy,
        threshold=threshold,
        identity=lambda hint: identity_of(trust, hint),
        certified=lambda chain: certified(trust, "release", chain, at, said=said, release=id_),
    )
    found = list(judged.findings)
    gone = is_withdrawn(trust, id_)
    if gone is not None:
        found.append(
            Finding(
                "releases.withdrawn",
                bundle.RELEASE,
                f"it was withdrawn{': ' if gone.reason else ''}{gone.reason}",
            )
        )
    return judged, found


def load_verified(
    folder: Path,
    trust: Trust,
    into: Path,
    *,
    release_id: str | None,
    requires: tuple[str, ...] = (),
    now: datetime,
    signed_at: datetime | None = None,
    policy: str | None = None,
    threshold: int | None = None,
    environment: str = "",
) -> Manifest:
    """Copy into the private folder `into` while hashing, judge the copy, return its manifest.

    Load from `into` only: what lies in `folder` may change after it was hashed.
    Raises Unverified with every finding; `into` is then gone.
    """
    verified = verify_release(
        folder,
        trust,
        release_id=release_id,
        requires=requires,
        now=now,
        staging=into,
        signed_at=signed_at,
        policy=policy,
        threshold=threshold,
        environment=environment,
    )
    if not verified.holds or verified.manifest is None:
        raise refusal(verified.findings, folder.name)
    return verified.manifest


def look_again(folder: Path, manifest: Manifest) -> tuple[Finding, ...]:
    """Hash a staged copy once more: what differs from the manifest that was verified."""
    listing = scan(folder)
    hashes, _, found = _take(listing.files, None)
    expected = {bundle.RELEASE: _digest_of(manifest), **manifest.files}
    return (
        *listing.findings,
        *found,
        *bundle.differences(expected, hashes, "listed in release.json"),
    )


def refusal(findings: Iterable[Finding], name: str) -> Unverified:
    """The error a person sees: each finding is a problem, files named."""
    problems = [
        Problem(
            code=finding.code,
            message=f"release {name}: {finding.message}",
            why="nothing was loaded",
            fix="fetch the release again from where it was built, and compare the file that is named",
        )
        for finding in findings
    ]
    head, *rest = problems or [
        Problem(code="releases.malformed", message=f"release {name}: no manifest")
    ]
    return Unverified(head.code, head.message, why=head.why, fix=head.fix, more=tuple(rest))


def _said(read: Callable[[str], bytes], hashes: Mapping[str, str]) -> datetime | None:
    """When release.json says that it was made; nothing when it cannot be read."""
    try:
        return read_manifest(read(bundle.RELEASE)).created if bundle.RELEASE in hashes else None
    except (OSError, ValueError):
        return None


def _digest_of(manifest: Manifest) -> str:
    return "sha256:" + hashlib.sha256(canonical_bytes(manifest)).hexdigest()


def _relative(path: Path, folder: Path) -> str:
    return "/".join(path.relative_to(folder).parts)


def _unsafe(name: str, why: str) -> Finding:
    return Finding("releases.unsafe-path", name, f"{name!r} {why}")


def _private(staging: Path) -> None:
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.mkdir(mode=0o700)
    except FileExistsError:
        raise Unverified(
            "releases.staging-exists",
            f"the private folder {staging.name} exists already",
            why="a copy is judged only in a folder that nobody could have prepared",
            fix="give a folder that does not exist",
        ) from None


def _take(
    files: dict[str, Path], staging: Path | None
) -> tuple[dict[str, str], dict[str, Path], list[Finding]]:
    """Hash each file, copying it on the way when there is a staging folder."""
    hashes: dict[str, str] = {}
    where: dict[str, Path] = {}
    found: list[Finding] = []
    work: list[tuple[str, Path, Path | None]] = []
    for name, path in files.items():
        to: Path | None = None
        if staging is not None:
            if paths.trouble(name):
                continue  # told by examine(); such a name is never written
            to = staging / name
            for above in reversed(to.relative_to(staging).parents[:-1]):
                (staging / above).mkdir(exist_ok=True, mode=0o700)
        work.append((name, path, to))
    for (name, path, to), digest in zip(work, hashed(work), strict=True):
        if isinstance(digest, OSError):
            found.append(
                Finding("releases.tampered", name, f"{name} cannot be read: {digest.strerror}")
            )
        else:
            hashes[name] = digest
            where[name] = to or path
    for name in files.keys() - hashes.keys():
        if paths.trouble(name):
            found += bundle.wanted_paths([name])
    return hashes, where, found


def hashed(work: Sequence[tuple[str, Path, Path | None]]) -> list[str | OSError]:
    """Digest of each file, or why there is none.

    Much of it is done by threads: hashing lets go of the interpreter, and so does copying.
    """

    def one(item: tuple[str, Path, Path | None]) -> str | OSError:
        try:
            return _hash(item[1], item[2])
        except OSError as error:
            return error

    cores = min(os.cpu_count() or 1, MOST_THREADS)
    if cores < 2 or len(work) < 2 or _size_of(work) < WORTH_THREADS:
        return [one(item) for item in work]
    with ThreadPoolExecutor(cores, thread_name_prefix="falaj-hash") as pool:
        return list(pool.map(one, work))


def _size_of(work: Sequence[tuple[str, Path, Path | None]]) -> int:
    total = 0
    for _, path, _ in work:
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def _open(path: Path) -> int:
    """Open a regular file, never a link put in its place, never waiting on a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a regular file")
    return handle


def _hash(path: Path, to: Path | None) -> str:
    hasher = hashlib.sha256()
    with os.fdopen(_open(path), "rb", buffering=0) as source:
        if to is None:
            return "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()
        target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(target, "wb", buffering=0) as sink:
            block = memoryview(bytearray(CHUNK))
            while size := source.readinto(block):
                hasher.update(block[:size])
                done = 0
                while done < size:  # a full disk or a signal may take less at once
                    done += sink.write(block[done:size])
    return "sha256:" + hasher.hexdigest()


def _bytes_of(path: Path) -> bytes:
    with os.fdopen(_open(path), "rb") as file:
        return file.read(dsse.MAX_BYTES + 1)
