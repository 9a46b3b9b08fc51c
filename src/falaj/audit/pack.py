"""Write an evidence pack: one zip file that an auditor can check on a machine without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from falaj.audit.container import write_container
from falaj.audit.pages import PAGES, Story, page
from falaj.audit.verify import CHECKPOINT, FORMAT, KIND, MANIFEST, SEAL
from falaj.base import canonical, digests, dsse, files, merkle, paths, time
from falaj.base.errors import Unverified
from falaj.facts.changes import Approval, Change
from falaj.facts.checks import GateReport
from falaj.facts.rollouts import LiveMove, Rollout, RolloutDecision
from falaj.facts.testing import TestReport
from falaj.facts.wire import canonical_bytes

__all__ = ["Written", "write_pack"]


class Written(NamedTuple):
    path: Path
    digest: str  # of the zip file
    files: int
    log_size: int
    log_root: str  # hex


def write_pack(
    path: Path,
    *,
    project: str,
    created: datetime,
    release_folders: Sequence[Path],
    approvals: Sequence[Approval],
    changes: Sequence[Change],
    decisions: Sequence[RolloutDecision],
    moves: Sequence[LiveMove],
    events: Sequence[bytes],
    root: tuple[int, bytes],
    trust: str,
    signer: dsse.Signs,
    note: bytes = b"",
    proofs: Mapping[str, bytes] | None = None,
    rollouts: Sequence[Rollout] = (),
    reports: Sequence[GateReport] = (),
    tests: Sequence[tuple[TestReport, bytes]] = (),
) -> Written:
    """Write everything that is known about these releases.

    The same inputs give the same bytes, but for the signature of the manifest.
    events: canonical bodies of the whole log, in log order. root: size and root that the store
    recorded; Unverified when the bodies do not lead to it. trust: text of trust.json, put in for
    information only: a verifier is given the trust root separately. signer: of role `log`. note: the
    signed checkpoint of that size, with its cosignatures; it is left out when the log has none. proofs: approval
    -> `.tlog-proof` of its event.
    rollouts: told on the pages, with what policy allowed at their start. reports: of gates, with their waivers. tests: reports with their
    JUnit files.
    """
    edge, _ = merkle.grow(merkle.START, (merkle.leaf(body) for body in events))
    if (edge.size, merkle.root_of(edge)) != root:
        raise Unverified(
            "audit.log-differs",
            f"the log's {edge.size} events do not lead to the recorded root of {root[0]} events",
            why="an evidence pack is written only over a log that is whole",
            fix="run `falaj verify`, and compare with the last checkpoint that a witness holds",
        )
    if any(b"\n" in body for body in events):
        raise ValueError("an event's body must be canonical JSON, which has no line break")
    log = {"size": edge.size, "root": merkle.root_of(edge).hex()}
    releases = {_id_of(folder): folder for folder in release_folders}
    members: dict[str, bytes | Path] = {
        "README.txt": README.encode(),
        "changes.json": canonical_bytes(sorted(changes, key=lambda fact: fact.id)) + b"\n",
        "approvals.json": canonical_bytes(sorted(approvals, key=lambda fact: fact.id)) + b"\n",
        "decisions.json": canonical_bytes(sorted(decisions, key=lambda fact: fact.id)) + b"\n",
        "rollouts.json": canonical_bytes(sorted(rollouts, key=lambda fact: fact.id)) + b"\n",
        "live.json": canonical_bytes(sorted(moves, key=lambda fact: fact.id)) + b"\n",
        "log/events.jsonl": b"".join(body + b"\n" for body in events),
        "log/root.json": canonical.dumps(log) + b"\n",
        "information/trust.json": trust.encode(),
    }
    if note:
        members[CHECKPOINT] = note
    for approval in approvals:
        members[f"approvals/{approval.id}.dsse.json"] = approval.envelope.encode()
    for rollout in rollouts:
        if rollout.promotion:
            members[f"promotions/{rollout.id}.dsse.json"] = rollout.promotion.encode()
    for id_, proof in (proofs or {}).items():
        members[f"approvals/{id_}.tlog-proof"] = proof
    for id_, folder in releases.items():
        for name, file in files.walk(folder).items():
            members[f"releases/{digests.short(id_)}/{name}"] = file
    for report in reports:
        members[f"gates/{report.id}.json"] = canonical_bytes(report)
    for tested, junit in tests:
        members[f"tests/{tested.id}.json"] = canonical_bytes(tested)
        if junit:
            members[f"tests/{tested.id}.junit.xml"] = junit
    story = Story(
        project=project,
        created=created,
        releases=releases,
        changes=changes,
        approvals=approvals,
        decisions=decisions,
        moves=moves,
        rollouts=rollouts,
        tests=[tested for tested, _ in tests],
        log=log,
        checkpoint=note.decode(errors="replace"),
    )
    for language, name in PAGES.items():
        members[name] = page(story, language).encode()
    for name in members:
        why = paths.trouble(name)
        if why:
            raise Unverified(
                "audit.unsafe-path",
                f"{name!r} {why}",
                why="a pack holds only names that mean the same on every machine",
                fix="repair the release folder it stands in",
            )
    manifest = {
        "format": FORMAT,
        "project": project,
        "created": time.text(created),
        "log": log,
        "releases": {digests.short(id_): id_ for id_ in releases},
        "files": {
            name: digests.of_bytes(part) if isinstance(part, bytes) else digests.of_file(part)
            for name, part in members.items()
        },
    }
    members[MANIFEST] = canonical.dumps(manifest)
    members[SEAL] = canonical.dumps(dsse.seal(manifest, signer, kind=KIND))
    write_container(path, members)
    return Written(path, digests.of_file(path), len(members), edge.size, str(log["root"]))


def _id_of(folder: Path) -> str:
    return digests.of_file(folder / "release.json")


README: Final = """\
Evidence pack of Falaj

What it holds
  index.html             what stands here, for people; index.ar.html in Arabic
  releases/<id>/         each release: model, environment, model card, ML-BOM, evidence, signature
  approvals/             what approvers signed: DSSE envelopes over release id and evidence digest;
                         beside each the proof that its event stands in the log (c2sp.org/tlog-proof)
  promotions/            what policy allowed when a rollout began, and on what grounds: the same form,
                         a verification summary of SLSA (slsa.dev)
  changes.json, approvals.json, rollouts.json, decisions.json, live.json
                         changes, approvals, rollouts with their decisions, and what answered since when
  gates/                 reports of gates, with waivers: what approvers read
  tests/                 reports of the project's own tests, and the same as JUnit
  log/events.jsonl       every event of the audit log in its order; log/root.json its Merkle root
  log/checkpoint         that root as the log and its witnesses signed it (c2sp.org/tlog-checkpoint)
  manifest.json          the digest of every other file; manifest.dsse.json signs it
  information/trust.json public keys, for information only

How to check it, on any machine, without a network
  falaj verify PACK.zip --trust TRUST.json

The file TRUST.json must come to you on another way than this pack: whoever could change the pack
could change the keys inside it too.
Signatures: DSSE over ECDSA P-256 with SHA-256. Releases: OpenSSF Model Signing v1.0. Statements:
in-toto v1. Log: Merkle tree of RFC 6962 over the lines of events.jsonl.
"""
