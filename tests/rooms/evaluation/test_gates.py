"""Gates decide on bounds: truly good passes, truly bad fails, and little data decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.evaluation import rules
from falaj.evaluation.bias import check_bias
from falaj.evaluation.latency import check_latency, check_memory, rank_bounds
from falaj.evaluation.quality import check_against_champion, check_quality
from falaj.evaluation.robustness import check_robustness, matching
from falaj.evaluation.service import measure
from falaj.evaluation.sets import EvaluationSet
from falaj.facts.checks import CheckResult, GateReport, Verdict
from falaj.facts.data import ContractReport
from falaj.facts.project import (
    BiasTable,
    GatesTable,
    LatencyTable,
    QualityTable,
    RobustnessTable,
)
from falaj.stats import paired

NOW = datetime(2026, 11, 24, tzinfo=UTC)
QUALITY = QualityTable(metric="roc_auc", at_least=0.75, margin_to_champion=0.02)


def made(n: int, *, strength: float = 1.5, seed: int = 0):
    """Labels, a score whose AUC is about Phi(strength / sqrt 2), and two inputs."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.int8)
    signal = rng.normal(size=n) + strength * y
    x = np.column_stack([signal, rng.normal(size=n)]).astype(np.float32)
    return y, x


def rows_of(n: int, *, seed: int = 0, groups: dict | None = None) -> EvaluationSet:
    y, x = made(n, seed=seed)
    return EvaluationSet(
        x=x, y=y, columns=("signal", "noise"), digest="sha256:e", groups=groups or {}
    )


def first(x):
    return 1 / (1 + np.exp(-(np.nan_to_num(x[:, 0].astype(np.float64)) - 0.75)))


QUALITIES = {  # rows, strength, required -> verdict
    "clearly above": (4000, 1.5, 0.75, Verdict.PASS),
    "clearly below": (4000, 0.3, 0.75, Verdict.FAIL),
    "on the limit": (4000, 1.5, 0.855, Verdict.INCONCLUSIVE),
    "too few of a class": (60, 3.0, 0.75, Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(
    ("n", "strength", "required", "verdict"), QUALITIES.values(), ids=QUALITIES
)
def test_quality_decides_on_the_lower_bound(n, strength, required, verdict):
    y, x = made(n, strength=strength)
    table = QualityTable(metric="roc_auc", at_least=required)
    found = check_quality(y, first(x), 0.5, table, reuse=0)
    assert found.verdict is verdict
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    if verdict is Verdict.PASS:
        assert found.low >= required


def test_inconclusive_says_how_many_rows_would_decide():
    y, x = made(1500)
    found = check_quality(y, first(x), 0.5, QualityTable(at_least=0.86), reuse=0)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.n_needed is not None
    assert found.n_needed > found.n


def test_one_class_alone_cannot_be_judged():
    rows = rows_of(500)
    same = EvaluationSet(x=rows.x, y=np.ones(500, np.int8), columns=rows.columns, digest="d")
    report = whole(candidate=same)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "one class" in report.results[0].reason


def test_a_set_that_judged_too_many_candidates_is_worn_out():
    y, x = made(4000)
    assert check_quality(y, first(x), 0.5, QUALITY, reuse=20).verdict is Verdict.PASS
    assert check_quality(y, first(x), 0.5, QUALITY, reuse=21).verdict is Verdict.INCONCLUSIVE


def test_accuracy_is_bounded_too():
    y, x = made(4000)
    table = QualityTable(metric="accuracy", at_least=0.7)
    assert check_quality(y, first(x), 0.5, table, reuse=0).verdict is Verdict.PASS


def noisy(score, scale, seed=1):
    return score + np.random.default_rng(seed).normal(scale=scale, size=len(score))


CHAMPIONS = {  # noise of champion, noise of candidate -> verdict
    "the same model": (0.0, 0.0, Verdict.PASS),
    "a better one": (0.5, 0.0, Verdict.PASS),
    "a much worse one": (0.0, 0.5, Verdict.FAIL),
}


@pytest.mark.parametrize(("live", "mine", "verdict"), CHAMPIONS.values(), ids=CHAMPIONS)
@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_non_inferiority_is_paired(live, mine, verdict, metric):
    y, x = made(4000)
    table = QualityTable(metric=metric, at_least=0.5, margin_to_champion=0.03)
    score = first(x)
    found = check_against_champion(y, noisy(score, mine), noisy(score, live), 0.5, table, reuse=0)
    assert found.verdict is verdict


def test_a_model_worse_by_the_margin_passes_rarely():
    """Type I error of the paired gate at its limit: 5 % and Monte Carlo error."""
    table = QualityTable(at_least=0.5, margin_to_champion=0.02)
    passed, trials = 0, 200
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        y = (rng.random(1500) < 0.4).astype(np.int8)
        base = rng.normal(size=1500)
        # AUC Phi(d / sqrt 2): .8556 against .8356
        live, mine = base + 1.5 * y, 0.6 * base + 0.8 * rng.normal(size=1500) + 1.3813 * y
        found = check_against_champion(y, mine, live, 0.5, table, reuse=0)
        passed += found.verdict is Verdict.PASS
    assert passed / trials <= 0.05 + 2.33 * (0.05 * 0.95 / trials) ** 0.5


def equal_models(rng, n):
    """Labels, and two scores of one AUC that are wrong on other rows: the candidate is as good."""
    y = (rng.random(n) < 0.4).astype(np.int8)
    shared, own = rng.normal(size=(2, n))
    live = shared + 1.5 * y
    return y, live, 0.6 * shared + 0.8 * own + 1.5 * y


def test_a_model_as_good_passes_at_the_stated_power():
    """With the rows that an undecided gate asks for: 80 %, and Monte Carlo error."""
    table = QualityTable(at_least=0.5, margin_to_champion=0.03)
    # The spread of the difference from many rows; the rows that decide, if the truth is "equal".
    y, live, mine = equal_models(np.random.default_rng(1), 60_000)
    wide = paired.auc_difference_verdict(y, live, mine, margin=0.03)
    se = (wide.high - wide.low) / (2 * paired.Z_TAIL)
    enough = paired.n_needed(60_000, se, 0.03)
    assert 300 < enough < 5_000, "else this says nothing"
    verdicts = []
    for seed in range(200):
        y, live, mine = equal_models(np.random.default_rng(seed), enough)
        found = check_against_champion(y, mine, live, 0.5, table, reuse=0)
        verdicts.append(found.verdict)
    share = verdicts.count(Verdict.PASS) / len(verdicts)
    assert abs(share - 0.8) <= 2.58 * (0.8 * 0.2 / 200) ** 0.5 + 0.01, share
    assert verdicts.count(Verdict.FAIL) == 0, "as good is never called worse"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.55, 0.95))
