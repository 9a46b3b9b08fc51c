from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from servers import PLAN, House

from falaj.base import dsse
from falaj.base.errors import Conflict, FalajError, Unverified
from falaj.facts.wire import plain
from falaj.serving.plan import MAX_PLAN, open_plan, succeed

ID = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def trust(house):
    house.ring.create("outsider", ("release",))
    return house.ring.trust()


def payload():
    arm = {"release": ID, "folder": "releases/aaaaaaaaaaaa", "weight_bp": 0, "timeout_ms": 1000}
    return {
        "v": 1,
        "seq": 7,
        "environment": "production",
        "zone": "ae",
        "issued": "2026-11-23T10:00:00Z",
        "models": {
            "delay": {
                "stable": dict(arm),
                "canary": {**arm, "weight_bp": 500},
                "standby": None,
                "step": 1,
                "rollout": "r1",
                "split": {
                    "salt": base64.b64encode(bytes(32)).decode(),
                    "key": "request",
                    "sticky": False,
                    "stratum_ms": 60000,
                },
                "latency_us": [1, 2, 3, 4],
                "latency_margin_us": 1000,
            }
        },
    }


def seal(house, value, signer="planner", kind=PLAN):
    return json.dumps(dsse.seal(value, house.ring.signer(signer), kind=kind)).encode()


def test_a_good_plan_is_read(house, trust):
    plan, digest = open_plan(seal(house, payload()), trust, now=datetime.now(UTC))
    assert plan.models["delay"].canary.weight_bp == 500
    assert digest.startswith("sha256:")


FIELDS = {  # path -> bad value
    "version": (("v",), 2),
    "negative number": (("seq",), -1),
    "number as text": (("seq",), "7"),
    "no models": (("models",), {}),
    "a name with a slash": (("models",), {"a/b": payload()["models"]["delay"]}),
    "unknown field": (("shadow",), {}),
    "unknown field of an arm": (("models", "delay", "stable", "sample_bp"), 1),
    "time without zone": (("issued",), "2026-11-23T10:00:00"),
    "no stable": (("models", "delay", "stable"), None),
    "no digest": (("models", "delay", "stable", "release"), "latest"),
    "a short digest": (("models", "delay", "stable", "release"), "sha256:" + "a" * 12),
    "an absolute folder": (("models", "delay", "stable", "folder"), "/etc"),
    "a folder above": (("models", "delay", "stable", "folder"), "releases/../../x"),
    "a folder above, last": (("models", "delay", "stable", "folder"), "releases/.."),
    "a folder elsewhere": (("models", "delay", "stable", "folder"), "spool/x"),
    "a folder too deep": (("models", "delay", "stable", "folder"), "releases/a/b"),
    "a zero byte": (("models", "delay", "stable", "folder"), "releases/a\0"),
    "weight over 10,000": (("models", "delay", "canary", "weight_bp"), 10_001),
    "weight below 0": (("models", "delay", "canary", "weight_bp"), -1),
    "weight as text": (("models", "delay", "canary", "weight_bp"), "5"),
    "no time to answer": (("models", "delay", "canary", "timeout_ms"), 0),
    "a canary that belongs to no rollout": (("models", "delay", "rollout"), ""),
    "a rollout with a line break": (("models", "delay", "rollout"), "a\nb"),
    "a negative step": (("models", "delay", "step"), -1),
    "a short salt": (("models", "delay", "split", "salt"), "AAAA"),
    "a long salt": (("models", "delay", "split", "salt"), base64.b64encode(bytes(65)).decode()),
    "a salt that is no base64": (("models", "delay", "split", "salt"), "%" * 40),
    "a key nobody reads": (("models", "delay", "split", "key"), "principal"),
    "sticky without something to stick to": (("models", "delay", "split", "sticky"), True),
    "too short a stratum": (("models", "delay", "split", "stratum_ms"), 99),
    "a margin below nothing": (("models", "delay", "latency_margin_us"), -1),
    "a margin of hours": (("models", "delay", "latency_margin_us"), 10**10),
    "five thresholds": (("models", "delay", "latency_us"), [1, 2, 3, 4, 5]),
    "falling thresholds": (("models", "delay", "latency_us"), [4, 3, 2, 1]),
    "a threshold of nothing": (("models", "delay", "latency_us"), [0, 1, 2, 3]),
}


