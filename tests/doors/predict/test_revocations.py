"""What the trust root takes back reaches the servers: those that run, those that begin, also after a start."""

from __future__ import annotations

from datetime import timedelta

import pytest

from falaj.base import dsse
from falaj.base.errors import Unverified
from falaj.base.time import now
from falaj.doors.predict.loads import keep_seen, read_trust, seen_version
from falaj.facts.releases import RevocationKind
from falaj.facts.trust import changed, seal_trust

ROW = (30.0, 733.0, 14.0)


def renewed(house):
    part = house.root / ".trust.part"
    part.write_text(house.ring.trust_text())
    part.replace(house.trust)


def failed(house):
    process = house.start(ready=False, name="server-2")
    code = process.wait(timeout=60)
    return code, process.stderr.read().decode()


def test_a_withdrawn_release_stops_answering(house):
    made = house.release("1")
    house.apply(made)
    client = house.start("--reverify-s", "0.2")
    assert client.infer(ROW)[0] == 200
    house.ring.revoke(made.id, RevocationKind.WITHDRAWN, reason="wrong data")
    renewed(house)
    told = client.until(lambda told: not told["ready"])
    assert "withdrawn: wrong data" in told["problem"]
    assert client.infer(ROW)[0] == 503


def test_a_withdrawn_release_gives_way_to_the_warm_one_before_it(house):
    one, two = house.release("1"), house.release("2")
    house.place(one)
    house.place(two)
    house.write(house.plan(two, standby=house.arm(one)))
    client = house.start("--reverify-s", "0.2")
    assert client.infer(ROW)[1]["falaj-release"] == two.id
    house.ring.revoke(two.id, RevocationKind.WITHDRAWN, reason="wrong data")
    renewed(house)
    told = client.until(lambda told: told["problem"])
    assert "withdrawn: wrong data" in told["problem"]
    assert told["ready"]
    for _ in range(5):
        status, headers, _ = client.infer(ROW)
        assert (status, headers["falaj-release"]) == (200, one.id)
    house.ring.revoke(one.id, RevocationKind.WITHDRAWN, reason="that one, too")
    renewed(house)
    client.until(lambda told: not told["ready"])
    assert client.infer(ROW)[0] == 503


def test_changed_bytes_are_no_reason_to_trust_the_release_before_them(house):
    one, two = house.release("1"), house.release("2")
    house.place(one)
    house.place(two)
    house.write(house.plan(two, standby=house.arm(one)))
    client = house.start("--reverify-s", "0.2")
    path = house.place(two) / "model" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    client.until(lambda told: not told["ready"])
    assert client.infer(ROW)[0] == 503


def test_a_stolen_key_stops_what_it_signed(house):
    made = house.release("1")
    house.apply(made)
    client = house.start("--reverify-s", "0.2")
    house.ring.revoke("releaser", RevocationKind.COMPROMISED)
    renewed(house)
    told = client.until(lambda told: not told["ready"])
    assert "signature.json" in told["problem"]


def test_a_release_that_the_root_vouches_for_goes_on(house):
    made = house.release("1")
    house.apply(made)
    client = house.start("--reverify-s", "0.2")
    house.ring.revoke("releaser", RevocationKind.COMPROMISED, releases=(made.id,))
    renewed(house)
    with pytest.raises(AssertionError, match="not seen"):  # five looks and more
        client.until(lambda told: not told["ready"], seconds=1.0)
    assert client.infer(ROW)[0] == 200


def stale(house):
    """A trust root whose list of revocations ran out a minute ago."""
    trust = house.ring.trust()
    old = changed(trust, expires=trust.expires, next_update=now() - timedelta(minutes=1))
    house.trust.write_bytes(seal_trust(old, house.ring._private.read("root")))


def test_a_stale_list_lets_what_runs_go_on_and_nothing_new_in(house):
    one, two = house.release("1"), house.release("2")
    house.apply(one)
    client = house.start("--reverify-s", "0.2")
    stale(house)
    house.apply(two)
    told = client.until(lambda told: "plan refused" in told["problem"])
    assert "revocations" in told["problem"]
    assert told["ready"]
    assert client.infer(ROW)[0] == 200
    code, said = failed(house)
    assert code != 0
    assert "releases.revocations-stale" in said


def test_too_few_signatures_for_this_environment(house):
    house.ring.create("second", ("release",))
    house.ring.require("release", 2, environment="production")
    renewed(house)
    made = house.release("1")
    house.apply(made)
    code, said = failed(house)
    assert code != 0
    assert "needed are 2" in said


def test_an_older_trust_root_is_refused_after_a_start_too(house):
    house.apply(house.release("1"))
    old = house.trust.read_bytes()
    house.ring.create("another", ("gate",))
    renewed(house)
    house.start().infer(ROW)
    assert seen_version(house.root) == house.ring.trust().version
    house.trust.write_bytes(old)
    process = house.start(ready=False, name="server-2")
    assert process.wait(timeout=60) != 0
    assert "was seen before" in process.stderr.read().decode()


def test_what_was_seen_is_a_number(tmp_path):
    assert seen_version(tmp_path) == 0
    keep_seen(tmp_path, 7)
    assert seen_version(tmp_path) == 7
    (tmp_path / "trust.seen").write_text("seven")
    with pytest.raises(Unverified) as caught:
        seen_version(tmp_path)
    assert caught.value.code == "serving.trust"


def test_a_trust_root_is_read_whole_or_not_at_all(house):
    version = house.ring.trust().version
    assert read_trust(house.trust, version).version == version
    forged = dsse.seal({"version": 99}, house.ring.signer("releaser"), kind="text/plain")
    house.trust.write_text(str(forged))
    with pytest.raises(Unverified):
        read_trust(house.trust)
