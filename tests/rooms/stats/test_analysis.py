from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.stats import analysis, eproc
from falaj.stats.analysis import Exposure, MetricRule, Policy, analyse
from falaj.stats.summaries import Counts2x2, Stratum

laws = settings(derandomize=True, deadline=None, max_examples=80)

LATENCY = ("p50", "p90", "p95", "p99")
ERRORS = Policy(metrics={"errors": MetricRule()})
BOTH = Policy(
    metrics={
        "errors": MetricRule(slo=0.02),
        "latency": MetricRule(tolerate=1.1, margin=1.5, thresholds=LATENCY),
    }
)
LONG = Exposure(n_c=30_000, n_s=90_000, minutes=60)


def fed(policy, **rates):
    """States after 60 minutes of 500 canary and 1500 stable requests, at expected counts.

    rates: metric -> (canary, stable), or one pair a threshold.
    """
    states = analysis.start_states(policy)
    for name, given_rates in rates.items():
        pairs = given_rates if isinstance(given_rates, list) else [given_rates]
        assert len(pairs) == len(states[name])
        states[name] = tuple(
            after_an_hour(state, *pair) for state, pair in zip(states[name], pairs, strict=True)
        )
    return states


def after_an_hour(state, canary, stable, minutes=60):
    for t in range(minutes):
        whole = [
            math.floor(rate * n * (t + 1) + 1e-9) - math.floor(rate * n * t + 1e-9)
            for rate, n in ((canary, 500), (stable, 1500))
        ]
        one = Counts2x2(
            metric=state.metric, stratum=Stratum(t, "a", 0), n_c=500, x_c=whole[0], n_s=1500,
            x_s=whole[1],
        )  # fmt: skip
        state = eproc.step_metric(state, one)
    return state


EQUAL = (0.01, 0.01)
CALM = [(0.5, 0.5), (0.1, 0.1), (0.05, 0.05), (0.01, 0.01)]
GOOD = {"errors": EQUAL, "latency": CALM}
WORSE_LATENCY = {"errors": EQUAL, "latency": [(0.6, 0.5), (0.15, 0.1), (0.08, 0.05), (0.02, 0.01)]}
TIGHT = Policy(metrics={"errors": MetricRule(slo=0.005)})
LOOSE = Policy(metrics={"errors": MetricRule(slo=0.02)})

CASES = {  # policy, rates, exposure -> outcome, word, a part of the first reason
    "an equal release is promoted": (ERRORS, {"errors": (0.02, 0.02)}, LONG, "promote", "no difference yet", "odds ratio below"),
    "a better release is better": (ERRORS, {"errors": (0.01, 0.02)}, LONG, "promote", "better", "odds ratio below"),
    "two metrics of which both are proven": (BOTH, GOOD, LONG, "promote", "no difference yet", "errors"),
    "a regression goes back": (ERRORS, {"errors": (0.02, 0.01)}, LONG, "rollback", "worse", "worse: errors"),
    "a slow release goes back by name": (BOTH, WORSE_LATENCY, LONG, "rollback", "worse", "worse: latency"),
    "no data never promotes": (ERRORS, {}, LONG, "continue", "no data", "below 20"),
    "no errors at all prove no ratio": (ERRORS, {"errors": (0.0, 0.0)}, LONG, "continue", "no difference yet", "below 20"),
    "no errors at all prove an SLO": (LOOSE, {"errors": (0.0, 0.0)}, LONG, "promote", "no difference yet", "a rate below 0.02"),
    "too few requests wait": (ERRORS, {"errors": (0.01, 0.02)}, LONG._replace(n_c=499), "continue", "better", "reaches 20"),
    "too few minutes wait": (ERRORS, {"errors": (0.01, 0.02)}, LONG._replace(minutes=9), "continue", "better", "reaches 20"),
    "one unproven metric waits": (BOTH, {"errors": EQUAL}, LONG, "continue", "no data", "errors"),
    "a broken split is invalid": (ERRORS, {"errors": (0.02, 0.01)}, LONG._replace(srm=7.0), "invalid", "no data", "planned split"),
    "halves of stable that differ are invalid": (ERRORS, {"errors": (0.02, 0.01)}, LONG._replace(aa={"errors": 8.0}), "invalid", "no data", "two halves"),
    "summaries that cannot be merged are invalid": (ERRORS, {}, LONG._replace(unmergeable="edges differ"), "invalid", "no data", "edges differ"),
    "late counts of one arm are invalid": (ERRORS, {}, LONG._replace(late_c=900), "invalid", "no data", "late counts"),
    "late counts of both arms alike are not": (ERRORS, {"errors": (0.02, 0.02)}, LONG._replace(late_c=900, late_s=2700), "promote", "no difference yet", "odds"),
    "few late counts are not": (ERRORS, {"errors": (0.02, 0.02)}, LONG._replace(late_c=200), "promote", "no difference yet", "odds"),
    "a silent arm pauses": (ERRORS, {"errors": (0.02, 0.02)}, LONG._replace(silent=("canary",)), "pause", "no data", "no counts from canary"),
    "harm comes before silence": (ERRORS, {"errors": (0.03, 0.01)}, LONG._replace(silent=("canary",)), "rollback", "worse", "worse"),
    "an incident of both arms pauses": (TIGHT, {"errors": EQUAL}, LONG, "pause", "no difference yet", "stable itself"),
    "a canary alone over its SLO goes back": (TIGHT, {"errors": (0.0085, 0.0045)}, LONG, "rollback", "worse", "worse"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "rates", "exposure", "outcome", "word", "part"), CASES.values(), ids=CASES
)
def test_analyse(policy, rates, exposure, outcome, word, part):
    found = analyse(fed(policy, **rates), policy, exposure)
    assert (found.outcome, found.word) == (outcome, word)
    assert part in found.reasons[0]
    assert not found.advance


