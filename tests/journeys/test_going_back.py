"""A person goes back in one step, pauses, resumes, aborts; nobody promotes by hand."""

from __future__ import annotations

import shutil
import time

import proofs
import pytest
import walks
from loans import PLACE
from traffic import Traffic
from walks import falaj

from falaj.base import digests


def steer(by, verb, why="looks odd"):
    return by.owner.post(f"/environments/{PLACE}/rollout/{verb}", {"why": why})


def back(by, why="customers complain"):
    return by.owner.post(f"/environments/{PLACE}/rollback", {"why": why})


def progressing(by, version="1.1.0"):
    """A canary with traffic."""
    rollout = walks.start(by, version)
    walks.turn(by, rollout, when=lambda _: walks.who(by)["weight_bp"])
    return rollout


def promoted(by):
    """1.1.0 after a real canary."""
    with Traffic(walks.server(by)["url"]):
        done = walks.turn(by, walks.start(by, "1.1.0"))
    assert done["phase"] == "promoted", done["why"]
    return done


def change_of(by, rollout):
    return by.owner.get(f"/changes/{rollout['change']}")["change"]


def test_back_after_a_promotion_in_one_step(live):
    forward = promoted(live)
    walks.let_leases_run_out(live.root)  # of this process, which turns no more
    started = time.monotonic()
    code, out, err = falaj(live.root, "rollback", PLACE, "-m", "customers complain")
    took = time.monotonic() - started
    assert code == 0, out + err
    assert "1.0.0" in out
    assert took < 8
    assert walks.who(live)["stable_version"] == "1.0.0"
    (back_one, *_) = live.owner.get("/rollouts")
    change = change_of(live, back_one)
    assert (change["kind"], change["state"]) == ("emergency", "implemented")
    assert change["reason"] == "customers complain"
    assert change_of(live, forward)["state"] == "implemented", "what was done stays done"
    with Traffic(walks.server(live)["url"], rate=100) as traffic:
        walks.wait(lambda: len(traffic.answered) > 20, what="answers")
    assert set(traffic.by_release()) == {walks.who(live)["stable"]}
    proofs.nothing_twice(live)


def test_from_the_first_release_there_is_no_way_back(live):
    code, _, err = falaj(live.root, "rollback", PLACE, "-m", "odd")
    assert code == 8, err
    assert "rollouts.no-way-back" in err
    assert walks.who(live)["stable_version"] == "1.0.0"


def test_back_and_back_again_does_not_go_forward(live):
    """After 1.0.0, 1.1.0, back to 1.0.0 the step before is not the release that was left."""
    promoted(live)
    walks.turn(live, back(live))
    refusal = walks.refused(back, live)
    assert (refusal.code, refusal.exit) == ("rollouts.no-way-back", 8)
    assert walks.who(live)["stable_version"] == "1.0.0"


def test_back_while_a_canary_runs_ends_it(live):
    rollout = progressing(live)
    assert back(live)["id"] == rollout["id"]
    done = walks.turn(live, rollout)
    assert done["phase"] == "rolled-back"
    assert "customers complain" in done["why"]
    assert change_of(live, rollout)["state"] == "rolled-back"
    assert (walks.who(live)["stable_version"], walks.who(live)["canary"]) == ("1.0.0", "")


def test_an_approver_cannot_deploy_or_go_back(live):
    """Roles are apart: who approves does not carry out."""
    change = walks.opened(live, "1.1.0")
    walks.approve(live.reader, change)
    for path, body in (
        (f"/changes/{change['id']}/rollout", {}),
        (f"/environments/{PLACE}/rollout/abort", {"why": "x"}),
        ("/runs", {"parameters": {}}),
    ):
        assert walks.refused(live.reader.post, path, body).exit == 6


def test_pause_and_resume(live):
    rollout = progressing(live)
    steer(live, "pause")
    paused = walks.turn(live, rollout, when=lambda now: now["phase"] == "paused")
    assert "looks odd" in paused["why"]
    with Traffic(walks.server(live)["url"]):
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            live.works.turn(frozenset({"rollouts"}))
            time.sleep(0.1)
        held = walks.rollout_of(live, rollout)
        assert (held["phase"], held["step"]) == ("paused", 0), "nothing rises while it is paused"
        steer(live, "resume", "it was the holiday")
        done = walks.turn(live, rollout)
    assert done["phase"] == "promoted"
    actions = [d["action"] for d in walks.decisions(live, rollout) if d["action"] != "hold"]
    assert actions[:2] == ["pause", "resume"]


