"""The real `model_signing` reads our bundle; what it lets through and ours refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from falaj.audit import told
from falaj.base import bundle, dsse
from falaj.facts import attestations
from falaj.facts.releases import Trust, TrustedKey
from falaj.releases.verify import verify_release


@pytest.fixture
def signed(make_release, key_ring, tmp_path):
    made = make_release()
    folder = tmp_path / "r"
    shutil.copytree(made.folder, folder)
    public = tmp_path / "public.pem"
    public.write_bytes(key_ring.signer("releaser").public)
    return made, folder, public


def oracle(folder, public, *more):
    words = ["verify", "key", folder, "--public_key", public]
    words += ["--signature", folder / "signature.json", *more]
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_oracle_accepts_our_bundle(signed):
    _, folder, public = signed
    done = oracle(folder, public)
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr


CHANGES = {
    "a changed byte": lambda f: (f / "model/model.onnx").write_bytes(b"other"),
    "a file more": lambda f: (f / "evil.py").write_bytes(b"other"),
    "a file less": lambda f: (f / "card.md").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_oracle_refuses_what_ours_refuses(signed, key_ring, change):
    made, folder, public = signed
    change(folder)
    now = made.manifest.created + timedelta(days=1)
    assert oracle(folder, public).returncode != 0
    assert not verify_release(folder, key_ring.trust(), release_id=made.id, now=now).holds


def test_git_content_passes_the_oracle_and_not_ours(signed, key_ring):
    made, folder, public = signed
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("evil")
    now = made.manifest.created + timedelta(days=1)
    assert oracle(folder, public).returncode == 0
    found = verify_release(folder, key_ring.trust(), release_id=made.id, now=now).findings
    assert ".git/config" in {finding.file for finding in found}


def test_an_added_file_passes_the_oracle_when_told_so_and_never_ours(signed, key_ring):
    made, folder, public = signed
    (folder / "evil.py").write_text("evil")
    now = made.manifest.created + timedelta(days=1)
    assert oracle(folder, public, "--ignore_unsigned_files").returncode == 0
    assert not verify_release(folder, key_ring.trust(), release_id=made.id, now=now).holds


def test_a_bundle_that_the_oracle_signed_counts_as_a_further_signature(signed, key_ring, tmp_path):
    """Not as signature.json, which has one spelling."""
    made, folder, _ = signed
    private = ec.generate_private_key(ec.SECP256R1())
    key = tmp_path / "key.pem"
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = dsse.public_pem(private)
    out = folder / "signatures" / f"{dsse.hint_of(public)[:16]}.json"
    out.parent.mkdir()
    words = ["sign", "key", folder, "--private_key", key, "--signature", out]
    words += ["--ignore-paths", folder / "signature.json", "--ignore-paths", folder / "signatures"]
    subprocess.run([sys.executable, "-m", "model_signing", *map(str, words)], check=True)
    known = key_ring.trust()
    entry = TrustedKey(
        identity="foreign",
        public=public.decode(),
        roles=("release",),
        not_before=made.manifest.created,
        not_after=known.expires,
    )
    trust = Trust(version=9, keys=(*known.keys, entry), expires=known.expires)
    now = made.manifest.created + timedelta(days=1)
    two = verify_release(folder, trust, release_id=made.id, now=now, threshold=2)
    assert two.findings == ()
    assert two.signers == ("foreign", "releaser")
    shutil.copy(out, folder / "signature.json")
    refused = verify_release(folder, trust, release_id=made.id, now=now)
    assert [f.file for f in refused.findings] == ["signature.json"]


def test_the_words_of_base_and_facts_agree():
    assert bundle.GATE == attestations.GATE
    assert bundle.TEST_RESULT == attestations.TEST_RESULT
    assert told.PROMOTION == attestations.DECISION
    assert told.APPROVAL == attestations.APPROVAL
    assert bundle.PROVENANCE == attestations.PROVENANCE
    assert bundle.PREDICATE == attestations.MODEL_SIGNING
    assert bundle.STATEMENT_TYPE == attestations.STATEMENT_TYPE
