"""Whole walks by other strategies and modes than a canary that acts: real servers, real requests."""

from __future__ import annotations

import time

import loans
import proofs
import pytest
import walks
from loans import MODEL, PLACE
from traffic import Traffic

ROLLOUT = "[environments.production.rollout]\n"


@pytest.fixture
def planned(prepared, tmp_path, at):
    """1.0.0 answers in a project whose rollout table and environment have more lines."""

    def make(*lines, replicas=1, min_time="1s"):
        root = walks.copied(prepared, tmp_path / "loans")
        text = loans.TOML.replace("approvals = 1", f"approvals = 1\nreplicas = {replicas}", 1)
        text = text.replace('min_time = "1s"', f'min_time = "{min_time}"')
        text = text.replace(ROLLOUT, ROLLOUT + "".join(f"{line}\n" for line in lines))
        (root / "falaj.toml").write_text(text)
        by = at(root)
        walks.turn(by, walks.start(by, "1.0.0"))
        return by

    return make


def steer(by, verb, why="seen"):
    return by.owner.post(f"/environments/{PLACE}/rollout/{verb}", {"why": why})


def shown(by):
    """Releases of the two versions, by version."""
    return {v: by.owner.get(f"/releases/{v}")["release"]["id"] for v in ("1.0.0", "1.1.0")}


def answered_well(by, traffic):
    assert {call.status for call in traffic.calls} == {200}
    proofs.by_plan(by, traffic.calls)
    proofs.nothing_twice(by)


def replayed(by, rollout):
    found = by.owner.get(f"/rollouts/{rollout['id']}/replay")
    assert found["same"], [one for one in found["decisions"] if one["differs"]]
    return found["decisions"]


def test_blue_green_switches_whole_and_returns_at_once(planned):
    by = planned('strategy = "blue-green"', min_time="1h")  # it is not promoted meanwhile
    release = shown(by)
    with Traffic(walks.server(by)["url"], rate=200) as traffic:
        rollout = walks.start(by, "1.1.0")
        walks.turn(by, rollout, when=lambda now: now["step"] == 0 and now["phase"] == "progressing")
        assert walks.who(by)["stable"] == release["1.0.0"]
        walks.turn(by, rollout, when=lambda _: walks.who(by)["weight_bp"] == 10_000)
        seen = len(traffic.calls)
        walks.wait(lambda: len(traffic.calls) > seen + 50, what="answers after the switch")
        assert {call.release for call in traffic.calls[-20:]} == {release["1.1.0"]}
        steer(by, "abort")  # instant return: one plan, nothing is loaded
        done = walks.turn(by, rollout)
        seen = len(traffic.calls)
        walks.wait(lambda: len(traffic.calls) > seen + 50, what="answers after the return")
        assert {call.release for call in traffic.calls[-20:]} == {release["1.0.0"]}
    assert done["phase"] == "rolled-back"
    answered_well(by, traffic)
    assert replayed(by, rollout)


def test_blue_green_is_promoted_after_its_time(planned):
    by = planned('strategy = "blue-green"')
    with Traffic(walks.server(by)["url"], rate=200) as traffic:
        rollout = walks.start(by, "1.1.0")
        done = walks.turn(by, rollout)
    assert (done["phase"], done["why"]) == (
        "promoted", "held its limits long enough with all of the traffic")  # fmt: skip
    assert walks.who(by)["stable"] == shown(by)["1.1.0"]
    answered_well(by, traffic)
    actions = [one["action"] for one in replayed(by, rollout)]
    assert [one for one in actions if one != "hold"] == ["advance", "promote"]


