"""Verify before load: one wrong byte, file, link or signer anywhere is refused, and named."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.base import bundle, canonical, digests, dsse
from falaj.base.errors import Exit, Unverified
from falaj.facts.attestations import GATE, statement
from falaj.facts.checks import GateReport, Verdict, Waiver
from falaj.facts.releases import Trust
from falaj.releases.evidence import gate_statements, result_statements
from falaj.releases.sign import sign_release
from falaj.releases.verify import load_verified, look_again, verify_release


@pytest.fixture(scope="module")
def made(make_release):
    return make_release()


@pytest.fixture
def copy(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    return folder


@pytest.fixture(scope="module")
def now(made):
    return made.manifest.created + timedelta(days=1)


@pytest.fixture(scope="module")
def trust(key_ring):
    return key_ring.trust()


@pytest.fixture(scope="module")
def judge(made, trust, now):
    def go(folder, **more):
        return verify_release(
            folder,
            more.pop("trust", trust),
            **{
                "release_id": made.id,
                "requires": ("quality", "security"),
                "now": now,
                **more,
            },
        )

    return go


def tree_of(made):
    return made.manifest.tree


def codes(verified):
    return {(finding.code, finding.file) for finding in verified.findings}


def test_an_untouched_release_holds(made, judge):
    verified = judge(made.folder)
    assert verified.findings == ()
    assert verified.holds
    assert verified.id == made.id
    assert verified.manifest == made.manifest
    assert verified.signers == ("releaser",)


def flip(folder, name, at, bit=0):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def add(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"print('hello')")


def link(folder, name, to):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(to)


CHANGES = {  # what is done to the folder -> the file that must be named
    "a byte of the model": (lambda f: flip(f, "model/model.onnx", 5), "model/model.onnx"),
    "a byte of the lock": (lambda f: flip(f, "environment.lock", 0), "environment.lock"),
    "a byte of the card": (lambda f: flip(f, "card.md", 9), "card.md"),
    "a byte of the ML-BOM": (lambda f: flip(f, "mlbom.cdx.json", 20), "mlbom.cdx.json"),
    "a byte of the reference": (
        lambda f: flip(f, "reference/edges.json", 0),
        "reference/edges.json",
    ),
    "a byte of release.json": (lambda f: flip(f, "release.json", 30), "release.json"),
    "a byte of the signature": (lambda f: flip(f, "signature.json", 400), "signature.json"),
    "a byte of the evidence": (
        lambda f: flip(f, "evidence/gate-quality.dsse.json", 40),
        "evidence/gate-quality.dsse.json",
    ),
    "a byte behind the signature": (
        lambda f: (f / "signature.json").write_bytes((f / "signature.json").read_bytes() + b"\n"),
        "signature.json",
    ),
    "a file gone": (lambda f: (f / "model/model.onnx").unlink(), "model/model.onnx"),
    "the signature gone": (lambda f: (f / "signature.json").unlink(), "signature.json"),
    "release.json gone": (lambda f: (f / "release.json").unlink(), "release.json"),
    "evidence gone": (
        lambda f: (f / "evidence/gate-quality.dsse.json").unlink(),
        "evidence/gate-quality.dsse.json",
    ),
    "a file more": (lambda f: add(f, "model/evil.py"), "model/evil.py"),
    "a hidden file more": (lambda f: add(f, ".hidden"), ".hidden"),
    "git content, which model signing ignores": (lambda f: add(f, ".git/config"), ".git/config"),
    "git attributes": (lambda f: add(f, ".gitattributes"), ".gitattributes"),
    "a second signature that is none": (
        lambda f: add(f, "signatures/0123456789abcdef.json"),
        "signatures/0123456789abcdef.json",
    ),
    "a file renamed": (
        lambda f: (f / "model/model.onnx").rename(f / "model/other.onnx"),
        "model/other.onnx",
    ),
    "a link in the place of a file": (
        lambda f: link(f, "model/model.onnx", "../card.md"),
        "model/model.onnx",
    ),
    "a link to a folder": (lambda f: link(f, "outside", f.parent), "outside"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "pipe"),
    "an empty folder": (lambda f: (f / "empty").mkdir(), "empty"),
    "a name that a reader could take for another": (
        lambda f: add(f, "model/MODEL.onnx"),
        "model/MODEL.onnx",
    ),
    "a name with a line break": (lambda f: add(f, "a\nb"), "a\nb"),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_a_changed_release_is_refused_and_the_file_named(copy, judge, change, named):
    change(copy)
    verified = judge(copy)
    assert not verified.holds
    assert named in {finding.file for finding in verified.findings}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_a_changed_release_is_not_loaded(copy, made, trust, now, tmp_path, change, named):
    change(copy)
    with pytest.raises(Unverified) as caught:
        load_verified(copy, trust, tmp_path / "private", release_id=made.id, now=now)
    assert caught.value.exit == Exit.UNVERIFIED == 7
    assert all(problem.fix for problem in caught.value.problems)
    assert not (tmp_path / "private").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_flipped_bit_is_refused_and_the_file_named(made, judge, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip") / "r"
    shutil.copytree(made.folder, folder)
    names = [*sorted(made.manifest.files), "release.json", "signature.json"]
    name = data.draw(st.sampled_from(names))
    at = data.draw(st.integers(0, (folder / name).stat().st_size - 1))
    flip(folder, name, at, data.draw(st.integers(0, 7)))
    verified = judge(folder)
    assert name in {finding.file for finding in verified.findings}


def test_no_bit_of_the_bundle_is_free(made, key_ring):
    """Also not in its unsigned parts: base64 padding bits, field names, the key's hint."""
    data = (made.folder / "signature.json").read_bytes()
    keys = {dsse.hint_of(k): k for k in [key_ring.signer("releaser").public]}
    bundle.open_bundle(data, keys)
    payload = data.index(b'"payload":')
    ends = range(payload + 10, payload + 60)
    last = range(data.index(b'"payloadType"') - 8, len(data))
    for at in [*range(payload), *ends, *last]:
        for bit in (0, 1, 5):
            other = bytearray(data)
            other[at] ^= 1 << bit
            with pytest.raises(dsse.BadEnvelope):
                bundle.open_bundle(bytes(other), keys)


