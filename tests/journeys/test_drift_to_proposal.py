"""Drift is found, a retraining is proposed with its evidence, and there it waits for people."""

from __future__ import annotations

import time

import loans
import walks
from traffic import Traffic, hourly


def turn_until(by, check, *, seconds=30.0, what):
    def look():
        by.works.turn()
        return check()

    return walks.wait(look, seconds=seconds, what=what)


def test_drift_asks_for_a_retraining_and_people_decide(prepared, tmp_path, at):
    root = walks.copied(prepared, tmp_path / "loans")
    (root / "falaj.toml").write_text(loans.TOML + loans.LEARNING)
    by = at(root)
    walks.turn(by, walks.start(by, "1.0.0"))
    url = walks.server(by)["url"]
    before = walks.moves(by)

    # A quiet hour: as in training.
    with Traffic(url, rate=600, events=hourly(400)) as traffic:
        walks.wait(lambda: len(traffic.answered) > 900, what="two hours of requests")
    turn_until(by, lambda: by.owner.get(f"/models/{loans.MODEL}/windows"), what="a closed window")
    assert by.owner.get("/alerts") == []
    assert by.owner.get("/proposals") == []

    # Incomes rise: alert, proposal, run, gates, release, change.
    later = hourly(400, first=walks.instant("2026-01-01T03:00:00Z"))
    with Traffic(url, seed=2, rate=600, shift=1.5, events=later) as traffic:
        walks.wait(lambda: len(traffic.answered) > 900, what="two hours of requests")

    def proposed():
        found = by.owner.get("/proposals")
        return found[0] if found and found[0]["change"] else None

    proposal = turn_until(by, proposed, what="a proposal with its change")
    (alert,) = by.owner.get("/alerts")
    assert (alert["kind"], alert["state"]) == ("drift", "open")
    assert "income" in alert["title"] + " ".join(alert["reasons"])
    assert proposal["alert"] == alert["id"]
    assert proposal["verdict"] == "pass"
    run = by.owner.get(f"/runs/{proposal['run']}")
    assert run["trigger"] == f"alert:{alert['id']}"
    assert run["parameters"]["month"] == 2, "one month more than what is live"
    (report,) = by.owner.get("/gates", run=run["id"])
    assert {result["verdict"] for result in report["results"]} == {"pass"}
    release = by.owner.get(f"/releases/{proposal['release'].removeprefix('sha256:')[:16]}")
    assert release["findings"] == []
    change = by.owner.get(f"/changes/{proposal['change']}")["change"]
    assert change["state"] == "proposed"

    # Nothing is deployed by itself, and one drift asks once.
    for _ in range(4):
        by.works.turn()
        time.sleep(0.6)
    assert walks.moves(by) == before
    assert len(by.owner.get("/rollouts")) == 1
    assert len(by.owner.get("/proposals")) == 1
    assert walks.refused(by.owner.post, f"/changes/{change['id']}/rollout").exit == 6
    assert walks.refused(walks.approve, by.reader, change).exit == 8, "nobody has taken it up"
    for kind in ("alert.opened", "change.opened"):
        assert walks.told(by, kind).count(walks.told(by, kind)[-1]) == 1

    # People take it up, approve it, and it walks in like any other.
    by.owner.post(f"/changes/{change['id']}/take")
    assert walks.approve(by.reader, change)["state"] == "approved"
    rollout = by.owner.post(f"/changes/{change['id']}/rollout")
    with Traffic(url, seed=3):
        done = walks.turn(by, rollout)
    assert done["phase"] == "promoted", done["why"]
    turn_until(
        by,
        lambda: by.owner.get("/alerts")[0]["state"] == "closed",
        what="the end of the alert: it was of the release before",
    )
