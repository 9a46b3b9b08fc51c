"""Servers of the local target: one that crashes again and again, and two regions at once."""

from __future__ import annotations

import itertools
import time

import loans
import proofs
import walks
from loans import PLACE
from traffic import Traffic

SECOND = """
[environments.second]
target = "local"
region = "ae-du"
requires = ["data", "quality", "bias", "robustness", "security"]
approvals = 1
"""


def test_a_server_that_crashes_in_a_loop_is_not_started_for_ever_and_the_way_back_is_open(direct):
    by = direct
    turn = lambda: by.works.turn(frozenset({"rollouts"}))  # noqa: E731
    walks.turn(by, walks.start(by, "1.1.0"))
    end = time.monotonic() + 60
    while "died 5 times" not in (seen := walks.server(by))["problem"]:
        assert time.monotonic() < end, seen
        if seen["pid"]:
            walks.kill(seen["pid"])  # as soon as it is there
        turn()
        time.sleep(0.1)
    said = [e["type"] for e in walks.history(by) if e["type"].startswith("falaj.server.")][1:]
    words = {"falaj.server.drifted", "falaj.server.repaired", "falaj.server.seen"}
    assert set(said) <= words
    assert all(a != b for a, b in itertools.pairwise(said)), "each death is said once"
    back = by.owner.post(f"/environments/{PLACE}/rollback", {"why": "it crashes"})
    assert walks.turn(by, back)["phase"] == "rolled-back"
    first = by.owner.get("/releases/1.0.0")["release"]["id"]
    with Traffic(walks.server(by)["url"], rate=100) as traffic:
        walks.wait(lambda: len(traffic.calls) > 20, what="answers")
    assert set(traffic.by_release()) == {first}
    assert {call.status for call in traffic.calls} == {200}
    proofs.nothing_twice(by)


def test_two_regions_at_once_with_servers_plans_and_counts_of_their_own(prepared, tmp_path, at):
    root = walks.copied(prepared, tmp_path / "loans")
    (root / "falaj.toml").write_text(loans.TOML + SECOND)
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    try:
        change = by.owner.post("/environments/second/changes", {"release": "1.0.0", "reason": "r"})
        walks.approve(by.reader, change)
        with Traffic(walks.server(by)["url"]) as traffic:
            canary = walks.start(by, "1.1.0")
            first = by.owner.post(f"/changes/{change['id']}/rollout")
            done = walks.turn(by, canary)
            assert walks.turn(by, first)["phase"] == "promoted"
        assert done["phase"] == "promoted", done["why"]
        (there,) = by.owner.get("/environments/second/servers")["servers"]
        assert there["url"] != walks.server(by)["url"]
        with Traffic(there["url"], rate=100) as other:
            walks.wait(lambda: len(other.calls) > 20, what="answers there")
        versions = {v: by.owner.get(f"/releases/{v}")["release"]["id"] for v in ("1.0.0", "1.1.0")}
        assert set(other.by_release()) == {versions["1.0.0"]}
        assert {call.status for call in [*traffic.calls, *other.calls]} == {200}
        zones = {
            row.zone
            for place, rollout in ((PLACE, canary), ("second", first))
            for row in by.works.ground.targets["local"].counts(place, rollout["id"])
        }
        assert zones == {"ae", "ae-du"}
    finally:
        by.works.ground.targets["local"].stop("second")