def test_all_findings_are_told_not_only_the_first(copy, judge):
    flip(copy, "model/model.onnx", 1)
    flip(copy, "card.md", 1)
    add(copy, "evil.py")
    assert {
        ("releases.tampered", "model/model.onnx"),
        ("releases.tampered", "card.md"),
        ("releases.tampered", "evil.py"),
    } <= codes(judge(copy))


def test_the_error_names_every_file(copy, made, trust, now, tmp_path):
    flip(copy, "model/model.onnx", 1)
    flip(copy, "card.md", 1)
    with pytest.raises(Unverified) as caught:
        load_verified(copy, trust, tmp_path / "p", release_id=made.id, now=now)
    said = " ".join(problem.message for problem in caught.value.problems)
    assert "model/model.onnx" in said
    assert "card.md" in said
    assert caught.value.code == "releases.tampered"


def test_another_release_than_the_one_asked_for(copy, judge):
    verified = judge(copy, release_id="sha256:" + "0" * 64)
    assert ("releases.wrong-id", "release.json") in codes(verified)


def test_a_file_that_is_not_a_folder(copy, judge):
    assert not judge(copy / "card.md").holds
    assert not judge(copy / "nowhere").holds


# --- signers -----------------------------------------------------------------------------------


def test_a_signer_without_the_role_is_refused(make_release, judge):
    made = make_release(signer="gater")
    verified = judge(made.folder, release_id=made.id)
    assert ("releases.signature", "signature.json") in codes(verified)


def test_a_signer_nobody_knows_is_refused(made, judge, trust):
    empty = msgspec.structs.replace(
        trust, keys=tuple(key for key in trust.keys if key.identity != "releaser")
    )
    assert not judge(made.folder, trust=empty).holds


def test_a_key_outside_its_time_is_refused_unless_the_signature_is_older(made, judge, now):
    late = now + timedelta(days=800)
    keys = judge(made.folder, now=late)
    assert ("releases.trust-expired", "") in codes(keys)
    assert ("releases.signature", "signature.json") in codes(keys)
    early = judge(made.folder, now=made.manifest.created - timedelta(days=1))
    assert ("releases.signature", "signature.json") in codes(early)


