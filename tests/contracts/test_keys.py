"""The contract of ports.signer.Keys, run over every adapter; and what the local ring promises."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import softhsm
from authority import NAME, authority
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from falaj.base import dsse
from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.facts.releases import RevocationKind
from falaj.facts.trust import BadTrust, identity_of, keys_for, open_trust, succeed, threshold_of
from falaj.links.keyring.keys import KeyRing
from falaj.links.pkcs11.token import TokenKeys, read_pin

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["keyring", "pkcs11"])
def keys(request, tmp_path, clock):
    """A ring with its private keys in files, and one with them on a token."""
    private = None
    if request.param == "pkcs11":
        private = TokenKeys(*softhsm.token(), prefix=f"{uuid.uuid4().hex}/")
    return KeyRing(tmp_path / "ring", clock=clock, private=private)


# --- the contract ------------------------------------------------------------------------------


def test_a_made_key_signs_and_is_trusted_for_its_roles(keys):
    hint = keys.create("aisha", ("release", "approval"))
    signer = keys.signer("aisha")
    assert dsse.hint_of(signer.public) == hint
    envelope = dsse.seal({"a": 1}, signer)
    for role in ("release", "approval"):
        trusted = keys_for(keys.trust(), role, START)
        assert dsse.open_envelope(envelope, trusted).payload == {"a": 1}
    with pytest.raises(dsse.BadEnvelope):
        dsse.open_envelope(envelope, keys_for(keys.trust(), "gate", START))


def test_creating_twice_keeps_the_key_and_adds_roles(keys):
    first = keys.create("aisha", ("release",))
    assert keys.create("aisha", ("gate",)) == first
    (entry,) = [key for key in keys.trust().keys if key.identity == "aisha"]
    assert set(entry.roles) == {"release", "gate"}


def test_creating_again_without_anything_new_changes_nothing(keys):
    keys.create("aisha", ("release",))
    before = keys.trust()
    keys.create("aisha", ("release",))
    assert keys.trust() == before


def test_an_identity_without_key_is_not_found(keys):
    with pytest.raises(NotFound) as caught:
        keys.signer("nobody")
    assert caught.value.code == "keys.missing"


def test_each_identity_has_its_own_key(keys):
    one, two = keys.create("a", ("release",)), keys.create("b", ("release",))
    assert one != two
    assert identity_of(keys.trust(), one) == "a"
    assert identity_of(keys.trust(), two) == "b"
    assert identity_of(keys.trust(), "0" * 64) == ""


def test_the_version_of_the_trust_root_only_grows(keys):
    seen = [keys.trust().version]
    for name in ("a", "b", "a", "c"):
        keys.create(name, (f"role-{name}",))
        seen.append(keys.trust().version)
    assert seen == sorted(seen)
    assert seen[-1] == 4


def test_a_key_is_trusted_in_its_time_only(keys, clock):
    keys.create("aisha", ("release",))
    assert keys_for(keys.trust(), "release", START)
    assert not keys_for(keys.trust(), "release", START - timedelta(seconds=1))
    assert not keys_for(keys.trust(), "release", START + timedelta(days=3650))


def test_nobody_can_ask_for_the_root_key(keys):
    for identity, roles in (("root", ("release",)), ("aisha", ("root",))):
        with pytest.raises(FalajError) as caught:
            keys.create(identity, roles)
        assert caught.value.code == "keys.identity"


@pytest.mark.parametrize("name", ["", "../x", " a", "a b", "a\n", "x" * 200, "-a"])
def test_names_that_may_not_be_are_refused(keys, name):
    with pytest.raises(FalajError):
        keys.create(name, ("release",))


def test_many_at_once_lose_nothing(keys):
    names = [f"worker:{n}" for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: keys.create(name, ("plan",)), names))
    assert {key.identity for key in keys.trust().keys} == {*names, "root"}


def release_keys(keys, at=START):
    return set(keys_for(keys.trust(), "release", at))


def test_a_rotated_key_signs_no_more_and_what_it_signed_stays_good(keys, clock):
    old = keys.create("aisha", ("release",))
    clock.now += timedelta(days=3)
    new = keys.rotate("aisha")
    assert new != old
    assert dsse.hint_of(keys.signer("aisha").public) == new
    assert release_keys(keys, clock.now) == {new}
    said = clock.now - timedelta(days=1)
    assert old in keys_for(keys.trust(), "release", clock.now, said=said)


def test_the_root_is_rotated_by_the_old_and_the_new_key(keys, clock):
    keys.create("aisha", ("release",))
    before, old = keys.trust(), keys.trust_text()
    hint = keys.rotate("root")
    text = keys.trust_text()
    after = succeed(before, text.encode(), now=START)
    assert after == keys.trust()
    assert [k.identity for k in after.keys if dsse.hint_of(k.public.encode()) == hint] == ["root"]
    assert open_trust(text.encode(), now=START, root=hint) == after
    with pytest.raises(BadTrust):
        open_trust(old.encode(), now=START, root=hint)
    with pytest.raises(BadTrust, match="was seen before"):
        succeed(after, old.encode(), now=START)
    keys.create("omar", ("release",))  # the new one signs alone from now on
    with pytest.raises(BadTrust, match="0 root identities of version"):
        succeed(before, keys.trust_text().encode(), now=START)
    assert succeed(after, keys.trust_text().encode(), now=START).version == after.version + 1


def test_a_compromised_key_is_gone_at_once_and_its_owner_gets_another(keys):
    old = keys.create("aisha", ("release",))
    assert keys.revoke("aisha", RevocationKind.COMPROMISED, reason="lost") == (old,)
    assert release_keys(keys) == set()
    assert keys.create("aisha", ("release",)) != old
    assert len(release_keys(keys)) == 1


def test_compromised_from_a_time_on_leaves_what_is_known_to_be_older(keys, clock):
    hint = keys.create("aisha", ("release",))
    since = START + timedelta(days=2)
    keys.revoke(hint, RevocationKind.COMPROMISED, since=since)
    assert keys_for(keys.trust(), "release", START + timedelta(days=1)) != {}
    late = START + timedelta(days=3)
    assert keys_for(keys.trust(), "release", late, said=START) == {}, "its word is worth nothing"


def test_a_retired_key_is_believed_about_its_time(keys, clock):
    hint = keys.create("aisha", ("release",))
    clock.now += timedelta(days=2)
    keys.revoke(hint, RevocationKind.RETIRED)
    late = clock.now + timedelta(days=1)
    assert keys_for(keys.trust(), "release", late) == {}
    assert set(keys_for(keys.trust(), "release", late, said=START)) == {hint}


NOTHING = ["nobody", "sha256:" + "0" * 64, "", "0" * 63]


@pytest.mark.parametrize("subject", NOTHING)
def test_nothing_unknown_is_revoked(keys, subject):
    with pytest.raises(FalajError) as caught:
        keys.revoke(subject, RevocationKind.COMPROMISED)
    assert caught.value.code == "keys.nothing-to-revoke"


def test_only_a_release_is_withdrawn(keys):
    keys.create("aisha", ("release",))
    for subject in ("aisha", "1.0.0"):
        with pytest.raises(FalajError):
            keys.revoke(subject, RevocationKind.WITHDRAWN)
    one = "sha256:" + "1" * 64
    assert keys.revoke(one, RevocationKind.WITHDRAWN, reason="wrong data") == (one,)


def test_the_root_key_is_never_revoked(keys):
    (root,) = [dsse.hint_of(k.public.encode()) for k in keys.trust().keys]
    for subject in ("root", root):
        with pytest.raises(NotAllowed) as caught:
            keys.revoke(subject, RevocationKind.COMPROMISED)
        assert caught.value.code == "keys.root"


def test_a_threshold_is_kept_where_it_can_be_reached(keys):
    keys.create("a", ("release",))
    keys.create("b", ("release",))
    keys.require("release", 2, environment="production")
    trust = keys.trust()
    assert [threshold_of(trust, "release", e) for e in ("", "staging", "production")] == [1, 1, 2]
    for number, environment in ((3, ""), (3, "production"), (0, "")):
        with pytest.raises(FalajError) as caught:
            keys.require("release", number, environment=environment)
        assert caught.value.code == "keys.threshold"


def pem_of(private):
    return dsse.public_pem(private).decode()


def test_public_keys_from_elsewhere_are_trusted(keys):
    pem = pem_of(ec.generate_private_key(ec.SECP256R1()))
    assert keys.admit("auditor", ("gate",), pem) == dsse.hint_of(pem.encode())
    edwards = pem_of(ed25519.Ed25519PrivateKey.generate())
    keys.admit("witness", ("witness",), edwards)
    assert keys_for(keys.trust(), "gate", START) == {dsse.hint_of(pem.encode()): pem.encode()}
    assert "auditor" not in keys.names()
    root = authority(START)
    keys.admit("ci", ("release",), root.pem, name=NAME)
    (entry,) = keys.trust().authorities
    assert (entry.identity, entry.name) == ("ci", NAME)


def odd(pem):
    return pem.replace("\n", "\r\n")


ADMITTED = {  # roles, text, name
    "nothing": (("release",), "", ""),
    "no key": (("release",), "hello", ""),
    "a private key": (
        ("release",),
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode(),
        "",
    ),
    "another curve": (("release",), pem_of(ec.generate_private_key(ec.SECP384R1())), ""),
    "Ed25519 for releases": (("release",), pem_of(ed25519.Ed25519PrivateKey.generate()), ""),
    "Ed25519 for plans": (("gate", "plan"), pem_of(ed25519.Ed25519PrivateKey.generate()), ""),
    "another spelling": (("release",), odd(pem_of(ec.generate_private_key(ec.SECP256R1()))), ""),
    "a name for a key": (("release",), pem_of(ec.generate_private_key(ec.SECP256R1())), NAME),
    "an authority without a name": (("release",), authority(START).pem, ""),
    "a certificate that is no authority": (("release",), authority(START, ca=False).pem, NAME),
}


@pytest.mark.parametrize(("roles", "pem", "name"), ADMITTED.values(), ids=ADMITTED)
def test_other_things_from_elsewhere_are_not(tmp_path, roles, pem, name):
    ring = KeyRing(tmp_path / "ring")
    before = ring.trust()
    with pytest.raises(FalajError) as caught:
        ring.admit("auditor", roles, pem, name=name)
    assert caught.value.code == "keys.not-admitted"
    assert ring.trust() == before


def test_several_roots_must_sign_what_one_cannot(keys, tmp_path):
    """Two holders of root keys; neither changes the trust root alone, old versions do not return."""
    other = KeyRing(tmp_path / "other", clock=lambda: START)
    (theirs,) = [k.public for k in other.trust().keys]
    keys.create("aisha", ("release",))
    keys.admit("hessa", ("root",), theirs)
    with pytest.raises(NotAllowed) as caught:
        keys.require("root", 2)
    assert caught.value.code == "keys.root-short"
    proposal = (tmp_path / "ring" / "trust.next.json").read_text()
    with pytest.raises(NotAllowed) as caught:
        keys.adopt(proposal)
    assert caught.value.code == "keys.not-adopted"
    signed = other.countersign(proposal)
    adopted = keys.adopt(signed)
    assert threshold_of(adopted, "root") == 2
    assert not (tmp_path / "ring" / "trust.next.json").exists()
    for change in (
        lambda: keys.create("omar", ("release",)),
        lambda: keys.revoke("aisha", RevocationKind.COMPROMISED),
        lambda: keys.require("root", 1),
    ):
        with pytest.raises(NotAllowed) as caught:
            change()
        assert caught.value.code == "keys.root-short"
    assert keys.trust() == adopted
    with pytest.raises(NotAllowed):  # the same holder twice is one
        keys.adopt(keys.countersign((tmp_path / "ring" / "trust.next.json").read_text()))
    after = keys.adopt(other.countersign((tmp_path / "ring" / "trust.next.json").read_text()))
    assert (after.version, threshold_of(after, "root")) == (adopted.version + 1, 1)
    with pytest.raises(NotAllowed):
        keys.adopt(signed)


def test_a_root_key_signs_no_trust_root_that_does_not_name_it(keys, tmp_path):
    other = KeyRing(tmp_path / "other", clock=lambda: START)
    for text in (other.trust_text(), "{}", "hello", "\ud800"):
        with pytest.raises(NotAllowed) as caught:
            keys.countersign(text)
        assert caught.value.code == "keys.not-signed"
        with pytest.raises(NotAllowed):
            keys.adopt(text)


# --- keys on a token ---------------------------------------------------------------------------


@pytest.fixture
def token():
    return softhsm.token()


def test_the_private_key_never_leaves_the_token(token):
    from pkcs11 import Attribute, ObjectClass
    from pkcs11.exceptions import AttributeSensitive

    keys = TokenKeys(*token, prefix=f"{uuid.uuid4().hex}/")
    keys.make("aisha")
    with keys._session() as session:
        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: keys._prefix + "aisha"}
        (private,) = session.get_objects(wanted)
        assert private[Attribute.SENSITIVE]
        assert not private[Attribute.EXTRACTABLE]
        with pytest.raises(AttributeSensitive):
            private[Attribute.VALUE]


def test_a_key_that_the_token_would_hand_out_is_refused(token):
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_named_curve_parameters

    keys = TokenKeys(*token, prefix=f"{uuid.uuid4().hex}/")
    for name, curve, loose in (("loose", "secp256r1", True), ("other", "secp384r1", False)):
        with keys._session() as session:
            session.create_domain_parameters(
                KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}, local=True
            ).generate_keypair(
                store=True,
                label=keys._prefix + name,
                private_template={Attribute.SENSITIVE: not loose, Attribute.EXTRACTABLE: loose},
            )
        with pytest.raises(NotAllowed) as caught:
            keys.read(name)
        assert caught.value.code == "keys.damaged"


def test_two_workspaces_on_one_token_do_not_see_each_other(token):
    one, two = (TokenKeys(*token, prefix=f"{uuid.uuid4().hex}/") for _ in range(2))
    one.make("aisha")
    assert one.names() == ("aisha",)
    assert two.names() == ()
    with pytest.raises(NotFound):
        two.read("aisha")


WRONG = {
    "pin": lambda m, label, pin: (m, label, "000000"),
    "label": lambda m, label, pin: (m, "nobody", pin),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_token_that_does_not_open_is_said(token, change):
    keys = TokenKeys(*change(*token), prefix="x/")
    with pytest.raises(NotAllowed) as caught:
        keys.read("aisha")
    assert caught.value.code == "keys.token"
    assert token[2] not in str(caught.value)


def test_a_module_that_is_not_there_is_said(token, tmp_path):
    code = (
        "import sys; from falaj.links.pkcs11.token import TokenKeys\n"
        "try: TokenKeys(sys.argv[1], 'x', '1', prefix='').names()\n"
        "except Exception as error: print(getattr(error, 'code', type(error)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "none.so")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "keys.token"


def test_a_pin_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "pin"
    path.write_text("1234\n")
    path.chmod(0o600)
    assert read_pin(path) == "1234"
    path.chmod(0o644)
    with pytest.raises(NotAllowed) as caught:
        read_pin(path)
    assert caught.value.code == "keys.too-open"
    (tmp_path / "linked").symlink_to(path)
    for gone in (tmp_path / "linked", tmp_path / "none"):
        with pytest.raises(NotAllowed) as caught:
            read_pin(gone)
        assert caught.value.code == "keys.token"


# --- the local ring ----------------------------------------------------------------------------


def test_folder_and_files_are_for_this_user_alone(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha@host/a:1", ("release",))
    assert stat.S_IMODE((tmp_path / "ring").stat().st_mode) == 0o700
    for path in (tmp_path / "ring").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_umask_does_not_matter(tmp_path):
    code = (
        "import os, sys; os.umask(0); from pathlib import Path; "
        "from falaj.links.keyring.keys import KeyRing; "
        "KeyRing(Path(sys.argv[1])).create('a', ('release',))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "ring")], check=True)
    for path in [tmp_path / "ring", *(tmp_path / "ring").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666])
def test_a_key_file_that_others_may_read_stops_the_start(tmp_path, mode):
    KeyRing(tmp_path / "ring").create("aisha", ("release",))
    (tmp_path / "ring" / "aisha.pem").chmod(mode)
    with pytest.raises(NotAllowed) as caught:
        KeyRing(tmp_path / "ring")
    assert caught.value.code == "keys.too-open"
    assert "chmod 600" in caught.value.problems[0].fix


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o755, 0o770])
def test_a_folder_that_others_may_enter_stops_the_start(tmp_path, mode):
    KeyRing(tmp_path / "ring")
    (tmp_path / "ring").chmod(mode)
    with pytest.raises(NotAllowed) as caught:
        KeyRing(tmp_path / "ring")
    assert "chmod 700" in caught.value.problems[0].fix


def test_modes_widened_while_it_runs_stop_signing(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    (tmp_path / "ring" / "aisha.pem").chmod(0o644)
    with pytest.raises(NotAllowed):
        ring.signer("aisha")
    with pytest.raises(NotAllowed):
        ring.trust()


def test_a_linked_key_or_folder_is_refused(tmp_path):
    KeyRing(tmp_path / "ring").create("aisha", ("release",))
    (tmp_path / "ring" / "aisha.pem").rename(tmp_path / "elsewhere.pem")
    (tmp_path / "ring" / "aisha.pem").symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(NotAllowed):
        KeyRing(tmp_path / "ring")
    (tmp_path / "linked").symlink_to(tmp_path / "ring")
    with pytest.raises(NotAllowed):
        KeyRing(tmp_path / "linked")


def test_a_damaged_or_other_key_is_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for data in (b"", b"hello", other):
        (tmp_path / "ring" / "aisha.pem").write_bytes(data)
        with pytest.raises(NotAllowed) as caught:
            ring.signer("aisha")
        assert caught.value.code == "keys.damaged"


def test_a_changed_trust_root_is_refused(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    text = ring.trust_file.read_bytes()
    foreign = KeyRing(tmp_path / "foreign")
    foreign.create("mallory", ("release",))
    for data in (b"{}", text[:-30], foreign.trust_file.read_bytes()):
        ring.trust_file.write_bytes(data)
        with pytest.raises(NotAllowed) as caught:
            ring.trust()
        assert caught.value.code == "keys.trust-damaged"


def test_a_trust_root_that_vanished_is_not_made_again(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    ring.trust_file.unlink()
    with pytest.raises(NotAllowed) as caught:
        KeyRing(tmp_path / "ring").trust()
    assert caught.value.code == "keys.trust-missing"


def test_a_first_use_that_was_interrupted_goes_on(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.trust()
    ring.trust_file.unlink()  # the root key was written, the trust root not yet
    assert KeyRing(tmp_path / "ring").create("aisha", ("release",))


def test_a_second_process_sees_the_same_ring(tmp_path):
    one, two = KeyRing(tmp_path / "ring"), KeyRing(tmp_path / "ring")
    one.create("aisha", ("release",))
    assert two.trust() == one.trust()
    assert two.signer("aisha").public == one.signer("aisha").public


def test_trust_is_renewed_before_it_expires(tmp_path, clock):
    ring = KeyRing(tmp_path / "ring", clock=clock)
    ring.create("aisha", ("release",))
    first = ring.trust()
    clock.now = first.expires - timedelta(days=29)
    again = ring.trust()
    assert again.version == first.version + 1
    assert again.expires > first.expires
    assert again.keys == first.keys


def test_an_ageing_key_is_replaced_and_its_signatures_stay_checkable(tmp_path, clock):
    ring = KeyRing(tmp_path / "ring", clock=clock)
    old = ring.create("aisha", ("release",))
    clock.now = START + timedelta(days=729)
    new = ring.create("aisha", ("gate",))
    assert new != old
    assert set(keys_for(ring.trust(), "release", clock.now)) == {old, new}
    assert set(keys_for(ring.trust(), "release", START)) == {old}
    assert dsse.hint_of(ring.signer("aisha").public) == new


def test_no_private_key_shows_itself(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    assert "PRIVATE" not in repr(ring.signer("aisha")) + repr(ring) + ring.trust_text()


def test_files_of_another_user_are_refused(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    if os.geteuid() != 0:  # only root can give files away
        return
    os.chown(tmp_path / "ring" / "aisha.pem", 12345, -1)
    with pytest.raises(NotAllowed) as caught:
        KeyRing(tmp_path / "ring")
    assert "another user" in caught.value.problems[0].message


def test_an_older_trust_root_is_refused(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    old = ring.trust_file.read_bytes()
    ring.revoke("aisha", RevocationKind.COMPROMISED)
    ring.trust_file.write_bytes(old)
    with pytest.raises(NotAllowed) as caught:
        KeyRing(tmp_path / "ring").trust()
    assert caught.value.code == "keys.trust-old"


def test_a_trust_root_of_an_older_falaj_still_opens(tmp_path, clock):
    """Without rules, authorities, revocations, an end of the list, or the highest version seen."""
    from falaj.base import canonical

    ring = KeyRing(tmp_path / "ring", clock=clock)
    ring.create("aisha", ("release",))
    envelope = canonical.loads(ring.trust_file.read_bytes())
    said = canonical.loads(dsse.decode(envelope["payload"]))
    old = {name: said[name] for name in ("version", "keys", "expires")}
    root = ring._private.read("root")
    ring.trust_file.write_bytes(canonical.dumps(dsse.seal(old, root, kind=envelope["payloadType"])))
    (tmp_path / "ring" / "seen").unlink()
    again = KeyRing(tmp_path / "ring", clock=clock)
    assert again.trust().next_update is None
    assert again.create("omar", ("gate",))
    assert again.trust().next_update is not None


def test_a_rotation_of_the_root_that_was_interrupted_is_finished(tmp_path):
    ring = KeyRing(tmp_path / "ring")
    ring.create("aisha", ("release",))
    old = (tmp_path / "ring" / "root.pem").read_bytes()
    hint = ring.rotate("root")
    # As it is between the two last writes: trust.json new, the key not yet under its name.
    (tmp_path / "ring" / "root.pem").rename(tmp_path / "ring" / "root%2Bnext.pem")
    (tmp_path / "ring" / "root.pem").write_bytes(old)
    (tmp_path / "ring" / "root.pem").chmod(0o600)
    again = KeyRing(tmp_path / "ring")
    assert dsse.hint_of(again._private.read("root").public) == hint or again.trust()
    assert dsse.hint_of(again._private.read("root").public) == hint
    assert again.create("omar", ("gate",))


def test_the_list_of_revocations_is_renewed_when_the_ring_is_used(tmp_path, clock):
    ring = KeyRing(tmp_path / "ring", clock=clock)
    first = ring.trust()
    clock.now += timedelta(days=10)
    assert ring.trust() == first
    clock.now += timedelta(days=10)
    assert ring.trust().next_update > first.next_update