def test_more_of_the_same_rows_never_turn_a_pass_into_a_fail(seed, required):
    y, x = made(600, seed=seed)
    table = QualityTable(at_least=required)
    small = check_quality(y, first(x), 0.5, table, reuse=0).verdict
    y4, s4 = np.tile(y, 4), np.tile(first(x), 4)
    large = check_quality(y4, s4, 0.5, table, reuse=0).verdict
    assert (small, large) not in {
        (Verdict.PASS, Verdict.FAIL),
        (Verdict.FAIL, Verdict.PASS),
        (Verdict.PASS, Verdict.INCONCLUSIVE),
        (Verdict.FAIL, Verdict.INCONCLUSIVE),
    }


# --- bias ---


def grouped(counts: dict[str, tuple[int, int]]) -> tuple[EvaluationSet, np.ndarray]:
    """Groups with `hits` of `n` positives called, and as many negatives that are not."""
    names, y, score = [], [], []
    for group, (hits, n) in counts.items():
        names += [group] * (2 * n)
        y += [1] * n + [0] * n
        score += [0.9] * hits + [0.1] * (n - hits) + [0.1] * n
    rows = EvaluationSet(
        x=np.zeros((len(y), 1), np.float32), y=np.array(y, np.int8), columns=("x",), digest="d",
        groups={"who": np.array(names)},
    )  # fmt: skip
    return rows, np.array(score)


BIAS = BiasTable(group="who", metric="equal_opportunity_ratio", at_least=0.8)
GROUPS = {
    # STATISTICS, section 10: TPR of the race-blind model on loanapp
    "TPR black, against white": ({"white": (1417, 1527), "black": (104, 133)}, "inconclusive"),
    "TPR Hispanic, against white": ({"white": (1417, 1527), "hispanic": (76, 85)}, "pass"),
    "half as often": ({"a": (900, 1000), "b": (450, 1000)}, "fail"),
    "the same": ({"a": (900, 1000), "b": (900, 1000)}, "pass"),
    "too small to judge": ({"a": (900, 1000), "b": (20, 22)}, "inconclusive"),
}


