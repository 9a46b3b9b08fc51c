"""Check an evidence pack without a server or a network. Runs with base alone.

The trust root is given separately and never taken from the pack. Every finding is reported, with
the file concerned; a pack holds only when there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

from falaj.audit.allowed import LIVE, lacking
from falaj.audit.container import BadContainer, Member, bytes_of, digest_of, read_members
from falaj.audit.offline import check_proof
from falaj.audit.promotions import Grounds, file_of, misgivings, starts
from falaj.audit.told import APPROVAL, Approved, Changed, Decided, Moved, Started
from falaj.base import bundle, canonical, digests, dsse, merkle, note, paths, records, time
from falaj.base.bundle import Content, Finding
from falaj.base.checkpoints import Signers, open_checkpoint
from falaj.base.tlog import read_proof
from falaj.base.trust import (
    BadTrust,
    Root,
    certified,
    identity_of,
    keys_for,
    note_keys,
    open_root,
    threshold_of,
)

__all__ = ["PackReport", "Summary", "verify_pack"]

FORMAT: Final = "falaj-evidence-pack/1"
KIND: Final = "application/vnd.falaj.evidence-pack+json"
MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.dsse.json"
CHECKPOINT: Final = "log/checkpoint"
MOST_LOG: Final = 1 << 30
MOVE: Final = frozenset({"model", "stable", "canary", "weight_bp", "seq", "cause"})
F = TypeVar("F")


class Summary(NamedTuple):
    project: str = ""
    created: str = ""
    signer: str = ""  # identity whose key sealed the pack
    trust_version: int = 0
    files: int = 0
    releases: tuple[str, ...] = ()
    changes: int = 0
    approvals: int = 0
    decisions: int = 0
    moves: int = 0
    promotions: int = 0
    log_size: int = 0
    log_root: str = ""
    checkpoint: bool = False  # a signed one is there, and holds
    witnesses: tuple[str, ...] = ()  # whose cosignature under the checkpoint holds


class PackReport(NamedTuple):
    """`trusted`: the trust root was given separately. Without one a pack never holds."""

    findings: tuple[Finding, ...]
    summary: Summary
    trusted: bool

    @property
    def holds(self) -> bool:
        return self.trusted and not self.findings

    def facts(self) -> tuple[str, ...]:
        """What the checks have looked at, for people."""
        told = self.summary
        names = ", ".join(digests.short(release) for release in told.releases)
        seen = (
            f", seen by {', '.join(told.witnesses)}" if told.witnesses else ", seen by no witness"
        )
        return (
            f"{told.files} files as listed and sealed",
            f"{len(told.releases)} releases: {names}",
            f"{told.changes} changes, {told.approvals} approvals, signed by who gave them",
            *(
                [
                    f"{told.promotions} rollouts began as policy allowed, each with its signed grounds"
                ]
                if told.promotions
                else []
            ),
            f"{told.log_size} events lead to root {told.log_root[:16]}"
            + (f", as the signed checkpoint says{seen}" if told.checkpoint else ""),
        )


class Event(NamedTuple):
    """What the checks need of one leaf."""

    idx: int
    type: str
    time: datetime
    subject: str
    data: Mapping[str, Any]


def verify_pack(
    path: Path,
    trust: Root | None,
    *,
    now: datetime,
    requires: tuple[str, ...] = (),
    witnesses: Sequence[note.Key] = (),
    at_least: int = 0,
) -> PackReport:
    """Judge a pack; all findings.

    1. The zip file has its one spelling; names are plain; CRCs hold. 2. manifest.json lists every
    other file, each with its digest, and is sealed by a key of role `log`. 3. Each release holds by
    itself, at the time that the log gives it. 4. Each approval is signed over its release and
    evidence by the key of the one who approved, who is not an author. 5. The events lead to the
    root. 6. The checkpoint over that root is signed by the log, and cosigned by `at_least` of the
    witnesses. 7. What is told about (releases, changes, approvals, decisions, live moves) has its
    event. 8. Each rollout began because policy allowed it: signed by role `policy`, about this release,
    resting on this evidence and these approvals.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        found = Finding("audit.unreadable", path.name, f"{path.name}: {error.strerror}")
        return PackReport((found,), Summary(), trust is not None)
    with file:
        check = Check(file, trust, now, requires, path.name, witnesses, at_least)
        try:
            return check.run()
        except (OverflowError, RecursionError) as error:
            # A time at the edge of the calendar, JSON nested without end: only hostile packs.
            check.say("audit.malformed", path.name, f"{path.name}: {error}")
            return check.report(Summary())


