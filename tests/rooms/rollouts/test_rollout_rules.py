from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from falaj.base.errors import Conflict
from falaj.facts.rollouts import LiveMove, Outcome, Phase, Rollout, RolloutPlan, Strategy
from falaj.facts.serving import Counts
from falaj.rollouts import analysis, rules, traffic
from falaj.rollouts.rules import Confirmed, Finding, Verb

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAN = RolloutPlan(strategy=Strategy.CANARY, hold_s=10, warmup_s=0, min_time_s=0, stratum_s=1)
ROLLOUT = Rollout(
    id="RO-0001", change="CHG-0001", environment="production", model="m", release="new",
    version="1.1.0", previous="old", previous_version="1.0.0", plan=PLAN, phase=Phase.PROGRESSING,
    step=0, salt="c2FsdHNhbHRzYWx0c2FsdA==", started=NOW, since=NOW, latency_us=(1, 2, 3, 4),
)  # fmt: skip
LATER = NOW + timedelta(seconds=11)


def finding(outcome: Outcome, *, advance: bool = False) -> Finding:
    return Finding(outcome, advance, (f"says {outcome}",))


HOLDS = finding(Outcome.CONTINUE)
REACHED = finding(Outcome.CONTINUE, advance=True)
HARM = finding(Outcome.ROLLBACK)
PROVEN = finding(Outcome.PROMOTE)
CASES = {  # step, phase, asked, finding, when -> phase, step, action
    "waits while the hold time runs": (0, "progressing", "", REACHED, NOW, "progressing", 0, "hold"),
    "rises on planned exposure": (0, "progressing", "", REACHED, LATER, "progressing", 1, "advance"),
    "holds without it": (0, "progressing", "", HOLDS, LATER, "progressing", 0, "hold"),
    "rises early on proof": (1, "progressing", "", PROVEN, LATER, "progressing", 2, "advance"),
    "promotes from the last step": (2, "progressing", "", PROVEN, LATER, "promoting", 2, "promote"),
    "without proof the last step waits": (2, "progressing", "", REACHED, LATER, "progressing", 2, "hold"),
    "goes back on harm, inside the hold time": (0, "progressing", "", HARM, NOW, "rolling-back", 0, "rollback"),
    "goes back on harm while paused": (1, "paused", "", HARM, NOW, "rolling-back", 1, "rollback"),
    "an invalid split goes back without a judgement": (
        1, "progressing", "", finding(Outcome.INVALID), NOW, "rolling-back", 1, "abort"),
    "an incident of both pauses": (1, "progressing", "", finding(Outcome.PAUSE), NOW, "paused", 1, "pause"),
    "paused stays paused": (1, "paused", "", PROVEN, LATER, "paused", 1, "hold"),
    "a person pauses": (1, "progressing", "pause", REACHED, LATER, "paused", 1, "pause"),
    "a person resumes": (1, "paused", "resume", HOLDS, LATER, "progressing", 1, "resume"),
    "a person aborts": (1, "progressing", "abort", PROVEN, LATER, "rolling-back", 1, "abort"),
    "a person's resume never overrules harm": (1, "paused", "resume", HARM, LATER, "rolling-back", 1, "rollback"),
    "nothing moves when it is over": (2, "promoted", "", HARM, LATER, "promoted", 2, "hold"),
    "nothing moves while it waits for the target": (0, "starting", "", HARM, LATER, "starting", 0, "hold"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "phase", "asked", "found", "when", "after", "next_step", "action"),
    CASES.values(),
    ids=CASES,
)
def test_decide(step, phase, asked, found, when, after, next_step, action):
    rollout = replace(ROLLOUT, step=step, phase=Phase(phase), asked=asked)
    moved, move = rules.decide(rollout, found, now=when)
    assert (moved.phase, moved.step, move.action) == (after, next_step, action)
    if action in ("pause", "resume", "abort"):
        assert not moved.asked or not asked


@given(
    st.lists(st.sampled_from([HOLDS, REACHED, HARM, PROVEN, finding(Outcome.PAUSE)]), max_size=30)
)
def test_a_rollout_that_went_back_never_sends_traffic_again(findings):
    rollout, now, gone = ROLLOUT, NOW, False
    for found in findings:
        now += timedelta(seconds=11)
        rollout, _ = rules.decide(rollout, found, now=now)
        rollout = rules.confirm(rollout, Confirmed(done=True), now=now)
        gone = gone or rollout.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
        plan = traffic.model_plan(rollout, {"new": "n", "old": "o"})
        if gone:
            assert plan.stable.release == "old"
            assert plan.canary is None


