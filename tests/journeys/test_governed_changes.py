"""Changes of three kinds with something live: the ladder, templates, emergencies, reviews, the ledger."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import loans
import pytest
import walks
from loans import MODEL, PLACE
from traffic import Traffic

from falaj.journeys import verify
from falaj.links.files.project import read_project

TEMPLATE = """
[changes.templates.monthly]
environment = "production"
owner = "sara"
expires = "2099-06-30"

[changes.templates.monthly.bounds]
parameters = ["month"]
"""
FREEZE = """
[[changes.freezes]]
name = "for ever"
starts = "2026-01-01"
ends = "2099-01-01"
"""
STAGING = """[environments.staging]
target = "local"
requires = ["data", "quality", "bias", "robustness", "security"]
approvals = 1

[environments.staging.rollout]
strategy = "direct"

[environments.production]"""


def under(by, toml):
    """The project file is another one from now on."""
    (by.root / "falaj.toml").write_text(toml)
    by.works.ground = replace(by.works.ground, project=read_project(by.root / "falaj.toml"))


def later(by, **span):
    by.works.ground = replace(by.works.ground, now=lambda: datetime.now(UTC) + timedelta(**span))


def asked(by, version, place=PLACE, **more):
    return by.owner.post(f"/environments/{place}/changes", {"release": version, **more})


def start(by, change):
    return by.owner.post(f"/changes/{change['id']}/rollout")


def view(by, change):
    return by.owner.get(f"/changes/{change['id']}")


def back(by, why="customers complain"):
    rollout = by.owner.post(f"/environments/{PLACE}/rollback", {"why": why})
    return walks.turn(by, rollout)


@pytest.fixture
def governed(live):
    """1.0.0 answers; there is a template, and sara owns it."""
    live.owner.post("/identities", {"name": "sara", "roles": ["author"]})
    under(live, loans.TOML + TEMPLATE)
    return live


@pytest.fixture
def ladder(prepared, tmp_path, at):
    """Two environments, nothing live."""
    root = walks.copied(prepared, tmp_path / "loans")
    (root / "falaj.toml").write_text(loans.TOML.replace("[environments.production]", STAGING, 1))
    by = at(root)
    yield by
    by.works.ground.targets["local"].stop("staging")


# --- from one environment to the next ---


def through_staging(by, version="1.0.0"):
    change = asked(by, version, "staging")
    walks.approve(by.reader, change)
    return walks.turn(by, start(by, change))


def test_a_release_brings_along_what_it_has_shown(ladder):
    assert walks.refused(asked, ladder, "1.0.0").code == "changes.skipped-environment"
    done = through_staging(ladder)
    change = asked(ladder, "1.0.0")
    (carried,) = change["carried"]
    assert (carried["environment"], carried["rollout"]) == ("staging", done["id"])
    assert carried["promotion"].startswith("sha256:"), "what policy allowed there"
    walks.approve(ladder.reader, change)
    (given,) = view(ladder, change)["approvals"]
    said = json.loads(given["envelope"])
    assert said["signatures"]
    assert walks.turn(ladder, start(ladder, change))["phase"] == "promoted"


def test_what_went_back_there_does_not_go_on(ladder):
    through_staging(ladder)
    through_staging(ladder, "1.1.0")
    walks.turn(ladder, ladder.owner.post("/environments/staging/rollback", {"why": "odd"}))
    found = walks.refused(asked, ladder, "1.1.0")
    assert found.code == "changes.skipped-environment"
    assert asked(ladder, "1.0.0")["carried"], "the one before it still may"


def test_an_approved_change_waits_no_longer_when_its_release_went_back_there(ladder):
    through_staging(ladder)
    through_staging(ladder, "1.1.0")
    change = asked(ladder, "1.1.0")
    walks.approve(ladder.reader, change)
    walks.turn(ladder, ladder.owner.post("/environments/staging/rollback", {"why": "odd"}))
    assert walks.refused(start, ladder, change).code == "changes.skipped-environment"


def test_a_release_has_to_answer_for_a_while_before_it_goes_on(ladder):
    through_staging(ladder)
    toml = (ladder.root / "falaj.toml").read_text()
    head, _, tail = toml.partition("[environments.production]")
    under(ladder, f'{head}[environments.production]\nsoak = "1d"{tail}')
    assert walks.refused(asked, ladder, "1.0.0").code == "changes.soaking"
    later(ladder, days=1, minutes=1)
    assert asked(ladder, "1.0.0")["state"] == "awaiting-approval"


# --- what is live when it starts ---


def test_the_way_back_is_tried_before_the_way_forward(live):
    change = asked(live, "1.1.0")
    walks.approve(live.reader, change)
    live.works.ground.targets["local"].stop(PLACE)
    found = walks.refused(start, live, change)
    assert found.code == "changes.not-rehearsed"
    assert "no server answers with 1.0.0" in found.problems[0].message
    assert view(live, change)["change"]["state"] == "approved"

    live.works.turn(frozenset({"rollouts"}))  # the worker brings the server back
    walks.wait(lambda: walks.server(live)["ready"], what="the server")
    start(live, change)
    tried = view(live, change)["change"]["rehearsal"]
    assert (tried["version"], tried["servers"], tried["trouble"]) == ("1.0.0", 1, "")
    assert tried["files"] > 10


def test_a_release_before_that_was_altered_is_no_way_back(live):
    change = asked(live, "1.1.0")
    walks.approve(live.reader, change)
    (model,) = (live.root / ".falaj/releases/loan/1.0.0/model").glob("*.onnx")
    walks.flip(model)
    found = walks.refused(start, live, change)
    assert found.code == "changes.not-rehearsed"
    assert "model.onnx" in found.problems[0].message


def test_an_emergency_goes_without_a_way_back_and_says_so(live):
    change = asked(live, "1.1.0", incident="INC-7")
    walks.approve(live.reader, change)
    live.works.ground.targets["local"].stop(PLACE)
    start(live, change)
    assert "no server answers" in view(live, change)["change"]["rehearsal"]["trouble"]


def test_a_change_that_was_judged_against_another_release_is_asked_for_again(direct):
    first = asked(direct, "1.1.0")
    second = asked(direct, "1.2.0")
    for change in (first, second):
        walks.approve(direct.reader, change)
    walks.turn(direct, start(direct, first))
    found = walks.refused(start, direct, second)
    assert (found.code, found.exit) == ("changes.base-moved", 8)
    assert asked(direct, "1.2.0")["title"] == "loan 1.1.0 to 1.2.0"


# --- standard changes ---


def preapproved(by):
    by.reader.post(
        "/templates/monthly/preapprove", {"comment": "small, and it goes back by itself"}
    )


def test_a_standard_change_needs_nobody_and_is_proved_by_its_template(governed, tmp_path):
    preapproved(governed)
    change = asked(governed, "1.1.0", template="monthly")
    assert (change["kind"], change["state"]) == ("standard", "approved")
    assert change["approvals_needed"] == 0
    assert len(change["preapproval"]) == 1
    start(governed, change)
    pack, trust = tmp_path / "pack.zip", tmp_path / "trust.json"
    pack.write_bytes(governed.owner.raw("GET", f"/models/{MODEL}/evidence"))
    trust.write_text(governed.works.ground.keys.trust_text())
    assert verify.look(pack, trust).findings == ()


@pytest.mark.parametrize("version", ["1.2.0"])
def test_a_difference_beyond_the_bounds_is_a_normal_change(governed, version):
    preapproved(governed)
    found = walks.refused(asked, governed, version, template="monthly")
    assert {problem.code for problem in found.problems} == {"changes.beyond-template"}
    assert any("swapped" in problem.message for problem in found.problems)
    assert asked(governed, version)["kind"] == "normal"


def test_new_evidence_makes_a_standard_change_a_normal_one(governed):
    preapproved(governed)
    change = asked(governed, "1.1.0", template="monthly")
    run = governed.owner.get("/releases/1.1.0")["release"]["run"]
    governed.owner.post("/gates", {"run": run, "environment": PLACE})
    now = view(governed, change)["change"]
    assert (now["kind"], now["state"]) == ("normal", "awaiting-approval")
    assert now["approvals_needed"] == 1


def test_a_template_that_changed_after_the_change_was_opened_starts_nothing(governed):
    preapproved(governed)
    change = asked(governed, "1.1.0", template="monthly")
    under(governed, loans.TOML + TEMPLATE.replace('["month"]', "[]"))
    assert walks.refused(start, governed, change).code == "changes.template-not-signed"
    preapproved(governed)  # other words, signed as well
    assert walks.refused(start, governed, change).code == "changes.template-changed"


def test_a_template_is_used_so_often_a_month(governed):
    under(
        governed,
        loans.TOML
        + TEMPLATE.replace(
            "[changes.templates.monthly.b", "max_per_month = 1\n\n[changes.templates.monthly.b"
        ),
    )
    preapproved(governed)
    asked(governed, "1.1.0", template="monthly")
    found = walks.refused(asked, governed, "1.1.0", template="monthly")
    assert [problem.code for problem in found.problems] == ["changes.template-month"]


# --- emergencies ---


def test_an_emergency_passes_a_freeze_and_owes_its_gates(direct, tmp_path):
    under(direct, loans.TOML.replace("steps_pct", 'strategy = "direct"\nsteps_pct') + FREEZE)
    toml = (direct.root / "falaj.toml").read_text()
    asks = '"robustness", "security"]'
    under(
        direct,
        toml.replace(asks, '"robustness", "security", "latency"]')
        + "\n[gates.latency]\np99_ms = 1000\n",
    )
    assert walks.refused(asked, direct, "1.1.0").code == "releases.evidence-missing"
    change = asked(direct, "1.1.0", incident="INC-7", reason="wrong prices")
    assert change["deferred"] == ["latency"]
    assert change["incident"] == "INC-7"
    walks.approve(direct.reader, change)
    walks.turn(direct, start(direct, change))
    now = view(direct, change)
    assert now["change"]["review_due"]
    assert now["review"]["conclusion"] == ""
    owed = {"conclusion": "it held"}
    found = walks.refused(direct.reader.post, f"/changes/{change['id']}/review", owed)
    assert found.code == "changes.gates-owed"

    # Nobody makes up for it: people hear of it, and the model stands still but for emergencies.
    later(direct, days=2)
    under(direct, toml.replace(FREEZE, ""))
    assert any("owes latency" in line for line in direct.works.turn(frozenset({"monitors"})))
    other = asked(direct, "1.2.0")
    walks.approve(direct.reader, other)
    found = walks.refused(start, direct, other)
    assert [problem.code for problem in found.problems] == ["changes.gates-overdue"]
    alerts = direct.owner.get("/alerts", state="open")
    assert any(alert["kind"] == "change" for alert in alerts)

    # Made up for: nothing is owed any more, and the change can be closed by its review.
    run = direct.owner.get("/releases/1.1.0")["release"]["run"]
    under(
        direct,
        (direct.root / "falaj.toml")
        .read_text()
        .replace(asks, '"robustness", "security", "latency"]')
        + "\n[gates.latency]\np99_ms = 1000\n",
    )
    direct.owner.post("/gates", {"run": run, "environment": PLACE})
    assert view(direct, change)["change"]["gates_done"]
    assert not [a for a in direct.owner.get("/alerts", state="open") if a["kind"] == "change"]
    done = direct.reader.post(f"/changes/{change['id']}/review", owed)
    assert done["outcome"] == "implemented"
    assert view(direct, change)["change"]["state"] == "closed"
    pack, trust = tmp_path / "pack.zip", tmp_path / "trust.json"
    pack.write_bytes(direct.owner.raw("GET", f"/models/{MODEL}/evidence"))
    trust.write_text(direct.works.ground.keys.trust_text())
    assert verify.look(pack, trust).findings == ()


def test_what_failed_is_put_off_by_no_emergency(live):
    under(live, loans.TOML.replace("at_least = 0.75", "at_least = 0.999"))
    run = live.owner.get("/releases/1.1.0")["release"]["run"]
    live.owner.post("/gates", {"run": run, "environment": PLACE})
    found = walks.refused(asked, live, "1.1.0", incident="INC-7")
    assert found.code == "changes.gate-failed"


# --- looking back ---


def test_a_rollback_owes_a_review_that_its_numbers_fill(direct):
    change = asked(direct, "1.1.0")
    walks.approve(direct.reader, change)
    with Traffic(walks.server(direct)["url"], rate=100):
        walks.turn(direct, start(direct, change))
        back(direct)
    emergency = direct.owner.get("/changes")[0]
    assert (emergency["kind"], emergency["state"]) == ("emergency", "implemented")
    found = direct.owner.get(f"/changes/{emergency['id']}/review")
    assert any("live: 1.0.0 alone" in line for line in found["timeline"])
    assert found["numbers"]["took_s"] > 0
    path, body = f"/changes/{emergency['id']}/review", {"conclusion": "a unit", "cause": "units"}
    assert walks.refused(direct.owner.post, path, body).code == "access.independent-review"
    assert walks.refused(direct.owner.post, f"/changes/{emergency['id']}/close").code == (
        "changes.review-owed"
    )
    done = direct.reader.post(path, body)
    assert (done["cause"], done["principal"]) == ("units", walks.READER)
    assert json.loads(done["envelope"])["signatures"]
    assert view(direct, emergency)["change"]["state"] == "closed"


def test_what_may_not_be_there_any_more_is_not_gone_back_to(direct):
    change = asked(direct, "1.1.0")
    walks.approve(direct.reader, change)
    walks.turn(direct, start(direct, change))
    toml = (direct.root / "falaj.toml").read_text()
    under(
        direct,
        toml.replace("[environments.production]", '[environments.production]\nregion = "bh"'),
    )
    path = f"/environments/{PLACE}/rollback"
    assert walks.refused(direct.owner.post, path, {"why": "odd"}).code == "changes.wrong-region"
    assert walks.history(direct)[-1]["data"]["asked"] == "go back"


def test_a_hotfix_that_goes_back_has_failed(live):
    change = asked(live, "1.1.0", incident="INC-7")
    walks.approve(live.reader, change)
    rollout = start(live, change)
    walks.turn(live, rollout, when=lambda now: now["phase"] == "progressing")
    back(live)
    now = view(live, change)["change"]
    assert (now["kind"], now["state"]) == ("emergency", "rolled-back")
    assert now["review_due"]


def test_whoever_carried_it_out_does_not_review_it(direct):
    direct.owner.post("/identities", {"name": "omar", "roles": ["operator", "approver"]})
    omar = walks.Embedded(direct.works, "omar")
    change = asked(direct, "1.1.0", incident="INC-1")
    walks.approve(direct.reader, change)
    walks.turn(direct, omar.post(f"/changes/{change['id']}/rollout"))
    body = {"conclusion": "all well"}
    found = walks.refused(omar.post, f"/changes/{change['id']}/review", body)
    assert found.code == "changes.own-review"


def test_a_review_that_is_overdue_holds_up_the_next_change(direct):
    change = asked(direct, "1.1.0", incident="INC-1")
    walks.approve(direct.reader, change)
    walks.turn(direct, start(direct, change))
    later(direct, days=8)
    other = asked(direct, "1.2.0")
    walks.approve(direct.reader, other)
    found = walks.refused(start, direct, other)
    assert [problem.code for problem in found.problems] == ["changes.review-overdue"]
    direct.reader.post(f"/changes/{change['id']}/review", {"conclusion": "all well"})
    start(direct, other)


# --- the ledger ---


def test_which_release_answered_a_request(direct):
    with Traffic(walks.server(direct)["url"], rate=100) as traffic:
        walks.wait(lambda: len(traffic.answered) > 20, what="answers")
        change = asked(direct, "1.1.0")
        walks.approve(direct.reader, change)
        walks.turn(direct, start(direct, change))
        walks.wait(lambda: len(traffic.by_release()) == 2, what="answers of both")
    releases = {r["id"]: r["version"] for r in direct.owner.get("/releases")}
    seen = set()
    for _, _, _, release, request in traffic.answered[::7]:
        found = direct.owner.get(f"/requests/{request}")
        assert found["release"] == release
        assert found["version"] == releases[release]
        assert found["environment"] == PLACE
        seen.add(found["version"])
    assert seen == {"1.0.0", "1.1.0"}
    code, out, _ = walks.falaj(direct.root, "which-release", request, "--log")
    assert code == 0
    assert releases[release] in out
    assert "row(s)" in out
    refused = walks.refused(direct.owner.get, f"/requests/{request[:16]}0000{request[20:]}")
    assert refused.code == "serving.nobody-answered"
    assert walks.refused(direct.owner.get, "/requests/xyz").code == "serving.bad-request-id"


def test_the_timeline_tells_all_of_it(direct):
    change = asked(direct, "1.1.0")
    walks.approve(direct.reader, change)
    walks.turn(direct, start(direct, change))
    back(direct)
    found = direct.owner.get(f"/models/{MODEL}/timeline")
    kinds = {one["kind"] for one in found["happenings"]}
    assert kinds >= {"release", "change", "approval", "rollout", "live", "rollback", "alert"}
    spans = [(s["version"], s["share"], s["until"] is None) for s in found["stretches"]]
    assert spans == [("1.0.0", 1.0, False), ("1.1.0", 1.0, False), ("1.0.0", 1.0, True)]
    times = [one["at"] for one in found["happenings"]]
    assert times == sorted(times)
    picture = direct.owner.raw("GET", f"/models/{MODEL}/timeline.svg").decode()
    assert picture.count("<g><title>production: 1.") == 3
    assert "prefers-color-scheme:dark" in picture
    assert "<script" not in picture


@pytest.mark.parametrize("line", ["UPDATE live_move SET model = 'x'", "DELETE FROM live_move"])
def test_the_database_itself_keeps_the_ledger(live, line):
    with (
        contextlib.closing(sqlite3.connect(live.root / ".falaj" / "store.db")) as base,
        base,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        base.execute(line)


def test_changes_are_counted(direct):
    change = asked(direct, "1.1.0")
    walks.approve(direct.reader, change)
    walks.turn(direct, start(direct, change))
    back(direct)
    found = direct.owner.get("/change-metrics", by="month")
    whole, month = found["rows"]
    assert (whole["started"], whole["failure_rate"]["x"]) == (2, 1)
    assert whole["failure_rate"]["value"] is None, "two are too few for a rate"
    assert whole["lead_time_s"] > 0
    assert 0 <= whole["restore_s"] < 20
    assert whole["reviews_open"] == 1
    assert found["unauthorised"] == 0
    assert month["month"] == f"{datetime.now(UTC):%Y-%m}"