@pytest.mark.parametrize(("counts", "verdict"), GROUPS.values(), ids=GROUPS)
def test_bias_against_the_largest_group(counts, verdict):
    rows, score = grouped(counts)
    (found,) = check_bias(rows, score, 0.5, BIAS)
    assert found.verdict == verdict
    assert found.details["counts"][next(iter(counts))] == list(counts[next(iter(counts))])


def test_the_frozen_oracle_of_the_score_bound():
    rows, score = grouped({"white": (1417, 1527), "black": (104, 133)})
    (found,) = check_bias(rows, score, 0.5, BIAS)
    assert (found.value, found.low, found.high) == pytest.approx((0.8427, 0.7729, 0.9008), abs=5e-5)


def test_small_groups_can_be_reported_only_when_the_policy_says_so():
    rows, score = grouped({"a": (900, 1000), "b": (20, 22)})
    table = BiasTable(group="who", at_least=0.8, small_groups="report")
    (found,) = check_bias(rows, score, 0.5, table)
    assert found.verdict is Verdict.PASS
    assert "too few" in found.reason
    assert found.value is None


def test_a_column_that_is_not_there_is_an_error_not_a_pass():
    rows, score = grouped({"a": (9, 10), "b": (9, 10)})
    (found,) = check_bias(rows, score, 0.5, BiasTable(group="gender"))
    assert found.verdict is Verdict.ERROR
    assert "who" in found.reason


def test_one_group_alone_is_inconclusive():
    rows, score = grouped({"a": (90, 100)})
    (found,) = check_bias(rows, score, 0.5, BIAS)
    assert found.verdict is Verdict.INCONCLUSIVE


# --- robustness ---


def test_patterns_name_columns_that_are_lost_together():
    columns = ("humid", "wind_speed", "wind_gust", "hour")
    assert matching("humid|wind_*", columns) == [0, 1, 2]
    assert matching("hour", columns) == [3]
    assert matching("visib", columns) == []


def test_losing_noise_costs_nothing_and_losing_the_signal_fails():
    rows = rows_of(4000)
    table = RobustnessTable(missing=("noise", "signal"), max_drop=0.05)
    noise, signal = check_robustness(rows, first(rows.x), first, table)
    assert noise.verdict is Verdict.PASS
    assert signal.verdict is Verdict.FAIL


def test_answers_that_are_no_number_fail():
    rows = rows_of(500)
    table = RobustnessTable(missing=("signal",), max_drop=1.0)

    def naive(x):
        return x[:, 0].astype(np.float64)

    (found,) = check_robustness(rows, first(rows.x), naive, table)
    assert found.verdict is Verdict.FAIL
    assert "500 of 500" in found.reason


def test_a_pattern_that_matches_nothing_is_an_error():
    rows = rows_of(100)
    table = RobustnessTable(missing=("weather_*",), max_drop=0.1)
    (found,) = check_robustness(rows, first(rows.x), first, table)
    assert found.verdict is Verdict.ERROR


# --- latency ---