@given(st.lists(st.sampled_from([HOLDS, REACHED, PROVEN]), max_size=30))
def test_weight_never_falls_while_it_goes_well_and_100_needs_the_proof(findings):
    rollout, now, last, proven = ROLLOUT, NOW, 0, False
    for found in findings:
        now += timedelta(seconds=11)
        proven = proven or found is PROVEN
        rollout, _ = rules.decide(rollout, found, now=now)
        plan = traffic.model_plan(rollout, {"new": "n", "old": "o"})
        weight = 10_000 if plan.stable.release == "new" else (plan.canary and plan.canary.weight_bp)
        assert weight is not None
        assert weight >= last
        assert weight < 10_000 or proven
        last = weight


CONFIRMED = {
    "the first release is promoted when it answers": (
        Strategy.DIRECT,
        "starting",
        True,
        "promoted",
    ),
    "a canary starts when the target is ready": (Strategy.CANARY, "starting", True, "progressing"),
    "nothing before the target shows it": (Strategy.CANARY, "promoting", False, "promoting"),
    "promoted when the target shows it": (Strategy.CANARY, "promoting", True, "promoted"),
    "rolled back when the target shows it": (Strategy.CANARY, "rolling-back", True, "rolled-back"),
    "progress is not the target's to end": (Strategy.CANARY, "progressing", True, "progressing"),
}


@pytest.mark.parametrize(("strategy", "phase", "done", "after"), CONFIRMED.values(), ids=CONFIRMED)
def test_confirm(strategy, phase, done, after):
    rollout = replace(ROLLOUT, phase=Phase(phase), plan=replace(PLAN, strategy=strategy))
    assert rules.confirm(rollout, Confirmed(done=done), now=NOW).phase == after


def test_no_traffic_before_the_target_is_ready():
    plan = traffic.model_plan(replace(ROLLOUT, phase=Phase.STARTING), {"new": "n", "old": "o"})
    assert plan.canary is None
    assert plan.standby is not None
    assert plan.standby.release == "new"


def test_nothing_is_counted_before_the_target_is_ready():
    plan = traffic.model_plan(replace(ROLLOUT, phase=Phase.STARTING), {"new": "n", "old": "o"})
    assert plan.rollout == "", "requests without a split would count against the planned split"


GIVEN_UP = {
    "a wish while it starts": ("starting", "old", "abort", "", 0, "rolling-back"),
    "a wish while it is promoted": ("promoting", "old", "rollback", "", 0, "rolling-back"),
    "the target cannot start it": ("starting", "old", "", "no memory", 40, "rolling-back"),
    "the target may still start it": ("starting", "old", "", "no memory", 20, None),
    "the target takes its time without a problem": ("starting", "old", "", "", 4000, None),
    "the first release, by a wish": ("starting", "", "abort", "", 0, "aborted"),
    "the first release, by itself": ("starting", "", "", "no memory", 40, "aborted"),
    "promotion is tried for ever": ("promoting", "old", "", "no memory", 4000, None),
    "a pause ends nothing": ("starting", "old", "pause", "", 0, None),
    "going back is never given up": ("rolling-back", "old", "abort", "", 0, None),
}


@pytest.mark.parametrize(
    ("phase", "previous", "asked", "problem", "waited_s", "after"), GIVEN_UP.values(), ids=GIVEN_UP
)
def test_give_up(phase, previous, asked, problem, waited_s, after):
    rollout = replace(
        ROLLOUT,
        phase=Phase(phase),
        previous=previous,
        asked=asked,
        since=NOW - timedelta(seconds=waited_s),
    )
    found = rules.give_up(rollout, Confirmed(done=False, problem=problem), now=NOW, patience_s=30)
    assert (found and found.phase) == after
    if found:
        assert found.asked == ""
    shown = rules.give_up(rollout, Confirmed(done=True), now=NOW, patience_s=30)
    assert shown is None, "what the target shows is not given up"


WAYS_BACK = {
    "nothing before the first": (["1"], "", ""),
    "the one before": (["1", "2"], "", "1"),
    "a canary in between changes nothing": (["1", "1", "1", "2"], "", "1"),
    "after going back nothing leads forward": (["1", "2", "1"], "c", ""),
    "after going back and a new one": (["1", "2", "1", "3"], "c", "1"),
    "two steps back": (["1", "2", "3", "2"], "d", "1"),
    "an old release that was rolled out anew": (["1", "2", "1"], "", "2"),
}


@pytest.mark.parametrize(("live", "back", "before"), WAYS_BACK.values(), ids=WAYS_BACK)
def test_release_before(live, back, before):
    moves = [
        LiveMove(
            id=str(seq),
            environment="production",
            model="m",
            stable=release,
            stable_version=release,
            at=NOW,
            cause="abcdefgh"[seq],
            seq=seq,
        )
        for seq, release in enumerate(live)
    ]
    assert rules.release_before(moves, set(back)) == before


@pytest.mark.parametrize("phase", sorted(rules.FINAL))
def test_nothing_can_be_asked_of_a_rollout_that_is_over(phase):
    with pytest.raises(Conflict):
        rules.ask(replace(ROLLOUT, phase=phase), Verb.PAUSE, by="omar", why="")


# --- from counts to a finding ---