def test_harm_goes_back_also_while_paused(live):
    rollout = progressing(live, "1.2.0")
    steer(live, "pause")
    walks.turn(live, rollout, when=lambda now: now["phase"] == "paused")
    with Traffic(walks.server(live)["url"]):
        done = walks.turn(live, rollout)
    assert done["phase"] == "rolled-back"
    assert done["why"].startswith("worse")


@pytest.mark.parametrize("moment", ["starting", "progressing", "paused"])
def test_abort(live, moment):
    rollout = walks.start(live, "1.1.0") if moment == "starting" else progressing(live)
    if moment == "paused":
        steer(live, "pause")
        walks.turn(live, rollout, when=lambda now: now["phase"] == "paused")
    code, _, err = falaj(live.root, "rollout", "abort", "-m", "not today")
    assert code == 0, err
    done = walks.turn(live, rollout)
    assert done["phase"] == "rolled-back"
    assert "not today" in done["why"]
    assert walks.who(live)["stable_version"] == "1.0.0"
    assert change_of(live, rollout)["state"] == "rolled-back"
    assert walks.refused(steer, live, "abort").exit == 2, "nothing is running"


def test_nobody_promotes_by_hand(live):
    rollout = progressing(live)
    for verb in ("promote", "force", "rollback"):
        refusal = walks.refused(steer, live, verb)
        assert refusal.code == "rollouts.no-such-verb"
    code, _, err = falaj(live.root, "rollout", "promote", "-m", "I know better")
    assert code == 2
    assert "promote" in err
    assert walks.rollout_of(live, rollout)["asked"] == ""


def test_one_rollout_at_a_time(live):
    first = progressing(live)
    change = walks.opened(live, "1.2.0")
    walks.approve(live.reader, change)
    code, _, err = falaj(live.root, "rollout", "start", change["id"])
    assert code == 8, err
    assert "rollouts.one-at-a-time" in err
    assert live.owner.get(f"/changes/{change['id']}")["change"]["state"] == "approved"
    steer(live, "abort")
    walks.turn(live, first)
    live.owner.post(f"/changes/{change['id']}/rollout")


def test_what_is_live_is_not_rolled_out_again(live):
    change = walks.opened(live, "1.0.0")
    walks.approve(live.reader, change)
    refusal = walks.refused(live.owner.post, f"/changes/{change['id']}/rollout")
    assert refusal.code == "rollouts.already-live"


def test_silence_never_promotes(live):
    rollout = progressing(live)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        live.works.turn(frozenset({"rollouts"}))
        time.sleep(0.1)
    now = walks.rollout_of(live, rollout)
    assert (now["phase"], now["step"]) == ("progressing", 0)


def test_a_first_release_that_cannot_start_is_aborted_by_a_person(project):
    """Nothing to go back to: its servers are stopped, and another release may come."""
    target = project.works.ground.targets["local"]
    rollout = walks.start(project, "1.0.0")
    release = project.owner.get("/releases/1.0.0")["release"]["id"]
    placed = project.root / ".falaj/targets/production/releases" / digests.short(release)
    shutil.copytree(project.root / ".falaj/releases/loan/1.0.0", placed)
    walks.flip(placed / "model" / "model.onnx")
    walks.turn(project, rollout, when=lambda _: walks.server(project)["problem"])
    steer(project, "abort", "it does not start")
    done = walks.turn(project, rollout, until=("aborted",))
    assert done["why"] == "asked by a person: it does not start"
    assert change_of(project, rollout)["state"] == "failed"
    project.works.turn(frozenset({"rollouts"}))
    assert target.observe(PLACE).servers == (), "nothing of it is left running"
    assert walks.refused(walks.who, project).code == "rollouts.nothing-live"

    done = walks.turn(project, walks.start(project, "1.1.0"))
    assert done["phase"] == "promoted"
    assert walks.who(project)["stable_version"] == "1.1.0"
