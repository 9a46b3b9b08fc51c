"""Walk (e): what an outsider can check, and the pack that he checks it with."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from falaj.audit import pack
from falaj.audit.service import Log
from falaj.audit.verify import verify_pack
from falaj.base import digests, fenc, time, tlog
from falaj.base.errors import FalajError, NotFound, Unverified
from falaj.evaluation import security
from falaj.facts.access import Permit
from falaj.facts.changes import Approval, Change
from falaj.facts.checks import GateReport, Verdict
from falaj.facts.formats import RUNTIMES
from falaj.facts.releases import Manifest, Release, Trust
from falaj.facts.rollouts import LiveMove, Rollout, RolloutDecision
from falaj.facts.runs import Run
from falaj.facts.testing import TestReport
from falaj.facts.trust import BadTrust, is_stale, open_trust
from falaj.ports.blobs import BlobMissing
from falaj.ports.ground import Ground
from falaj.ports.log import Asked
from falaj.ports.sealing import Sealing
from falaj.releases import verify

__all__ = ["Look", "export", "export_sealed", "look", "open_sealed", "trusted"]

MODEL: Final = "model/"
LOG_SIGNER: Final = "log-signer"
PACKS: Final = "packs"  # the scope of packs that are kept
EVERYTHING: Final = 1_000_000


class Look(NamedTuple):
    """What was found: lines that hold, and findings with the file that differs."""

    facts: tuple[str, ...]
    findings: tuple[dict[str, str], ...]


def export(ground: Ground, permit: Permit, model: str) -> bytes:
    """One zip with everything that is known about a model's way."""
    releases = ground.store.find(Release, model=model)
    if not releases:
        raise NotFound("releases.unknown", f"there is no release of {model!r} yet")
    changes = ground.store.find(Change, model=model, limit=EVERYTHING)
    rollouts = ground.store.find(Rollout, model=model, limit=EVERYTHING)
    with ground.store.begin() as unit:
        unit.append(
            ground.event(
                "evidence.exported",
                permit.person,
                f"model/{model}",
                {"releases": [known.id for known in releases]},
            )
        )
    log = Log.of(ground)
    signed = log.cover()
    assert signed is not None  # noqa: S101 the event of this export stands there
    ground.keys.create(LOG_SIGNER, ("log",))
    approvals = [a for c in changes for a in ground.store.find(Approval, change=c.id)]
    with TemporaryDirectory(dir=ground.state) as scratch:
        path = Path(scratch) / "evidence.zip"
        pack.write_pack(
            path,
            project=ground.name,
            created=ground.now(),
            release_folders=[ground.root / known.folder for known in releases],
            approvals=approvals,
            changes=changes,
            decisions=[
                d
                for r in rollouts
                for d in ground.store.find(RolloutDecision, rollout=r.id, limit=EVERYTHING)
            ],
            moves=ground.store.find(LiveMove, model=model, limit=EVERYTHING),
            events=[leaf.body for leaf in log.log.leaves(0, signed.size)],
            root=(signed.size, signed.root),
            trust=ground.keys.trust_text(),
            signer=ground.keys.signer(LOG_SIGNER),
            note=log.cosigned(signed),
            proofs={a.id: proof for a in approvals for proof in proofs_of(log, a)},
            rollouts=rollouts,
            reports=[
                report
                for tree in sorted({known.tree for known in releases})
                for report in ground.store.find(GateReport, subject=tree, limit=EVERYTHING)
            ],
            tests=tests_of(ground, releases),
        )
        return path.read_bytes()


def export_sealed(ground: Ground, permit: Permit, model: str) -> bytes:
    """The pack as it is kept: sealed under the workspace's scope of packs."""
    sealing = sealing_of(ground)
    data = export(ground, permit, model)
    target = io.BytesIO()
    sealing.seal(io.BytesIO(data), target, digests.of_bytes(data))
    return target.getvalue()


def open_sealed(ground: Ground, permit: Permit, data: bytes) -> bytes:
    """The zip file that was sealed. Raises Unverified: altered, of another workspace, key erased."""
    sealing = sealing_of(ground)
    source = io.BytesIO(data)
    try:
        scope = fenc.labels_of(source).get("scope", "")
        if scope != PACKS:
            raise ValueError(f"it is of scope {scope[:60]!r}, and is no pack")
        source.seek(0)
        digest = sealing.object(source)
        source.seek(0)
        found = b"".join(sealing.opened(source, digest))
        if digests.of_bytes(found) != digest:
            raise ValueError("it holds something else than it says")
    except ValueError as error:
        raise Unverified(
            "audit.sealed-pack",
            f"the sealed evidence pack does not open: {error}",
            why="a pack is opened whole as it was sealed, by the workspace that sealed it",
            fix="take another copy, or export the evidence again: falaj evidence export",
        ) from None
    with ground.store.begin() as unit:
        unit.append(
            ground.event("evidence.opened", permit.person, f"evidence/{digest}", {"scope": scope})
        )
    return found