def test_the_slo_guard_goes_back_without_a_regression():
    """Stable is as bad by ratio, but too small to be guilty itself."""
    policy = Policy(metrics={"errors": MetricRule(slo=0.01, tolerate=3.0, margin=4.0)})
    state = analysis.start_states(policy)["errors"][0]
    for t in range(60):
        one = Counts2x2(
            metric="errors", stratum=Stratum(t, "a", 0), n_c=500, x_c=12, n_s=1500, x_s=13
        )
        state = eproc.step_metric(state, one)
    found = analyse({"errors": (state,)}, policy, LONG)
    assert found.outcome == "rollback"
    assert "breaks its SLO" in found.reasons[0]
    assert found.numbers["slo.canary.log_e"] > math.log(1000)


def test_weak_harm_in_many_metrics_counts_jointly():
    rules = {name: MetricRule() for name in "abcd"}
    policy = Policy(metrics=rules)
    states = fed(policy, **dict.fromkeys(rules, (0.0127, 0.01)))
    e = analyse(states, policy, LONG)
    # the mean crosses 1/(.9 alpha) while none crosses 4 times as much
    assert e.outcome == "rollback"
    assert "jointly" in e.reasons[0]
    assert set(e.words.values()) == {"no difference yet"}
    assert e.word == "worse"


def test_weights_move_the_guilt():
    rates = {"errors": (0.0165, 0.01), "latency": CALM}
    heavy, light = (
        Policy(
            metrics={
                "errors": MetricRule(weight=weight),
                "latency": MetricRule(tolerate=1.1, margin=1.5, thresholds=LATENCY),
            }
        )
        for weight in (1000.0, 1e-30)
    )
    assert analyse(fed(heavy, **rates), heavy, LONG).outcome == "rollback"
    assert analyse(fed(light, **rates), light, LONG).outcome != "rollback"


def test_latency_takes_the_mean_for_rollback_and_the_minimum_for_promotion():
    states = fed(BOTH, **WORSE_LATENCY)["latency"]
    found = analyse({"latency": states}, BOTH, LONG)
    mean = math.log(sum(math.exp(one.log_e) for one in states) / 4)
    assert found.numbers["rollback.latency.log_e"] == pytest.approx(mean)
    calm = fed(BOTH, **GOOD)
    found = analyse(calm, BOTH, LONG)
    least = min(one.log_e_promote for one in calm["latency"])
    assert found.numbers["promote.latency.log_e"] == least


def test_one_bad_threshold_stops_the_promotion():
    rates = {"errors": EQUAL, "latency": [*CALM[:3], (0.0145, 0.01)]}
    assert analyse(fed(BOTH, **rates), BOTH, LONG).outcome in {"continue", "rollback"}


def test_an_optional_metric_may_lack_proof_but_still_rolls_back():
    policy = Policy(metrics={"errors": MetricRule(), "scores": MetricRule(required=False)})
    assert analyse(fed(policy, errors=(0.02, 0.02)), policy, LONG).outcome == "promote"
    harmed = fed(policy, errors=(0.02, 0.02), scores=(0.03, 0.01))
    assert analyse(harmed, policy, LONG).outcome == "rollback"