def test_an_old_signature_holds_at_the_time_a_log_gives_it(made, judge, trust, now):
    late = now + timedelta(days=800)
    renewed = msgspec.structs.replace(
        trust, expires=late + timedelta(days=1), next_update=late + timedelta(days=1)
    )
    assert not judge(made.folder, trust=renewed, now=late).holds
    assert judge(made.folder, trust=renewed, now=late, signed_at=made.manifest.created).holds


def test_the_same_signer_twice_does_not_make_two(copy, made, judge, key_ring):
    assert not judge(copy, threshold=2).holds
    sign_release(copy, key_ring.signer("releaser"))
    assert not judge(copy, threshold=2).holds
    sign_release(copy, key_ring.signer("second"))
    verified = judge(copy, threshold=2)
    assert verified.findings == ()
    assert verified.signers == ("releaser", "second")
    assert len(list((copy / "signatures").iterdir())) == 1


def test_two_keys_of_one_identity_do_not_make_two(copy, judge, key_ring, trust):
    sign_release(copy, key_ring.signer("second"))
    one = tuple(
        msgspec.structs.replace(key, identity="releaser") if key.identity == "second" else key
        for key in trust.keys
    )
    same = Trust(version=trust.version, keys=one, expires=trust.expires)
    assert not judge(copy, trust=same, threshold=2).holds


def test_a_copied_signature_under_another_name_is_refused(copy, judge):
    (copy / "signatures").mkdir()
    shutil.copy(copy / "signature.json", copy / "signatures" / "ffffffffffffffff.json")
    assert ("releases.signature", "signatures/ffffffffffffffff.json") in codes(judge(copy))


def test_the_signer_refuses_a_release_it_was_not_asked_to_sign(copy, key_ring):
    flip(copy, "release.json", 30)
    with pytest.raises(Unverified) as caught:
        sign_release(copy, key_ring.signer("releaser"), expect="sha256:" + "1" * 64)
    assert caught.value.code == "releases.wrong-id"


def test_signing_again_leaves_a_whole_signature_as_it_is(copy, key_ring):
    before = (copy / "signature.json").read_bytes()
    sign_release(copy, key_ring.signer("releaser"))
    assert (copy / "signature.json").read_bytes() == before


BUNDLES = {
    "another media type": lambda b: b | {"mediaType": b["mediaType"] + "x"},
    "a field more": lambda b: b | {"extra": 1},
    "two signatures": lambda b: (
        b["dsseEnvelope"].update(signatures=b["dsseEnvelope"]["signatures"] * 2) or b
    ),
    "no signature": lambda b: b["dsseEnvelope"].update(signatures=[]) or b,
    "a certificate in the place of the key": lambda b: (
        b | {"verificationMaterial": {"x509CertificateChain": {"certificates": []}}}
    ),
    "another payload type": lambda b: b["dsseEnvelope"].update(payloadType="text/plain") or b,
    "a log entry that nobody checks": lambda b: (
        b["verificationMaterial"].update(tlogEntries=[{"logIndex": "1"}]) or b
    ),
    "a list": lambda b: [b],
}


@pytest.mark.parametrize("change", BUNDLES.values(), ids=BUNDLES)
def test_bundles_of_another_form_are_refused(copy, judge, change):
    path = copy / "signature.json"
    path.write_bytes(canonical.dumps(change(canonical.loads(path.read_bytes()))))
    assert ("releases.signature", "signature.json") in codes(judge(copy))


PAYLOADS = {
    "symlinks allowed": lambda p: p["predicate"]["serialization"].update(allow_symlinks=True),
    "more paths ignored": lambda p: p["predicate"]["serialization"]["ignore_paths"].append("model"),
    "another hash": lambda p: p["predicate"]["serialization"].update(hash_type="blake2"),
    "another predicate": lambda p: p.update(predicateType="https://model_signing/Digests/v0.1"),
    "a resource twice": lambda p: p["predicate"]["resources"].append(
        p["predicate"]["resources"][0]
    ),
    "a resource less": lambda p: p["predicate"]["resources"].pop(),
    "another total": lambda p: p["subject"][0]["digest"].update(sha256="0" * 64),
    "two subjects": lambda p: p["subject"].append(p["subject"][0]),
}


