from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, rankdata
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from falaj.stats import paired
from falaj.stats.intervals import Bounds

laws = settings(derandomize=True, deadline=None, max_examples=60)
DIGEST = "sha256:" + hashlib.sha256(b"evidence").hexdigest()


# --- areas ---


@laws
@given(st.lists(st.integers(-5, 5) | st.floats(-3, 3), min_size=1, max_size=40))
def test_midranks_equal_scipy(values):
    assert paired.midranks(values).tolist() == rankdata(values).tolist()


def test_delong_equals_the_oracle():
    y = [1, 1, 1, 0, 0, 0, 0, 1]
    scores = [
        [0.9, 0.8, 0.4, 0.4, 0.3, 0.2, 0.8, 0.7],
        [0.6, 0.9, 0.5, 0.5, 0.1, 0.3, 0.2, 0.8],
    ]
    found = paired.delong(y, scores)
    assert found.auc.tolist() == [0.8125, 0.96875]
    s = found.covariance
    assert (s[0, 0], s[0, 1], s[1, 1]) == pytest.approx((0.0286458, 0.0013021, 0.0019531), abs=1e-7)


def brute_force(y, scores):
    """Placement values by comparing every pair."""
    y = np.asarray(y, bool)
    v10, v01 = [], []
    for row in np.asarray(scores, float):
        a, b = row[y][:, None], row[~y][None]
        wins = (a > b) + 0.5 * (a == b)
        v10.append(wins.mean(axis=1))
        v01.append(wins.mean(axis=0))
    s = np.cov(v10) / y.sum() + np.cov(v01) / (~y).sum()
    return np.mean(v10, axis=1), s


def test_delong_equals_brute_force_with_ties():
    rng = np.random.default_rng(0)
    for n in (10, 60, 300):
        y = np.arange(n) % 3 == 0
        scores = np.round(rng.normal(size=(2, n)) + y, 1)
        auc, s = brute_force(y, scores)
        found = paired.delong(y, scores)
        assert found.auc == pytest.approx(auc, abs=1e-12)
        assert found.covariance == pytest.approx(s, abs=1e-12)