def test_the_next_weight_is_due_once_the_step_has_its_exposure():
    found = analyse({}, ERRORS, Exposure(0, 0, 3, step_reached=True))
    assert (found.outcome, found.advance) == ("continue", True)
    promoted = analyse(fed(ERRORS, errors=(0.02, 0.02)), ERRORS, LONG._replace(step_reached=True))
    assert (promoted.outcome, promoted.advance) == ("promote", False)


def test_the_business_cycle_is_a_least_time():
    policy = Policy(metrics={"errors": MetricRule()}, business_cycle_minutes=1440)
    states = fed(policy, errors=(0.02, 0.02))
    assert analyse(states, policy, LONG).outcome == "continue"
    assert analyse(states, policy, LONG._replace(minutes=1440)).outcome == "promote"


# --- laws ---

exposures = st.builds(
    Exposure,
    n_c=st.integers(0, 10**6),
    n_s=st.integers(0, 10**6),
    minutes=st.floats(0, 10**4),
    step_reached=st.booleans(),
    silent=st.sampled_from([(), ("canary",), ("stable", "canary")]),
    srm=st.floats(-5, 10),
    aa=st.dictionaries(st.sampled_from(["errors", "latency"]), st.floats(-5, 10)),
    late_c=st.integers(0, 2000),
    late_s=st.integers(0, 2000),
)
FED = [fed(BOTH, **rates) for rates in ({}, GOOD, WORSE_LATENCY, {"errors": (0.05, 0.05)})]


@laws
@given(st.sampled_from(FED), exposures)
def test_every_analysis_has_one_outcome_and_names_every_number(states, exposure):
    found = analyse(states, BOTH, exposure)
    assert found.outcome in {"invalid", "rollback", "pause", "promote", "continue"}
    assert not found.advance or (found.outcome == "continue" and exposure.step_reached)
    assert set(found.words) == {"errors", "latency"}
    words = {"better", "no difference yet", "worse", "no data"}
    assert {found.word, *found.words.values()} <= words
    told = set(re.findall(r"-?\d[\w.+^-]*\d|\d", " ".join(found.reasons)))
    for name, value in found.numbers.items():
        text = analysis.e_text(value) if name.endswith("log_e") else f"{value:.6g}"
        assert text in told, (name, text, found.reasons)
    assert analyse(states, BOTH, exposure) == found


@laws
@given(exposures)
def test_no_data_never_promotes(exposure):
    assert analyse({}, BOTH, exposure).outcome != "promote"
    assert analyse(analysis.start_states(BOTH), BOTH, exposure).outcome != "promote"


def test_numbers_stay_finite_for_overwhelming_evidence():
    policy = Policy(metrics={"errors": MetricRule()})
    found = analyse(fed(policy, errors=(0.9, 0.01)), policy, LONG)
    assert all(math.isfinite(value) for value in found.numbers.values())
    assert "10^" in found.reasons[0]


def test_within_the_margin_or_below_the_slo_keeps_beta():
    """Both nulls hold at once: the odds ratio is at the margin, the rate exactly at the SLO."""
    rng, runs, slo, margin = np.random.default_rng(1), 150, 0.05, 1.25
    stable = slo / (1 - slo) / margin
    stable /= 1 + stable
    promoted = 0
    for _ in range(runs):
        state = eproc.start("errors", margin=margin, slo=slo)
        for t in range(60):
            x_c, x_s = int(rng.binomial(400, slo)), int(rng.binomial(1200, stable))
            one = Counts2x2(
                metric="errors", stratum=Stratum(t, "a", 0), n_c=400, x_c=x_c, n_s=1200, x_s=x_s
            )
            state = eproc.step_metric(state, one)
            if state.log_e_promote >= math.log(20):
                promoted += 1
                break
    assert promoted <= 14  # 99 % quantile of Binomial(150, .05)


# --- refusals ---


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MetricRule(weight=0.0),
        lambda: MetricRule(slo=0.01, thresholds=("p50",)),
        lambda: Policy(metrics={}),
        lambda: Policy(metrics={"errors": MetricRule(required=False)}),
        lambda: Policy(metrics={"errors": MetricRule()}, alpha=0.0),
        lambda: analyse({"other": ()}, ERRORS, LONG),
        lambda: analyse({"errors": ()}, ERRORS, LONG),
        lambda: analyse({"errors": (eproc.start("errors", margin=1.5),)}, ERRORS, LONG),
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"got|SLO|required|rule"):
        wrong()
