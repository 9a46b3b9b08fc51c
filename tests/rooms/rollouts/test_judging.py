"""From counts to a finding, through the real analysis: limits, incidents, A/A, late counts, replay."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from falaj.base.errors import FalajError
from falaj.facts.rollouts import (
    MetricPlan,
    Outcome,
    Phase,
    Rollout,
    RolloutDecision,
    RolloutPlan,
    Strategy,
    Stratum,
)
from falaj.facts.serving import Counts
from falaj.rollouts import analysis, measuring, own, planning, rules
from falaj.rollouts.replay import replay

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAN = RolloutPlan(
    strategy=Strategy.CANARY, stratum_s=60, grace_s=0, warmup_s=0, min_time_s=600, alpha=0.01,
    prove=("errors",),
)  # fmt: skip
ROLLOUT = Rollout(
    id="RO-0001", change="CHG-0001", environment="production", model="m", release="new",
    version="1.1.0", previous="old", previous_version="1.0.0", plan=PLAN, phase=Phase.PROGRESSING,
    salt="c2FsdHNhbHRzYWx0c2FsdA==", started=START, since=START, opened=START,
)  # fmt: skip
FIRST = int(START.timestamp() // 60)


def minute(number, step, n_c, x_c, n_s, x_s, *more, seq=1):
    """Counts of one minute: requests, errors, and what else is given as (metric, n_c, x_c, n_s, x_s)."""
    rows = [("requests", n_c, 0, n_s, 0), ("errors", n_c, x_c, n_s, x_s), *more]
    return [
        Counts(
            source="s", seq=seq, model="m", rollout="RO-0001", stratum=FIRST + number, zone="ae",
            step=step, metric=metric, n_c=a, x_c=b, n_s=c, x_s=d,
        )
        for metric, a, b, c, d in rows
    ]  # fmt: skip


def walked(rollout, minutes, *, labels=lambda at: [], rate=(0.01, 0.01), load=6000, seed=1):
    """Whole minutes through read, judge and decide, as the journey does; decisions as it keeps them."""
    dice = np.random.default_rng(seed)
    found, counts = [], []
    for number in range(minutes):
        share = traffic_share(rollout)
        n_c = int(dice.binomial(load, share))
        n_s = load - n_c
        x_c, x_s = dice.binomial(n_c, rate[0]), dice.binomial(n_s, rate[1])
        counts += minute(number, rollout.step, n_c, int(x_c), n_s, int(x_s))
        now = START + timedelta(minutes=number + 1, seconds=1)
        got = analysis.read(rollout, counts, labels(FIRST + number), now=now)
        after, finding, numbers = analysis.judge(rollout, got, now=now)
        decided, move = rules.decide(after, finding, now=now)
        if decided != rollout:
            found.append(
                RolloutDecision(
                    id=f"D-{number}", rollout=rollout.id, at=now, step=rollout.step,
                    outcome=finding.outcome, action=move.action,
                    reasons=move.reasons or finding.reasons, numbers=numbers,
                )
            )  # fmt: skip
        rollout = decided
        if rollout.phase is not Phase.PROGRESSING:
            break
    return rollout, found


def traffic_share(rollout):
    return rollout.plan.steps_pct[rollout.step] / 100


def test_a_good_one_is_promoted_and_a_bad_one_goes_back_and_both_replay_bit_by_bit():
    for rate, phase in (((0.01, 0.01), Phase.PROMOTING), ((0.02, 0.01), Phase.ROLLING_BACK)):
        done, decisions = walked(ROLLOUT, 300, rate=rate)
        assert done.phase is phase
        # as the log holds them: through JSON and back
        text = msgspec.json.encode(decisions)
        read = msgspec.json.decode(text, type=list[RolloutDecision])
        told = replay(done, read)
        assert [one.differs for one in told] == [()] * len(decisions)
        assert told[-1].action == decisions[-1].action


def test_a_replay_sees_a_single_count_that_was_changed():
    done, decisions = walked(ROLLOUT, 20)
    numbers = json.loads(json.dumps(decisions[3].numbers))
    numbers["strata"][0][4] += 1  # one error more of the canary
    forged = [*decisions[:3], replace(decisions[3], numbers=numbers), *decisions[4:]]
    told = replay(done, forged)
    assert [bool(one.differs) for one in told] == [False] * 3 + [True] * (len(decisions) - 3)
    assert "numbers.state" in told[3].differs


def test_a_replay_sees_an_action_that_was_changed():
    done, decisions = walked(ROLLOUT, 8)
    forged = [*decisions[:-1], replace(decisions[-1], action="promote")]
    assert replay(done, forged)[-1].differs == ("action",)


def test_every_decision_says_when_the_next_one_is_due():
    _, decisions = walked(ROLLOUT, 3)
    due = [one.numbers["next_due"].replace(".000000", "") for one in decisions]
    assert due == [f"2026-11-24T12:0{number}:00Z" for number in (2, 3, 4)]


def test_no_data_holds():
    now = START + timedelta(minutes=4)
    got = analysis.read(ROLLOUT, [], [], now=now)
    after, finding, numbers = analysis.judge(ROLLOUT, got, now=now)
    assert finding == (Outcome.CONTINUE, False, finding.reasons)
    assert numbers["word"] == "no data"
    assert rules.decide(after, finding, now=now)[1].action == "hold"


def test_a_silent_arm_pauses():
    now = START + timedelta(minutes=7)
    counts = minute(0, 0, 300, 3, 5700, 57) + minute(6, 0, 0, 0, 60, 1)
    got = analysis.read(ROLLOUT, counts, [], now=now)
    _, finding, _ = analysis.judge(ROLLOUT, got, now=now)
    assert finding.outcome is Outcome.PAUSE
    assert finding.reasons[0] == "no counts from canary, which should have traffic"


def test_both_arms_failing_pause_as_an_incident_and_nobody_is_blamed():
    done, decisions = walked(ROLLOUT, 30, rate=(0.6, 0.6))
    assert done.phase is Phase.PAUSED
    assert decisions[-1].reasons[0].startswith("both arms fail: more than 25% of the answers")
    assert len(decisions) <= 2, "at once"


def test_a_long_incident_is_over_when_it_is_over():
    rollout, counts = ROLLOUT, []
    for number in range(40):
        bad = 0.6 if number < 20 else 0.0
        counts += minute(number, 0, 300, int(300 * bad), 5700, int(5700 * bad))
    now = START + timedelta(minutes=41)
    got = analysis.read(rollout, counts, [], now=now)
    _, finding, _ = analysis.judge(rollout, got, now=now)
    assert finding.outcome is not Outcome.PAUSE


def test_only_the_canary_failing_goes_back():
    done, decisions = walked(ROLLOUT, 30, rate=(0.6, 0.01))
    assert done.phase is Phase.ROLLING_BACK
    assert decisions[-1].reasons[0].startswith("worse: errors")


def test_an_old_analysis_without_the_new_parts_goes_on():
    _, decisions = walked(ROLLOUT, 2)
    after, _ = walked(ROLLOUT, 2)
    old = {k: v for k, v in after.analysis.items() if k not in ("alarm", "scores")}
    now = START + timedelta(minutes=3, seconds=1)
    got = analysis.read(replace(after, analysis=old), minute(2, 0, 300, 3, 5700, 57), [], now=now)
    again, _, _ = analysis.judge(replace(after, analysis=old), got, now=now)
    assert again.analysis["requests"][0] > after.analysis["requests"][0]
    assert decisions


def test_late_counts_that_differ_between_arms_make_it_invalid():
    rollout = ROLLOUT
    counts = [row for number in range(10) for row in minute(number, 0, 300, 3, 5700, 57)]
    now = START + timedelta(minutes=10, seconds=1)
    after, finding, _ = analysis.judge(
        rollout, analysis.read(rollout, counts, [], now=now), now=now
    )
    assert finding.outcome is Outcome.CONTINUE
    # Then a source tells of 40 canary requests more in every minute that was taken already.
    more = [row for n in range(10) for row in minute(n, 0, 340, 3, 5700, 57, seq=2)]
    got = analysis.read(after, [*counts, *more], [], now=now)
    assert got.late == (400, 0)
    _, finding, numbers = analysis.judge(after, got, now=now)
    assert finding.outcome is Outcome.INVALID
    assert numbers["late.canary"] == pytest.approx(400 / 3400)


def test_late_counts_of_both_arms_alike_do_not():
    counts = [row for number in range(10) for row in minute(number, 0, 300, 3, 5700, 57)]
    now = START + timedelta(minutes=10, seconds=1)
    after, _, _ = analysis.judge(ROLLOUT, analysis.read(ROLLOUT, counts, [], now=now), now=now)
    more = [row for n in range(10) for row in minute(n, 0, 330, 3, 6270, 60, seq=2)]
    got = analysis.read(after, [*counts, *more], [], now=now)
    _, finding, _ = analysis.judge(after, got, now=now)
    assert finding.outcome is Outcome.CONTINUE


def test_clocks_that_jump_ahead_and_back_take_nothing_twice():
    counts = [row for number in range(10) for row in minute(number, 0, 300, 3, 5700, 57)]
    ahead = START + timedelta(days=1)
    far, _, _ = analysis.judge(ROLLOUT, analysis.read(ROLLOUT, counts, [], now=ahead), now=ahead)
    back = START + timedelta(minutes=5)
    got = analysis.read(far, counts, [], now=back)
    assert got.fresh == ()
    again, finding, _ = analysis.judge(far, got, now=back)
    assert again == far
    assert finding.outcome is Outcome.CONTINUE
    assert rules.decide(far, finding, now=back)[1].action == "hold"
    more = [*counts, *minute(10, 0, 300, 3, 5700, 57)]
    got = analysis.read(far, more, [], now=START + timedelta(minutes=12))
    assert [at for at, _ in got.fresh] == [FIRST + 10]


# --- the A/A phase ---


def aa(phi=1.0, strata=120, seed=3, shift=0.0):
    """Two arms of one release; phi above 1: the arm's rate of a minute wanders."""
    dice = np.random.default_rng(seed)
    rows = []
    for at in range(strata):
        wander = 1 + (phi - 1) * dice.standard_normal() * 0.2
        rate_c = min(max(0.01 * wander + shift, 0.0005), 0.9)
        rows += [
            Stratum(stratum=at, zone="ae", step=0, metric="requests", n_c=3000, x_c=0, n_s=3000, x_s=0),
            Stratum(
                stratum=at, zone="ae", step=0, metric="errors", n_c=3000,
                x_c=int(dice.binomial(3000, rate_c)), n_s=3000, x_s=int(dice.binomial(3000, 0.01)),
            ),
        ]  # fmt: skip
    return rows