def test_rolling_goes_server_after_server(planned):
    by = planned('strategy = "rolling"', replicas=2)
    release = shown(by)
    with Traffic(walks.server_of(by, 1)["url"], rate=200, callers=16) as traffic:
        rollout = walks.start(by, "1.1.0")
        walks.turn(by, rollout, when=lambda _: walks.who(by)["weight_bp"] == 5000)
        walks.wait(lambda: len(traffic.by_release()) == 2, what="both releases answering")
        done = walks.turn(by, rollout)
        walks.wait(lambda: traffic.calls[-1].release == release["1.1.0"], what="the new one")
    assert done["phase"] == "promoted", done["why"]
    answered_well(by, traffic)
    assert [m["weight_bp"] for m in walks.moves(by)][-3:] == [5000, 10_000, 0]


def test_a_person_is_asked_before_a_share_and_before_all_of_it(planned):
    by = planned("pause_pct = [50, 100]")
    with Traffic(walks.server(by)["url"]) as traffic:
        rollout = walks.start(by, "1.1.0")
        asked = []
        for _ in range(2):
            now = walks.turn(by, rollout, when=lambda now: now["phase"] == "paused")
            asked.append(now["why"])
            steer(by, "resume")
            walks.turn(by, rollout, when=lambda now: now["phase"] != "paused")
        done = walks.turn(by, rollout)
    assert asked == ["waits for a person before 50 %", "waits for a person before 100 %"]
    assert done["phase"] == "promoted"
    answered_well(by, traffic)
    replayed(by, rollout)


def test_observed_a_bad_one_stays_until_a_person_acts_and_advised_an_alert_says_so(planned):
    by = planned('mode = "advise"')
    with Traffic(walks.server(by)["url"], rate=400) as traffic:
        rollout = walks.start(by, "1.2.0")  # harmful
        walks.turn(by, rollout, when=lambda now: now["advised"] == "rollback")
        assert walks.rollout_of(by, rollout)["phase"] == "progressing", "nobody acted"
        alerts = [a for a in by.owner.get("/alerts") if a["kind"] == "advice"]
        assert len(alerts) == 1
        assert alerts[0]["title"].startswith("1.2.0 should go back: falaj rollback production")
        refused = by.owner.post(f"/environments/{PLACE}/rollout/advance", {"why": "I know better"})
        assert refused["asked"] == "advance"
        walks.turn(by, rollout, when=lambda now: not now["asked"])
        assert walks.rollout_of(by, rollout)["step"] == 0, "never against proven harm"
        by.owner.post(f"/environments/{PLACE}/rollback", {"why": "as advised"})
        done = walks.turn(by, rollout)
    assert done["phase"] == "rolled-back"
    answered_well(by, traffic)
    assert "would-rollback" in [one["action"] for one in replayed(by, rollout)]


def test_two_arms_of_the_same_release_first(planned):
    by = planned('aa = "2s"')
    first = shown(by)["1.0.0"]
    with Traffic(walks.server(by)["url"], rate=300) as traffic:
        rollout = walks.start(by, "1.1.0")
        walks.turn(by, rollout, when=lambda now: now["phase"] == "measuring")
        walks.turn(by, rollout, when=lambda now: now["phase"] == "progressing")
        measured = walks.decisions(by, rollout)[0]
        assert {c.release for c in traffic.calls if c.done < walks.instant(measured["at"])} == {
            first
        }
        done = walks.turn(by, rollout)
    assert measured["action"] == "measured"
    assert sum(row[3] + row[5] for row in measured["numbers"]["aa"] if row[2] == "requests") > 200
    assert done["phase"] == "promoted", done["why"]
    answered_well(by, traffic)
    replayed(by, rollout)


# --- metrics of users, and guards after the rollout ---

KPI = (
    'go_back_on = ["kpi"]',
    "metrics = { conversion = { slo = 0.2, margin = 3.0 } }",
)


def kpi(by, id, stable=(0, 0), canary=(0, 0)):
    arms = {
        "stable": {"n": stable[0], "bad": stable[1]},
        "canary": {"n": canary[0], "bad": canary[1]},
    }
    return by.owner.post(f"/environments/{PLACE}/kpi", {"metric": "conversion", "id": id, **arms})