@pytest.mark.parametrize("change", PAYLOADS.values(), ids=PAYLOADS)
def test_rightly_signed_bundles_that_say_something_else_are_refused(copy, judge, key_ring, change):
    import base64

    path = copy / "signature.json"
    outer = canonical.loads(path.read_bytes())
    said = canonical.loads(base64.b64decode(outer["dsseEnvelope"]["payload"]))
    change(said)
    body = canonical.dumps(said)
    sig = key_ring.signer("releaser").sign(dsse.pae(dsse.STATEMENT, body))
    outer["dsseEnvelope"] |= {
        "payload": base64.b64encode(body).decode(),
        "signatures": [{"sig": base64.b64encode(sig).decode(), "keyid": ""}],
    }
    path.write_bytes(canonical.dumps(outer))
    assert ("releases.signature", "signature.json") in codes(judge(copy))


# --- evidence ----------------------------------------------------------------------------------


def test_a_required_gate_without_verdict_is_named(made, judge):
    verified = judge(made.folder, requires=("quality", "bias"))
    assert codes(verified) == {("releases.evidence-missing", "evidence/gate-bias.dsse.json")}
    assert "'bias'" in verified.findings[0].message


def gate_report(made, *results, **more):
    return GateReport(
        subject=tree_of(made),
        policy="sha256:" + "7" * 64,
        at=made.manifest.created,
        results=results,
        required=("quality",),
        **more,
    )


def result(verdict, check="quality.one"):
    from falaj.facts.checks import CheckResult

    return CheckResult(check=check, gate="quality", verdict=verdict, reason="looked at")


VERDICTS = {  # results, waived -> holds
    "pass": ((Verdict.PASS,), False, True),
    "fail": ((Verdict.PASS, Verdict.FAIL), False, False),
    "inconclusive": ((Verdict.INCONCLUSIVE,), False, False),
    "inconclusive with a waiver": ((Verdict.PASS, Verdict.INCONCLUSIVE), True, True),
    "error": ((Verdict.ERROR,), False, False),
    "error cannot be waived": ((Verdict.ERROR,), True, False),
    "fail cannot be waived": ((Verdict.FAIL,), True, False),
    "skipped": ((Verdict.SKIPPED,), False, False),
    "no result at all": ((), False, False),
}


@pytest.mark.parametrize(("verdicts", "waived", "holds"), VERDICTS.values(), ids=VERDICTS)
def test_only_a_pass_or_a_waived_inconclusive_lets_through(
    made, make_release, judge, now, verdicts, waived, holds
):
    results = tuple(result(verdict, f"quality.{n}") for n, verdict in enumerate(verdicts))
    waivers = tuple(
        Waiver(check=r.check, owner="risk", reason="few rows", expires=now)
        for r in results
        if waived and r.verdict is not Verdict.PASS
    )
    other = make_release(report=gate_report(made, *results, waivers=waivers))
    verified = judge(other.folder, release_id=other.id, requires=("quality",))
    assert verified.holds is holds
    assert holds or {code for code, _ in codes(verified)} <= {"releases.evidence-failed"}


def test_a_waiver_that_had_run_out_does_not_count(made, make_release, judge):
    old = Waiver(
        check="quality.one",
        owner="risk",
        reason="few rows",
        expires=made.manifest.created - timedelta(days=1),
    )
    report = gate_report(made, result(Verdict.INCONCLUSIVE), waivers=(old,))
    other = make_release(report=report)
    assert not judge(other.folder, release_id=other.id, requires=("quality",)).holds


def test_a_verdict_that_contradicts_its_results_is_refused(made, make_release, judge, key_ring):
    said = statement(
        GATE,
        "m",
        tree_of(made),
        {
            "gate": "bias",
            "verdict": "pass",
            "at": made.manifest.created,
            "results": [result(Verdict.FAIL)],
        },
    )
    other = make_release(more=[dsse.seal(said, key_ring.signer("gater"))])
    verified = judge(other.folder, release_id=other.id, requires=("bias",))
    assert codes(verified) == {("releases.evidence-failed", "evidence/gate-bias.dsse.json")}


def test_a_verdict_signed_by_the_builder_proves_nothing(make_release, judge):
    other = make_release(gate="buildr")
    verified = judge(other.folder, release_id=other.id)
    assert ("releases.evidence-invalid", "evidence/gate-quality.dsse.json") in codes(verified)
    assert ("releases.evidence-missing", "evidence/gate-quality.dsse.json") in codes(verified)