MEASURING = replace(ROLLOUT, phase=Phase.MEASURING, plan=replace(PLAN, aa_s=7200))


def test_arms_that_differ_by_chance_alone_cost_less_evidence_than_assumed():
    after, finding, move, numbers = measuring.measured(MEASURING, aa(), now=START)
    assert (after.phase, move.action, finding.outcome) == (
        Phase.PROGRESSING, "measured", Outcome.CONTINUE)  # fmt: skip
    assert numbers["dispersion"].startswith("measured (upper bound): errors 1.")
    assert 1.0 <= measuring.phi(after.dispersion, "errors", 0.05) < 1.2
    assert measuring.phi(after.dispersion, "labels", 0.05) == 2.0, "never seen in this phase"
    assert measuring.peaks(after.dispersion)["errors"] < np.log(1000)


def test_arms_that_wander_cost_more_and_more_with_the_weight():
    after, *_ = measuring.measured(MEASURING, aa(phi=3.0), now=START)
    low, high = (measuring.phi(after.dispersion, "errors", w) for w in (0.05, 0.5))
    assert 1.0 < low < high


def test_one_release_that_differs_from_itself_makes_the_comparison_invalid():
    after, *_ = measuring.measured(MEASURING, aa(shift=0.01), now=START)
    now = START + timedelta(minutes=2)
    got = analysis.read(after, minute(0, 0, 300, 3, 5700, 57), [], now=now)
    _, finding, _ = analysis.judge(after, got, now=now)
    assert finding.outcome is Outcome.INVALID
    assert "two halves of stable differ" in finding.reasons[0]