def sealing_of(ground: Ground) -> Sealing:
    if ground.scopes is None:
        raise FalajError(
            "audit.cannot-seal",
            "this workspace has no keys to seal a pack under, or to open one",
            why="falaj.toml seals nothing",
            fix='write `at_rest = "all"` or "personal" below [encryption]',
        )
    return ground.scopes.sealing(PACKS, str(ground.project.classification))


def tests_of(ground: Ground, releases: Sequence[Release]) -> list[tuple[TestReport, bytes]]:
    """Reports about the code of these releases, with their JUnit files where they are kept still."""
    trees = {ground.store.get(Run, known.run).fact.code.tree for known in releases} - {""}
    found = []
    for tree in sorted(trees):
        for report in ground.store.find(TestReport, tree=tree, limit=EVERYTHING):
            try:
                junit = ground.blobs.get(report.junit) if report.junit else b""
            except BlobMissing:
                junit = b""
            found.append((report, junit))
    return found


def proofs_of(log: Log, approval: Approval) -> Iterator[bytes]:
    """That the event of an approval stands in the log; none when it has no event."""
    asked = Asked(subject=f"change/{approval.change}", type="change.")
    for _, event in log.log.search(asked, limit=EVERYTHING):
        if event.data.get("approval") == approval.id:
            yield tlog.write_proof(log.prove(event.id))
            return


def look(what: Path, trust: Path | None) -> Look:
    """Check a pack or a release folder with a trust root that came separately."""
    root = trusted(trust, what)
    return at_folder(what, root) if what.is_dir() else at_pack(what, root)


def trusted(trust: Path | None, what: object) -> Trust:
    """The trust root that `what` is judged by. Raises FalajError when none came, or a bad one."""
    if trust is None:
        raise FalajError(
            "audit.no-trust-root",
            f"{what} cannot vouch for its own keys",
            why="whoever could change it could change the keys inside it too",
            fix="falaj verify PACK --trust TRUST.json, with the file you received separately",
        )
    try:
        return open_trust(trust.read_bytes(), now=time.now())
    except BadTrust as error:
        raise FalajError("audit.bad-trust-root", f"{trust}: {error}") from None


def at_folder(folder: Path, root: Trust) -> Look:
    now = time.now()
    # To look is not to load: a list of revocations that has grown old is told, and refuses nothing.
    found = verify.verify_release(folder, root, release_id=None, now=now, running=True)
    findings = tuple(plain(f) for f in found.findings)
    if findings or found.manifest is None:
        return Look((), findings)
    strange = of_formats(folder, found.manifest)
    if strange:
        return Look((), strange)
    return Look(
        (
            f"{found.manifest.model} {found.manifest.version}, id {found.id}",
            f"{len(found.manifest.files)} files as listed and signed",
            "formats of the model's files as its runtime loads them",
            f"signed by {', '.join(found.signers)}",
            *(
                [f"the list of revocations ended {root.next_update}: ask for a newer trust root"]
                if is_stale(root, now)
                else []
            ),
        ),
        (),
    )


def of_formats(folder: Path, manifest: Manifest) -> tuple[dict[str, str], ...]:
    """What lies in model/ and is no format that the release's runtime loads, with the reason."""
    loads = RUNTIMES.get(manifest.runtime, frozenset())
    found = security.check_model_files(
        {name: folder / name for name in manifest.files if name.startswith(MODEL)}, allow=loads
    )
    return tuple(
        {
            "code": "releases.format",
            "file": result.check.removeprefix("security.format."),
            "message": result.reason,
        }
        for result in found
        if result.verdict is not Verdict.PASS
    )


def at_pack(path: Path, root: Trust) -> Look:
    with path.open("rb") as source:
        if source.read(len(fenc.MAGIC)) == fenc.MAGIC:
            raise Unverified(
                "audit.still-sealed",
                f"{path} is sealed",
                why="only the workspace that sealed it can read it; a seal proves nothing to others",
                fix=f"in that workspace: falaj evidence open {path}",
            )
    found = verify_pack(path, root, now=time.now())
    return Look(found.facts() if found.holds else (), tuple(plain(f) for f in found.findings))


def plain(finding: Any) -> dict[str, str]:
    return {"code": finding.code, "file": finding.file, "message": finding.message}
