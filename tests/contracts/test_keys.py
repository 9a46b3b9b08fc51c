"""The contract of ports.signer.Keys, run over every adapter; and what the local ring promises."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from falaj.base import dsse
from falaj.base.errors import FalajError, NotAllowed, NotFound
from falaj.facts.trust import identity_of, keys_for
from falaj.links.keyring.keys import KeyRing

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["keyring"])
def keys(request, tmp_path, clock):
    return {"keyring": lambda: KeyRing(tmp_path / "ring", clock=clock)}[request.param]()


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