def test_too_short_a_phase_assumes():
    after, _, move, _ = measuring.measured(MEASURING, aa(strata=10), now=START)
    assert measuring.phi(after.dispersion, "errors", 0.05) == 2.0
    assert "is assumed" in move.reasons[1]


def test_a_measured_phase_replays():
    after, finding, move, numbers = measuring.measured(MEASURING, aa(), now=START)
    one = RolloutDecision(
        id="D", rollout="RO-0001", at=START, step=0, outcome=finding.outcome, action=move.action,
        reasons=move.reasons, numbers=numbers,
    )  # fmt: skip
    kept = msgspec.json.decode(msgspec.json.encode(one), type=RolloutDecision)
    assert replay(after, [kept])[0].differs == ()


# --- switches ---


def switched(strategy, **more):
    steps = {"rolling": (50, 100)}.get(strategy, (0, 100))
    plan = replace(PLAN, strategy=Strategy(strategy), steps_pct=steps, slo={"errors": 0.05})
    return replace(ROLLOUT, plan=replace(plan, **more), step=1)


SWITCHES = {  # minutes with all of the traffic, rate of errors -> phase
    "within its limits it is promoted after its time": (15, 0.01, Phase.PROMOTING),
    "before its time it waits": (5, 0.01, Phase.PROGRESSING),
    "above its limit it goes back": (15, 0.08, Phase.ROLLING_BACK),
}