def two_models(n, seed=1, shift=0.0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    z = rng.normal(size=n)
    one = y * 1.2 + z + rng.normal(size=n) * 0.5
    two = y * (1.2 - shift) + z + rng.normal(size=n) * 0.5
    return y, one, two


AUC_CASES = {  # rows, at_least -> verdict
    "clearly above": (2000, 0.70, "pass"),
    "clearly below": (2000, 0.85, "fail"),
    "the limit lies inside": (400, 0.78, "inconclusive"),
}


@pytest.mark.parametrize(("n", "at_least", "verdict"), AUC_CASES.values(), ids=AUC_CASES)
def test_auc_verdict(n, at_least, verdict):
    y, one, _ = two_models(n)
    found = paired.auc_verdict(y, one, at_least=at_least)
    assert found.verdict == verdict
    assert found.low < found.value < found.high < 1
    assert (found.n_needed is None) == (verdict != "inconclusive")


def test_auc_bounds_lie_on_the_logit_scale():
    y, one, _ = two_models(800)
    found, raw = paired.auc_verdict(y, one, at_least=0.7), paired.delong(y, one)
    a, se = raw.auc[0], math.sqrt(raw.covariance[0, 0])
    low = math.log(a / (1 - a)) - 1.6448536 * se / (a * (1 - a))
    assert found.low == pytest.approx(1 / (1 + math.exp(-low)), abs=1e-7)


DIFFERENCES = {  # loss of effect, margin -> verdict
    "an equal model": (0.0, 0.02, "pass"),
    "a much worse model": (0.8, 0.02, "fail"),
    "the limit lies inside": (0.05, 0.011, "inconclusive"),
}


@pytest.mark.parametrize(("shift", "margin", "verdict"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_auc_difference_verdict(shift, margin, verdict):
    y, one, two = two_models(4000, shift=shift)
    found = paired.auc_difference_verdict(y, one, two, margin=margin)
    assert found.verdict == verdict
    auc = paired.delong(y, [one, two]).auc
    assert found.value == pytest.approx(auc[0] - auc[1])


def test_few_rows_of_a_class_are_inconclusive():
    y = np.array([1] * 49 + [0] * 500)
    score = np.linspace(0, 1, 549)
    assert paired.auc_verdict(y, score, at_least=0.0).verdict == "inconclusive"
    found = paired.auc_difference_verdict(y, score, score, margin=0.5)
    assert found.verdict == "inconclusive"
    assert "49 rows" in found.reason


def test_no_variance_is_inconclusive_but_the_same_order_is_exactly_equal():
    y = np.array([1] * 60 + [0] * 60)
    perfect = y.astype(float)
    assert paired.auc_verdict(y, perfect, at_least=0.5).verdict == "inconclusive"
    worst = paired.auc_difference_verdict(y, perfect, 1 - perfect, margin=0.5)
    assert (worst.verdict, worst.value) == ("inconclusive", 1.0)
    same = paired.auc_difference_verdict(y, perfect, perfect * 3 - 1, margin=0.001)
    assert same[:4] == ("pass", 0.0, 0.0, 0.0)


def test_one_row_of_a_class_has_an_area_but_no_spread():
    found = paired.delong([1, 0, 0], [0.5, 0.2, 0.7])
    assert found.auc.tolist() == [0.5]
    assert paired.auc_verdict([1, 0, 0], [0.5, 0.2, 0.7], at_least=0.4).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("y", "scores"),
    [([0, 1, 2], [1, 2, 3]), ([1, 1], [1, 2]), ([0, 1], [1, 2, 3]), ([0, 1], [1, math.nan])],
)
def test_delong_refuses_nonsense(y, scores):
    with pytest.raises(ValueError, match=r"y must|classes|expected|NaN"):
        paired.delong(y, scores)


# --- paired errors ---

TANGO = {
    (24, 12, 500): (0.004421, 0.044890),
    (3, 1, 100): (-0.017372, 0.064191),
    (0, 0, 300): (-0.008938, 0.008938),
}


@pytest.mark.parametrize(("table", "bounds"), TANGO.items(), ids=str)
def test_tango_equals_the_oracle(table, bounds):
    assert paired.tango(*table)[1:] == pytest.approx(bounds, abs=1e-6)


def test_no_discordant_rows_do_not_prove_equality():
    assert paired.tango(0, 0, 50).high == pytest.approx(0.051, abs=5e-4)
    assert paired.error_difference_verdict(0, 0, 50, margin=0.01).verdict == "inconclusive"


@laws
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_tango_turns_with_the_models_and_holds_the_estimate(b, c, rest):
    n = b + c + rest + 1
    found, turned = paired.tango(b, c, n), paired.tango(c, b, n)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert found == pytest.approx((-turned.value, -turned.high, -turned.low), abs=1e-9)


@pytest.mark.parametrize("bad", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_tango_refuses_impossible_counts(bad):
    with pytest.raises(ValueError, match="got b"):
        paired.tango(*bad)


@pytest.mark.parametrize(
    ("n", "shared"), [(100, 0.02), (100, 0.3), (500, 0.05), (2000, 0.01), (10_000, 0.05)]
)
@pytest.mark.parametrize("margin", [0.01, 0.03])
def test_tango_rarely_accepts_a_model_at_the_margin(n, shared, margin):
    rng = np.random.default_rng(n)
    upper = functools.cache(lambda b, c: paired.tango(b, c, n).high)
    b, c, _ = rng.multinomial(n, [shared / 2 + margin, shared / 2, 1 - shared - margin], 2000).T
    accepted = sum(upper(int(i), int(j)) < margin for i, j in zip(b, c, strict=True))
    assert accepted <= binom(2000, 0.06).ppf(0.99)


def test_mid_p_equals_the_oracle_scipy_and_statsmodels():
    assert paired.mcnemar_mid_p(60, 41) == pytest.approx(0.029700268, abs=1e-9)
    assert paired.mcnemar_mid_p(0, 0) == 1.0
    for b, c in ((9, 2), (2, 9), (5, 5), (120, 90), (0, 3)):
        law = binom(b + c, 0.5)
        expected = law.sf(b - 1) - law.pmf(b) / 2
        assert paired.mcnemar_mid_p(b, c) == pytest.approx(expected, rel=1e-10)
        if b > c:
            exact = mcnemar([[0, b], [c, 0]], exact=True).pvalue / 2
            found = paired.mcnemar_mid_p(b, c) + law.pmf(b) / 2
            assert found == pytest.approx(exact, rel=1e-10)


@settings(laws, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_equal_statsmodels(p):
    assert paired.holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    expected = multipletests(p, method="fdr_bh")[1]
    assert paired.benjamini_hochberg(p) == pytest.approx(expected, abs=1e-12)


def test_fifty_healthy_slices_rarely_block_and_points_would():
    rng = np.random.default_rng(3)
    blocked = points = 0
    for _ in range(200):
        b, c = rng.binomial(400, 0.03, (2, 50))
        slices = {str(i): (int(x), int(y)) for i, (x, y) in enumerate(zip(b, c, strict=True))}
        blocked += min(paired.harmed_slices(slices).values()) < 0.05
        points += bool(((b - c) / 400 > 0.02).any())
    assert blocked <= binom(200, 0.05).ppf(0.99)
    assert points > 150


def test_a_harmed_slice_is_named():
    found = paired.harmed_slices({"north": (5, 6), "south": (60, 10)})
    assert [name for name, p in found.items() if p < 0.05] == ["south"]


# --- the verdict rule ---

RULE = {  # low, high, limit -> below, at least
    "all below": ((0.01, 0.03), 0.04, "pass", "fail"),
    "all above": ((0.05, 0.07), 0.04, "fail", "pass"),
    "around": ((0.02, 0.05), 0.04, "inconclusive", "inconclusive"),
    "lower bound on the limit": ((0.04, 0.06), 0.04, "fail", "pass"),
    "upper bound on the limit": ((0.02, 0.04), 0.04, "inconclusive", "inconclusive"),
}


@pytest.mark.parametrize(("bounds", "limit", "below", "at_least"), RULE.values(), ids=RULE)
def test_the_verdict_rule(bounds, limit, below, at_least):
    given_bounds = Bounds(sum(bounds) / 2, *bounds)
    for rule, verdict in ((paired.verdict_below, below), (paired.verdict_at_least, at_least)):
        found = rule(given_bounds, limit, 500)
        assert found.verdict == verdict
        for number in (*given_bounds, limit):
            assert f"{number:.6g}" in found.reason
        with pytest.raises(TypeError):
            bool(found)


def test_rows_needed_follow_the_formula():
    # harm .01 +- se .01 on 1000 rows against .03: (2.487 * .01 / .02)^2 * 1000
    half = 1.6448536 * 0.01
    found = paired.verdict_below(Bounds(0.01, 0.01 - half - 1, 0.01 + half + 1), 0.03, 1000)
    assert found.n_needed is None  # se is 60 times as large: more than 100 n
    assert "no sensible" in found.reason
    found = paired.verdict_below(Bounds(0.025, 0.025 - half, 0.025 + half), 0.03, 1000)
    assert found.n_needed == math.ceil(1000 * ((1.6448536 + 0.8416212) * 0.01 / 0.005) ** 2)
    assert paired.n_needed(1000, 0.01, 0.0) is None


@laws
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 20), st.sampled_from([0.01, 0.03, 0.1]))
def test_more_rows_at_the_same_rates_never_undo_a_verdict(b, c, rest, margin):
    n, before = b + c + rest + 1, "inconclusive"
    for factor in (1, 4, 16, 64, 256):
        verdict = paired.error_difference_verdict(
            b * factor, c * factor, n * factor, margin=margin
        ).verdict
        assert before in {"inconclusive", verdict}
        before = verdict


def test_the_needed_rows_decide_when_the_estimate_is_true():
    first = paired.error_difference_verdict(10, 5, 1000, margin=0.01)
    assert first.verdict == "inconclusive"
    factor = first.n_needed / 1000
    again = paired.error_difference_verdict(
        round(10 * factor), round(5 * factor), round(1000 * factor), margin=0.01
    )
    assert again.verdict == "pass"


def test_a_worn_evaluation_set_decides_nothing():
    good = paired.verdict_below(Bounds(0.0, -0.01, 0.01), 0.02, 900)
    assert paired.reuse_verdict(good, 20) == good
    worn = paired.reuse_verdict(good, 21)
    assert worn.verdict == "inconclusive"
    assert "21 candidates" in worn.reason


# --- means ---


def test_bootstrap_bounds_are_repeatable_and_near_wald():
    rng = np.random.default_rng(5)
    x = rng.choice([-1.0, 0.0, 1.0], 3000, p=[0.05, 0.88, 0.07])
    found = paired.mean_bounds(x, digest=DIGEST)
    assert found == paired.mean_bounds(rng.permutation(x), digest=DIGEST)
    assert found != paired.mean_bounds(x, digest="sha256:" + "0" * 64)
    half = 1.6448536 * x.std() / math.sqrt(3000)
    assert found == pytest.approx((x.mean(), x.mean() - half, x.mean() + half), abs=0.05 * half)


def test_many_distinct_values_fall_back_to_wald():
    x = np.random.default_rng(6).normal(size=5000)
    found = paired.mean_bounds(x, digest=DIGEST)
    half = 1.6448536 * x.std(ddof=1) / math.sqrt(5000)
    assert found == pytest.approx((x.mean(), x.mean() - half, x.mean() + half), abs=1e-9)


def test_mean_difference_verdict():
    x = np.random.default_rng(7).choice([-1.0, 0.0, 1.0], 4000, p=[0.05, 0.9, 0.05])
    assert paired.mean_difference_verdict(x, margin=0.02, digest=DIGEST).verdict == "pass"
    assert paired.mean_difference_verdict(x + 1, margin=0.02, digest=DIGEST).verdict == "fail"
    for bad in ([], [math.nan]):
        with pytest.raises(ValueError, match="not finite"):
            paired.mean_bounds(bad, digest=DIGEST)


SMALL = {  # differences -> verdict at margin .5
    "few rows": (np.tile([0.0, 0.1], 24), "inconclusive"),
    "few rows without spread": (np.zeros(999), "inconclusive"),
    "many rows without spread": (np.zeros(1000), "pass"),
}


@pytest.mark.parametrize(("differences", "verdict"), SMALL.values(), ids=SMALL)
def test_a_bootstrap_without_width_proves_nothing(differences, verdict):
    found = paired.mean_difference_verdict(differences, margin=0.5, digest=DIGEST)
    assert found.verdict == verdict


# --- calibration ---


def scores(n, seed, slope=1.0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 9, n)
    return (rng.random(n) < p**slope).astype(int), p


def test_the_debiased_error_of_a_perfect_model_is_zero_on_average():
    found = [
        paired.calibration(*scores(500, seed), digest=DIGEST).squared.value for seed in range(300)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(300)


def test_calibration_verdicts():
    perfect = paired.calibration_verdict(*scores(10_000, 1), limit=0.05, digest=DIGEST)
    assert perfect.verdict == "pass"
    assert perfect.limit == pytest.approx(0.0025)
    assert (
        paired.calibration_verdict(*scores(500, 2), limit=0.02, digest=DIGEST).verdict
        == "inconclusive"
    )
    few = paired.calibration_verdict(*scores(149, 4), limit=0.5, digest=DIGEST)
    assert (few.verdict, few.reason) == ("inconclusive", "149 rows, below 150")
    bad = scores(10_000, 3, slope=0.3)
    assert paired.calibration_verdict(*bad, limit=0.05, digest=DIGEST).verdict == "fail"
    gap = paired.calibration(*bad, digest=DIGEST).gap
    assert gap.low > 0.1


def test_a_model_at_the_calibration_limit_rarely_passes():
    """Told p, true p + .05 everywhere: the error is exactly the limit."""
    passed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.05, 0.6, 2000)
        y = (rng.random(2000) < p + 0.05).astype(int)
        passed += paired.calibration_verdict(y, p, limit=0.05, digest=DIGEST).verdict == "pass"
    assert passed <= binom(200, 0.077).ppf(0.99)


@pytest.mark.parametrize(("y", "p"), [([], []), ([1], [1.5]), ([1, 0], [0.5]), ([1], [math.nan])])
def test_calibration_refuses_nonsense(y, p):
    with pytest.raises(ValueError, match="p must"):
        paired.calibration(y, p, digest=DIGEST)