def test_evidence_about_another_model_proves_nothing(made, make_release, judge):
    report = msgspec.structs.replace(
        gate_report(made, result(Verdict.PASS)), subject="sha256:" + "3" * 64
    )
    other = make_release(report=report)
    verified = judge(other.folder, release_id=other.id, requires=("quality",))
    assert ("releases.evidence-invalid", "evidence/gate-quality.dsse.json") in codes(verified)


def test_a_verdict_under_another_policy_is_refused(made, judge):
    assert judge(made.folder, policy="sha256:" + "7" * 64).holds
    assert not judge(made.folder, policy="sha256:" + "8" * 64).holds


def test_a_file_that_is_no_envelope_among_the_evidence(make_release, judge, key_ring):
    signed = {"payload": "e30=", "payloadType": "x", "signatures": []}
    said = statement("https://example/unknown/v1", "m", "sha256:" + "3" * 64, {})
    other = make_release(more=[dsse.seal(said, key_ring.signer("outsider"))])
    verified = judge(other.folder, release_id=other.id)
    assert {code for code, _ in codes(verified)} == {"releases.evidence-invalid"}
    assert signed


def test_a_foreign_predicate_is_kept_and_proves_nothing(make_release, judge, key_ring):
    said = statement("https://example/unknown/v1", "m", "sha256:" + "3" * 64, {"gate": "bias"})
    other = make_release(more=[dsse.seal(said, key_ring.signer("gater"))])
    assert judge(other.folder, release_id=other.id).holds
    assert not judge(other.folder, release_id=other.id, requires=("bias",)).holds


# --- the private copy --------------------------------------------------------------------------


def test_the_copy_is_private_and_whole(made, trust, now, tmp_path):
    private = tmp_path / "private"
    manifest = load_verified(made.folder, trust, private, release_id=made.id, now=now)
    assert manifest == made.manifest
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for path in private.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    for name, digest in manifest.files.items():
        assert digests.of_file(private / name) == digest
    assert look_again(private, manifest) == ()


def test_what_happens_to_the_source_later_does_not_reach_the_copy(copy, made, trust, now, tmp_path):
    private = tmp_path / "private"
    manifest = load_verified(copy, trust, private, release_id=made.id, now=now)
    flip(copy, "model/model.onnx", 3)
    assert digests.of_file(private / "model/model.onnx") == manifest.files["model/model.onnx"]


def test_a_staging_folder_that_exists_is_refused(made, trust, now, tmp_path):
    (tmp_path / "private").mkdir()
    with pytest.raises(Unverified) as caught:
        load_verified(made.folder, trust, tmp_path / "private", release_id=made.id, now=now)
    assert caught.value.code == "releases.staging-exists"


def test_a_changed_copy_is_found_when_looked_at_again(made, trust, now, tmp_path):
    private = tmp_path / "private"
    manifest = load_verified(made.folder, trust, private, release_id=made.id, now=now)
    flip(private, "model/model.onnx", 3)
    add(private, "evil.py")
    assert {finding.file for finding in look_again(private, manifest)} == {
        "model/model.onnx",
        "evil.py",
    }


