"""Write an evidence pack: one zip file that an auditor can check on a machine without a network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from falaj.audit.container import write_container
from falaj.audit.verify import CHECKPOINT, FORMAT, KIND, MANIFEST, SEAL
from falaj.base import canonical, digests, dsse, files, merkle, paths, time
from falaj.base.errors import Unverified
from falaj.facts.changes import Approval, Change
from falaj.facts.rollouts import LiveMove, RolloutDecision
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
) -> Written:
    """Write everything that is known about these releases.

    The same inputs give the same bytes, but for the signature of the manifest.
    events: canonical bodies of the whole log, in log order. root: size and root that the store
    recorded; Unverified when the bodies do not lead to it. trust: text of trust.json, put in for
    information only: a verifier is given the trust root separately. signer: of role `log`. note: the
    signed checkpoint of that size, with its cosignatures; it is left out when the log has none.
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
        "live.json": canonical_bytes(sorted(moves, key=lambda fact: fact.id)) + b"\n",
        "log/events.jsonl": b"".join(body + b"\n" for body in events),
        "log/root.json": canonical.dumps(log) + b"\n",
        "information/trust.json": trust.encode(),
    }
    if note:
        members[CHECKPOINT] = note
    for approval in approvals:
        members[f"approvals/{approval.id}.dsse.json"] = approval.envelope.encode()
    for id_, folder in releases.items():
        for name, file in files.walk(folder).items():
            members[f"releases/{digests.short(id_)}/{name}"] = file
    members["index.html"] = page(
        project, created, releases, changes, approvals, decisions, moves, log
    ).encode()
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
  index.html             what stands here, for people
  releases/<id>/         each release: model, environment, model card, ML-BOM, evidence, signature
  approvals/             what approvers signed: DSSE envelopes over release id and evidence digest
  changes.json, approvals.json, decisions.json, live.json
                         changes, approvals, decisions of rollouts, and what answered since when
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

INTRODUCTION: Final = (
    "This page shows what the pack holds; whether it is genuine is told by "
    "<code>falaj verify</code> with a trust root that came to you separately."
)
STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b2b2f}table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}"
    "th,td{text-align:start;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #d5dedc}"
    "th{font-weight:600}code{font-size:.85em;overflow-wrap:anywhere}"
)


def page(
    project: str,
    created: datetime,
    releases: Mapping[str, Path],
    changes: Sequence[Change],
    approvals: Sequence[Approval],
    decisions: Sequence[RolloutDecision],
    moves: Sequence[LiveMove],
    log: Mapping[str, Any],
) -> str:
    """index.html: plain tables, no script, everything escaped."""
    given: dict[str, list[str]] = {}
    for approval in sorted(approvals, key=lambda fact: fact.id):
        words = f"{approval.decision} by {approval.person}, {time.text(approval.at)}"
        given.setdefault(approval.change, []).append(
            words + (f" (void: {approval.void})" if approval.void else "")
        )
    body = [
        f"<h1>Evidence pack: {_text(project)}</h1>",
        f"<p>Written {_text(time.text(created))}. {INTRODUCTION}</p>",
        "<h2>Releases</h2>",
        _table(
            ("Model", "Version", "Release id", "Code", "Verdicts"),
            [_release_row(id_, folder) for id_, folder in sorted(releases.items())],
        ),
        "<h2>Changes</h2>",
        _table(
            ("Change", "Release", "To", "State", "Risk", "Author", "Decisions"),
            [
                (
                    f"{change.id} {change.title}",
                    digests.short(change.release),
                    change.environment,
                    str(change.state),
                    str(change.risk),
                    change.author,
                    "; ".join(given.get(change.id, ["none"])),
                )
                for change in sorted(changes, key=lambda fact: fact.id)
            ],
        ),
        "<h2>Rollout decisions</h2>",
        _table(
            ("At", "Rollout", "Step", "Outcome", "Action", "Reasons"),
            [
                (
                    time.text(decision.at),
                    decision.rollout,
                    str(decision.step),
                    str(decision.outcome),
                    decision.action,
                    "; ".join(decision.reasons),
                )
                for decision in sorted(decisions, key=lambda fact: (fact.at, fact.id))
            ],
        ),
        "<h2>What answered since when</h2>",
        _table(
            ("From", "Environment", "Model", "Stable", "Canary", "Weight", "Cause"),
            [
                (
                    time.text(move.at),
                    move.environment,
                    move.model,
                    f"{move.stable_version} {digests.short(move.stable)}",
                    f"{move.canary_version} {digests.short(move.canary)}".strip(),
                    f"{move.weight_bp / 100:g} %",
                    move.cause,
                )
                for move in sorted(moves, key=lambda fact: (fact.at, fact.id))
            ],
        ),
        "<h2>Audit log</h2>",
        f"<p>{log['size']} events, Merkle root <code>{_text(str(log['root']))}</code>.</p>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Evidence pack: {_text(project)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _release_row(id_: str, folder: Path) -> tuple[str, ...]:
    said = canonical.loads((folder / "release.json").read_bytes())
    code = said.get("code", {})
    verdicts = []
    for path in sorted((folder / "evidence").glob("*.dsse.json")):
        envelope = canonical.loads(path.read_bytes())
        predicate = canonical.loads(dsse.decode(envelope["payload"])).get("predicate", {})
        if "gate" in predicate:
            verdicts.append(f"{predicate['gate']}: {predicate.get('verdict')}")
    dirty = " with local changes" if code.get("dirty") else ""
    return (
        str(said.get("model", "")),
        str(said.get("version", "")),
        id_,
        f"{code.get('commit', '')}{dirty}",
        ", ".join(verdicts) or "none",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None.</p>"
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    lines = ("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<table><thead><tr>{top}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"
    )


def _text(words: str) -> str:
    return html.escape(words, quote=True)