def test_a_kpi_that_the_users_system_reports_sends_a_canary_back(planned):
    by = planned(*KPI)
    with Traffic(walks.server(by)["url"]) as traffic:
        rollout = walks.start(by, "1.1.0")
        walks.turn(by, rollout, when=lambda now: now["phase"] == "progressing")
        number = 0

        def reported(now):
            nonlocal number
            if now["phase"] != "progressing":
                return False
            number += 1
            kpi(by, f"r-{number}", stable=(400, 20), canary=(100, 30))
            kpi(by, f"r-{number}", stable=(400, 20), canary=(100, 30))  # told twice, counts once
            return False

        done = walks.turn(by, rollout, when=reported)
    assert done["phase"] == "rolled-back"
    assert "conversion" in done["why"]
    answered_well(by, traffic)
    totals = walks.decisions(by, rollout)[-1]["numbers"]["totals"]["conversion"]
    assert totals[0] % 100 == 0
    assert totals[0] <= 100 * number
    replayed(by, rollout)


def test_long_after_its_rollout_a_kpi_above_its_limit_takes_a_release_back(planned):
    by = planned(*KPI)
    release = shown(by)
    with Traffic(walks.server(by)["url"]) as traffic:
        walks.turn(by, walks.start(by, "1.1.0"))
        assert walks.who(by)["stable"] == release["1.1.0"]
        kpi(by, "good", stable=(1000, 100))
        by.works.turn(frozenset({"monitors"}))
        assert len(by.owner.get("/rollouts")) == 2, "within its limit nothing happens"
        kpi(by, "bad", stable=(1000, 400))
        by.works._watched = 0.0
        by.works.turn(frozenset({"monitors"}))
        back = by.owner.get("/rollouts")[0]
        done = walks.turn(by, back)
        by.works._watched = 0.0
        by.works.turn(frozenset({"monitors"}))
        walks.wait(lambda: traffic.calls[-1].release == release["1.0.0"], what="the one before")
    assert done["phase"] == "rolled-back"
    assert done["why"].startswith("by the guard on kpi: conversion of loan")
    assert len(by.owner.get("/rollouts")) == 3, "an old alert takes nothing back twice"
    change = by.owner.get(f"/changes/{done['change']}")["change"]
    assert (change["kind"], change["state"]) == ("emergency", "implemented")
    answered_well(by, traffic)


REFUSED = {
    "a metric that nobody named": ({"metric": "other"}, "rollouts.no-such-metric"),
    "a canary when none answers": (
        {"metric": "conversion", "canary": {"n": 5, "bad": 0}}, "rollouts.bad-report"),
    "more bad than all": (
        {"metric": "conversion", "stable": {"n": 5, "bad": 6}}, "rollouts.bad-report"),
}  # fmt: skip


def test_reports_that_are_refused(planned):
    by = planned(*KPI)
    for sent, code in REFUSED.values():
        refusal = walks.refused(by.owner.post, f"/environments/{PLACE}/kpi", sent)
        assert refusal.code == code
    assert walks.told(by, "kpi.reported") == []
    refusal = walks.refused(by.owner.get, "/environments/nowhere/forecast")
    assert refusal.code == "rollouts.no-such-environment"


def test_before_it_starts_it_says_what_it_takes(planned):
    by = planned()
    with Traffic(walks.server(by)["url"], rate=200):
        time.sleep(1.5)
    found = by.owner.get(f"/environments/{PLACE}/forecast")
    assert 1_000 < found["per_minute"] < 40_000
    assert found["requests"] > 100
    assert "a doubling of bad answers is caught" in found["sentences"][0]


# --- declared against observed ---