LATENCIES = {
    "fast": (np.full(1000, 900), 5.0, Verdict.PASS),
    "slow": (np.full(1000, 9000), 5.0, Verdict.FAIL),
    "too few answers": (np.full(100, 900), 5.0, Verdict.INCONCLUSIVE),
    "nothing timed": (np.array([], np.int64), 5.0, Verdict.INCONCLUSIVE),
    "a tail of 3 %": (np.r_[np.full(970, 900), np.full(30, 9000)], 5.0, Verdict.FAIL),
    "a tail of just 1 %": (np.r_[np.full(990, 900), np.full(10, 9000)], 5.0, Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(("us", "limit", "verdict"), LATENCIES.values(), ids=LATENCIES)
def test_latency_decides_on_the_bound_of_p99(us, limit, verdict):
    found = check_latency(np.asarray(us, np.int64), LatencyTable(p99_ms=limit))
    assert found.verdict is verdict


MEMORIES = {  # MB told by the machine, limit -> verdict
    "below": ({"ready": 70.0, "peak": 90.0}, 100.0, Verdict.PASS),
    "at the limit": ({"ready": 70.0, "peak": 100.0}, 100.0, Verdict.FAIL),
    "no books before": ({"peak": 90.0}, 100.0, Verdict.PASS),
    "a machine that does not tell": ({}, 100.0, Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(("told", "limit", "verdict"), MEMORIES.values(), ids=MEMORIES)
def test_memory_is_the_most_that_the_server_held(told, limit, verdict):
    found = check_memory(told, limit, 2000)
    assert found.verdict is verdict
    assert found.gate == "latency"
    assert found.value == told.get("peak")


def test_frozen_thresholds_rise_strictly():
    found = check_latency(np.full(1000, 900), LatencyTable(p99_ms=5))
    thresholds = found.details["thresholds_us"]
    assert thresholds == sorted(set(thresholds))
    assert len(thresholds) == 4


def test_rank_bounds_cover_the_quantile():
    """The bounds leave it on the wrong side in 5 % each, and Monte Carlo error."""
    rng = np.random.default_rng(7)
    low, high = rank_bounds(1000, 0.99)
    assert high is not None
    values = np.sort(rng.random((4000, 1000)), axis=1)
    assert (values[:, low] > 0.99).mean() <= 0.06
    assert (values[:, high] < 0.99).mean() <= 0.06
    assert rank_bounds(298, 0.99)[1] is None
    assert rank_bounds(299, 0.99)[1] is not None


# --- the whole gate ---


def whole(**more) -> GateReport:
    base = {
        "candidate": rows_of(4000), "score": first, "threshold": 0.5, "champion": None,
        "champion_release": "", "gates": GatesTable(quality=QUALITY), "required": ("quality",),
        "contracts": (), "security": (), "latencies_us": None, "reuse": 0, "subject": "sha256:t",
        "policy": "sha256:p", "now": NOW, "on_check": lambda _: None,
    }  # fmt: skip
    return measure(**(base | more))


def test_only_what_is_declared_is_measured():
    assert [r.check for r in whole().results] == ["quality.roc_auc"]
    assert whole().verdict is Verdict.PASS


def test_a_champion_adds_the_paired_check():
    assert "quality.against_champion" in [r.check for r in whole(champion=first).results]


def test_a_required_gate_without_a_result_is_not_a_pass():
    report = whole(required=("quality", "security"))
    assert report.verdict_of("security") is Verdict.INCONCLUSIVE
    assert report.verdict is Verdict.INCONCLUSIVE


def test_a_check_that_breaks_is_an_error_and_the_others_go_on():
    def broken(_x):
        raise ZeroDivisionError("no champion here")

    report = whole(champion=broken)
    assert [r.verdict for r in report.results] == [Verdict.PASS, Verdict.ERROR]
    assert "no champion here" in report.results[1].reason


SCORES = {
    "raises": lambda x: 1 / 0,
    "gives NaN": lambda x: np.full(len(x), np.nan),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_a_model_without_numbers_never_passes(score):
    report = whole(score=score)
    assert report.verdict in (Verdict.ERROR, Verdict.FAIL)


def test_the_data_gate_is_the_contracts_words():
    broken = CheckResult(
        check="data.hour.range", gate="data", verdict=Verdict.FAIL, reason="7 rows"
    )
    contract = ContractReport(dataset="d", version="v", contract="c", results=(broken,))
    report = whole(contracts=(contract,), required=("data", "quality"))
    assert report.verdict is Verdict.FAIL


def test_rows_that_do_not_fit_are_refused_at_birth():
    with pytest.raises(ValueError, match="columns are named"):
        EvaluationSet(
            x=np.zeros((3, 2), np.float32), y=np.zeros(3, np.int8), columns=("a",), digest=""
        )
    with pytest.raises(ValueError, match="0 or 1"):
        EvaluationSet(
            x=np.zeros((1, 1), np.float32), y=np.array([2], np.int8), columns=("a",), digest=""
        )


def test_the_policy_digest_sees_every_change():
    one = rules.policy_digest(GatesTable(quality=QUALITY), ("quality",))
    assert one == rules.policy_digest(GatesTable(quality=QUALITY), ("quality",))
    looser = QualityTable(metric="roc_auc", at_least=0.74, margin_to_champion=0.02)
    assert one != rules.policy_digest(GatesTable(quality=looser), ("quality",))
    assert one != rules.policy_digest(GatesTable(quality=QUALITY), ())


def test_junit_says_failure_for_everything_that_is_not_a_pass():
    report = whole(score=lambda x: -first(x), required=("quality", "bias"))
    tree = ET.fromstring(rules.junit(report))
    assert tree.get("failures") == "1"
    assert tree.find("testcase/failure") is not None
    assert "fail" in rules.markdown(report)
