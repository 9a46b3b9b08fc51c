"""An evidence pack: whole it holds offline; changed by one byte anywhere it does not."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import zipfile
import zlib
from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.audit import container
from falaj.audit.container import read_members, write_container
from falaj.audit.pack import write_pack
from falaj.audit.verify import verify_pack
from falaj.base import bundle, canonical, digests, dsse, merkle, time
from falaj.base.errors import Unverified
from falaj.changes.promotion import promotion
from falaj.facts.access import Action, Permit
from falaj.facts.attestations import APPROVAL, statement
from falaj.facts.changes import Approval, Change, ChangeKind, ChangeState, Decision, Risk
from falaj.facts.checks import GateReport, Verdict, Waiver
from falaj.facts.events import Event
from falaj.facts.releases import Revocation, RevocationKind
from falaj.facts.rollouts import (
    LiveMove,
    Outcome,
    Phase,
    Rollout,
    RolloutDecision,
    RolloutPlan,
    Strategy,
)
from falaj.facts.runs import Code, Environment
from falaj.facts.testing import TestReport
from falaj.facts.trust import BadTrust, open_trust
from falaj.facts.wire import canonical_bytes, digest


class Story:
    """One release approved, rolled out and live, with its events. Any part can be replaced."""

    def __init__(self, make_release, key_ring):
        self.ring = key_ring
        self.made = make_release()
        at = self.made.manifest.created
        self.at = at
        self.now = at + timedelta(days=1)
        self.evidence = bundle.evidence_digest(self.made.manifest.files)
        self.change = Change(
            id="CHG-0001",
            kind=ChangeKind.NORMAL,
            state=ChangeState.IMPLEMENTED,
            title="delay none to 7 <b>",
            reason="better",
            model="delay",
            release=self.made.id,
            version="7",
            environment="production",
            evidence=self.evidence,
            author="p-author",
            authors=("p-author",),
            risk=Risk.LOW,
            approvals_needed=1,
            opened=at,
            since=at,
        )
        self.approval = self.approve("01HAPPROVAL")
        self.decision = RolloutDecision(
            id="01HDECISION",
            rollout="01HROLLOUT",
            at=at,
            step=3,
            outcome=Outcome.PROMOTE,
            action="promote",
            reasons=("proven",),
            numbers={"e": 21.5},
        )
        self.move = LiveMove(
            id="01HMOVE",
            environment="production",
            model="delay",
            stable=self.made.id,
            stable_version="7",
            at=at,
            cause="01HROLLOUT",
            seq=1,
        )
        self.events = [
            self.event("release.created", f"release/{self.made.id}", {"evidence": self.evidence}),
            self.event("change.opened", "change/CHG-0001", {"release": self.made.id}),
            self.event(
                "change.approved",
                "change/CHG-0001",
                {
                    "approval": "01HAPPROVAL",
                    "release": self.made.id,
                    "evidence": self.evidence,
                    "decision": "approve",
                },
            ),
            self.event(
                "rollout.decided",
                "rollout/01HROLLOUT",
                {
                    "decision": "01HDECISION",
                    "action": "promote",
                    "outcome": "promote",
                    "step": 3,
                    "numbers": {"e": 21.5},
                },
            ),
            self.event(
                "live.moved",
                "environment/production",
                {
                    "model": "delay",
                    "stable": self.made.id,
                    "canary": "",
                    "weight_bp": 0,
                    "seq": 1,
                    "cause": "01HROLLOUT",
                },
            ),
        ]

    def approve(self, id_, *, signer="approvalr", principal="", person="p-other", **told):
        expires = self.at + timedelta(days=30)
        claim = {
            "change": "CHG-0001",
            "environment": "production",
            "decision": "approve",
            "evidence": self.evidence,
            "person": person,
            "at": time.text(self.at),
            "expires": time.text(expires),
            **told,
        }
        said = statement(APPROVAL, "delay 7", told.get("release", self.made.id), claim)
        return Approval(
            id=id_,
            change="CHG-0001",
            release=self.made.id,
            evidence=self.evidence,
            person=person,
            principal=principal or signer,
            decision=Decision.APPROVE,
            comment="fine",
            at=self.at,
            expires=expires,
            envelope=json.dumps(dsse.seal(said, self.ring.signer(signer)), sort_keys=True),
        )

    def event(self, kind, subject, data):
        event = Event(
            id=f"01H{len(subject)}",
            at=self.at,
            project="flights",
            type=kind,
            actor="p-1",
            subject=subject,
            data=data,
        )
        return canonical_bytes(event.cloud())

    def write(self, path, *, root=None, events=None, **other):
        events = self.events if events is None else events
        root = root or (len(events), merkle.root([merkle.leaf(body) for body in events]))
        parts = {
            "project": "flights",
            "created": self.at,
            "release_folders": [self.made.folder],
            "approvals": [self.approval],
            "changes": [self.change],
            "decisions": [self.decision],
            "moves": [self.move],
            "trust": self.ring.trust_text(),
            "signer": self.ring.signer("logr"),
        }
        return write_pack(path, root=root, events=events, **{**parts, **other})


@pytest.fixture(scope="module")
def story(make_release, key_ring):
    return Story(make_release, key_ring)


@pytest.fixture(scope="module")
def trust(key_ring):
    return key_ring.trust()


@pytest.fixture(scope="module")
def pack(story, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "pack.zip"
    story.write(path)
    return path


@pytest.fixture(scope="module")
def judge(story, trust):
    return lambda path, **more: verify_pack(
        path, more.pop("trust", trust), now=more.pop("now", story.now), **more
    )


def codes(report):
    return {finding.code for finding in report.findings}


def named(report):
    return {finding.file for finding in report.findings}


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_an_untouched_pack_holds(pack, judge, story):
    report = judge(pack, requires=("quality", "security"))
    assert report.findings == ()
    assert report.holds
    assert report.summary.signer == "logr"
    assert report.summary.releases == (story.made.id,)
    assert report.summary.log_size == 5
    assert report.summary.approvals == report.summary.changes == 1


def test_any_zip_tool_reads_it(pack):
    with zipfile.ZipFile(pack) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
    if shutil.which("unzip"):
        done = subprocess.run(["unzip", "-tqq", str(pack)], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_same_inputs_give_the_same_bytes_but_for_the_seal(story, tmp_path):
    story.write(tmp_path / "a.zip")
    story.write(tmp_path / "b.zip")
    one, two = members(tmp_path / "a.zip"), members(tmp_path / "b.zip")
    assert one.pop("manifest.dsse.json") != two.pop("manifest.dsse.json")  # ECDSA has a dice
    assert one == two


def test_a_required_gate_that_no_release_has(pack, judge):
    report = judge(pack, requires=("bias",))
    assert codes(report) == {"releases.evidence-missing"}


def test_the_page_is_escaped_and_has_no_script(pack):
    page = members(pack)["index.html"].decode()
    assert "delay none to 7 &lt;b&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "✓ quality pass" in page


# --- one byte anywhere -------------------------------------------------------------------------


def test_one_changed_byte_of_any_file_is_found_and_the_file_named(pack, judge, tmp_path):
    """Packed again by the same writer, so that only the content is wrong."""
    whole = members(pack)
    for name, data in whole.items():
        for at in {0, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[at] ^= 0x01
            path = tmp_path / "changed.zip"
            write_container(path, {**whole, name: bytes(changed)})
            report = judge(path)
            assert not report.holds
            assert name in named(report), (name, at, report.findings)


def flipped(pack, judge, tmp_path, name, places):
    """Each of these bytes with one bit changed, packed again so that all checksums are right."""
    whole = members(pack)
    path = tmp_path / "flipped.zip"
    missed = []
    for at in places:
        changed = bytearray(whole[name])
        changed[at] ^= 1 << (at % 8)
        with path.open("wb") as sink:  # as write_container does, without waiting for the disk
            container._write(sink, {**whole, name: bytes(changed)})
        report = judge(path)
        if report.holds or name not in named(report):
            missed.append(at)
    return missed


@pytest.mark.parametrize("quarter", range(4))
def test_no_byte_of_the_seal_is_free(pack, judge, tmp_path, quarter):
    """Every one: spaces, escapes and unused bits of base64 are where a lenient reader is blind."""
    size = len(members(pack)["manifest.dsse.json"])
    places = range(quarter, size, 4)
    assert flipped(pack, judge, tmp_path, "manifest.dsse.json", places) == []


def test_no_byte_of_any_member_is_free(pack, judge, tmp_path):
    """Every 41st byte of each, the first and the last; whole runs of every byte found none."""
    for name, data in members(pack).items():
        places = {0, len(data) - 1, *range(len(name) % 41, len(data), 41)}
        assert flipped(pack, judge, tmp_path, name, sorted(places)) == [], name


def test_members_that_changed_places(pack, judge, tmp_path):
    """The bytes of two members exchanged; both are named."""
    whole = members(pack)
    names = sorted(whole)
    for one, two in itertools.pairwise(names):
        if whole[one] == whole[two]:
            continue
        write_container(tmp_path / "p.zip", {**whole, one: whole[two], two: whole[one]})
        report = judge(tmp_path / "p.zip")
        assert not report.holds
        assert {one, two} & named(report), (one, two)


@pytest.fixture(scope="module")
def another(story, tmp_path_factory):
    """A later pack of the same workspace: one event more, the same release."""
    path = tmp_path_factory.mktemp("another") / "pack.zip"
    more = story.event("evidence.exported", "model/delay", {"releases": [story.made.id]})
    told = msgspec.structs.replace(story.decision, reasons=("told otherwise",))
    story.write(path, events=[*story.events, more], decisions=[told])
    return path


def test_members_of_another_pack_of_the_same_workspace(pack, another, judge, tmp_path):
    """Each member that differs, alone: also the newer seal over the older content."""
    old, new = members(pack), members(another)
    assert judge(another).holds
    different = [name for name in old if old[name] != new[name]]
    assert {"manifest.json", "manifest.dsse.json", "log/events.jsonl"} <= set(different)
    for name in different:
        write_container(tmp_path / "p.zip", {**old, name: new[name]})
        report = judge(tmp_path / "p.zip")
        assert not report.holds, name
        assert report.findings, name
    both = {name: new[name] for name in ("manifest.json", "manifest.dsse.json")}
    write_container(tmp_path / "p.zip", {**old, **both})
    assert {"log/events.jsonl", "decisions.json"} <= named(judge(tmp_path / "p.zip"))


def test_entries_in_another_order(pack, judge, tmp_path):
    """The same members, each with right headers, not sorted."""
    whole = members(pack)
    names = sorted(whole)
    for order in (names[::-1], [*names[1:], names[0]]):
        sink, directory = io.BytesIO(), []
        for name in order:
            raw, data = name.encode(), whole[name]
            crc, at = zlib.crc32(data), sink.tell()
            sink.write(container.local_header(raw, crc, len(data)) + data)
            directory.append(container.central_header(raw, crc, len(data), at))
        start, body = sink.tell(), b"".join(directory)
        sink.write(body + container.end_record(len(directory), len(body), start))
        (tmp_path / "p.zip").write_bytes(sink.getvalue())
        assert codes(judge(tmp_path / "p.zip")) == {"audit.container"}


CUTS = {
    "in the middle of an event": lambda log: log[:-20],
    "behind an event": lambda log: b"".join(log.splitlines(keepends=True)[:-1]),
    "to nothing": lambda _: b"",
    "a line break more": lambda log: log + b"\n",
    "without the last line break": lambda log: log[:-1],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_log_that_was_cut(pack, judge, tmp_path, cut):
    whole = members(pack)
    whole["log/events.jsonl"] = cut(whole["log/events.jsonl"])
    write_container(tmp_path / "p.zip", whole)
    report = judge(tmp_path / "p.zip")
    assert {"audit.changed", "audit.log-differs"} <= codes(report)
    assert "log/events.jsonl" in named(report)


def test_one_dropped_file_is_found_and_named(pack, judge, tmp_path):
    whole = members(pack)
    for name in whole:
        path = tmp_path / "dropped.zip"
        write_container(path, {n: d for n, d in whole.items() if n != name})
        report = judge(path)
        assert not report.holds
        assert name in named(report), name


def test_one_renamed_file_is_found_and_named(pack, judge, tmp_path):
    whole = members(pack)
    for name in whole:
        path = tmp_path / "renamed.zip"
        others = {n: d for n, d in whole.items() if n != name}
        write_container(path, {**others, name + "x": whole[name]})
        report = judge(path)
        assert not report.holds
        assert name in named(report), name


def test_one_added_file_is_found_and_named(pack, judge, tmp_path):
    whole = members(pack)
    for name in ("extra.txt", "releases/evil/release.json", "approvals/x.dsse.json"):
        path = tmp_path / "added.zip"
        write_container(path, {**whole, name: b"{}"})
        report = judge(path)
        assert not report.holds
        assert name in named(report), name


def test_packed_again_by_another_tool_it_does_not_hold(pack, judge, tmp_path):
    path = tmp_path / "other.zip"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members(pack).items():
                archive.writestr(name, data)
        assert codes(judge(path)) == {"audit.container"}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_byte_of_the_zip_file_is_free(pack, judge, tmp_path_factory, data):
    raw = bytearray(pack.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("raw") / "pack.zip"
    path.write_bytes(raw)
    report = judge(path)
    assert not report.holds
    assert all(finding.file for finding in report.findings)


def test_no_byte_of_the_zip_headers_is_free(pack):
    """Every one of them: dates, flags, attributes, offsets, which zip readers pass over."""
    raw = pack.read_bytes()
    found = read_members(io.BytesIO(raw))
    inside = set()
    for member in found:
        inside.update(range(member.start, member.start + member.size))
    headers = [at for at in range(len(raw)) if at not in inside]
    assert len(headers) > 1000
    for at in headers:
        other = bytearray(raw)
        other[at] ^= 0x04
        with pytest.raises(ValueError):
            read_members(io.BytesIO(bytes(other)))


DAMAGE = {
    "empty": lambda raw: b"",
    "cut off": lambda raw: raw[: len(raw) // 2],
    "a byte behind": lambda raw: raw + b"\0",
    "a byte before": lambda raw: b"\0" + raw,
    "a comment": lambda raw: raw[:-2] + b"\2\0hi",
    "no zip": lambda raw: b"hello" * 100,
    "two packs": lambda raw: raw + raw,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_not_this_file_is_refused(pack, judge, tmp_path, damage):
    path = tmp_path / "damaged.zip"
    path.write_bytes(damage(pack.read_bytes()))
    report = judge(path)
    assert codes(report) == {"audit.container"}
    assert not report.holds


def test_a_pack_that_is_not_there(judge, tmp_path):
    assert codes(judge(tmp_path / "none.zip")) == {"audit.unreadable"}


HOSTILE_ZIPS = {
    "leads out": ["../evil"],
    "absolute": ["/evil"],
    "doubled": ["a", "a"],
    "a drive": ["c:evil"],
}


@pytest.mark.parametrize("names", HOSTILE_ZIPS.values(), ids=HOSTILE_ZIPS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_names_are_refused(judge, tmp_path, names):
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"1")
    assert codes(judge(path)) == {"audit.container"}


SEEDS = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.floats()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b"[" * 900 + b"]" * 900,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 300 + b"1" + b"}" * 300,
            b'"\\ud800"',
        ]
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_hostile_content_is_a_finding_never_a_crash(pack, judge, tmp_path_factory, data):
    whole = members(pack)
    name = data.draw(st.sampled_from(sorted(whole)))
    path = tmp_path_factory.mktemp("hostile") / "pack.zip"
    other = data.draw(SEEDS)
    write_container(path, {**whole, name: other})
    assert judge(path).holds is (other == whole[name])
    assert not judge(path, trust=None).holds


def test_hostile_facts_are_a_finding_never_a_crash(pack, judge, tmp_path):
    """Values of the right form at the edge of what can be said."""
    whole = members(pack)
    path = tmp_path / "pack.zip"
    for old, new in (
        (b"2026-03-01T12:00:00.000000Z", b"0001-01-01T00:00:00.000000+14:00"),
        (b'"weight_bp":0', b'"weight_bp":[{}]'),
        (b'"p-other"', b'"\\ud800"'),
        (b'"01HAPPROVAL"', b'"../../x"'),
    ):
        for name, body in whole.items():
            write_container(path, {**whole, name: body.replace(old, new)})
            assert judge(path).holds is (old not in body)


# --- the trust root ----------------------------------------------------------------------------


def test_without_a_trust_root_a_pack_never_holds(pack, judge):
    report = judge(pack, trust=None)
    assert not report.holds
    assert not report.trusted
    assert codes(report) == {"audit.trust-not-given"}
    assert "key fingerprint in the pack only" in report.findings[0].message


def test_a_pack_by_somebody_else_does_not_hold(story, make_release, trust, tmp_path):
    """The attacker has keys of all roles, and puts their public halves into the pack."""
    from falaj.links.keyring.keys import KeyRing

    other = KeyRing(tmp_path / "keys", clock=lambda: story.at)
    for role in ("release", "gate", "build", "approval", "log"):
        other.create(f"{role}r", (role,))
    path = tmp_path / "forged.zip"
    story.write(path, trust=other.trust_text(), signer=other.signer("logr"))
    assert "audit.seal" in codes(verify_pack(path, trust, now=story.now))


def test_a_seal_by_a_key_of_another_role_is_refused(story, key_ring, judge, tmp_path):
    story.write(tmp_path / "p.zip", signer=key_ring.signer("releaser"))
    assert "audit.seal" in codes(judge(tmp_path / "p.zip"))


def test_an_expired_trust_root_is_told(pack, judge, story):
    report = judge(pack, now=story.now + timedelta(days=400))
    assert "audit.trust-expired" in codes(report)


def test_trust_json_is_whole_or_refused(key_ring, story):
    text = key_ring.trust_text().encode()
    held = open_trust(text, now=story.now)
    root = next(key for key in held.keys if "root" in key.roles)
    assert held == key_ring.trust()
    assert open_trust(text, now=story.now, root=dsse.hint_of(root.public.encode())) == held
    with pytest.raises(BadTrust):
        open_trust(text, now=story.now, root="0" * 64)
    with pytest.raises(BadTrust):
        open_trust(text, now=story.now, at_least=held.version + 1)
    with pytest.raises(BadTrust):
        open_trust(text, now=story.now + timedelta(days=4000))
    for other in (b"", b"{}", b"[]", text.replace(b'"sig":"M', b'"sig":"N'), text[:-20]):
        with pytest.raises(BadTrust):
            open_trust(other, now=story.now)


# --- approvals ---------------------------------------------------------------------------------

APPROVALS = {  # how the approval is made -> what is said about it
    "signed by a key of another role": ({"signer": "gater"}, "not trusted"),
    "signed over another release": ({"release": "sha256:" + "4" * 64}, "speaks about release"),
    "signed over other evidence": ({"evidence": "sha256:" + "4" * 64}, "signed is evidence"),
    "signed for another change": ({"change": "CHG-0009"}, "signed is change"),
    "signed as a rejection": ({"decision": "reject"}, "signed is decision"),
    "told as another person's": ({"principal": "somebody"}, "signed by 'approvalr'"),
    "by the author": ({"person": "p-author"}, "approved an own change"),
}


@pytest.mark.parametrize(("how", "words"), APPROVALS.values(), ids=APPROVALS)
def test_an_approval_that_does_not_hold_is_named(story, judge, tmp_path, how, words):
    bad = story.approve("01HAPPROVAL", **how)
    story.write(tmp_path / "p.zip", approvals=[bad])
    report = judge(tmp_path / "p.zip")
    said = [f.message for f in report.findings if f.file == "approvals/01HAPPROVAL.dsse.json"]
    assert any(words in message for message in said), report.findings
    assert any("went live with 0 approvals" in f.message for f in report.findings)


def test_an_envelope_that_differs_from_the_list(story, judge, tmp_path):
    told = msgspec.structs.replace(story.approval, void="new evidence")
    story.write(tmp_path / "p.zip", approvals=[told])
    report = judge(tmp_path / "p.zip")
    assert "went live with 0 approvals" in " ".join(f.message for f in report.findings)


def test_one_person_twice_is_one_approval(story, judge, tmp_path):
    two = msgspec.structs.replace(story.change, approvals_needed=2)
    again = story.approve("01HAPPROVALB")
    story.write(tmp_path / "p.zip", approvals=[story.approval, again], changes=[two])
    report = judge(tmp_path / "p.zip")
    assert "with 1 approvals" in " ".join(f.message for f in report.findings)


def test_a_change_that_went_live_without_approval(story, judge, tmp_path):
    story.write(tmp_path / "p.zip", approvals=[])
    report = judge(tmp_path / "p.zip")
    assert [(f.code, f.file) for f in report.findings] == [("audit.approval", "changes.json")]


# --- the log -----------------------------------------------------------------------------------


def test_a_log_that_does_not_lead_to_its_root_is_not_written(story, tmp_path):
    root = merkle.root([merkle.leaf(body) for body in story.events])
    for events in (story.events[:-1], story.events[::-1], [*story.events, story.events[0]]):
        with pytest.raises(Unverified) as caught:
            story.write(tmp_path / "p.zip", events=events, root=(5, root))
        assert caught.value.code == "audit.log-differs"
        assert not (tmp_path / "p.zip").exists()


LOGS = {
    "dropped": lambda events: events[:-1],
    "moved": lambda events: [events[1], events[0], *events[2:]],
    "doubled": lambda events: [*events, events[0]],
    "changed": lambda events: [events[0].replace(b"p-1", b"p-2"), *events[1:]],
}


@pytest.mark.parametrize("change", LOGS.values(), ids=LOGS)
def test_a_log_changed_by_one_who_can_seal_is_found_by_its_root(
    pack, judge, key_ring, story, tmp_path, change
):
    """All digests are made right again, and the manifest is sealed anew."""
    whole = members(pack)
    whole["log/events.jsonl"] = b"".join(body + b"\n" for body in change(list(story.events)))
    manifest = canonical.loads(whole.pop("manifest.json"))
    whole.pop("manifest.dsse.json")
    manifest["files"]["log/events.jsonl"] = digests.of_bytes(whole["log/events.jsonl"])
    kind = "application/vnd.falaj.evidence-pack+json"
    seal = dsse.seal(manifest, key_ring.signer("logr"), kind=kind)
    whole |= {
        "manifest.json": canonical.dumps(manifest),
        "manifest.dsse.json": canonical.dumps(seal),
    }
    write_container(tmp_path / "p.zip", whole)
    report = judge(tmp_path / "p.zip")
    assert ("audit.log-differs", "log/events.jsonl") in {(f.code, f.file) for f in report.findings}


MISSING = {  # which event is not in the log -> the file that tells of it
    "release": (0, None),
    "change": (1, None),
    "approval": (2, "approvals/01HAPPROVAL.dsse.json"),
    "decision": (3, "decisions.json"),
    "live move": (4, "live.json"),
}


@pytest.mark.parametrize(("at", "file"), MISSING.values(), ids=MISSING)
def test_what_is_told_without_an_event_is_found(story, judge, tmp_path, at, file):
    events = [body for index, body in enumerate(story.events) if index != at]
    story.write(tmp_path / "p.zip", events=events)
    report = judge(tmp_path / "p.zip")
    # Releases and changes are named by several events; one of them is enough.
    assert report.holds is (file is None)
    assert file is None or ("audit.no-event", file) in {(f.code, f.file) for f in report.findings}


def test_a_release_that_the_log_never_names(story, judge, tmp_path):
    events = [body for body in story.events if story.made.id.encode() not in body]
    story.write(tmp_path / "p.zip", events=events)
    assert "audit.no-event" in codes(judge(tmp_path / "p.zip"))


def test_an_event_that_tells_another_story_about_an_approval(story, judge, tmp_path):
    events = [
        body.replace(b'"decision":"approve"', b'"decision":"reject"') for body in story.events
    ]
    story.write(tmp_path / "p.zip", events=events)
    report = judge(tmp_path / "p.zip")
    assert "tells another story" in " ".join(f.message for f in report.findings)


OTHERWISE = {  # what is told of the decision -> what the log says of it
    "another outcome": {"outcome": Outcome.ROLLBACK},
    "another action": {"action": "rollback"},
    "another number": {"numbers": {"e": 2.5}},
    "another rollout": {"rollout": "01HOTHER"},
}


@pytest.mark.parametrize("told", OTHERWISE.values(), ids=OTHERWISE)
def test_a_decision_that_the_log_tells_otherwise(story, judge, tmp_path, told):
    decision = msgspec.structs.replace(story.decision, **told)
    story.write(tmp_path / "p.zip", decisions=[decision])
    assert codes(judge(tmp_path / "p.zip")) == {"audit.told-otherwise"}


MOVES = {"stable": "sha256:" + "5" * 64, "weight_bp": 500, "seq": 2, "environment": "staging"}


@pytest.mark.parametrize(("key", "value"), MOVES.items(), ids=MOVES)
def test_a_live_move_that_the_log_tells_otherwise(story, judge, tmp_path, key, value):
    move = msgspec.structs.replace(story.move, **{key: value})
    story.write(tmp_path / "p.zip", moves=[move])
    report = judge(tmp_path / "p.zip")
    assert {(f.code, f.file) for f in report.findings} == {("audit.no-event", "live.json")}


def test_a_release_whose_key_has_expired_since_holds_at_the_time_of_the_log(
    story, key_ring, trust, tmp_path
):
    late = story.now + timedelta(days=3000)
    later = msgspec.structs.replace(
        trust,
        expires=late + timedelta(days=1),
        keys=tuple(
            msgspec.structs.replace(key, not_after=late) if "log" in key.roles else key
            for key in trust.keys
        ),
    )
    story.write(tmp_path / "p.zip")
    assert verify_pack(tmp_path / "p.zip", later, now=late).findings == ()


def test_a_tampered_release_folder_is_found_inside_the_pack(story, judge, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(story.made.folder, folder)
    (folder / "model/model.onnx").write_bytes(b"other")
    story.write(tmp_path / "p.zip", release_folders=[folder])
    report = judge(tmp_path / "p.zip")
    short = digests.short(story.made.id)
    assert ("releases.tampered", f"releases/{short}/model/model.onnx") in {
        (f.code, f.file) for f in report.findings
    }


# --- reports -----------------------------------------------------------------------------------


@pytest.fixture
def reports(story):
    gate = GateReport(
        id="01HGATE", subject=story.made.manifest.tree, policy="sha256:" + "7" * 64, at=story.at,
        results=(), required=("quality",),
        waivers=(Waiver(check="bias.x", owner="noor", reason="few rows", expires=story.now),),
    )  # fmt: skip
    tests = TestReport(
        id="01HTESTS", at=story.at, person="p-1", verdict=Verdict.PASS, tree="sha256:" + "8" * 64,
        code=Code(commit="0" * 40), environment=Environment(), tests=(), seconds=1.0,
    )  # fmt: skip
    return gate, tests


def with_events(story, *told):
    return [*story.events, *(story.event("gate.checked", "model/m", {"digest": d}) for d in told)]


def test_reports_lie_in_the_pack_and_are_named_in_the_log(story, judge, reports, tmp_path):
    gate, tests = reports
    junit = b"<testsuite/>"
    events = with_events(story, digest(gate), digest(tests))
    story.write(tmp_path / "p.zip", events=events, reports=[gate], tests=[(tests, junit)])
    assert judge(tmp_path / "p.zip").findings == ()
    whole = members(tmp_path / "p.zip")
    assert whole["tests/01HTESTS.junit.xml"] == junit
    assert b"few rows" in whole["gates/01HGATE.json"]


@pytest.mark.parametrize("which", ["gates/01HGATE.json", "tests/01HTESTS.json"])
def test_a_report_that_the_log_does_not_know(story, judge, reports, tmp_path, which):
    gate, tests = reports
    known = digest(tests if which.startswith("gates") else gate)
    events = with_events(story, known)
    story.write(tmp_path / "p.zip", events=events, reports=[gate], tests=[(tests, b"")])
    report = judge(tmp_path / "p.zip")
    assert {(f.code, f.file) for f in report.findings} == {("audit.no-event", which)}


def test_a_waiver_that_was_put_into_a_report_later(story, judge, reports, tmp_path):
    gate, _ = reports
    longer = msgspec.structs.replace(gate.waivers[0], expires=story.now + timedelta(days=999))
    other = msgspec.structs.replace(gate, waivers=(longer,))
    story.write(tmp_path / "p.zip", events=with_events(story, digest(gate)), reports=[other])
    assert codes(judge(tmp_path / "p.zip")) == {"audit.no-event"}


# --- what was signed, as it was signed -----------------------------------------------------------


def test_an_approval_lies_in_the_pack_as_the_statement_that_was_signed(pack, story, trust):
    """Byte for byte, and readable by who knows DSSE and in-toto alone."""
    data = members(pack)["approvals/01HAPPROVAL.dsse.json"]
    assert data == story.approval.envelope.encode()
    keys = {
        dsse.hint_of(key.public.encode()): key.public.encode()
        for key in trust.keys
        if key.identity == "approvalr"
    }
    said, _ = dsse.open_envelope(canonical.loads(data), keys)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "falaj:approval/v1"
    assert said["subject"][0]["digest"] == {"sha256": story.made.id.removeprefix("sha256:")}
    assert said["predicate"]["evidence"] == story.evidence
    assert said["predicate"]["decision"] == "approve"


@pytest.mark.parametrize("instead", [b"", b"{}", b'{"payload":"e30="}'])
def test_something_else_in_the_place_of_a_signed_approval(story, judge, tmp_path, instead):
    other = msgspec.structs.replace(story.approval, envelope=instead.decode())
    story.write(tmp_path / "p.zip", approvals=[other])
    report = judge(tmp_path / "p.zip")
    assert ("audit.approval", "approvals/01HAPPROVAL.dsse.json") in {
        (f.code, f.file) for f in report.findings
    }


# --- what policy allowed -------------------------------------------------------------------------

FILE = "promotions/RO-0001.dsse.json"
SHA = "d" * 64


class Begun:
    """The same story with the rollout that brought the release, and what policy allowed."""

    def __init__(self, story):
        self.story = story
        self.permit = Permit(
            principal="omar",
            person="p-operator",
            action=Action.START_ROLLOUT,
            resource="Change/CHG-0001",
            policy="sha256:" + "9" * 64,
            at=story.at,
        )
        self.bare = Rollout(
            id="RO-0001",
            change="CHG-0001",
            environment="production",
            model="delay",
            release=story.made.id,
            version="7",
            plan=RolloutPlan(strategy=Strategy.DIRECT),
            phase=Phase.PROMOTED,
            salt="c2FsdA==",
            started=story.at,
            since=story.at,
        )

    def said(self, approvals=None, requires=("quality", "security"), trained_here=True):
        return promotion(
            self.bare,
            self.story.change,
            self.permit,
            [self.story.approval] if approvals is None else approvals,
            project="flights",
            files=self.story.made.manifest.files,
            requires=requires,
            trained_here=trained_here,
            version="0.1.0",
        )

    def rollout(self, said=None, signer="policyr", **other):
        sealed = dsse.seal(said or self.said(), self.story.ring.signer(signer))
        envelope = json.dumps(sealed, sort_keys=True)
        return msgspec.structs.replace(self.bare, **{"promotion": envelope, **other})

    def event(self, rollout, **other):
        told = {
            "phase": "starting",
            "release": rollout.release,
            "change": rollout.change,
            "promotion": digests.of_bytes(rollout.promotion.encode()),
            **other,
        }
        return self.story.event("rollout.started", f"rollout/{rollout.id}", told)

    def write(self, path, rollout=None, events=None, **other):
        rollout = rollout or self.rollout()
        more = [self.event(rollout)] if events is None else events
        parts = {"rollouts": [rollout], "events": [*self.story.events, *more], **other}
        return self.story.write(path, **parts)


@pytest.fixture(scope="module")
def begun(story):
    return Begun(story)


def whys(report, code="audit.promotion"):
    return " | ".join(f.message for f in report.findings if f.code == code)


def test_a_start_that_policy_allowed_holds_and_says_on_what_grounds(begun, judge, tmp_path):
    rollout = begun.rollout()
    begun.write(tmp_path / "p.zip", rollout)
    report = judge(tmp_path / "p.zip")
    assert report.findings == ()
    assert report.summary.promotions == 1
    assert "1 rollouts began as policy allowed" in " ".join(report.facts())
    assert members(tmp_path / "p.zip")[FILE] == rollout.promotion.encode()
    said = begun.said()
    assert said["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert said["predicate"]["verificationResult"] == "PASSED"
    assert said["predicate"]["policy"]["digest"] == {"sha256": "9" * 64}
    assert [one["uri"] for one in said["predicate"]["inputAttestations"]] == [
        "approvals/01HAPPROVAL.dsse.json",
        "evidence/gate-quality.dsse.json",
        "evidence/gate-security.dsse.json",
        "evidence/provenance.dsse.json",
        "evidence/test-result-quality.dsse.json",
        "evidence/test-result-security.dsse.json",
    ]


def put(**fields):
    return lambda said: said["predicate"].update(fields)


def grounds(edit):
    return lambda said: edit(said["predicate"]["inputAttestations"])


UNFIT = {  # what a holder of the policy key signs instead -> what is said of it
    "another release": (
        lambda said: said["subject"][0]["digest"].update(sha256=SHA),
        "it speaks about release sha256:ddd",
    ),
    "another kind of statement": (
        lambda said: said.update(predicateType="https://in-toto.io/attestation/svr/v0.2"),
        "it is a statement of type https://in-toto.io/attestation/svr/v0.2",
    ),
    "another change": (put(falaj_change="CHG-0009"), "signed is falaj_change 'CHG-0009'"),
    "another rollout": (put(falaj_rollout="RO-0009"), "signed is falaj_rollout 'RO-0009'"),
    "another environment": (put(falaj_environment="lab"), "signed is falaj_environment 'lab'"),
    "another resource": (put(resourceUri="falaj:flights/lab/delay/7"), "signed is resourceUri"),
    "another time": (put(timeVerified="2026-03-01T11:00:00Z"), "signed is timeVerified"),
    "policy said no": (put(verificationResult="FAILED"), "verificationResult 'FAILED'"),
    "no policy": (put(policy={"uri": "falaj:policy/cedar"}), "no digest of the policy"),
    "a level nobody proved": (put(verifiedLevels=["SLSA_BUILD_LEVEL_3"]), "verifiedLevels: got"),
    "no level": (put(verifiedLevels=[]), "verifiedLevels: got []"),
    "a gate that never ran": (
        put(falaj_requires=["bias"]), "was required: no signed verdict for gate 'bias'",
    ),
    "no word of gates": (put(falaj_requires=None), "does not say which gates"),
    "no grounds": (put(inputAttestations=None), "inputAttestations are malformed"),
    "one ground twice": (grounds(lambda given: given.append(given[0])), "name one thing twice"),
    "a verdict left out": (
        grounds(lambda given: given.pop(1)), "leaves out evidence/gate-quality.dsse.json",
    ),
    "another verdict": (
        grounds(lambda given: given[1]["digest"].update(sha256=SHA)),
        "another evidence/gate-quality.dsse.json",
    ),
    "evidence from elsewhere": (
        grounds(lambda given: given.append({"uri": "evidence/x", "digest": {"sha256": SHA}})),
        "it rests on evidence/x, which is not in the release",
    ),
    "no approval": (grounds(lambda given: given.pop(0)), "rests on 0 approvals that hold"),
    "another approval": (
        grounds(lambda given: given[0]["digest"].update(sha256=SHA)),
        "rests on another approvals/01HAPPROVAL.dsse.json",
    ),
    "an approval that is not there": (
        grounds(lambda given: given[0].update(uri="approvals/x.dsse.json")),
        "rests on another approvals/x.dsse.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "words"), UNFIT.values(), ids=UNFIT)
def test_a_permission_that_says_something_else(begun, judge, tmp_path, edit, words):
    said = begun.said()
    edit(said)
    begun.write(tmp_path / "p.zip", begun.rollout(said))
    report = judge(tmp_path / "p.zip")
    assert {(f.code, f.file) for f in report.findings} == {("audit.promotion", FILE)}
    assert words in whys(report)


@pytest.mark.parametrize("signer", ["gater", "approvalr", "buildr", "releaser", "logr", "outsider"])
def test_a_permission_by_who_may_not_give_it(begun, judge, tmp_path, signer):
    begun.write(tmp_path / "p.zip", begun.rollout(signer=signer))
    report = judge(tmp_path / "p.zip")
    assert {(f.code, f.file) for f in report.findings} == {("audit.promotion", FILE)}
    assert "is not trusted for this" in whys(report)


def test_a_permission_by_a_key_that_was_in_other_hands(begun, trust, judge, tmp_path):
    begun.write(tmp_path / "p.zip")
    hint = next(dsse.hint_of(k.public.encode()) for k in trust.keys if k.identity == "policyr")
    stolen = Revocation(subject=hint, kind=RevocationKind.COMPROMISED)
    report = judge(tmp_path / "p.zip", trust=msgspec.structs.replace(trust, revocations=(stolen,)))
    assert {(f.code, f.file) for f in report.findings} == {("audit.promotion", FILE)}


def test_the_payload_altered_under_its_signature(begun, judge, tmp_path):
    sealed = json.loads(begun.rollout().promotion)
    other = dsse.seal(begun.said(requires=()), begun.story.ring.signer("policyr"))
    envelope = json.dumps({**sealed, "payload": other["payload"]}, sort_keys=True)
    begun.write(tmp_path / "p.zip", msgspec.structs.replace(begun.bare, promotion=envelope))
    assert "does not hold" in whys(judge(tmp_path / "p.zip"))


@pytest.mark.parametrize("envelope", ["", "{}", "not JSON", '{"payload":{}}'])
def test_a_permission_that_is_none(begun, judge, tmp_path, envelope):
    """The log names one; what lies in its place is nothing that could be one."""
    rollout = msgspec.structs.replace(begun.bare, promotion=envelope)
    begun.write(tmp_path / "p.zip", rollout, [begun.event(begun.rollout())])
    report = judge(tmp_path / "p.zip")
    assert ("audit.promotion", FILE) in {(f.code, f.file) for f in report.findings}


def test_another_permission_than_the_log_names(begun, judge, tmp_path):
    """Each is signed, and says the same; ECDSA has a dice, the log has seen one of them."""
    begun.write(tmp_path / "p.zip", begun.rollout(), [begun.event(begun.rollout())])
    assert whys(judge(tmp_path / "p.zip")) == (
        "rollout RO-0001: event 5 of the log names another permission"
    )


def test_a_start_that_the_log_does_not_know(begun, judge, tmp_path):
    begun.write(tmp_path / "p.zip", events=[])
    report = judge(tmp_path / "p.zip")
    assert codes(report) == {"audit.no-event", "audit.promotion"}
    assert "the log knows no start of it" in whys(report)


def test_a_start_in_the_log_that_is_not_told_of(begun, judge, tmp_path):
    begun.write(tmp_path / "p.zip", rollouts=[])
    report = judge(tmp_path / "p.zip")
    assert {(f.code, f.file) for f in report.findings} == {("audit.promotion", "rollouts.json")}


def test_a_start_of_another_release_by_the_log(begun, judge, tmp_path):
    rollout = begun.rollout()
    begun.write(tmp_path / "p.zip", rollout, [begun.event(rollout, release="sha256:" + SHA)])
    assert "began another release" in whys(judge(tmp_path / "p.zip"))


def test_once_starts_are_signed_one_that_is_not_is_refused(begun, judge, tmp_path):
    """Before the first signed one they are older than signed starts; after it nothing excuses them."""
    later = msgspec.structs.replace(begun.bare, id="RO-0002")
    plain = begun.story.event(
        "rollout.started", "rollout/RO-0002", {"release": later.release, "change": "CHG-0001"}
    )
    first = begun.rollout()
    signed, both = begun.event(first), [first, later]
    begun.write(tmp_path / "old.zip", rollouts=both, events=[plain, signed])
    assert judge(tmp_path / "old.zip").findings == ()
    begun.write(tmp_path / "new.zip", rollouts=both, events=[signed, plain])
    assert whys(judge(tmp_path / "new.zip")) == (
        "rollout RO-0002: nothing signed says that policy allowed its start"
    )


APPROVED_OTHERWISE = {
    "voided": {"void": "new evidence"},
    "of another change": {"change": "CHG-0009"},
    "ended by then": {"expires": None},
    "a rejection": {"decision": Decision.REJECT},
}


@pytest.mark.parametrize("told", APPROVED_OTHERWISE.values(), ids=APPROVED_OTHERWISE)
def test_a_permission_on_an_approval_that_does_not_count(begun, judge, story, tmp_path, told):
    told = {**told, "expires": story.at} if "expires" in told else told
    approval = msgspec.structs.replace(story.approval, **told)
    begun.write(tmp_path / "p.zip", approvals=[approval])
    assert ("audit.promotion", FILE) in {
        (f.code, f.file) for f in judge(tmp_path / "p.zip").findings
    }


def test_a_permission_on_an_approval_by_the_author(begun, judge, story, tmp_path):
    own = story.approve("01HAPPROVAL", person="p-author")
    begun.write(tmp_path / "p.zip", begun.rollout(begun.said([own])), approvals=[own])
    report = judge(tmp_path / "p.zip")
    assert "approvals/01HAPPROVAL.dsse.json, which does not hold" in whys(report)
    assert "rests on 0 approvals that hold, needed were 1" in whys(report)


def test_one_approval_where_two_are_needed(begun, judge, story, tmp_path):
    change = msgspec.structs.replace(story.change, approvals_needed=2)
    begun.write(tmp_path / "p.zip", changes=[change])
    assert "rests on 1 approvals that hold, needed were 2" in whys(judge(tmp_path / "p.zip"))


def test_a_level_without_the_provenance_that_proves_it(begun, judge, tmp_path):
    """A provenance that does not hold proves nothing, so that there is no SLSA level 1."""
    folder = tmp_path / "r"
    shutil.copytree(begun.story.made.folder, folder)
    (folder / "evidence/provenance.dsse.json").write_bytes(b"{}")
    begun.write(tmp_path / "p.zip", release_folders=[folder])
    assert "it claims SLSA_BUILD_LEVEL_1" in whys(judge(tmp_path / "p.zip"))


def test_a_model_from_elsewhere_has_no_level_of_ours(begun, judge, tmp_path):
    said = begun.said(trained_here=False)
    assert said["predicate"]["verifiedLevels"] == ["SLSA_BUILD_LEVEL_UNEVALUATED"]
    begun.write(tmp_path / "p.zip", begun.rollout(said))
    assert judge(tmp_path / "p.zip").findings == ()


def test_a_permission_of_no_rollout(pack, judge, tmp_path):
    write_container(tmp_path / "p.zip", {**members(pack), FILE: b"{}"})
    assert ("audit.added", FILE) in {(f.code, f.file) for f in judge(tmp_path / "p.zip").findings}


def test_no_byte_of_a_permission_is_free(begun, judge, tmp_path):
    begun.write(tmp_path / "whole.zip")
    size = len(members(tmp_path / "whole.zip")[FILE])
    places = sorted({0, size - 1, *range(7, size, 37)})
    assert flipped(tmp_path / "whole.zip", judge, tmp_path, FILE, places) == []
