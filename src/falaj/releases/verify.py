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
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from falaj.base import bundle, canonical, dsse, paths
from falaj.base.bundle import Content, Finding
from falaj.base.errors import Problem, Unverified
from falaj.facts.releases import Manifest, Trust
from falaj.facts.trust import identity_of, keys_for
from falaj.facts.wire import canonical_bytes

__all__ = [
    "TheFolder",
    "Verified",
    "load_verified",
    "look_again",
    "read_manifest",
    "refusal",
    "scan",
    "verify_release",
]

CHUNK: Final = 1 << 20


class Verified(NamedTuple):
    """The outcome. Nothing may be loaded unless `findings` is empty."""

    manifest: Manifest | None
    id: str
    findings: tuple[Finding, ...]
    signers: tuple[str, ...] = ()  # identities whose signature over all files held

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
    threshold: int = 1,
) -> Verified:
    """Judge `folder`; all findings. With `staging` the bytes judged are a private copy made there.

    signed_at: when the signatures are known to have existed (an audit log's word); without it the
    keys must be valid now. policy: digest that the verdicts must have been reached under.
    staging: made new with mode 0700, removed again when anything does not hold.
    """
    found: list[Finding] = []
    if now > trust.expires:
        found.append(
            Finding("releases.trust-expired", "", f"the trust root expired {trust.expires}")
        )
    if not folder.is_dir() or folder.is_symlink():
        found.append(Finding("releases.tampered", "", f"{folder.name} is not a folder"))
        return Verified(None, "", tuple(found))
    listing = scan(folder)
    found += listing.findings
    if staging is not None:
        _private(staging)
    try:
        hashes, files, more = _take(listing.files, staging)
        found += more
        at = signed_at or now
        judged = bundle.examine(
            Content(hashes, lambda path: _bytes_of(files[path])),
            lambda role: keys_for(trust, role, at),
            release_id=release_id,
            requires=requires,
            policy=policy,
            threshold=threshold,
            identity=lambda hint: identity_of(trust, hint),
        )
        found += judged.findings
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
    names = tuple(sorted({identity_of(trust, hint) for hint in judged.signers}))
    return Verified(manifest, judged.id, tuple(found), names)


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
    threshold: int = 1,
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
    for name, path in files.items():
        to: Path | None = None
        if staging is not None:
            if paths.trouble(name):
                continue  # told by examine(); such a name is never written
            to = staging / name
            for above in reversed(to.relative_to(staging).parents[:-1]):
                (staging / above).mkdir(exist_ok=True, mode=0o700)
        try:
            hashes[name] = _hash(path, to)
            where[name] = to or path
        except OSError as error:
            found.append(
                Finding("releases.tampered", name, f"{name} cannot be read: {error.strerror}")
            )
    for name in files.keys() - hashes.keys():
        if paths.trouble(name):
            found += bundle.wanted_paths([name])
    return hashes, where, found


def _open(path: Path) -> int:
    """Open a regular file, never a link put in its place, never waiting on a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a regular file")
    return handle


def _hash(path: Path, to: Path | None) -> str:
    hasher = hashlib.sha256()
    with os.fdopen(_open(path), "rb") as source:
        if to is None:
            return "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()
        target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(target, "wb") as sink:
            while block := source.read(CHUNK):
                hasher.update(block)
                sink.write(block)
    return "sha256:" + hasher.hexdigest()


def _bytes_of(path: Path) -> bytes:
    with os.fdopen(_open(path), "rb") as file:
        return file.read(dsse.MAX_BYTES + 1)