@pytest.mark.parametrize(("path", "value"), FIELDS.values(), ids=FIELDS)
def test_a_bad_field_refuses_the_whole_plan_and_is_named(house, trust, path, value):
    plan = payload()
    inner = plan
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(FalajError) as caught:
        open_plan(seal(house, plan), trust, now=datetime.now(UTC))
    assert caught.value.code == "serving.plan-field"
    assert path[-1] in str(caught.value) or path == ("shadow",) or "sample_bp" in str(caught.value)


def test_floats_are_refused(house, trust):
    body = json.dumps({**payload(), "seq": 7.0}).encode()
    signer = house.ring.signer("planner")
    envelope = {
        "payload": base64.b64encode(body).decode(),
        "payloadType": PLAN,
        "signatures": [
            {
                "keyid": dsse.hint_of(signer.public),
                "sig": base64.b64encode(signer.sign(dsse.pae(PLAN, body))).decode(),
            }
        ],
    }
    with pytest.raises(FalajError, match=r"float|canonical|number"):
        open_plan(json.dumps(envelope).encode(), trust, now=datetime.now(UTC))


SIGNATURES = {
    "a key with another role": lambda h: seal(h, payload(), signer="outsider"),
    "another payload type": lambda h: seal(h, payload(), kind="application/vnd.in-toto+json"),
    "no envelope": lambda _: json.dumps(payload()).encode(),
    "no JSON": lambda _: b"{",
    "a changed payload": lambda h: seal(h, payload()).replace(b'"payload": "', b'"payload": "AAAA'),
    "no signature": lambda h: json.dumps(
        {**json.loads(seal(h, payload())), "signatures": []}
    ).encode(),
    "larger than 1 MiB": lambda h: seal(h, payload()) + b" " * MAX_PLAN,
}


@pytest.mark.parametrize("make", SIGNATURES.values(), ids=SIGNATURES)
def test_what_is_not_signed_by_a_planner_is_refused(house, trust, make):
    with pytest.raises(Unverified):
        open_plan(make(house), trust, now=datetime.now(UTC))


def test_an_expired_trust_root_obeys_no_new_plan(house, trust):
    with pytest.raises(Unverified, match="trust root"):
        open_plan(seal(house, payload()), trust, now=trust.expires + timedelta(seconds=1))


def test_a_key_that_ran_out_signs_nothing(house, trust):
    late = max(key.not_after for key in trust.keys if "plan" in key.roles)
    longer = type(trust)(version=9, keys=trust.keys, expires=late + timedelta(days=9))
    with pytest.raises(Unverified, match="not trusted"):
        open_plan(seal(house, payload()), longer, now=late + timedelta(days=1))


def test_numbers_only_grow(house, trust):
    plan, digest = open_plan(seal(house, payload()), trust, now=datetime.now(UTC))
    newer, other = open_plan(seal(house, {**payload(), "seq": 8}), trust, now=datetime.now(UTC))
    assert succeed(plan, digest, None, "")
    assert succeed(newer, other, plan, digest)
    assert not succeed(plan, digest, plan, digest)
    with pytest.raises(Conflict, match="more than 8"):
        succeed(plan, digest, newer, other)
    changed, digest_2 = open_plan(
        seal(house, {**payload(), "zone": "b"}), trust, now=datetime.now(UTC)
    )
    with pytest.raises(Conflict, match="other content"):
        succeed(changed, digest_2, plan, digest)
    elsewhere, digest_3 = open_plan(
        seal(house, {**payload(), "seq": 9, "environment": "staging"}), trust, now=datetime.now(UTC)
    )
    with pytest.raises(Conflict, match="environment"):
        succeed(elsewhere, digest_3, plan, digest)


def test_the_fact_and_the_file_agree(house, trust):
    plan, _ = open_plan(seal(house, payload()), trust, now=datetime.now(UTC))
    again, _ = open_plan(seal(house, plain(plan)), trust, now=datetime.now(UTC))
    assert again == plan
