"""Arms by server and by sticky key: who gets which, and what counts."""

from __future__ import annotations

import base64

import pytest

from falaj.facts.serving import ArmPlan, ModelPlan, SplitPlan
from falaj.serving.counts import Tally
from falaj.serving.plan import Split

SALT = base64.b64encode(bytes(range(32))).decode()
ARM = ArmPlan(release="sha256:" + "0" * 64, folder="releases/a", weight_bp=2500)


def split(server="", *, rolled=0, **about):
    plan = ModelPlan(stable=ARM, canary=ARM, rolled=rolled, split=SplitPlan(salt=SALT, **about))
    return Split(plan, server)


def share(one, number=2000, headers=None):
    found = [one.canary(headers or {}, b"boot%d" % at, 7) for at in range(number)]
    return sum(found) / number


SERVERS = {  # name of the server, how many are rolled -> its share of the canary
    "the first of one": ("server-1", 1, 1.0),
    "the second of one": ("server-2", 1, 0.0),
    "the second of two": ("server-2", 2, 1.0),
    "a server without a number is not rolled": ("server", 2, 0.0),
}


@pytest.mark.parametrize(("server", "rolled", "expected"), SERVERS.values(), ids=SERVERS)
def test_a_rolling_plan_splits_by_server(server, rolled, expected):
    assert share(split(server, rolled=rolled)) == expected


def test_without_rolling_the_servers_name_means_nothing():
    assert 0.2 < share(split("server-1")) < 0.3


def test_a_sticky_key_keeps_its_arm_over_strata_and_the_share_is_of_keys():
    one = split(key="header:x-customer", sticky=True)
    arms = {}
    for customer in range(1000):
        headers = {b"x-customer": b"%d" % customer}
        arms[customer] = {one.canary(headers, b"any", stratum) for stratum in range(5)}
    assert all(len(found) == 1 for found in arms.values())
    assert 200 < sum(found == {True} for found in arms.values()) < 300


def test_a_sticky_key_counts_once_in_each_rollout():
    tally = Tally("boot")
    assert tally.first("R1", b"anna")
    assert not tally.first("R1", b"anna")
    assert tally.first("R1", b"omar")
    assert tally.first("R2", b"anna"), "another rollout, another salt"
    assert not tally.first("R2", b"anna")