def test_the_verifier_needs_neither_runtime_nor_numpy():
    code = (
        "import sys, falaj.releases.verify, falaj.audit.verify; "
        "print([m for m in ('numpy', 'onnxruntime', 'sqlalchemy', 'litestar', 'click') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the same for outsiders ----------------------------------------------------------------------

OUTSIDERS = {  # verdict, required -> result, where its name stands
    "passed": (Verdict.PASS, True, "PASSED", "passedTests"),
    "passed, though nobody asked": (Verdict.PASS, False, "PASSED", "passedTests"),
    "failed": (Verdict.FAIL, True, "FAILED", "failedTests"),
    "no answer is no pass": (Verdict.INCONCLUSIVE, True, "FAILED", "failedTests"),
    "an error is no pass": (Verdict.ERROR, True, "FAILED", "failedTests"),
    "skipped is no pass": (Verdict.SKIPPED, True, "FAILED", "failedTests"),
    "failed, only told": (Verdict.FAIL, False, "WARNED", "warnedTests"),
    "no answer, only told": (Verdict.INCONCLUSIVE, False, "WARNED", "warnedTests"),
}


def both(made, verdict, required=True):
    """What is said of one gate, to us and to outsiders."""
    asked = ("quality",) if required else ()
    report = msgspec.structs.replace(gate_report(made, result(verdict)), required=asked)
    gates = [g for g in gate_statements(report, name="m") if g["predicate"]["gate"] == "quality"]
    return gates[0], result_statements(gates)[0]


@pytest.mark.parametrize(
    ("verdict", "required", "word", "list_"), OUTSIDERS.values(), ids=OUTSIDERS
)
def test_what_outsiders_read_of_a_gate(made, verdict, required, word, list_):
    gate, said = both(made, verdict, required)
    assert said["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert said["subject"] == gate["subject"]
    lists = {"passedTests": [], "warnedTests": [], "failedTests": [], list_: ["quality.one"]}
    tested = [{"name": "gate/quality", "digest": {"sha256": "7" * 64}}]
    assert said["predicate"] == {"result": word, "configuration": tested, **lists}


def test_a_required_gate_without_results_has_failed_for_outsiders(made):
    gates = gate_statements(gate_report(made), name="m")
    assert result_statements(gates)[0]["predicate"]["result"] == "FAILED"


def test_a_test_result_is_the_same_each_time(make_release):
    """Statement for statement: only signatures have a dice."""

    def payloads(folder):
        return [
            json.loads(path.read_bytes())["payload"]
            for path in sorted((folder / "evidence").glob("test-result-*"))
        ]

    one, two = payloads(make_release().folder), payloads(make_release().folder)
    assert len(one) == 2
    assert one == two


def sold(make_release, key_ring, said, signer="gater"):
    return make_release(more=[dsse.seal(said, key_ring.signer(signer))])


PRETENDED = {
    "a better result": {"result": "WARNED"},
    "a check that nobody made": {"passedTests": ["quality.one", "bias.one"]},
    "a check left out": {"passedTests": []},
    "other rules": {"configuration": [{"name": "gate/quality", "digest": {"sha256": "6" * 64}}]},
    "another gate": {"configuration": [{"name": "gate/bias", "digest": {"sha256": "7" * 64}}]},
    "one word more": {"url": "https://example.org"},
}


@pytest.mark.parametrize("fields", PRETENDED.values(), ids=PRETENDED)
def test_a_test_result_that_its_gate_does_not_have(made, make_release, judge, key_ring, fields):
    _, said = both(made, Verdict.PASS)
    said["predicate"] = {**said["predicate"], **fields}
    other = sold(make_release, key_ring, said)
    found = judge(other.folder, release_id=other.id).findings
    assert {f.code for f in found} == {"releases.evidence-invalid"}
    assert all(f.file.startswith("evidence/test-result-") for f in found)
    assert "no gate beside it has this result" in found[0].message


@pytest.mark.parametrize("signer", ["buildr", "releaser", "outsider"])
def test_a_test_result_by_who_judges_nothing(made, make_release, judge, key_ring, signer):
    other = sold(make_release, key_ring, both(made, Verdict.PASS)[1], signer)
    found = judge(other.folder, release_id=other.id).findings
    assert {(f.code, f.file) for f in found} == {
        ("releases.evidence-invalid", "evidence/test-result-quality-2.dsse.json")
    }


def test_a_test_result_about_another_model(made, make_release, judge, key_ring):
    _, said = both(made, Verdict.PASS)
    said["subject"][0]["digest"]["sha256"] = "3" * 64
    other = sold(make_release, key_ring, said)
    found = judge(other.folder, release_id=other.id).findings
    assert "speaks about another model" in found[0].message


def test_a_test_result_alone_is_no_verdict(made, make_release, judge, key_ring):
    """For outsiders only: a gate is held by its own statement."""
    _, said = both(made, Verdict.PASS)
    said["predicate"]["configuration"][0]["name"] = "gate/bias"
    other = sold(make_release, key_ring, said)
    verified = judge(other.folder, release_id=other.id, requires=("bias",))
    assert ("releases.evidence-missing", "evidence/gate-bias.dsse.json") in codes(verified)