@pytest.mark.parametrize("strategy", ["blue-green", "rolling"])
@pytest.mark.parametrize(("minutes", "rate", "phase"), SWITCHES.values(), ids=SWITCHES)
def test_a_switch_is_judged_by_its_limits(strategy, minutes, rate, phase):
    done, _ = walked(switched(strategy), minutes, rate=(rate, rate))
    assert done.phase is phase


def test_a_switch_without_an_slo_still_goes_back_when_most_fails():
    done, _ = walked(switched("blue-green", slo={}), 10, rate=(0.6, 0.0))
    assert done.phase is Phase.ROLLING_BACK


# --- shadow ---


def pairs(n, challenger, champion, both):
    def rows(at):
        return [
            Stratum(
                stratum=at, zone="ae", step=0, metric="labels.pairs", n_c=n, x_c=challenger,
                n_s=both, x_s=champion,
            )
        ]  # fmt: skip

    return rows


SHADOWS = {
    "as often wrong as the champion": (pairs(100, 4, 4, 5), Phase.PROMOTING),
    "wrong where the champion is right": (pairs(100, 8, 3, 5), Phase.ROLLING_BACK),
    "nothing labelled": (lambda at: [], Phase.PROGRESSING),
}


@pytest.mark.parametrize(("labels", "phase"), SHADOWS.values(), ids=SHADOWS)
def test_a_shadow_is_judged_on_the_same_rows(labels, phase):
    rollout = replace(ROLLOUT, plan=replace(PLAN, strategy=Strategy.SHADOW, steps_pct=(0, 100)))
    done, decisions = walked(rollout, 120, labels=labels)
    assert done.phase is phase
    assert [one.differs for one in replay(done, decisions)] == [()] * len(decisions)


# --- scores and metrics of users ---