def test_what_is_killed_or_changed_by_hand_is_seen_said_and_repaired(planned):
    by = planned()
    turn = lambda: by.works.turn(frozenset({"rollouts"}))  # noqa: E731
    turn()
    seen = walks.server(by)
    walks.kill(seen["pid"])
    walks.wait(lambda: (turn(), walks.told(by, "server.repaired"))[1], what="the repair")
    kinds = [e["type"].removeprefix("falaj.") for e in walks.history(by)]
    assert [k for k in kinds if k in ("server.drifted", "server.repaired")] == [
        "server.drifted", "server.repaired"]  # fmt: skip
    assert walks.server(by)["boot"] != seen["boot"]

    folder = by.root / ".falaj/targets/production"
    plan = (folder / "plan.json").read_bytes()
    (folder / "plan.json").write_bytes(b'{"payload": "bm8="}')
    (release,) = (p for p in (folder / "releases").iterdir() if not p.name.startswith("."))
    walks.flip(release / "release.json")
    turn()
    assert (folder / "plan.json").read_bytes() == plan
    kept = by.root / by.owner.get("/releases/1.0.0")["release"]["folder"]
    assert (release / "release.json").read_bytes() == (kept / "release.json").read_bytes()
    proofs.nothing_twice(by)


def test_taken_down_it_stays_down_until_it_is_undone(planned):
    by = planned()
    code, out, err = walks.falaj(by.root, "down", PLACE, "-m", "moving")
    assert (code, "is down" in out) == (0, True), err
    walks.let_leases_run_out(by.root)
    for _ in range(3):
        by.works.turn(frozenset({"rollouts"}))
    assert by.owner.get(f"/environments/{PLACE}/servers")["servers"] == []
    by.owner.post(f"/environments/{PLACE}/down", {"why": "it stays", "undo": True})
    walks.wait(
        lambda: (by.works.turn(frozenset({"rollouts"})), walks.server(by)["ready"])[1],
        what="up again",
    )
    assert walks.told(by, "environment.down") == ["environment/production"]
    assert walks.told(by, "environment.up") == ["environment/production"]


def test_folders_that_no_plan_needs_any_more_are_removed(planned):
    by = planned('strategy = "direct"')
    for version in ("1.1.0", "1.2.0"):
        walks.turn(by, walks.start(by, version))
    folder = by.root / ".falaj/targets/production/releases"
    for number in range(3):  # left by releases of long ago
        (folder / f"{number:012x}").mkdir()
    walks.wait(
        lambda: (
            by.works.turn(frozenset({"rollouts"}))
            or len([p for p in folder.iterdir() if not p.name.startswith(".")]) == 3
        ),
        what="the old ones going",
    )
    with Traffic(walks.server(by)["url"], rate=100) as traffic:
        back = by.owner.post(f"/environments/{PLACE}/rollback", {"why": "worse"})
        walks.turn(by, back)
        walks.wait(lambda: len(traffic.calls) > 20, what="answers")
    answered_well(by, traffic)
    assert MODEL


# --- the same rows through both ---


def test_a_shadow_is_judged_on_pairs_and_answers_nobody(planned):
    """Labels decide: an equal one is promoted, a harmful one ends; callers never see it before."""
    by = planned('strategy = "shadow"')
    release = shown(by)
    with Traffic(walks.server(by)["url"], rate=300) as traffic:
        bad = walks.start(by, "1.2.0")
        done = walks.turn(by, bad, seconds=40)
        assert (done["phase"], set(traffic.by_release())) == ("rolled-back", {release["1.0.0"]})
        good = walks.start(by, "1.1.0")
        walks.turn(by, good, when=lambda now: now["phase"] == "promoting", seconds=40)
        assert set(traffic.by_release()) == {release["1.0.0"]}, "until it is proven"
        done = walks.turn(by, good)
        walks.wait(lambda: traffic.calls[-1].release == release["1.1.0"], what="the proven one")
    assert done["why"] == "proven within the margin on the same requests"
    answered_well(by, traffic)
    for rollout in (bad, good):
        rows = [row for d in walks.decisions(by, rollout) for row in d["numbers"]["strata"]]
        assert sum(row[3] for row in rows if row[2] == "labels.pairs") > 50
        replayed(by, rollout)
