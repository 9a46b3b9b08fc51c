"""Advisories come in, never older ones; released models are looked at again, each finding once."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from advisory_records import bundle, events, record
from small_project import TOML, write_project

from falaj.app import Works
from falaj.base import canonical, dsse
from falaj.base import time as instants
from falaj.base.errors import Conflict, FalajError, GateInconclusive, NotAllowed, Unverified
from falaj.doors.cli.client import Embedded
from falaj.facts.monitoring import Alert, AlertState
from falaj.facts.releases import Release, RevocationKind
from falaj.facts.scans import AdvisoryDatabase, Scan
from falaj.links.keyring.keys import KeyRing
from falaj.releases import verify

GATED = (
    TOML.replace('"security"]', '"security", "dependencies"]')
    + '\n[gates.dependencies]\nlicences_denied = ["AGPL-*"]\n'
)
FLAW = record("GHSA-1", "Flask", events(("introduced", "0"), ("fixed", "2.0")), aliases=("CVE-1",))
SAME = record("PYSEC-1", "flask", events(("introduced", "0")), aliases=("CVE-1",), severity=None)
MORE = record("GHSA-2", "numpy", events(("introduced", "1.0"), ("fixed", "1.5")), severity="LOW")
OTHER = record("GHSA-3", "django", events(("introduced", "0")))


class Hands:
    """A project, its API, and an outside that builds bundles."""

    def __init__(self, root, outside):
        self.root, self.outside = root, outside
        self.works = Works.open(root)
        self.owner = Embedded(self.works)
        self.ring = KeyRing(outside / "ring")
        self.store = self.works.ground.store

    def bring(self, *records, days=0.0, trust=None, signer="vulndb", who=None):
        at = instants.now() - timedelta(days=days)
        made = bundle(self.outside, self.ring, *records, at=at, signer=signer)
        return self.take(made, trust, who)

    def take(self, made, trust=None, who=None):
        text = self.ring.trust_text() if trust is None else trust
        body = {"bundle": base64.b64encode(made.read_bytes()).decode(), "trust": text}
        return (who or self.owner).post("/advisories", body)

    def gate(self):
        run = self.owner.post("/runs", {})
        return self.owner.post("/gates", {"run": run["id"]})

    def release(self, version=""):
        return self.owner.post("/releases", {"version": version})

    def alerts(self, state=AlertState.OPEN):
        return [one for one in self.store.find(Alert, state=state) if one.kind == "vulnerabilities"]

    def events(self, type):
        self.store.integrate()
        return [event for _, event in self.store.events(limit=100_000) if event.type == type]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = write_project(tmp_path_factory.mktemp("prepared") / "small", toml=GATED)
    (root / "requirements.lock").write_text("flask==1.0\nnumpy==1.2\n")
    works = Works.open(root)
    owner = Embedded(works)
    owner.post("/runs", {})
    works.close()
    return root


@pytest.fixture
def hands(prepared, tmp_path):
    import shutil

    root = shutil.copytree(prepared, tmp_path / "small")
    (tmp_path / "outside").mkdir()
    made = Hands(root, tmp_path / "outside")
    yield made
    made.works.close()


def refused(kind, code, call, *arguments, **named):
    with pytest.raises(FalajError) as found:
        call(*arguments, **named)
    assert found.value.code == code
    assert found.value.exit == kind.exit
    return found.value


# --- taking in ---


def test_a_bundle_is_used_from_now_on(hands):
    told = hands.bring(FLAW, OTHER, days=2)
    assert told["database"]["records"] == 2
    assert told["database"]["signer"] == "vulndb"
    assert 1.9 < told["age_days"] < 2.1
    assert hands.owner.get("/advisories")["database"]["id"] == told["database"]["id"]
    (event,) = hands.events("advisories.imported")
    assert event.data["digest"] == told["database"]["id"]


def test_an_older_bundle_is_refused(hands):
    old = hands.bring(OTHER, days=2)["database"]["id"]
    new = hands.bring(FLAW, OTHER, days=1)["database"]["id"]
    (played_again, _) = sorted(hands.outside.glob("bundle-*.zip"))
    error = refused(Conflict, "scans.older-database", hands.take, played_again)
    assert "an old one hides" in error.problems[0].why
    assert old != new
    assert hands.owner.get("/advisories")["database"]["id"] == new
    assert len(hands.events("advisories.imported")) == 2


def test_another_database_of_the_same_moment_is_refused(hands):
    hands.bring(FLAW, OTHER, days=1)
    last = hands.store.find(AdvisoryDatabase)[0]
    made = bundle(hands.outside, hands.ring, OTHER, at=last.built_at)
    refused(Conflict, "scans.older-database", hands.take, made)


def test_the_same_bundle_again_changes_nothing(hands):
    hands.bring(FLAW, days=1)
    (made,) = hands.outside.glob("bundle-*.zip")
    assert hands.take(made)["known"] is True
    assert len(hands.events("advisories.imported")) == 1


def test_only_the_database_in_use_lies_here(hands):
    hands.bring(OTHER, days=2)
    new = hands.bring(FLAW, days=1)["database"]["id"]
    files = [file.name for file in (hands.root / ".falaj" / "advisories").iterdir()]
    assert files == [f"{new.removeprefix('sha256:')}.db"]


def test_a_bundle_of_the_future_is_refused(hands):
    refused(Unverified, "scans.database-from-future", hands.bring, FLAW, days=-3)


def test_without_a_trust_root_the_workspace_trusts_its_own_keys_alone(hands):
    refused(Unverified, "scans.bundle-signature", hands.bring, FLAW, trust="")


def test_a_key_of_another_role_is_refused(hands):
    refused(Unverified, "scans.bundle-signature", hands.bring, FLAW, signer="gate")


def test_a_changed_byte_is_refused(hands):
    made = bundle(hands.outside, hands.ring, FLAW, at=instants.now())
    data = bytearray(made.read_bytes())
    data[data.index(b"advisories.db") + 100] ^= 1  # of what is packed
    made.write_bytes(data)
    refused(Unverified, "scans.bundle-changed", hands.take, made)
    assert hands.owner.get("/advisories")["database"] is None


TRUSTS = {"no JSON": "{", "nothing signed": '{"a": 1}', "words": "trust me"}


@pytest.mark.parametrize("text", TRUSTS.values(), ids=TRUSTS)
def test_a_trust_root_that_does_not_hold_is_refused(hands, text):
    refused(Unverified, "scans.bad-trust", hands.bring, FLAW, trust=text)


def test_a_key_that_was_revoked_is_refused(hands):
    hands.ring.create("vulndb", ("vulndb",))
    made = bundle(hands.outside, hands.ring, FLAW, at=instants.now())
    hands.ring.revoke("vulndb", RevocationKind.COMPROMISED, reason="it was copied")
    refused(Unverified, "scans.bundle-signature", hands.take, made)


def test_a_trust_root_from_before_a_revocation_is_refused(hands):
    hands.bring(OTHER, days=2)
    before = hands.ring.trust_text()
    hands.ring.create("vulndb-2", ("vulndb",))
    hands.ring.revoke("vulndb", RevocationKind.COMPROMISED, reason="it was copied")
    made = bundle(hands.outside, hands.ring, FLAW, at=instants.now(), signer="vulndb-2")
    assert (
        "not trusted"
        in refused(Unverified, "scans.bundle-signature", hands.take, made, before).problems[0].why
    )
    hands.ring.create("vulndb-2", ("vulndb",))
    ring = hands.ring.signer("vulndb-2")
    from falaj.links.osv.records import build

    build(hands.outside / "all.zip", made, ecosystem="PyPI", signer=ring, now=instants.now())
    hands.take(made)  # the trust root of now is seen
    old = bundle(hands.outside, hands.ring, FLAW, MORE, at=instants.now())
    error = refused(Unverified, "scans.bad-trust", hands.take, old, before)
    assert "was seen before" in error.problems[0].why


def test_a_key_that_the_workspace_admits_needs_no_other_trust_root(hands):
    hands.ring.create("vulndb", ("vulndb",))
    made = bundle(hands.outside, hands.ring, FLAW, at=instants.now())
    pem = hands.ring.signer("vulndb").public.decode()
    refused(Unverified, "scans.bundle-signature", hands.take, made, "")
    hands.works.ground.keys.admit("security-office", ("vulndb",), pem)
    assert hands.take(made, "")["database"]["signer"] == "security-office"


def test_a_trust_root_that_asks_for_two_signers_is_refused(hands):
    hands.ring.create("second", ("vulndb",))
    hands.ring.create("vulndb", ("vulndb",))
    hands.ring.require("vulndb", 2)
    error = refused(Unverified, "scans.bad-trust", hands.bring, FLAW)
    assert "asks for 2 signers" in error.problems[0].why


def test_who_may_only_read_may_not_bring_advisories(hands):
    hands.owner.post("/identities", {"name": "zayed", "roles": ["viewer"]})
    hands.owner.post("/identities", {"name": "omar", "roles": ["operator"]})
    refused(
        NotAllowed, "access.denied", hands.bring, FLAW, who=Embedded(hands.works, "zayed"), days=2
    )
    assert hands.bring(FLAW, who=Embedded(hands.works, "omar"), days=1)["known"] is False


def test_a_bundle_larger_than_usual_requests_comes_through(hands):
    """The framework's own limit is 10 MB."""
    import random

    noise = random.Random(1)
    records = [
        record(
            f"GHSA-{n}", "flask", events(("introduced", "9")), summary=noise.randbytes(50_000).hex()
        )
        for n in range(160)
    ]
    assert hands.bring(*records)["database"]["records"] == 160