def test_scores_that_move_are_told_and_never_go_back():
    def scores(at):
        return [
            Stratum(stratum=at, zone="ae", step=0, metric="score.0", n_c=300, x_c=150, n_s=5700, x_s=1700)
        ]  # fmt: skip

    done, decisions = walked(ROLLOUT, 4, labels=scores)
    assert done.phase is Phase.PROGRESSING
    assert decisions[-1].numbers["words"]["scores"] == "moved"
    assert "never goes back" in decisions[-1].reasons[-1]


OWN = replace(PLAN, metrics={"conversion": MetricPlan(prove=True)})


@pytest.mark.parametrize(
    ("bad", "phase"),
    [(90, Phase.ROLLING_BACK), (30, Phase.PROMOTING), (None, Phase.PROGRESSING)],
    ids=["worse", "no worse", "not reported: no data never promotes"],
)
def test_a_metric_of_the_user_is_judged_like_errors(bad, phase):
    def reported(at):
        if bad is None:
            return []
        row = [at, 0, "conversion", 300, bad, 5700, 570]
        return own.rows_of({"rows": [row]}, "ae")

    done, decisions = walked(replace(ROLLOUT, plan=OWN), 200, labels=reported)
    assert done.phase is phase
    if phase is Phase.ROLLING_BACK:
        assert decisions[-1].reasons[0].startswith("worse: conversion")


def test_a_report_counts_once_and_adds_to_its_minute():
    told = own.Told(10, 1)
    once = own.added({}, "a", (7, 0, "m"), told, own.Told(20, 2))
    assert once["rows"] == [[7, 0, "m", 10, 1, 20, 2]]
    assert own.added(once, "a", (7, 0, "m"), told, told) is None
    twice = own.added(once, "b", (7, 0, "m"), told, told)
    assert twice["rows"] == [[7, 0, "m", 20, 2, 30, 3]]


REPORTS = {
    "more bad than all": ((5, 6, None), "got 6 bad of 5"),
    "below nothing": ((-1, 0, None), "got 0 bad of -1"),
    "counts and values": ((5, 1, [1.0]), "counts and values"),
    "values without a limit": ((0, 0, [1.0]), "values without a limit"),
}


@pytest.mark.parametrize(("sent", "why"), REPORTS.values(), ids=REPORTS)
def test_reports_that_are_refused(sent, why):
    with pytest.raises(FalajError, match=why) as refusal:
        own.told(*sent, MetricPlan(), "canary")
    assert refusal.value.code == "rollouts.bad-report"


def test_values_are_judged_by_the_metrics_limits():
    plan = MetricPlan(at_least=10.0, at_most=20.0)
    assert own.told(0, 0, [9.0, 10.0, 15.0, 20.5], plan, "stable") == own.Told(4, 2)


COUNTERS = {
    "grew": (10.0, 13.0, 3),
    "began": (None, 2.0, 2),
    "was reset": (10.0, 1.0, None),
    "is not there": (None, None, None),
}


@pytest.mark.parametrize(("before", "after", "more"), COUNTERS.values(), ids=COUNTERS)
def test_a_counter_between_two_readings(before, after, more):
    assert own.grown(before, after) == more


# --- said before it starts ---


def test_the_plan_says_requests_and_minutes_and_a_doubling_is_caught_about_then():
    said = planning.promise(PLAN, 0.005, 6000.0)
    assert 1000 < said.requests < 20_000
    assert said.requests == pytest.approx(said.minutes * 300, rel=1e-9)
    assert "at 6000 requests a minute and 0.50% bad answers, as now" in said.sentences[0]
    caught = [len(walked(ROLLOUT, 300, rate=(0.01, 0.005), seed=seed)[1]) for seed in range(15)]
    assert np.median(caught) <= said.minutes * 1.3


def test_a_switch_promises_nothing():
    said = planning.promise(replace(PLAN, strategy=Strategy.BLUE_GREEN), 0.01, 100.0)
    assert "promises no alpha and no beta" in said.sentences[0]