class Check:
    """One walk through one pack; collects findings."""

    def __init__(
        self,
        file: BinaryIO,
        trust: Root | None,
        now: datetime,
        requires: tuple[str, ...],
        name: str,
        witnesses: Sequence[note.Key] = (),
        at_least: int = 0,
    ) -> None:
        self.file = file
        self.given = trust is not None
        self.trust = trust
        self.now = now
        self.requires = requires
        self.name = name
        self.given_witnesses, self.at_least = tuple(witnesses), at_least
        self.found: list[Finding] = []
        self.members: dict[str, Member] = {}
        self.hashes: dict[str, str] = {}
        self.statements: dict[str, Mapping[str, dict[str, Any]]] = {}  # of each release

    def say(self, code: str, file: str, message: str) -> None:
        self.found.append(Finding(code, file, message))

    def run(self) -> PackReport:
        if not self._open():
            return self.report(Summary())
        self._choose_trust()
        manifest = self._manifest()
        signer = self._seal()
        if manifest is None:
            return self.report(Summary(signer=signer))
        events, edge = self._log(manifest)
        witnesses = self._checkpoint(manifest["log"])
        mentions = _mentions(events)
        for short, id_ in manifest["releases"].items():
            self._release(short, id_, mentions)
        self._strays(manifest)
        changes = self._facts("changes.json", Changed)
        approvals = self._facts("approvals.json", Approved)
        decisions = self._facts("decisions.json", Decided)
        moves = self._facts("live.json", Moved)
        self._approvals(approvals, {change.id: change for change in changes}, events)
        for change in changes:
            if change.id not in mentions:
                self.say(
                    "audit.no-event", "changes.json", f"change {change.id} has no event in the log"
                )
        rollouts = self._facts("rollouts.json", Started)
        self._enough(changes, approvals, rollouts, events)
        promotions = self._promotions(manifest, rollouts, changes, approvals, events)
        for rollout in rollouts:
            if rollout.id not in mentions:
                self.say(
                    "audit.no-event",
                    "rollouts.json",
                    f"rollout {rollout.id} has no event in the log",
                )
        self._decisions(decisions, events)
        self._moves(moves, events)
        self._reports(mentions)
        return self.report(
            Summary(
                project=manifest["project"],
                created=manifest["created"],
                signer=signer,
                trust_version=self.trust.version if self.trust else 0,
                files=len(self.members),
                releases=tuple(manifest["releases"].values()),
                changes=len(changes),
                approvals=len(approvals),
                decisions=len(decisions),
                moves=len(moves),
                promotions=promotions,
                log_size=edge.size,
                log_root=merkle.root_of(edge).hex(),
                checkpoint=witnesses is not None,
                witnesses=witnesses or (),
            )
        )

    def report(self, summary: Summary) -> PackReport:
        return PackReport(tuple(dict.fromkeys(self.found)), summary, self.given)

    def _open(self) -> bool:
        try:
            members = read_members(self.file)
        except BadContainer as error:
            self.say("audit.container", error.member or self.name, str(error))
            return False
        self.members = {member.name: member for member in members}
        for name, other in paths.collisions(self.members):
            self.say("audit.container", name, f"{name!r} and {other!r} are one file elsewhere")
        for member in members:
            self.hashes[member.name], whole = digest_of(self.file, member)
            if not whole:
                self.say("audit.changed", member.name, f"{member.name}: its checksum does not hold")
        return True

    def _choose_trust(self) -> None:
        if self.trust is not None:
            if self.now > self.trust.expires:
                self.say("audit.trust-expired", "", f"the trust root expired {self.trust.expires}")
            return
        self.say(
            "audit.trust-not-given",
            "",
            "trust root not given: checked against the key fingerprint in the pack only, which "
            "whoever changed the pack could have changed too",
        )
        try:
            self.trust = open_root(self._bytes("information/trust.json") or b"", now=self.now)
        except BadTrust as error:
            self.say("audit.trust-not-given", "information/trust.json", str(error))

    def _keys(self, role: str, at: datetime, release: str = "") -> Mapping[str, bytes]:
        return keys_for(self.trust, role, at, release=release) if self.trust is not None else {}

    def _bytes(self, name: str, most: int = dsse.MAX_BYTES) -> bytes | None:
        member = self.members.get(name)
        if member is None:
            self.say("audit.missing", name, f"{name} is missing")
            return None
        if member.size > most:
            self.say("audit.malformed", name, f"{name} is larger than {most >> 20} MiB")
            return None
        return bytes_of(self.file, member, most=most)

    def _manifest(self) -> dict[str, Any] | None:
        data = self._bytes(MANIFEST)
        if data is None:
            return None
        try:
            manifest = bundle.spelled(data)
        except canonical.NotCanonical as error:
            self.say("audit.malformed", MANIFEST, f"manifest.json: {error}")
            return None
        match manifest:
            case {
                "format": str(form),
                "project": str(),
                "created": str(),
                "log": {"size": int(), "root": str()},
                "releases": dict(releases),
                "files": dict(listed),
            } if form == FORMAT and all(
                isinstance(value, str) for value in (*releases.values(), *listed.values())
            ):
                pass
            case _:
                self.say("audit.malformed", MANIFEST, f"manifest.json: not a manifest of {FORMAT}")
                return None
        there = {n: d for n, d in self.hashes.items() if n not in {MANIFEST, SEAL}}
        for name in sorted(listed.keys() - there.keys()):
            self.say("audit.missing", name, f"{name} is missing, though manifest.json lists it")
        for name in sorted(there.keys() - listed.keys()):
            self.say("audit.added", name, f"{name} was added: manifest.json does not list it")
        for name in sorted(there.keys() & listed.keys()):
            if there[name] != listed[name]:
                self.say(
                    "audit.changed",
                    name,
                    f"{name} was changed: got {there[name]}, manifest.json says {listed[name]}",
                )
        return dict(manifest)

    def _seal(self) -> str:
        """The identity that sealed the pack; empty when the seal does not hold."""
        data, sealed = self._bytes(SEAL), self._bytes(MANIFEST)
        if data is None or sealed is None:
            return ""
        try:
            envelope = bundle.spelled(data)
            opened = dsse.open_envelope(envelope, self._keys("log", self.now), kind=KIND)
            if envelope.keys() != {"payload", "payloadType", "signatures"} or any(
                entry.keys() != {"sig", "keyid"} for entry in envelope["signatures"]
            ):
                raise dsse.BadEnvelope("holds fields that nobody signs")
            dsse.decode(envelope["signatures"][0]["sig"])
            if dsse.decode(envelope["payload"]) != sealed:
                self.say("audit.changed", MANIFEST, "manifest.json is not what was sealed")
        except (canonical.NotCanonical, dsse.BadEnvelope) as error:
            self.say("audit.seal", SEAL, f"manifest.dsse.json: {error}")
            return ""
        return identity_of(self.trust, opened.hint) if self.trust else ""

    def _log(self, manifest: Mapping[str, Any]) -> tuple[list[Event], merkle.Edge]:
        data = self._bytes("log/events.jsonl", MOST_LOG) or b""
        bodies = data.split(b"\n")
        if bodies.pop() != b"":
            self.say("audit.log-differs", "log/events.jsonl", "the last event is cut off")
        edge, _ = merkle.grow(merkle.START, (merkle.leaf(body) for body in bodies))
        reached = {"size": edge.size, "root": merkle.root_of(edge).hex()}
        if reached != manifest["log"]:
            self.say(
                "audit.log-differs",
                "log/events.jsonl",
                f"the events lead to root {reached['root']} of {reached['size']}, recorded is "
                f"{manifest['log']['root']} of {manifest['log']['size']}",
            )
        if self._bytes("log/root.json") != canonical.dumps(manifest["log"]) + b"\n":
            self.say("audit.log-differs", "log/root.json", "log/root.json is not the sealed root")
        events: list[Event] = []
        for idx, body in enumerate(bodies):
            event = _event(idx, body)
            if event is None:
                self.say("audit.malformed", "log/events.jsonl", f"event {idx} is not a CloudEvent")
            else:
                events.append(event)
        return events, edge

    def _checkpoint(self, log: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Who has seen the root that is sealed; None without a checkpoint that holds.

        A pack of before there were checkpoints has none.
        """
        if CHECKPOINT not in self.members:
            if self.at_least:
                self.say("audit.checkpoint", CHECKPOINT, f"{CHECKPOINT} is missing")
            return None
        trusted = (
            note_keys(self.trust, "log", self.now, note.ED25519) if self.trust is not None else ()
        )
        try:
            seen = open_checkpoint(
                self._bytes(CHECKPOINT) or b"", Signers(trusted, self.witnesses(), self.at_least)
            )
        except note.BadNote as error:
            self.say("audit.checkpoint", CHECKPOINT, f"{CHECKPOINT}: {error}")
            return None
        told = {"size": seen.checkpoint.size, "root": seen.checkpoint.root.hex()}
        if told != log:
            self.say(
                "audit.checkpoint",
                CHECKPOINT,
                f"{CHECKPOINT} tells root {told['root']} of {told['size']}, sealed is "
                f"{log['root']} of {log['size']}",
            )
        return tuple(name for name, _ in seen.witnesses)

    def witnesses(self) -> tuple[note.Key, ...]:
        """Given beside the trust root, or in it."""
        trusted = (
            note_keys(self.trust, "witness", self.now, note.COSIGNATURE)
            if self.trust is not None
            else ()
        )
        return (*self.given_witnesses, *trusted)

    def _release(self, short: str, id_: str, mentions: Mapping[str, Event]) -> None:
        prefix, inside = f"releases/{short}/", self._inside(short)
        if digests.short(id_) != short:
            self.say("audit.malformed", MANIFEST, f"release {id_} does not belong in {prefix}")
        if not inside:
            self.say("audit.missing", prefix, f"release {id_} is missing")
            return
        event = mentions.get(id_)
        if event is None:
            self.say(
                "audit.no-event", f"{prefix}release.json", f"release {id_} has no event in the log"
            )
        # The log, sealed by a key that is valid now, is the witness of when the release was there.
        at = event.time if event is not None else self.now
        trust = self.trust
        judged = bundle.examine(
            Content(inside, lambda name: self._bytes(prefix + name) or b""),
            lambda role: self._keys(role, at, id_),
            release_id=id_,
            requires=self.requires,
            threshold=threshold_of(trust, "release") if trust else 1,
            identity=lambda hint: identity_of(trust, hint) if trust else hint,
            certified=(lambda chain: certified(trust, "release", chain, at, release=id_))
            if trust
            else None,
        )
        self.statements[id_] = judged.statements
        for finding in judged.findings:
            self.say(finding.code, prefix + finding.file, finding.message)

    def _strays(self, manifest: Mapping[str, Any]) -> None:
        for name in self.members:
            if name.startswith("releases/") and name.split("/")[1] not in manifest["releases"]:
                self.say("audit.added", name, f"{name} belongs to no release of this pack")

    def _facts(self, name: str, kind: type[F]) -> list[F]:
        data = self._bytes(name, 1 << 28) or b""
        try:
            listed = bundle.spelled(data.removesuffix(b"\n"))
            return records.read(list[kind], listed)  # type: ignore[valid-type]
        except (canonical.NotCanonical, records.Misread) as error:
            self.say("audit.malformed", name, f"{name}: {error}")
            return []

    def _approvals(
        self, approvals: Sequence[Approved], changes: Mapping[str, Changed], events: Sequence[Event]
    ) -> None:
        spoken = {str(e.data.get("approval")): e for e in events if "approval" in e.data}
        expected = {
            f"approvals/{approval.id}.{end}"
            for approval in approvals
            for end in ("dsse.json", "tlog-proof")
        }
        for name in sorted(n for n in self.members if n.startswith("approvals/")):
            if name not in expected:
                self.say("audit.added", name, f"{name} belongs to no approval of this pack")
        for approval in approvals:
            file = f"approvals/{approval.id}.dsse.json"
            for why in self._wrong(approval, file, changes.get(approval.change)):
                self.say("audit.approval", file, f"approval {approval.id}: {why}")
            event = spoken.get(approval.id)
            self._proof(approval, event)
            if event is None:
                self.say("audit.no-event", file, f"approval {approval.id} has no event in the log")
            elif (
                event.subject != f"change/{approval.change}"
                or event.data.get("release") != approval.release
                or event.data.get("evidence") != approval.evidence
                or event.data.get("decision", approval.decision) != approval.decision
            ):
                self.say(
                    "audit.approval",
                    file,
                    f"approval {approval.id}: event {event.idx} of the log tells another story",
                )

    def _proof(self, approval: Approved, event: Event | None) -> None:
        """The proof beside an approval, where there is one, is that of its event."""
        file = f"approvals/{approval.id}.tlog-proof"
        if file not in self.members:
            return
        data = self._bytes(file) or b""
        trusted = (
            note_keys(self.trust, "log", self.now, note.ED25519) if self.trust is not None else ()
        )
        for finding in check_proof(data, Signers(trusted)).findings:
            self.say(finding.code, file, f"{file}: {finding.message}")
            return
        place = read_proof(data).place
        if event is None or place != event.idx:
            self.say("audit.proof", file, f"{file} proves event {place}, which is another one")

    def _promotions(
        self,
        manifest: Mapping[str, Any],
        rollouts: Sequence[Started],
        changes: Sequence[Changed],
        approvals: Sequence[Approved],
        events: Sequence[Event],
    ) -> int:
        """Each start has its permission; how many have one. A log of before there were any names none."""
        begun = starts(events)
        first = min((e.idx for e in begun.values() if "promotion" in e.data), default=len(events))
        known = {rollout.id: rollout for rollout in rollouts}
        for id_, event in begun.items():
            if event.data.get("release") in manifest["releases"].values() and id_ not in known:
                self.say(
                    "audit.promotion",
                    "rollouts.json",
                    f"rollout {id_} began by event {event.idx} of the log, and is not told of",
                )
        expected = {file_of(rollout) for rollout in rollouts if rollout.promotion}
        for name in sorted(n for n in self.members if n.startswith("promotions/")):
            if name not in expected:
                self.say("audit.added", name, f"{name} belongs to no rollout of this pack")
        bad = {finding.file for finding in self.found if finding.code == "audit.approval"}
        held = {f"approvals/{approval.id}.dsse.json": approval for approval in approvals}
        given = 0
        for rollout in rollouts:
            grounds = Grounds(
                manifest["project"],
                next((change for change in changes if change.id == rollout.change), None),
                {name: approval for name, approval in held.items() if name not in bad},
                self.hashes,
                bundle.evidence_of(self._inside(digests.short(rollout.release))),
                self.statements.get(rollout.release, {}),
            )
            for why in self._unallowed(rollout, begun.get(rollout.id), first, grounds):
                self.say("audit.promotion", file_of(rollout), f"rollout {rollout.id}: {why}")
            given += bool(rollout.promotion)
        return given

    def _unallowed(
        self, rollout: Started, event: Event | None, first: int, grounds: Grounds
    ) -> Iterator[str]:
        """Why a rollout did not begin as policy allowed, each reason."""
        named = event.data.get("promotion", "") if event is not None else ""
        if not rollout.promotion and not named:
            # Going back asks no policy: it is pre-approved, and its event is another one.
            if event is not None and event.idx > first:
                yield "nothing signed says that policy allowed its start"
            return
        file = file_of(rollout)
        data = self._bytes(file)
        if event is None:
            yield "the log knows no start of it"
            return
        if data is None:
            yield "what policy allowed is missing"
            return
        if self.hashes[file] != named:
            yield f"event {event.idx} of the log names another permission"
        if event.data.get("release") != rollout.release:
            yield f"event {event.idx} of the log began another release"
        # The log, sealed by a key that is valid now, is the witness of when it was signed.
        keys = self._keys("policy", event.time, rollout.release)
        yield from misgivings(data, rollout, keys, grounds)

    def _inside(self, short: str) -> dict[str, str]:
        """The files of a release in this pack: path -> digest."""
        prefix = f"releases/{short}/"
        return {
            name.removeprefix(prefix): digest
            for name, digest in self.hashes.items()
            if name.startswith(prefix)
        }

    def _decisions(self, decisions: Sequence[Decided], events: Sequence[Event]) -> None:
        spoken = {
            str(e.data["decision"]): e
            for e in events
            if e.subject.startswith("rollout/") and "decision" in e.data
        }
        for decision in decisions:
            event = spoken.get(decision.id)
            words = f"decision {decision.id} of rollout {decision.rollout}"
            if event is None:
                self.say("audit.no-event", "decisions.json", f"{words} has no event in the log")
                continue
            told = {
                "action": decision.action,
                "outcome": decision.outcome,
                "step": decision.step,
                "numbers": decision.numbers,
            }
            if event.subject != f"rollout/{decision.rollout}" or any(
                event.data.get(key, value) != value for key, value in told.items()
            ):
                self.say(
                    "audit.told-otherwise",
                    "decisions.json",
                    f"{words}: event {event.idx} of the log tells another story",
                )

    def _moves(self, moves: Sequence[Moved], events: Sequence[Event]) -> None:
        """A live move is named by what it says, so it cannot say anything else than the log."""
        spoken = {_move(e.subject, e.data) for e in events if e.data.keys() >= MOVE}
        for move in moves:
            if _move(f"environment/{move.environment}", move._asdict()) not in spoken:
                self.say(
                    "audit.no-event",
                    "live.json",
                    f"live move {move.seq} of {move.model} in {move.environment} has no event in "
                    "the log",
                )

    def _reports(self, mentions: Mapping[str, Event]) -> None:
        """Reports of gates and tests are named in the log by their digest."""
        for name, digest in self.hashes.items():
            kind = name.partition("/")[0]
            if kind in ("gates", "tests") and name.endswith(".json") and digest not in mentions:
                self.say("audit.no-event", name, f"{name}: no event of the log names its digest")

    def _wrong(self, approval: Approved, file: str, change: Changed | None) -> Iterator[str]:
        """Why a signed decision does not count, each reason."""
        data = self._bytes(file)
        if data is None:
            return
        if data.decode(errors="replace") != approval.envelope:
            yield "the envelope is not the one in approvals.json"
        try:
            statement, hint = bundle.statement_of(
                canonical.loads(data), self._keys("approval", approval.at)
            )
        except (canonical.NotCanonical, dsse.BadEnvelope) as error:
            yield str(error)
            return
        claim = statement["predicate"]
        if statement["predicateType"] != APPROVAL:
            yield f"it is a statement of type {statement['predicateType']}"
        if bundle.subject_of(statement) != approval.release:
            yield f"it speaks about release {bundle.subject_of(statement)}, not {approval.release}"
        told = {
            "change": approval.change,
            "evidence": approval.evidence,
            "report": approval.report,
            "decision": approval.decision,
            "person": approval.person,
            "at": time.text(approval.at),
            "expires": time.text(approval.expires),
        }
        for key, value in told.items():
            if claim.get(key, "") != value:
                yield f"signed is {key} {claim.get(key)!r}, told is {value!r}"
        if claim.get("groups", []) != list(approval.groups):
            yield f"signed are groups {claim.get('groups')!r}, told are {list(approval.groups)!r}"
        if claim.get("validator", False) is not approval.validator:
            yield "signed and told do not agree whether a validator signed"
        if self.trust and identity_of(self.trust, hint) != approval.principal:
            yield f"signed by {identity_of(self.trust, hint)!r}, told is {approval.principal!r}"
        listed = self._inside(digests.short(approval.release))
        if listed and not approval.void and bundle.evidence_digest(listed) != approval.evidence:
            yield "the evidence of the release is not the evidence that was approved"
        if change is None:
            yield f"change {approval.change} is not in the pack"
        elif approval.person in change.authors:
            yield f"{approval.person} approved an own change"

    def _enough(
        self,
        changes: Sequence[Changed],
        approvals: Sequence[Approved],
        rollouts: Sequence[Started],
        events: Sequence[Event],
    ) -> None:
        """A change that went live was allowed to."""
        bad = {finding.file for finding in self.found if finding.code == "audit.approval"}
        for change in changes:
            if change.state not in LIVE:
                continue
            holding = [
                approval
                for approval in approvals
                if approval.change == change.id and f"approvals/{approval.id}.dsse.json" not in bad
            ]
            about = {f"change/{change.id}"}
            about |= {f"rollout/{r.id}" for r in rollouts if r.change == change.id}
            theirs = [event for event in events if event.subject in about]
            for why in lacking(change, holding, theirs, lambda at: self._keys("approval", at)):
                self.say("audit.approval", "changes.json", f"change {change.id} {why}")


def _move(subject: str, data: Mapping[str, Any]) -> bytes:
    """What a live move says, comparable whatever the values are."""
    return canonical.dumps([subject, {key: data[key] for key in MOVE}])


def _event(idx: int, body: bytes) -> Event | None:
    try:
        match bundle.spelled(body):
            case {
                "specversion": "1.0",
                "type": str(kind),
                "subject": str(subject),
                "time": str(at),
                "data": dict(data),
            }:
                return Event(idx, kind, time.parse_instant(at), subject, data)
            case _:
                return None
    except (ValueError, OverflowError):
        return None


def _mentions(events: Sequence[Event]) -> dict[str, Event]:
    """Every id that an event names, as its subject or in its data -> the first such event."""
    found: dict[str, Event] = {}
    for event in events:
        kind, _, rest = event.subject.partition("/")
        for words in (event.subject, rest or kind, *_texts(event.data)):
            found.setdefault(words, event)
    return found


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
