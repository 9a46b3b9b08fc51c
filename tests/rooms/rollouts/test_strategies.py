"""Every strategy and mode as tables: where it stands, what was found, what happens next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from falaj.base.errors import Conflict
from falaj.facts.project import OwnMetricTable, RolloutTable
from falaj.facts.rollouts import Mode, Outcome, Phase, Rollout, RolloutPlan, Strategy
from falaj.rollouts import rules, traffic
from falaj.rollouts.rules import Confirmed, Finding, Verb

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=11)
PLAN = RolloutPlan(strategy=Strategy.CANARY, hold_s=10, warmup_s=0, min_time_s=0, stratum_s=1)
ROLLOUT = Rollout(
    id="RO-0001", change="CHG-0001", environment="production", model="m", release="new",
    version="1.1.0", previous="old", previous_version="1.0.0", plan=PLAN, phase=Phase.PROGRESSING,
    step=0, salt="c2FsdHNhbHRzYWx0c2FsdA==", started=NOW, since=NOW, latency_us=(1, 2, 3, 4),
)  # fmt: skip
FOLDERS = {"new": "releases/n", "old": "releases/o"}


def finding(outcome, *, advance=False):
    return Finding(outcome, advance, (f"says {outcome}",))


HOLDS, REACHED = finding(Outcome.CONTINUE), finding(Outcome.CONTINUE, advance=True)
HARM, PROVEN = finding(Outcome.ROLLBACK), finding(Outcome.PROMOTE)
INVALID, INCIDENT = finding(Outcome.INVALID), finding(Outcome.PAUSE)


def of(strategy, **more):
    steps = {"rolling": (33, 66, 100), "canary": (5, 25, 50, 100)}.get(strategy, (0, 100))
    plan = replace(PLAN, strategy=Strategy(strategy), steps_pct=steps)
    return replace(ROLLOUT, plan=replace(plan, **more))


MOVES = {  # rollout, finding -> phase, step, action
    "blue-green switches when it is warm": (of("blue-green"), REACHED, "progressing", 1, "advance"),
    "blue-green promotes after its time with all of the traffic": (
        replace(of("blue-green"), step=1), PROVEN, "promoting", 1, "promote"),
    "blue-green waits with all of the traffic": (replace(of("blue-green"), step=1), REACHED, "progressing", 1, "hold"),
    "blue-green returns at once": (replace(of("blue-green"), step=1), HARM, "rolling-back", 1, "rollback"),
    "rolling takes the next server": (of("rolling"), REACHED, "progressing", 1, "advance"),
    "rolling ends on the last server": (replace(of("rolling"), step=2), PROVEN, "promoting", 2, "promote"),
    "a shadow waits for its proof": (of("shadow"), REACHED, "progressing", 0, "hold"),
    "a proven shadow is promoted": (of("shadow"), PROVEN, "promoting", 0, "promote"),
    "a shadow that is worse ends": (of("shadow"), HARM, "rolling-back", 0, "rollback"),
    "a person is asked before a share": (of("canary", pause_pct=(25,)), REACHED, "paused", 0, "pause"),
    "and once let through it rises": (
        replace(of("canary", pause_pct=(25,)), let_through=1), REACHED, "progressing", 1, "advance"),
    "a person is asked before all of it": (
        replace(of("canary", pause_pct=(100,)), step=2), PROVEN, "paused", 2, "pause"),
    "and then it is promoted": (
        replace(of("canary", pause_pct=(100,)), step=2, let_through=3), PROVEN, "promoting", 2, "promote"),
    "a switch is asked for once": (
        replace(of("blue-green", pause_pct=(100,)), step=1, let_through=1), PROVEN, "promoting", 1, "promote"),
    "observing, harm is said and not acted on": (of("canary", mode=Mode.OBSERVE), HARM, "progressing", 0, "would-rollback"),
    "advising, a step is said and not taken": (of("canary", mode=Mode.ADVISE), REACHED, "progressing", 0, "would-advance"),
    "advising, an incident is said": (of("canary", mode=Mode.ADVISE), INCIDENT, "progressing", 0, "would-pause"),
    "advising, an invalid split is said": (of("canary", mode=Mode.ADVISE), INVALID, "progressing", 0, "would-abort"),
    "advising, nothing to say is a hold": (of("canary", mode=Mode.ADVISE), HOLDS, "progressing", 0, "hold"),
    "a person ends it in every mode": (
        replace(of("canary", mode=Mode.OBSERVE), asked="abort"), HOLDS, "rolling-back", 0, "abort"),
    "a person takes the step": (
        replace(of("canary", mode=Mode.OBSERVE), asked="advance"), HOLDS, "progressing", 1, "advance"),
    "a person promotes from the last step": (
        replace(of("canary", mode=Mode.ADVISE), asked="advance", step=2), HOLDS, "promoting", 2, "promote"),
    "a person never overrules proven harm": (
        replace(of("canary", mode=Mode.OBSERVE), asked="advance"), HARM, "progressing", 0, "hold"),
}  # fmt: skip


@pytest.mark.parametrize(("rollout", "found", "phase", "step", "action"), MOVES.values(), ids=MOVES)
def test_decide(rollout, found, phase, step, action):
    moved, move = rules.decide(rollout, found, now=LATER)
    assert (moved.phase, moved.step, move.action) == (phase, step, action)
    assert not moved.asked


def test_resume_lets_through_the_next_step_only():
    asked = of("canary", pause_pct=(25, 50))
    paused, _ = rules.decide(asked, REACHED, now=LATER)
    wished = rules.ask(paused, Verb.RESUME, by="p", why="seen")
    resumed, _ = rules.decide(wished, HOLDS, now=LATER)
    later = LATER + timedelta(seconds=11)
    risen, move = rules.decide(resumed, REACHED, now=later)
    assert (risen.step, move.action) == (1, "advance")
    again, move = rules.decide(risen, REACHED, now=later + timedelta(seconds=11))
    assert (again.phase, move.action) == (Phase.PAUSED, "pause")
    assert again.why == "waits for a person before 50 %"


def test_nobody_takes_a_step_where_it_moves_by_itself():
    with pytest.raises(Conflict) as refusal:
        rules.ask(ROLLOUT, Verb.ADVANCE, by="p", why="faster")
    assert refusal.value.code == "rollouts.acts-by-itself"
    with pytest.raises(Conflict) as refusal:
        rules.ask(replace(ROLLOUT, phase=Phase.STARTING), Verb.ADVANCE, by="p", why="faster")
    assert refusal.value.code == "rollouts.not-progressing"


def planned(rollout):
    return traffic.model_plan(rollout, FOLDERS)


def test_blue_green_is_warm_then_whole_then_back_at_once():
    warm = planned(of("blue-green"))
    assert (warm.stable.release, warm.canary.release, warm.canary.weight_bp) == ("old", "new", 0)
    whole = planned(replace(of("blue-green"), step=1))
    assert (whole.stable.release, whole.canary.weight_bp) == ("old", 10_000), "old rescues"
    kept = planned(replace(of("blue-green"), phase=Phase.PROMOTED))
    assert (kept.stable.release, kept.standby.release) == ("new", "old"), "kept warm"
    back = planned(replace(of("blue-green"), phase=Phase.ROLLING_BACK))
    assert (back.stable.release, back.canary) == ("old", None)


def test_rolling_goes_by_server_and_never_by_chance():
    rolled = [planned(replace(of("rolling"), step=step)).rolled for step in range(3)]
    assert rolled == [1, 2, 3]


def test_a_shadow_answers_nobody():
    plan = planned(of("shadow", shadow_pct=20))
    assert (plan.stable.release, plan.canary) == ("old", None)
    assert (plan.shadow.release, plan.shadow_bp) == ("new", 2000)


def test_the_a_a_phase_compares_one_release_with_itself_under_a_name_of_its_own():
    rollout = replace(of("canary", aa_s=60), phase=Phase.STARTING)
    measuring = rules.confirm(rollout, Confirmed(done=True), now=NOW)
    assert measuring.phase is Phase.MEASURING
    plan = planned(measuring)
    assert (plan.stable.release, plan.canary.release, plan.canary.weight_bp) == ("old", "old", 5000)
    assert plan.rollout == "RO-0001.aa"
    assert plan.latency_margin_us == 0, "both arms against the same thresholds"
    assert rules.confirm(measuring, Confirmed(done=True), now=NOW) == measuring


def test_traffic_begins_when_it_progresses_not_when_it_starts():
    rollout = replace(ROLLOUT, phase=Phase.STARTING)
    assert rules.confirm(rollout, Confirmed(done=True), now=LATER).opened == LATER


PLANS = {
    "blue-green": (Strategy.BLUE_GREEN, 3, (0, 100)),
    "shadow": (Strategy.SHADOW, 3, (0, 100)),
    "rolling over one": (Strategy.ROLLING, 1, (100,)),
    "rolling over three": (Strategy.ROLLING, 3, (33, 66, 100)),
    "canary as written": (Strategy.CANARY, 3, (5, 25, 50, 100)),
}


@pytest.mark.parametrize(("strategy", "replicas", "steps"), PLANS.values(), ids=PLANS)
def test_steps_of_a_strategy(strategy, replicas, steps):
    assert RolloutTable().plan(strategy, replicas=replicas).steps_pct == steps


REFUSED = {
    "a sticky request": (lambda: RolloutTable(sticky=True), "sticky"),
    "a pause before a share that is no step": (lambda: RolloutTable(pause_pct=(33,)), "pause_pct"),
    "a metric by falaj's own name": (
        lambda: RolloutTable(metrics={"errors": OwnMetricTable()}), "metrics"),
    "prometheus without queries": (lambda: OwnMetricTable(source="prometheus"), "url"),
    "prometheus over ftp": (
        lambda: OwnMetricTable(source="prometheus", url="ftp://x", all="a", bad="b"), "url"),
    "a margin below what is tolerated": (lambda: OwnMetricTable(tolerate=2, margin=1.5), "margin"),
    "a limit of everything": (lambda: OwnMetricTable(slo=1.0), "slo"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "field"), REFUSED.values(), ids=REFUSED)
def test_settings_that_make_no_sense(make, field):
    with pytest.raises(ValueError, match=f"^{field}:"):
        make()