# --- the gate and the release ---


def test_the_gate_fails_and_the_release_carries_the_scan(hands):
    hands.bring(FLAW, SAME, MORE, days=1)
    report = hands.gate()
    found = {r["check"]: r["verdict"] for r in report["results"] if r["gate"].startswith("dep")}
    assert found == {
        "dependencies.database": "pass",
        "dependencies.flask.GHSA-1": "fail",
        "dependencies.numpy.GHSA-2": "fail",  # told under dependencies-shown, not counted
        "dependencies.licence.flask": "inconclusive",
        "dependencies.licence.numpy": "inconclusive",
    }
    made = hands.release()
    folder = hands.root / made["folder"]
    envelope = json.loads((folder / "evidence" / "vulns.dsse.json").read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    assert said["predicateType"] == "https://in-toto.io/attestation/vulns/v0.2"
    manifest = json.loads((folder / "release.json").read_bytes())
    assert said["subject"][0]["digest"]["sha256"] == manifest["environment"].removeprefix("sha256:")
    scanner = said["predicate"]["scanner"]
    assert scanner["db"]["version"] == hands.owner.get("/advisories")["database"]["id"]
    assert {one["id"] for one in scanner["result"]} == {"GHSA-1", "GHSA-2"}
    assert hands.owner.get(f"/releases/{made['version']}")["findings"] == []


def test_an_ignored_flaw_is_let_through_by_the_risk_role_alone(hands):
    entry = '[[gates.dependencies.ignore]]\nid = "CVE-1"\nreason = "no XML"\nuntil = "2999-01-01"\n'
    toml = GATED.replace('licences_denied = ["AGPL-*"]\n', entry)
    (hands.root / "falaj.toml").write_text(toml)
    hands.works.close()
    hands.works = Works.open(hands.root)
    hands.owner = Embedded(hands.works)
    hands.store = hands.works.ground.store
    hands.owner.post("/identities", {"name": "noor", "roles": ["risk"]})
    hands.bring(FLAW, days=1)
    report = hands.gate()
    name = "dependencies.flask.GHSA-1"
    (found,) = [r for r in report["results"] if r["check"] == name]
    assert found["verdict"] == "inconclusive"
    made = hands.release("1.0.0")
    error = refused(GateInconclusive, "changes.gate-inconclusive", opened, hands, made["version"])
    assert "dependencies" in str(error)
    body = {"check": name, "reason": "we never parse XML", "life": "30d"}
    refused(NotAllowed, "access.denied", hands.owner.post, f"/gates/{report['id']}/waivers", body)
    Embedded(hands.works, "noor").post(f"/gates/{report['id']}/waivers", body)
    made = hands.release("1.1.0")
    assert opened(hands, "1.1.0")["state"] == "awaiting-approval"
    verified = verify.verify_release(
        hands.root / made["folder"],
        hands.works.ground.keys.trust(),
        release_id=made["id"],
        requires=("quality", "security", "dependencies"),
        now=instants.now(),
    )
    assert verified.findings == ()


def opened(hands, version):
    return hands.owner.post("/environments/production/changes", {"release": version, "reason": "r"})


def test_a_lock_that_was_changed_after_the_gate_is_refused(hands):
    hands.bring(OTHER, days=1)
    hands.gate()
    (hands.root / "requirements.lock").write_text("flask==1.0\nnumpy==1.2\nevil==1.0\n")
    refused(Conflict, "releases.other-lock", hands.release)
    (hands.root / "requirements.lock").write_text("flask==1.0\nnumpy==1.2\n")
    hands.release()


def test_without_advisories_the_gate_is_inconclusive(hands):
    report = hands.gate()
    (found,) = [r for r in report["results"] if r["check"] == "dependencies.database"]
    assert found["verdict"] == "inconclusive"
    folder = hands.root / hands.release()["folder"]
    assert not (folder / "evidence" / "vulns.dsse.json").exists(), "what nobody looked up"


def test_advisories_that_were_changed_here_are_an_error(hands):
    hands.bring(FLAW, days=1)
    (file,) = (hands.root / ".falaj" / "advisories").iterdir()
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"GHSA-1", b"GHSA-0"))
    (found,) = [r for r in hands.gate()["results"] if r["check"] == "dependencies.database"]
    assert found["verdict"] == "error"
    assert "were changed on this machine" in found["reason"]