def counts(stratum: int, n_c: int, x_c: int, n_s: int, x_s: int, **more) -> list[Counts]:
    base = {"source": "s1", "seq": 1, "model": "m", "rollout": "RO-0001", "zone": "ae", "step": 0}
    shared = base | {"stratum": stratum} | more
    return [
        Counts(**shared, metric="requests", n_c=n_c, x_c=0, n_s=n_s, x_s=0),
        Counts(**shared, metric="errors", n_c=n_c, x_c=x_c, n_s=n_s, x_s=x_s),
    ]


def second(at: datetime) -> int:
    return int(at.timestamp())


def test_only_closed_strata_are_read_and_each_once():
    plan = replace(PLAN, grace_s=2)
    rollout = replace(ROLLOUT, plan=plan)
    told = [row for at in range(10) for row in counts(second(NOW) + at, 5, 0, 95, 0)]
    got = analysis.read(rollout, told, [], now=NOW + timedelta(seconds=6))
    assert [at - second(NOW) for at, _ in got.fresh] == [0, 1, 2, 3]
    after, _, _ = analysis.judge(rollout, got, now=NOW + timedelta(seconds=6))
    again = analysis.read(after, told, [], now=NOW + timedelta(seconds=6))
    assert again.fresh == ()
    assert after.done_stratum == second(NOW) + 3


def test_warm_up_is_left_out():
    rollout = replace(ROLLOUT, plan=replace(PLAN, warmup_s=3, grace_s=0))
    told = [row for at in range(6) for row in counts(second(NOW) + at, 5, 0, 95, 0)]
    got = analysis.read(rollout, told, [], now=NOW + timedelta(seconds=10))
    assert [at - second(NOW) for at, _ in got.fresh] == [3, 4, 5]


def test_duplicates_and_older_reports_change_nothing():
    new = counts(7, 10, 1, 90, 2, seq=5)
    old = counts(7, 4, 0, 40, 1, seq=2)
    other = counts(7, 3, 0, 30, 0, source="s2")
    found = analysis.merge([*new, *old, *new, *other])
    errors = next(row for row in found if row.metric == "errors")
    assert (errors.n_c, errors.x_c, errors.n_s, errors.x_s) == (13, 1, 120, 2)
    shuffled = analysis.merge([*other, *old, *new])
    assert sorted(map(repr, found)) == sorted(map(repr, shuffled))


def walk(bad_c: int, bad_s: int, seconds: int, *, n_c: int = 50, n_s: int = 950):
    told = [
        row for at in range(seconds) for row in counts(second(NOW) + at, n_c, bad_c, n_s, bad_s)
    ]
    now = NOW + timedelta(seconds=seconds + 10)
    got = analysis.read(ROLLOUT, told, [], now=now)
    return analysis.judge(ROLLOUT, got, now=now)


def test_a_canary_with_many_errors_is_rolled_back_with_the_numbers_said():
    _, found, numbers = walk(bad_c=10, bad_s=10, seconds=20)
    assert found.outcome is Outcome.ROLLBACK
    assert "errors" in found.reasons[0]
    assert numbers["totals"]["errors"] == [1000, 200, 19000, 200]


def test_an_equal_canary_goes_on():
    _, found, _ = walk(bad_c=1, bad_s=19, seconds=60)
    assert found.outcome is Outcome.CONTINUE


def test_no_counts_is_not_health():
    got = analysis.read(ROLLOUT, [], [], now=LATER)
    _, found, numbers = analysis.judge(ROLLOUT, got, now=LATER)
    assert found.outcome is Outcome.CONTINUE
    assert not found.advance
    assert numbers["word"] == "no data"


def test_silence_of_an_arm_pauses_after_the_stall_time():
    rollout = replace(ROLLOUT, plan=replace(PLAN, stall_s=30))
    now = NOW + timedelta(seconds=60)
    _, found, _ = analysis.judge(rollout, analysis.read(rollout, [], [], now=now), now=now)
    assert found.outcome is Outcome.PAUSE


def test_a_split_that_is_not_what_the_plan_says_is_invalid():
    _, found, _ = walk(bad_c=0, bad_s=0, seconds=60, n_c=500, n_s=500)
    assert found.outcome is Outcome.INVALID


def test_the_state_can_be_replayed_bit_by_bit_from_the_strata():
    told = [row for at in range(30) for row in counts(second(NOW) + at, 50, at % 3, 950, 19)]
    whole = replace(ROLLOUT)
    whole, _, _ = analysis.judge(
        whole, analysis.read(whole, told, [], now=NOW + timedelta(seconds=60)),
        now=NOW + timedelta(seconds=60),
    )  # fmt: skip
    parts = ROLLOUT
    for at in range(8, 60, 7):
        now = NOW + timedelta(seconds=at)
        parts, _, _ = analysis.judge(parts, analysis.read(parts, told, [], now=now), now=now)
    assert parts.analysis == whole.analysis
    assert parts.done_stratum == whole.done_stratum
