"""The real `model_signing` with certificates: both ways, the shapes of its own test vectors, and what it lets through.

Its vectors are keys (valid), keys with an altered signature (invalid) and with another payload
(invalid-payload). They are made here by itself: its own files are signed with P-384 and by a leaf that
is an authority, which Falaj refuses.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from authority import EKU, NAME, authority, leaf
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from falaj.base import bundle, dsse
from falaj.facts.releases import Authority
from falaj.releases.sign import sign_release
from falaj.releases.verify import verify_release

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def unsigned(make_release, tmp_path):
    made = make_release(signer=None, version="bare")
    folder = tmp_path / "r"
    shutil.copytree(made.folder, folder)
    return made, folder


@pytest.fixture(scope="module")
def root():
    return authority(NOW)


def oracle(*words):
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def written(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def asked(folder, root, tmp_path):
    """What the oracle says of signature.json under this authority."""
    chain = written(tmp_path / "root.pem", root.pem)
    place = folder / "signature.json"
    return oracle(
        "verify", "certificate", folder, "--signature", place, "--certificate_chain", chain
    )


def trust_of(key_ring, root, **more):
    entry = Authority(
        identity="ci",
        certificate=root.pem,
        name=NAME,
        roles=("release",),
        not_before=NOW - timedelta(days=900),
        not_after=NOW + timedelta(days=300),
    )
    until = NOW + timedelta(days=30)
    return msgspec.structs.replace(
        key_ring.trust(), authorities=(entry,), expires=until, next_update=until, **more
    )


def ours(made, folder, key_ring, root, **more):
    trust = trust_of(key_ring, root)
    return verify_release(folder, trust, release_id=made.id, now=NOW, **({"signed_at": NOW} | more))


def reasons(found):
    return " ".join(finding.message for finding in found.findings)


def signed_by(folder, holder):
    sign_release(folder, holder, chain=holder.chain)


def signatures(found):
    return [f for f in found.findings if f.code == "releases.signature"]


def test_the_oracle_accepts_our_bundle_with_a_certificate(unsigned, key_ring, root, tmp_path):
    made, folder = unsigned
    signed_by(folder, leaf(root, NOW))
    done = asked(folder, root, tmp_path)
    assert done.returncode == 0, done.stderr
    assert signatures(ours(made, folder, key_ring, root)) == []


def test_the_oracle_refuses_another_authority(unsigned, root, tmp_path):
    _, folder = unsigned
    signed_by(folder, leaf(root, NOW))
    assert asked(folder, authority(NOW, "Other"), tmp_path).returncode != 0


LET_THROUGH = {  # what the oracle accepts -> what ours says of it
    "an expired certificate": (
        lambda ca: leaf(ca, NOW, begins=timedelta(days=-9)),
        "expired",
    ),
    "a certificate of a TLS server": (
        lambda ca: leaf(ca, NOW, purposes=(EKU.SERVER_AUTH,)),
        "not for signing code",
    ),
    "any other leaf under the same root": (
        lambda ca: leaf(ca, NOW, name="spiffe://example.org/ns/mail/sa/other"),
        "not for",
    ),
}


@pytest.mark.parametrize(("make", "said"), LET_THROUGH.values(), ids=LET_THROUGH)
def test_what_the_oracle_lets_through_is_refused(unsigned, key_ring, root, tmp_path, make, said):
    made, folder = unsigned
    signed_by(folder, make(root))
    assert asked(folder, root, tmp_path).returncode == 0, "then this is no longer worth saying"
    found = ours(made, folder, key_ring, root)
    assert signatures(found)
    assert said in reasons(found)


def test_a_bundle_that_the_oracle_signs_with_a_certificate_counts(
    unsigned, key_ring, root, tmp_path
):
    """As a further signature: the first one has one spelling."""
    made, folder = unsigned
    signed_by(folder, leaf(root, NOW))
    holder = leaf(root, NOW)
    out = folder / "signatures" / f"{dsse.hint_of(holder.public)[:16]}.json"
    out.parent.mkdir()
    private = holder.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    words = ["sign", "certificate", folder, "--signature", out]
    words += ["--private_key", written(tmp_path / "key.pem", private)]
    words += ["--signing_certificate", written(tmp_path / "leaf.pem", holder.pem)]
    words += ["--certificate_chain", written(tmp_path / "root.pem", root.pem)]
    words += ["--ignore-paths", folder / "signature.json", "--ignore-paths", folder / "signatures"]
    done = oracle(*words)
    assert done.returncode == 0, done.stderr
    assert signatures(ours(made, folder, key_ring, root)) == []
    data = json.loads(out.read_bytes())
    data["verificationMaterial"]["x509CertificateChain"]["certificates"].reverse()
    data["verificationMaterial"]["x509CertificateChain"]["certificates"] *= 9
    out.write_text(json.dumps(data))
    assert signatures(ours(made, folder, key_ring, root))


# --- the shapes of its test vectors ------------------------------------------------------------


@pytest.fixture(scope="module")
def vector(tmp_path_factory):
    """A model of two files, signed by the oracle with a P-256 key."""
    base = tmp_path_factory.mktemp("vector")
    folder = base / "model"
    folder.mkdir()
    (folder / "signme-1").write_bytes(b"first\n")
    (folder / "signme-2").write_bytes(b"second\n")
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    out = base / "model.sig"
    key = written(base / "key.pem", pem)
    names = ["--ignore-paths", folder / "signature.json", "--ignore-paths", folder / "signatures"]
    done = oracle("sign", "key", folder, "--private_key", key, "--signature", out, *names)
    assert done.returncode == 0, done.stderr
    return out.read_bytes(), dsse.public_pem(private), private


def opened(data, public):
    return bundle.open_bundle(data, {dsse.hint_of(public): public}, one_spelling=False)


def test_a_valid_one_opens(vector):
    data, public, _ = vector
    assert sorted(opened(data, public).files) == ["signme-1", "signme-2"]


def resigned(outer, private, **fields):
    """Rightly signed, with another statement."""
    from cryptography.hazmat.primitives import hashes

    said = json.loads(base64.b64decode(outer["dsseEnvelope"]["payload"])) | fields
    body = json.dumps(said).encode()
    sig = private.sign(dsse.pae(dsse.STATEMENT, body), ec.ECDSA(hashes.SHA256()))
    outer["dsseEnvelope"]["payload"] = base64.b64encode(body).decode()
    outer["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(sig).decode()
    return outer


def envelope(outer, **fields):
    return outer | {"dsseEnvelope": outer["dsseEnvelope"] | fields}


INVALID = {
    "invalid: another signature": lambda o, _: envelope(
        o, signatures=[{"sig": base64.b64encode(b"0" * 70).decode(), "keyid": ""}]
    ),
    "invalid: no signature": lambda o, _: envelope(o, signatures=[]),
    "invalid: the same signature twice": lambda o, _: envelope(
        o, signatures=o["dsseEnvelope"]["signatures"] * 2
    ),
    "invalid: another media type": lambda o, _: o | {"mediaType": "application/json"},
    "invalid: no key": lambda o, _: o | {"verificationMaterial": {}},
    "invalid: another key": lambda o, _: o | {"verificationMaterial": {"publicKey": {"hint": "x"}}},
    "invalid-payload: altered": lambda o, _: envelope(o, payload=base64.b64encode(b"{}").decode()),
    "invalid-payload: no base64": lambda o, _: envelope(o, payload="!"),
    "invalid-payload: another type": lambda o, _: envelope(o, payloadType="text/plain"),
    "invalid-payload: another statement": lambda o, key: resigned(o, key, _type="x"),
    "invalid-payload: another predicate": lambda o, key: resigned(o, key, predicateType="x"),
    "invalid-payload: no subject": lambda o, key: resigned(o, key, subject=[]),
    "invalid-payload: another total": lambda o, key: resigned(
        o, key, subject=[{"name": "model", "digest": {"sha256": "0" * 64}}]
    ),
    "invalid-payload: no resources": lambda o, key: resigned(o, key, predicate={}),
}


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_invalid_ones_do_not(vector, change):
    data, public, private = vector
    with pytest.raises(dsse.BadEnvelope):
        opened(json.dumps(change(json.loads(data), private)).encode(), public)
