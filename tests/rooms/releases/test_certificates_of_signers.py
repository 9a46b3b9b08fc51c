"""Certificate chains in bundles: one authority, one name, for signing code, at one time."""

from __future__ import annotations

import shutil
from datetime import timedelta

import msgspec
import pytest
from authority import EKU, NAME, authority, leaf
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from falaj.base import certificates, dsse
from falaj.facts.releases import Authority, Revocation, RevocationKind, RoleRule
from falaj.releases.sign import sign_release
from falaj.releases.verify import load_verified, verify_release


@pytest.fixture(scope="module")
def made(make_release):
    return make_release(signer=None, version="unsigned")


@pytest.fixture(scope="module")
def at(made):
    return made.manifest.created


@pytest.fixture(scope="module")
def root(at):
    return authority(at)


@pytest.fixture
def copy(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    return folder


def trusted(key_ring, root, at, **more):
    entry = Authority(
        identity="ci",
        certificate=root.pem,
        name=NAME,
        roles=("release",),
        not_before=at - timedelta(days=1),
        not_after=at + timedelta(days=300),
    )
    return msgspec.structs.replace(key_ring.trust(), **({"authorities": (entry,)} | more))


def judged(made, folder, trust, now, **more):
    return verify_release(folder, trust, release_id=made.id, now=now, **more)


def reasons(found):
    return " ".join(finding.message for finding in found.findings)


def test_a_certificate_of_the_authority_signs_as_the_identity(made, copy, key_ring, root, at):
    signer = leaf(root, at)
    sign_release(copy, signer, chain=signer.chain)
    found = judged(made, copy, trusted(key_ring, root, at), at)
    assert found.findings == ()
    assert found.signers == ("ci",)
    assert not found.witnessed, "only the signer says when"


def test_the_root_may_stand_at_the_end_of_the_chain(made, copy, key_ring, root, at):
    signer = leaf(root, at)
    sign_release(copy, signer, chain=[*signer.chain, *root.chain])
    assert judged(made, copy, trusted(key_ring, root, at), at).holds


def test_an_intermediate_authority_leads_to_the_root(made, copy, key_ring, root, at):
    between = authority(at, "Between", above=root, path_length=0)
    signer = leaf(between, at)
    sign_release(copy, signer, chain=signer.chain)
    assert judged(made, copy, trusted(key_ring, root, at), at).holds


def test_signing_again_with_the_same_certificate_changes_nothing(copy, root, at):
    signer = leaf(root, at)
    sign_release(copy, signer, chain=signer.chain)
    before = (copy / "signature.json").read_bytes()
    sign_release(copy, signer, chain=signer.chain)
    assert (copy / "signature.json").read_bytes() == before


def test_a_certificate_and_a_key_are_two_signers(made, copy, key_ring, root, at):
    signer = leaf(root, at)
    sign_release(copy, key_ring.signer("releaser"))
    sign_release(copy, signer, chain=signer.chain)
    found = judged(made, copy, trusted(key_ring, root, at), at, threshold=2)
    assert found.findings == ()
    assert found.signers == ("ci", "releaser")


def test_two_certificates_of_one_name_are_one_signer(made, copy, key_ring, root, at):
    for _ in range(2):
        signer = leaf(root, at)
        sign_release(copy, signer, chain=signer.chain)
    trust = trusted(key_ring, root, at)
    assert judged(made, copy, trust, at).holds
    assert not judged(made, copy, trust, at, threshold=2).holds


LEAVES = {  # what the certificate is -> what is said of it
    "for a TLS server": (
        lambda ca, at: leaf(ca, at, purposes=(EKU.SERVER_AUTH,)),
        "not for signing code",
    ),
    "for no purpose": (lambda ca, at: leaf(ca, at, purposes=()), "not for signing code"),
    "for any purpose": (
        lambda ca, at: leaf(ca, at, purposes=(EKU.ANY_EXTENDED_KEY_USAGE,)),
        "not for signing code",
    ),
    "another leaf under the same root": (
        lambda ca, at: leaf(ca, at, name="spiffe://example.org/ns/models/sa/other"),
        "not for",
    ),
    "a name that only begins so": (lambda ca, at: leaf(ca, at, name=NAME + "/x"), "not for"),
    "the name as a DNS name": (
        lambda ca, at: leaf(ca, at, name="example.org", kind=x509.DNSName),
        "not for",
    ),
    "without a name": (lambda ca, at: leaf(ca, at, name=""), "for nobody"),
    "a key that may not sign": (lambda ca, at: leaf(ca, at, signs=False), "may not sign"),
    "an authority itself": (lambda ca, at: leaf(ca, at, ca=True), "authority's certificate"),
    "expired before it was signed": (
        lambda ca, at: leaf(ca, at, begins=timedelta(days=-3)),
        "expired",
    ),
    "not valid yet": (lambda ca, at: leaf(ca, at, begins=timedelta(days=3)), "is valid from"),
    "a P-384 key": (
        lambda ca, at: leaf(ca, at, key=ec.generate_private_key(ec.SECP384R1())),
        "P-256",
    ),
    "a critical extension that nobody knows": (
        lambda ca, at: leaf(
            ca, at, more=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"),)
        ),
        "not understood",
    ),
    "issued by another authority of the same name": (
        lambda ca, at: leaf(authority(at), at),
        "was not issued by",
    ),
    "issued in the name of the authority by somebody else": (
        lambda ca, at: leaf(authority(at, "Other"), at, issuer=ca.cert.subject),
        "was not issued by",
    ),
    "issued by a leaf": (lambda ca, at: leaf(leaf(ca, at), at), "not that of an authority"),
}


@pytest.mark.parametrize(("make", "said"), LEAVES.values(), ids=LEAVES)
def test_other_certificates_are_refused_with_the_reason(made, copy, key_ring, root, at, make, said):
    signer = make(root, at)
    sign_release(copy, signer, chain=signer.chain)
    found = judged(made, copy, trusted(key_ring, root, at), at)
    assert {f.code for f in found.findings} == {"releases.signature"}
    assert said in reasons(found)


def test_more_authorities_than_the_path_length_allows_are_refused(made, copy, key_ring, at):
    narrow = authority(at, path_length=0)
    between = authority(at, "Between", above=narrow)
    signer = leaf(between, at)
    sign_release(copy, signer, chain=signer.chain)
    found = judged(made, copy, trusted(key_ring, narrow, at), at)
    assert "path length" in reasons(found)


@pytest.mark.parametrize("more", [{"ca": False}, {"signs": False}], ids=["no CA", "no key usage"])
def test_an_issuer_that_may_not_issue_is_refused(made, copy, key_ring, root, at, more):
    between = authority(at, "Between", above=root, **more)
    signer = leaf(between, at)
    sign_release(copy, signer, chain=signer.chain)
    found = judged(made, copy, trusted(key_ring, root, at), at)
    assert {f.code for f in found.findings} == {"releases.signature"}


def test_a_chain_in_another_order_or_with_a_gap_is_refused(root, at):
    between = authority(at, "Between", above=root)
    signer = leaf(between, at)
    whole = signer.chain
    for chain in (whole[::-1], whole[:1], [*whole, whole[1]], [], whole * 4):
        with pytest.raises(certificates.BadChain):
            certificates.judge(chain, root.pem.encode(), name=NAME, at=at)
    assert certificates.judge(whole, root.pem.encode(), name=NAME, at=at) == signer.public


@pytest.mark.parametrize("der", [b"", b"\x30\x03", b"x" * 70_000], ids=["empty", "cut", "huge"])
def test_what_is_no_certificate_is_refused(root, at, der):
    with pytest.raises(certificates.BadChain):
        certificates.judge([der], root.pem.encode(), name=NAME, at=at)


def test_sha1_is_no_signature(root, at):
    """Libraries do not make one any more; the list of hashes is ours all the same."""
    assert "sha1" not in certificates.HASHES
    signer = leaf(root, at, digest=hashes.SHA384())
    assert certificates.judge(signer.chain, root.pem.encode(), name=NAME, at=at)


def test_no_flipped_byte_of_the_certificate_goes_through(root, at):
    signer = leaf(root, at)
    der = signer.chain[0]
    for place in range(0, len(der), 7):
        other = bytearray(der)
        other[place] ^= 1
        with pytest.raises(certificates.BadChain):
            certificates.judge([bytes(other)], root.pem.encode(), name=NAME, at=at)


# --- the time ----------------------------------------------------------------------------------


def later(trust, now):
    until = now + timedelta(days=30)
    return msgspec.structs.replace(trust, expires=until, next_update=until)


def test_a_certificate_is_judged_at_the_time_of_signing(made, copy, key_ring, root, at):
    """It lives a day; the release lives on, by the word of the log or of the signer."""
    signer = leaf(root, at)
    sign_release(copy, signer, chain=signer.chain)
    now = at + timedelta(days=200)
    trust = later(trusted(key_ring, root, at), now)
    logged = judged(made, copy, trust, now, signed_at=at + timedelta(minutes=5))
    assert logged.holds
    assert logged.witnessed
    assert judged(made, copy, trust, now).holds
    too_late = judged(made, copy, trust, now, signed_at=at + timedelta(days=2))
    assert "expired" in reasons(too_late)


def test_an_environment_that_asks_for_a_witness_refuses_the_signers_own_word(
    made, copy, key_ring, root, at
):
    signer = leaf(root, at)
    sign_release(copy, signer, chain=signer.chain)
    rules = {"release": RoleRule(witnessed=("production",))}
    trust = trusted(key_ring, root, at, rules=rules)
    found = judged(made, copy, trust, at, environment="production")
    assert {f.code for f in found.findings} == {"releases.time-not-witnessed"}
    assert judged(made, copy, trust, at, environment="staging").holds
    assert judged(made, copy, trust, at, environment="production", signed_at=at).holds


def test_an_authority_outside_its_time_is_not_trusted(made, copy, key_ring, root, at):
    signer = leaf(root, at, lives=timedelta(days=2000))
    sign_release(copy, signer, chain=signer.chain)
    now = at + timedelta(days=400)
    trust = later(trusted(key_ring, root, at), now)
    found = judged(made, copy, trust, now, signed_at=now)
    assert "not trusted at this time" in reasons(found)


# --- revocations -------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["key", "certificate", "authority between"])
def test_a_compromised_certificate_signs_no_more(made, copy, key_ring, root, at, which):
    between = authority(at, "Between", above=root)
    signer = leaf(between, at)
    chain = signer.chain
    sign_release(copy, signer, chain=chain)
    subject = {
        "key": dsse.hint_of(signer.public),
        "certificate": certificates.fingerprint(chain[0]),
        "authority between": certificates.fingerprint(chain[1]),
    }[which]
    gone = Revocation(kind=RevocationKind.COMPROMISED, subject=subject)
    found = judged(made, copy, trusted(key_ring, root, at, revocations=(gone,)), at)
    assert "was revoked" in reasons(found)
    good = msgspec.structs.replace(gone, releases=(made.id,))
    assert judged(made, copy, trusted(key_ring, root, at, revocations=(good,)), at).holds


def test_a_certificate_signs_only_in_the_roles_of_its_authority(made, copy, key_ring, root, at):
    signer = leaf(root, at)
    sign_release(copy, signer, chain=signer.chain)
    trust = trusted(key_ring, root, at)
    (entry,) = trust.authorities
    other = msgspec.structs.replace(entry, roles=("gate",))
    found = judged(made, copy, msgspec.structs.replace(trust, authorities=(other,)), at)
    assert "no certificate authority" in reasons(found)


def test_without_an_authority_no_certificate_is_taken(made, copy, key_ring, root, at, tmp_path):
    signer = leaf(root, at)
    sign_release(copy, signer, chain=signer.chain)
    found = judged(made, copy, key_ring.trust(), at)
    assert "no certificate authority" in reasons(found)
    with pytest.raises(Exception, match="certificate"):
        load_verified(copy, key_ring.trust(), tmp_path / "p", release_id=made.id, now=at)


def test_an_authority_that_is_none_is_not_admitted(root, at):
    certificates.check_authority(root.pem.encode())
    for holder in (leaf(root, at), authority(at, ca=False), authority(at, signs=False)):
        with pytest.raises(certificates.BadChain):
            certificates.check_authority(holder.pem.encode())
    with pytest.raises(certificates.BadChain):
        certificates.check_authority(b"-----BEGIN CERTIFICATE-----\nAAAA\n")
