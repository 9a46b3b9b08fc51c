"""A rollout begins, and it is signed on what grounds; an outsider reads it from the pack."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import pytest
import walks
from loans import MODEL, PLACE

from falaj.access import engine
from falaj.audit.container import write_container
from falaj.base import bundle, canonical, digests, time
from falaj.base.errors import FalajError
from falaj.doors.verifier.build import archive
from falaj.facts.changes import Approval
from falaj.facts.releases import RevocationKind
from falaj.facts.rollouts import Rollout
from falaj.facts.trust import identity_of, keys_for
from falaj.journeys import verify


@pytest.fixture
def begun(project):
    return project, walks.start(project, "1.0.0")


def exported(by):
    """Names and bytes of the pack, and where it and its trust root lie."""
    data = by.owner.raw("GET", f"/models/{MODEL}/evidence")
    pack, trust = by.root.parent / "pack.zip", by.root.parent / "trust.json"
    pack.write_bytes(data)
    trust.write_text(by.works.ground.keys.trust_text())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, pack, trust


def test_a_start_is_signed_with_its_grounds_and_holds_for_an_outsider(begun):
    by, started = begun
    ground = by.works.ground
    rollout = ground.store.get(Rollout, started["id"]).fact
    statement, hint = bundle.statement_of(
        canonical.loads(rollout.promotion.encode()),
        keys_for(ground.keys.trust(), "policy", time.now()),
    )
    assert identity_of(ground.keys.trust(), hint) == "policy-signer"
    said = statement["predicate"]
    assert bundle.subject_of(statement) == rollout.release
    assert said["policy"]["digest"]["sha256"] == engine.bundle().digest.removeprefix("sha256:")
    assert said["resourceUri"].endswith(f"/{PLACE}/{MODEL}/1.0.0")
    assert said["verifiedLevels"] == ["SLSA_BUILD_LEVEL_1"]
    assert said["falaj_requires"] == sorted(ground.project.environments[PLACE].requires)

    members, pack, trust = exported(by)
    assert members[f"promotions/{rollout.id}.dsse.json"] == rollout.promotion.encode()
    short = digests.short(rollout.release)
    for ground_ in said["inputAttestations"]:
        name = ground_["uri"]
        lies = name if name.startswith("approvals/") else f"releases/{short}/{name}"
        assert digests.of_bytes(members[lies]) == f"sha256:{ground_['digest']['sha256']}"
    found = verify.look(pack, trust)
    assert found.findings == ()
    assert any("began as policy allowed" in fact for fact in found.facts)


def test_approvals_lie_in_the_pack_as_they_were_signed(begun):
    by, _ = begun
    members, _, _ = exported(by)
    given = by.works.ground.store.find(Approval)
    assert given
    for approval in given:
        data = members[f"approvals/{approval.id}.dsse.json"]
        assert data == approval.envelope.encode()
        statement, _ = bundle.statement_of(
            canonical.loads(data), keys_for(by.works.ground.keys.trust(), "approval", time.now())
        )
        assert statement["predicateType"] == "falaj:approval/v1"
        assert bundle.subject_of(statement) == approval.release


def test_each_gate_of_a_release_has_its_result_for_outsiders(begun):
    by, _ = begun
    members, _, _ = exported(by)
    names = {name.rpartition("/")[2] for name in members if "/evidence/" in name}
    gates = {name.removeprefix("gate-") for name in names if name.startswith("gate-")}
    assert gates
    assert gates == {n.removeprefix("test-result-") for n in names if n.startswith("test-result-")}


def test_the_event_of_the_start_names_what_was_signed(begun):
    by, started = begun
    rollout = by.works.ground.store.get(Rollout, started["id"]).fact
    exported(by)  # which gives all events their place
    told = [e for _, e in by.works.ground.store.events() if e.type == "rollout.started"]
    assert [e.data["promotion"] for e in told] == [digests.of_bytes(rollout.promotion.encode())]


def test_what_may_not_start_leaves_nothing_signed(project):
    change = walks.opened(project, "1.0.0")
    with pytest.raises(FalajError, match="waits for 1 approval"):
        project.owner.post(f"/changes/{change['id']}/rollout")
    assert project.works.ground.store.find(Rollout) == []


def test_a_second_start_of_the_same_change_signs_nothing(begun):
    by, started = begun
    with pytest.raises(FalajError):
        by.owner.post(f"/changes/{started['change']}/rollout")
    assert [r.id for r in by.works.ground.store.find(Rollout)] == [started["id"]]


def found_at(pack, trust):
    return {(f["code"], f["file"]) for f in verify.look(pack, trust).findings}


def test_a_pack_from_which_the_permission_was_taken_is_refused(begun):
    by, started = begun
    members, pack, trust = exported(by)
    file = f"promotions/{started['id']}.dsse.json"
    del members[file]
    write_container(pack, members)
    assert {("audit.missing", file), ("audit.promotion", file)} <= found_at(pack, trust)


def test_the_one_file_of_an_auditor_finds_it_too(begun, tmp_path):
    """falaj-verify.pyz, in a Python that does not know Falaj."""
    by, started = begun
    members, pack, trust = exported(by)
    tool = tmp_path / "falaj-verify.pyz"
    tool.write_bytes(archive())

    def asked():
        line = [sys.executable, "-I", tool, "pack", pack, "--trust", trust]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    whole = asked()
    assert whole.returncode == 0, whole.stdout
    assert "1 rollouts began as policy allowed" in whole.stdout
    del members[f"promotions/{started['id']}.dsse.json"]
    write_container(pack, members)
    robbed = asked()
    assert robbed.returncode == 7
    assert (
        f"[audit.promotion] rollout {started['id']}: what policy allowed is missing"
        in robbed.stdout
    )


def test_a_permission_by_a_key_that_was_stolen_is_refused(begun):
    by, started = begun
    _, pack, trust = exported(by)
    assert found_at(pack, trust) == set()
    by.works.ground.keys.revoke("policy-signer", RevocationKind.COMPROMISED, reason="stolen")
    trust.write_text(by.works.ground.keys.trust_text())
    assert found_at(pack, trust) == {("audit.promotion", f"promotions/{started['id']}.dsse.json")}


def test_nobody_takes_the_name_of_the_signer(project):
    with pytest.raises(FalajError):
        project.owner.post("/identities", {"name": "policy-signer", "roles": ["approver"]})
