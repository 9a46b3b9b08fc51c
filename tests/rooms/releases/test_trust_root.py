"""The trust root: m of n distinct identities, one version after another, what was revoked."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from falaj.base import canonical, dsse
from falaj.facts.releases import Revocation, RevocationKind, RoleRule, Trust, TrustedKey
from falaj.facts.trust import (
    BadTrust,
    changed,
    countersigned,
    identities_of,
    is_stale,
    keys_for,
    needs_witness,
    open_trust,
    proposed,
    seal_trust,
    succeed,
    threshold_of,
)
from falaj.releases.sign import sign_release
from falaj.releases.verify import load_verified, verify_release

AT = datetime(2026, 3, 1, tzinfo=UTC)
UNTIL = AT + timedelta(days=400)


class Key:
    """Signs as base.dsse.Signs."""

    def __init__(self, private=None):
        from cryptography.hazmat.primitives import hashes

        self.private = private or ec.generate_private_key(ec.SECP256R1())
        self.public = dsse.public_pem(self.private)
        edwards = isinstance(self.private, ed25519.Ed25519PrivateKey)
        self.how = () if edwards else (ec.ECDSA(hashes.SHA256()),)

    def sign(self, message):
        return self.private.sign(message, *self.how)

    @property
    def hint(self):
        return dsse.hint_of(self.public)


def entry(identity, key, *roles):
    return TrustedKey(
        identity=identity,
        public=key.public.decode(),
        roles=roles,
        not_before=AT - timedelta(days=1),
        not_after=UNTIL,
    )


A, B, C, D, SIGNER = (Key() for _ in range(5))
EDWARDS = Key(ed25519.Ed25519PrivateKey.generate())
ROOTS = (entry("a", A, "root"), entry("b", B, "root"), entry("c", C, "root"))
TWO = {"root": RoleRule(threshold=2)}


def trust(*keys, version=1, **more):
    return Trust(version=version, keys=keys or ROOTS, expires=UNTIL, **({"rules": TWO} | more))


def opened(data, **more):
    return open_trust(data, now=AT, **more)


# --- m of n ------------------------------------------------------------------------------------


@pytest.mark.parametrize("signers", [(A, B), (B, C), (A, B, C), (C, A)])
def test_enough_roots_open_it(signers):
    assert opened(seal_trust(trust(), *signers)) == trust()
    assert opened(seal_trust(trust(), *signers), root=signers[0].hint) == trust()


SHORT = {
    "one of two": (trust(), (A,)),
    "the same key twice": (trust(), (A, A)),
    "a stranger beside one": (trust(), (A, D)),
    "strangers alone": (trust(), (D, SIGNER)),
    "two keys of one identity": (
        trust(entry("a", A, "root"), entry("a", B, "root"), entry("c", C, "root")),
        (A, B),
    ),
    "a key of another role": (trust(*ROOTS, entry("d", D, "release")), (A, D)),
    "three of four": (trust(rules={"root": RoleRule(threshold=4)}), (A, B, C)),
}


@pytest.mark.parametrize(("said", "signers"), SHORT.values(), ids=SHORT)
def test_too_few_roots_do_not(said, signers):
    with pytest.raises(BadTrust):
        opened(seal_trust(said, *signers))


def respelled(key):
    return key.public.decode().replace("\n", "\r\n")


NOT_A_TRUST = {
    "one key under two names": trust(*ROOTS, entry("d", A, "root")),
    "one key in two spellings": trust(
        *ROOTS, msgspec.structs.replace(entry("d", A, "root"), public=respelled(A))
    ),
    "a key that is none": trust(
        *ROOTS, msgspec.structs.replace(entry("d", D, "root"), public="hello")
    ),
    "another curve": trust(
        *ROOTS, entry("d", Key(ec.generate_private_key(ec.SECP384R1())), "release")
    ),
    "Ed25519 for releases": trust(*ROOTS, entry("d", EDWARDS, "release")),
    "Ed25519 for the root": trust(*ROOTS, entry("d", EDWARDS, "root")),
    "Ed25519 for plans": trust(*ROOTS, entry("d", EDWARDS, "gate", "plan")),
}


@pytest.mark.parametrize("said", NOT_A_TRUST.values(), ids=NOT_A_TRUST)
def test_keys_that_may_not_stand_in_it(said):
    with pytest.raises(BadTrust):
        opened(seal_trust(said, A, B))


def test_a_known_root_must_be_among_the_signers():
    data = seal_trust(trust(), A, B)
    for stranger in (C.hint, D.hint, "0" * 64):
        with pytest.raises(BadTrust, match="has not signed"):
            opened(data, root=stranger)


def test_what_was_signed_is_what_is_read():
    data = seal_trust(trust(), A, B)
    envelope = canonical.loads(data)
    for change in (
        {"payload": canonical.loads(seal_trust(trust(version=2), A, B))["payload"]},
        {"payloadType": "text/plain"},
        {"signatures": []},
        {"signatures": [{"sig": "AAAA"}] * 2},
        {"signatures": envelope["signatures"][::-1][:1] * 2},
        {"signatures": envelope["signatures"] * 40},
        {"signatures": "x"},
    ):
        with pytest.raises(BadTrust):
            opened(canonical.dumps(envelope | change))


def test_one_bad_signature_by_a_known_root_spoils_all():
    """Otherwise a damaged file would open or not, by who happens to read it."""
    envelope = canonical.loads(seal_trust(trust(), A, B, C))
    other = canonical.loads(seal_trust(trust(version=2), A))
    envelope["signatures"][0] = other["signatures"][0]
    with pytest.raises(BadTrust, match="does not hold"):
        opened(canonical.dumps(envelope))


# --- one version after another -----------------------------------------------------------------


def after(before, *keys, **more):
    return changed(before, expires=UNTIL, **({"keys": keys} if keys else {}), **more)


def test_the_next_version_is_signed_by_the_roots_of_both():
    before = trust()
    following = after(before, entry("c", C, "root"), entry("d", D, "root"))
    assert succeed(before, seal_trust(following, A, B, C, D), now=AT) == following
    assert succeed(before, seal_trust(following, A, C, D), now=AT) == following


ROTATIONS = {  # who signs a version that replaces a and b by d
    "the old ones alone": (A, B),
    "the new ones alone": (C, D),
    "one of each": (A, D),
    "nobody of them": (SIGNER,),
}


@pytest.mark.parametrize("signers", ROTATIONS.values(), ids=ROTATIONS)
def test_a_rotation_signed_by_one_side_is_refused(signers):
    before = trust()
    following = after(before, entry("c", C, "root"), entry("d", D, "root"))
    with pytest.raises(BadTrust):
        succeed(before, seal_trust(following, *signers), now=AT)


def test_a_threshold_is_not_lowered_by_fewer_than_it_asks_for():
    before = trust()
    with pytest.raises(BadTrust, match="of version 1, needed are 2"):
        succeed(before, seal_trust(after(before, rules={}), A), now=AT)


def test_versions_go_up_only_and_do_not_run_out():
    two = after(trust())
    assert succeed(two, seal_trust(two, A, B), now=AT) == two
    for said in (trust(), msgspec.structs.replace(two, expires=UNTIL + timedelta(days=1))):
        with pytest.raises(BadTrust, match="was seen before"):
            succeed(two, seal_trust(said, A, B), now=AT)
    with pytest.raises(BadTrust, match="expired"):
        succeed(two, seal_trust(after(two), A, B), now=UNTIL + timedelta(days=1))
    with pytest.raises(BadTrust, match="was seen before"):
        opened(seal_trust(trust(), A, B), at_least=2)


def test_signatures_are_gathered_one_after_another():
    data = seal_trust(trust(), A)
    assert proposed(data)[1] == (A.hint,)
    for signer in (B, B, C):
        data = countersigned(data, signer)
    assert set(proposed(data)[1]) == {A.hint, B.hint, C.hint}
    assert opened(data) == trust()
    with pytest.raises(BadTrust, match="does not name"):
        countersigned(data, D)


# --- roles -------------------------------------------------------------------------------------


def test_ed25519_signs_attestations_and_nothing_else():
    said = trust(*ROOTS, entry("gater", EDWARDS, "gate"))
    keys = keys_for(opened(seal_trust(said, A, B)), "gate", AT)
    envelope = dsse.seal({"a": 1}, EDWARDS)
    assert dsse.open_envelope(envelope, keys, ed25519=True).payload == {"a": 1}
    with pytest.raises(dsse.BadEnvelope):
        dsse.open_envelope(envelope, keys)
    forged = dsse.seal({"a": 2}, EDWARDS)["payload"]
    with pytest.raises(dsse.BadEnvelope):
        dsse.open_envelope(envelope | {"payload": forged}, keys, ed25519=True)


def test_who_may_sign_in_which_role_and_how_many_must():
    rule = RoleRule(threshold=2, environments={"production": 3}, witnessed=("production",))
    said = trust(*ROOTS, entry("s", SIGNER, "release"), rules={"release": rule})
    assert identities_of(said, "release", AT) == ("s",)
    assert identities_of(said, "release", UNTIL + timedelta(days=1)) == ()
    found = [threshold_of(said, "release", e) for e in ("", "staging", "production")]
    assert found == [2, 2, 3]
    assert threshold_of(said, "gate", "production") == 1
    assert needs_witness(said, "release", "production")
    assert not needs_witness(said, "release", "staging")
    assert not is_stale(said, UNTIL)


# --- revocations over releases -----------------------------------------------------------------


@pytest.fixture(scope="module")
def made(make_release):
    return make_release()


@pytest.fixture(scope="module")
def at(made):
    return made.manifest.created + timedelta(days=1)


@pytest.fixture
def judge(made, key_ring, at):
    def go(folder=None, *, now=at, release=made, **more):
        fields = {name: more.pop(name) for name in ("revocations", "rules") if name in more}
        until = {"expires": now + timedelta(days=9), "next_update": now + timedelta(days=9)}
        said = msgspec.structs.replace(
            key_ring.trust(), **(until | more.pop("until", {})), **fields
        )
        return verify_release(
            folder or release.folder, said, release_id=release.id, now=now, **more
        )

    return go


def codes(found):
    return {finding.code for finding in found.findings}


def compromised(key_ring, name="releaser", **more):
    hint = dsse.hint_of(key_ring.signer(name).public)
    return (Revocation(kind=RevocationKind.COMPROMISED, subject=hint, **more),)


def test_a_compromised_key_takes_its_releases_with_it(judge, key_ring, made, at):
    assert codes(judge(revocations=compromised(key_ring))) == {"releases.signature"}
    since = compromised(key_ring, since=made.manifest.created + timedelta(hours=1))
    assert codes(judge(revocations=since)) == {"releases.signature"}, "its own word is not enough"
    assert judge(revocations=since, signed_at=made.manifest.created).holds, "the log's word is"
    late = made.manifest.created + timedelta(hours=2)
    assert codes(judge(revocations=since, signed_at=late)) == {"releases.signature"}


def test_the_root_may_vouch_for_single_releases_of_a_compromised_key(judge, key_ring, made):
    good = compromised(key_ring, releases=(made.id,))
    assert judge(revocations=good).holds
    other = compromised(key_ring, releases=("sha256:" + "0" * 64,))
    assert codes(judge(revocations=other)) == {"releases.signature"}


@pytest.mark.parametrize("name", ["gater", "buildr"])
def test_evidence_by_a_compromised_key_proves_nothing(judge, key_ring, name):
    found = judge(revocations=compromised(key_ring, name), requires=("quality",))
    assert "releases.evidence-invalid" in codes(found)


def test_a_retired_key_leaves_its_releases_alone(judge, key_ring, made, at):
    hint = dsse.hint_of(key_ring.signer("releaser").public)

    def gone(since):
        return (Revocation(kind=RevocationKind.RETIRED, subject=hint, since=since),)

    assert judge(revocations=gone(at)).holds
    before = gone(made.manifest.created - timedelta(days=1))
    assert codes(judge(revocations=before)) == {"releases.signature"}


def test_a_withdrawn_release_is_never_loaded_also_by_those_that_run_it(
    judge, made, key_ring, at, tmp_path
):
    gone = (Revocation(kind=RevocationKind.WITHDRAWN, subject=made.id, reason="wrong data"),)
    for running in (False, True):
        found = judge(revocations=gone, running=running)
        assert codes(found) == {"releases.withdrawn"}
        assert "wrong data" in found.findings[0].message
    said = msgspec.structs.replace(key_ring.trust(), revocations=gone)
    with pytest.raises(Exception, match="withdrawn"):
        load_verified(made.folder, said, tmp_path / "p", release_id=made.id, now=at)
    assert not (tmp_path / "p").exists()


def test_a_stale_list_refuses_new_loads_and_lets_running_ones_go_on(judge, at):
    stale = {"next_update": at - timedelta(seconds=1)}
    assert codes(judge(until=stale)) == {"releases.revocations-stale"}
    assert judge(until=stale, running=True).holds
    assert judge(until={"next_update": None}).holds, "an older trust root has no list"


def test_thresholds_of_the_trust_root_are_asked_for_by_environment(judge, made, key_ring, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    rules = {"release": RoleRule(environments={"production": 2})}
    assert judge(folder, rules=rules).holds
    assert judge(folder, rules=rules, environment="staging").holds
    assert codes(judge(folder, rules=rules, environment="production")) == {"releases.signature"}
    sign_release(folder, key_ring.signer("second"))
    assert judge(folder, rules=rules, environment="production").holds
    assert not judge(folder, rules={"release": RoleRule(threshold=3)}).holds
