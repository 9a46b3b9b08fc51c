"""The trust root read without facts: the same answers as with them, and the same refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.base import canonical, dsse, note, records
from falaj.base.trust import BadTrust, keys_for, note_keys, open_root, threshold_of
from falaj.facts.releases import RevocationKind
from falaj.facts.trust import KIND, open_trust
from falaj.links.keyring.keys import KeyRing

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """Keys of every kind, one rotated, one revoked, one threshold."""
    made = KeyRing(tmp_path_factory.mktemp("ring") / "keys", clock=lambda: AT)
    for identity, role in (
        ("releaser", "release"), ("second", "release"), ("gater", "gate"), ("old", "build"),
        ("log/loans/1", "log"), ("witness/loans/1", "witness"), ("leaked", "approval"),
    ):  # fmt: skip
        made.create(identity, (role,))
    made.rotate("old")
    made.revoke("leaked", RevocationKind.COMPROMISED, reason="found in a mail")
    made.require("release", 2, environment="production", witnessed=True)
    return made


@pytest.fixture(scope="module")
def data(ring):
    return ring.trust_text().encode()


def test_both_readers_say_the_same(data):
    plain, fact = open_root(data, now=AT), open_trust(data, now=AT)
    assert plain.version == fact.version
    assert plain.expires == fact.expires
    for role in ("release", "gate", "build", "log", "witness", "approval", "root", "nobody"):
        for at in (AT, AT - timedelta(days=1), AT + timedelta(days=800)):
            assert keys_for(plain, role, at) == keys_for(fact, role, at), role
        for environment in ("", "production"):
            assert threshold_of(plain, role, environment) == threshold_of(fact, role, environment)
    assert note_keys(plain, "log", AT, note.ED25519) == note_keys(fact, "log", AT, note.ED25519)
    assert len(note_keys(plain, "log", AT, note.ED25519)) == 1
    assert keys_for(plain, "approval", AT) == {}, "it was revoked"


def resealed(ring, data, change):
    """The same trust root with another body, signed by its own root key."""
    body = json.loads(dsse.decode(json.loads(data)["payload"]))
    change(body)
    root = ring._private.read("root")
    return canonical.dumps(dsse.seal(body, root, kind=KIND))


CHANGES = {
    "a field that is not known": lambda b: b.update(extra=1),
    "a field of a key that is not known": lambda b: b["keys"][0].update(limits="x"),
    "a revocation of a new kind": lambda b: b["revocations"][0].update(scope="x"),
    "a version that is text": lambda b: b.update(version="1"),
    "a version that is true": lambda b: b.update(version=True),
    "no keys": lambda b: b.pop("keys"),
    "keys that are no list": lambda b: b.update(keys={}),
    "a key twice": lambda b: b["keys"].append(b["keys"][0]),
    "a key that is none": lambda b: b["keys"][1].update(public="hello"),
    "a time without a zone": lambda b: b.update(expires="2030-01-01T00:00:00"),
    "a time that is none": lambda b: b.update(expires="soon"),
    "roles that are text": lambda b: b["keys"][0].update(roles="root"),
    "a threshold of nobody": lambda b: b["rules"].update(root={"threshold": 0, "environments": {}}),
    "more roots than there are": lambda b: b["rules"].update(
        root={"threshold": 2, "environments": {}, "witnessed": []}
    ),
    "Ed25519 for releases": lambda b: next(
        k for k in b["keys"] if k["identity"].startswith("log/")
    ).update(roles=["release"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_both_readers_refuse(ring, data, change):
    other = resealed(ring, data, change)
    for read in (open_root, open_trust):
        with pytest.raises(BadTrust):
            read(other, now=AT)


@pytest.mark.parametrize("read", [open_root, open_trust], ids=["plain", "fact"])
def test_what_nobody_signed_is_refused_by_both(data, read, tmp_path):
    body = json.loads(data)
    unsigned = canonical.dumps({**body, "signatures": []})
    other = KeyRing(tmp_path / "ring", clock=lambda: AT)
    foreign = canonical.dumps({**body, "signatures": json.loads(other.trust_text())["signatures"]})
    for bad in (b"", b"{}", data[:-9], unsigned, foreign):
        with pytest.raises(BadTrust):
            read(bad, now=AT)
    with pytest.raises(BadTrust, match="expired"):
        read(data, now=AT + timedelta(days=800))
    with pytest.raises(BadTrust):
        read(data, now=AT, root="0" * 64)


@settings(max_examples=60, deadline=None)
@given(cut=st.data())
def test_what_is_damaged_is_refused_by_both_alike(data, cut):
    changed = bytearray(data)
    at = cut.draw(st.integers(0, len(changed) - 2))
    changed[at] ^= 1 << cut.draw(st.integers(0, 6))
    said = []
    for read in (open_root, open_trust):
        try:
            read(bytes(changed), now=AT)
            said.append(True)
        except BadTrust:
            said.append(False)
    assert said[0] == said[1]


def test_a_named_tuple_is_read_strictly_and_may_grow():
    from typing import NamedTuple

    class Small(NamedTuple):
        name: str
        count: int
        tags: tuple[str, ...] = ()

    assert records.read(Small, {"name": "a", "count": 1, "new": 2}) == Small("a", 1)
    for bad in (
        {}, {"name": "a"}, {"name": 1, "count": 1}, {"name": "a", "count": True}, [], None,
        {"name": "a", "count": 1.0}, {"name": "a", "count": 1, "tags": [1]},
        {"name": "a", "count": 1, "tags": "ab"},
    ):  # fmt: skip
        with pytest.raises(records.Misread):
            records.read(Small, bad)
    with pytest.raises(records.Misread, match="new is not known"):
        records.read(Small, {"name": "a", "count": 1, "new": 2}, only_known=True)


def test_what_the_verifier_judges_are_fields_of_the_facts():
    """A field that is renamed in a fact would be missing in every pack."""
    from falaj.audit import told
    from falaj.base import trust
    from falaj.facts import changes, releases, rollouts

    for plain, fact in (
        (told.Approved, changes.Approval), (told.Changed, changes.Change),
        (told.Decided, rollouts.RolloutDecision), (told.Moved, rollouts.LiveMove),
        (told.Started, rollouts.Rollout),
    ):  # fmt: skip
        assert set(plain._fields) <= set(fact.__struct_fields__), plain.__name__
    for plain, fact in (
        (trust.PlainKey, releases.TrustedKey), (trust.PlainAuthority, releases.Authority),
        (trust.PlainRule, releases.RoleRule), (trust.PlainRevocation, releases.Revocation),
        (trust.PlainRoot, releases.Trust),
    ):  # fmt: skip
        names = {field.encode_name for field in msgspec.structs.fields(fact)}
        assert set(plain._fields) == names, f"{plain.__name__}: a trust root holds no other field"