STATEMENTS = {  # of the release's scan -> what the verification says
    "about another lock": (
        lambda said: said["subject"][0]["digest"].update(sha256="0" * 64),
        "gate",
    ),
    "signed by the builder": (lambda said: None, "build"),
}


@pytest.mark.parametrize(("change", "role"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_scan_that_does_not_speak_of_this_release_is_refused(hands, change, role):
    """Even in a folder that was sealed again by the right key."""
    from falaj.journeys import promote

    hands.bring(OTHER, days=1)
    hands.gate()
    made = hands.release()
    folder, keys = hands.root / made["folder"], hands.works.ground.keys
    file = folder / "evidence" / "vulns.dsse.json"
    said = json.loads(base64.b64decode(json.loads(file.read_bytes())["payload"]))
    change(said)
    signer = {"gate": "gate-runner", "build": "builder"}[role]
    file.write_bytes(canonical.dumps(dsse.seal(said, keys.signer(signer))) + b"\n")
    _, findings = promote.look_at(hands.works.ground, hands.store.get(Release, made["id"]).fact)
    words = {"gate": "speaks about another lock", "build": "which is not of role gate"}[role]
    assert any(words in finding for finding in findings), findings


# --- released models, again ---


@pytest.fixture
def released(hands):
    """Two releases of an earlier day, gated when nothing was known."""
    hands.bring(OTHER, days=3)
    hands.gate()
    hands.release("1.0.0")
    hands.release("1.1.0")
    return hands


def test_what_becomes_known_opens_one_alert_a_release(released):
    told = released.bring(FLAW, MORE, OTHER, days=2)
    assert sorted(told["alerts"]) == [
        "GHSA-1, GHSA-2 became known about flight-delay 1.0.0",
        "GHSA-1, GHSA-2 became known about flight-delay 1.1.0",
    ]
    one = released.alerts()[0]
    assert one.reasons == (
        "GHSA-1 in flask 1.0: high, fixed in 2.0",
        "GHSA-2 in numpy 1.2: low, fixed in 1.5",
    )
    assert "GHSA-1" in json.dumps(released.owner.get("/status")["alerts"])


def test_nothing_is_told_twice(released):
    released.bring(FLAW, OTHER, days=2)
    released.works.turn(frozenset({"advisories"}))
    assert released.bring(FLAW, SAME, OTHER, days=1)["alerts"] == [], (
        "the same flaw by another name"
    )
    told = released.bring(FLAW, SAME, MORE, OTHER)["alerts"]
    assert min(told) == "GHSA-2 became known about flight-delay 1.0.0"
    assert len(released.alerts()) == 4
    assert len(released.events("alert.opened")) == 4


def test_what_was_known_when_it_was_released_opens_no_alert(hands):
    hands.bring(FLAW, days=2)
    hands.gate()
    hands.release()
    assert hands.bring(FLAW, OTHER, days=1)["alerts"] == []


def test_a_release_of_before_any_advisories_is_looked_at(hands):
    hands.gate()
    hands.release()
    assert hands.bring(FLAW)["alerts"] == ["GHSA-1 became known about flight-delay 1.0.0"]


def test_an_alert_ends_when_its_advisories_are_withdrawn(released):
    released.bring(FLAW, OTHER, days=2)
    gone = {**FLAW, "withdrawn": "2026-03-01T00:00:00Z"}
    released.bring(gone, OTHER, days=1)
    assert released.alerts() == []
    assert len(released.alerts(AlertState.CLOSED)) == 2
    assert released.bring(FLAW, MORE, OTHER)["alerts"], "and what comes then is told"


def test_the_worker_looks_when_a_release_is_new_or_the_advisories_are(released):
    released.bring(FLAW, OTHER, days=2)
    with released.store.begin() as unit:  # as if it came from elsewhere, without a look
        last = released.store.find(Release)[0]
        from msgspec.structs import replace

        unit.add(replace(last, id="sha256:" + "9" * 64, version="9"))
        unit.append(released.works.ground.event("test.release", "t", "release/9", {}))
    worker = Works.open(released.root)
    said = worker.turn(frozenset({"advisories"}))
    assert said == ["no scan can be made of flight-delay 9"]
    assert worker.turn(frozenset({"advisories"})) == []
    worker.close()


def test_a_bill_that_was_changed_is_told_once(released):
    folder = released.root / released.store.find(Release, version="1.0.0")[0].folder
    bill = folder / "mlbom.cdx.json"
    bill.write_bytes(bill.read_bytes().replace(b'"flask"', b'"flusk"'))
    told = released.bring(FLAW, OTHER, days=2)["alerts"]
    assert sorted(told) == [
        "GHSA-1 became known about flight-delay 1.1.0",
        "no scan can be made of flight-delay 1.0.0",
    ]
    assert released.bring(FLAW, MORE, OTHER, days=1)["alerts"] == [
        "GHSA-2 became known about flight-delay 1.1.0"
    ]
    broken = released.store.find(Scan, release=released.store.find(Release, version="1.0.0")[0].id)[
        0
    ]
    assert broken.verdict == "error"
    assert broken.trouble == "mlbom.cdx.json is not the one that was signed"


def unlooked(hands, *records):
    """A database that came in and was not used yet, as after a crash right behind the import."""
    ground = hands.works.ground
    made = bundle(hands.outside, hands.ring, *records, at=instants.now())
    hands.ring.create("vulndb", ("vulndb",))
    from falaj.facts.trust import keys_for

    keys = keys_for(hands.ring.trust(), "vulndb", instants.now())
    stated, hint = ground.advisories.look(made, keys)
    ground.advisories.keep(made, stated)
    with hands.store.begin() as unit:
        unit.add(
            AdvisoryDatabase(
                id=stated.sha256, ecosystem="PyPI", records=stated.records, built_at=stated.built_at,
                source="all.zip", source_sha256=stated.source_sha256, signer="vulndb", key=hint,
                person="t", at=instants.now(),
            )
        )  # fmt: skip
        unit.append(ground.event("advisories.imported", "t", "advisories/x", {}))


def test_many_workers_at_once_open_each_alert_once(released):
    unlooked(released, FLAW, MORE, OTHER)
    workers = [Works.open(released.root) for _ in range(4)]
    from falaj.journeys.advisories import rescan

    errors = []

    def work(works):
        try:
            rescan(works.ground)
        except FalajError as error:  # pragma: no cover
            errors.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in workers:
        one.close()
    assert errors == []
    assert len(released.alerts()) == 2
    assert len(released.events("alert.opened")) == 2
    assert len(released.events("release.rescanned")) == 2


def test_a_worker_that_is_killed_again_and_again_opens_each_alert_once(released):
    for number in range(2, 12):
        released.release(f"1.{number}.0")
    unlooked(released, FLAW, OTHER)
    released.works.close()
    command = [sys.executable, "-m", "falaj", "worker", "--duty", "advisories", "--every", "0.05"]
    for pause in (0.55, 0.65, 0.75, 0.85):
        worker = subprocess.Popen(command, cwd=released.root, stdout=subprocess.DEVNULL)
        time.sleep(pause)
        worker.kill()
        worker.wait()
    time.sleep(5.1)  # the lease of the killed one
    subprocess.run([*command[:-2], "--once"], cwd=released.root, check=True)
    released.works = Works.open(released.root)
    released.store = released.works.ground.store
    assert len(released.alerts()) == 12
    assert len(released.events("alert.opened")) == 12


def test_looking_is_kept_whatever_it_says(hands):
    hands.bring(FLAW, days=1)
    made = hands.owner.post("/scans", {"what": ["dependencies"]})
    assert made["verdict"] == "fail"
    (kept,) = hands.owner.get("/scans", limit=1)
    assert kept["id"] == made["id"]
    sarif = json.loads(hands.owner.raw("GET", f"/scans/{made['id']}/sarif"))
    assert sarif["runs"][0]["results"][0]["ruleId"] == "GHSA-1"
    assert [e.data["verdict"] for e in hands.events("scan.finished")] == ["fail"]


def test_a_scan_of_code_says_nothing_about_the_lock(hands):
    """Or its silence would be read as a lock without a flaw."""
    hands.bring(FLAW, days=2)
    report = hands.gate()
    made = hands.owner.post("/scans", {"what": ["code"]})
    assert (made["database"], made["built_at"], made["vulnerabilities"]) == ("", None, [])
    hands.owner.post("/identities", {"name": "noor", "roles": ["risk"]})
    name = next(r["check"] for r in report["results"] if r["verdict"] == "inconclusive")
    body = {"check": name, "reason": "we know it", "life": "30d"}
    Embedded(hands.works, "noor").post(f"/gates/{report['id']}/waivers", body)  # a later report
    folder = hands.root / hands.release()["folder"]
    said = json.loads((folder / "evidence" / "vulns.dsse.json").read_bytes())
    assert b"GHSA-1" in base64.b64decode(said["payload"])


def test_a_database_that_was_changed_here_stops_the_look_with_its_reason(hands):
    hands.gate()
    hands.release()
    unlooked(hands, FLAW)
    (file,) = (hands.root / ".falaj" / "advisories").iterdir()
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(Unverified) as found:
        hands.works.turn(frozenset({"advisories"}))
    assert found.value.code == "scans.database-damaged"
    assert hands.alerts() == []


def test_code_that_is_not_the_models_is_no_evidence(hands):
    toml = GATED.replace('"dependencies"]', '"code"]') + '\n[gates.code]\nfail_from = "high"\n'
    (hands.root / "falaj.toml").write_text(toml)
    hands.works.close()
    hands.works = Works.open(hands.root)
    owner = Embedded(hands.works)
    run = owner.get("/runs", limit=1)[0]
    (hands.root / "more.py").write_text("a = 1\n")
    report = owner.post("/gates", {"run": run["id"]})
    (found,) = [r for r in report["results"] if r["check"] == "code.tree"]
    assert found["verdict"] == "error"
    assert "check out its commit" in found["reason"]
